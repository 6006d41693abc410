"""The demo API over real HTTP: what it serves, how it pages, what its faults do, and that its expectations are true."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import phonenumbers
import pytest
import requests
from pydantic import BaseModel, ValidationError

from include.contracts.customers import CustomerRecord
from include.contracts.orders import OrderItemRecord, OrderRecord
from include.contracts.products import ProductRecord
from include.local.demo_api.app import Settings
from include.local.demo_api.dirt import CUSTOMER_DIRT, ORDER_DIRT, PRODUCT_DIRT
from include.local.demo_api.server import serving
from include.local.demo_api.slack_page import mrkdwn
from include.operations.block_kit import refusal
from tests.slack_payloads import REFUSED, TAKEN

TOKEN = "a-token-for-tests"
SETTINGS = Settings(token=TOKEN, customers=5_000, products=1_500, orders=4_000, clock="frozen")
EPOCH = datetime(2026, 1, 15, 8, tzinfo=UTC)
ENTITIES = {"customers": CUSTOMER_DIRT, "products": PRODUCT_DIRT, "orders": ORDER_DIRT}
MODELS: dict[str, type[BaseModel]] = {
    "customers": CustomerRecord,
    "products": ProductRecord,
    "orders": OrderRecord,
}


class Client(requests.Session):
    """A session with the token that knows the base URL."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.trust_env = False
        self.headers["Authorization"] = f"Bearer {TOKEN}"

    def pages(self, entity: str, **parameters: str | int) -> Iterator[requests.Response]:
        answer = self.get(f"{self.base}/{entity}", params=parameters, timeout=10)
        while True:
            answer.raise_for_status()
            yield answer
            if "next" not in answer.links:
                return
            answer = self.get(answer.links["next"]["url"], timeout=10)

    def records(self, entity: str, **parameters: str | int) -> list[Any]:
        return [record for page in self.pages(entity, **parameters) for record in page.json()]

    def control(self, path: str, **body: Any) -> Any:
        answer = self.post(f"{self.base}/_control/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def ask(self, path: str) -> Any:
        return self.get(f"{self.base}/_control/{path}", timeout=10).json()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serving(SETTINGS) as url:
        yield url


@pytest.fixture
def api(base: str) -> Iterator[Client]:
    with Client(base) as client:
        client.control("reset")
        yield client


def ids(records: list[Any]) -> list[Any]:
    return [record["id"] for record in records]


# --- the source's contract


def test_same_settings_serve_the_same_bytes_and_another_seed_others(api: Client) -> None:
    def everything(client: Client) -> dict[str, bytes]:
        return {entity: b"".join(page.content for page in client.pages(entity)) for entity in ENTITIES}

    with serving(SETTINGS) as url, Client(url) as twin, serving(replace(SETTINGS, seed=8)) as url, Client(url) as other:
        first = everything(api)
        assert everything(twin) == first
        assert all(body != first[entity] for entity, body in everything(other).items())


@pytest.mark.parametrize("path", ["/customers", "/products", "/orders", "/_control/requests", "/nothing"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", TOKEN])
def test_without_the_token_all_but_health_is_refused(api: Client, path: str, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = requests.get(api.base + path, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()) == (401, {"error": "a bearer token is needed"})
    assert requests.get(f"{api.base}/health", timeout=10).json()["status"] == "ok"


@pytest.mark.parametrize("limit", [999, 1000, 4999, 5000, 10_000])
def test_paging_brings_every_record_once_in_the_same_order(api: Client, limit: int) -> None:
    pages = list(api.pages("customers", limit=limit))
    assert [len(page.json()) for page in pages] == [limit] * (5000 // limit) + ([5000 % limit] if 5000 % limit else [])
    assert all(page.headers["Content-Type"] == "application/json" for page in pages)
    assert [record for page in pages for record in page.json()] == api.records("customers")


def test_the_default_page_has_1000_records(api: Client) -> None:
    assert [len(page.json()) for page in api.pages("orders")] == [1000] * 4


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=10001",
        "limit=ten",
        "limit=",
        "modified_since=yesterday",
        "modified_since=2026-01-15T08:00:00",
        "modified_since=2026-01-15T08:00:00+00:00",
        "after=nonsense",
        "after=LTU6MQ",
    ],
)
def test_nonsense_in_the_query_is_a_400(api: Client, query: str) -> None:
    answer = api.get(f"{api.base}/customers?{query}", timeout=10)
    assert answer.status_code == 400
    assert query.split("=")[0] in answer.json()["error"]


def test_modified_since_is_inclusive_and_pages(api: Client) -> None:
    stamps = {record["id"]: record["updated_at"] for record in api.records("products") if is_valid("products", record)}
    since = sorted(stamps.values())[len(stamps) // 2]
    expected = {key for key, updated in stamps.items() if updated >= since}
    seen = api.records("products", modified_since=since, limit=100)
    valid = [record for record in seen if is_valid("products", record)]
    assert set(ids(valid)) == expected
    assert all(record["updated_at"] >= since for record in valid)

    a_microsecond_later = since[:-1] + "001Z"
    later = api.records("products", modified_since=a_microsecond_later)
    assert set(ids([record for record in later if is_valid("products", record)])) == {
        key for key in expected if stamps[key] != since
    }


def test_a_delete_while_paging_neither_skips_nor_repeats(api: Client) -> None:
    whole = ids([record for record in api.records("orders") if is_valid("orders", record)])
    pages = api.pages("orders", limit=500)
    seen = next(pages).json()
    deleted = set(api.control("advance", delete=700, entity="orders")["orders"]["deleted"])
    for page in pages:
        seen += page.json()
    first_page = ids(seen[:500])
    assert ids([record for record in seen if is_valid("orders", record)]) == [
        key for key in whole if key not in deleted or key in first_page
    ]


def test_phones_are_written_in_many_ways_and_are_mostly_valid(api: Client) -> None:
    phones = [
        (r["phone"], r["country"]) for r in valid_records(api, "customers") if r.get("phone") and r.get("country")
    ]
    valid = sum(is_phone(phone, country) for phone, country in phones)
    assert valid / len(phones) > 0.97
    assert len({re.sub(r"\d", "9", phone) for phone, _ in phones}) > 25


def is_phone(text: str, country: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, country))
    except phonenumbers.NumberParseException:
        return False


def test_optional_fields_are_sometimes_null_and_sometimes_missing(api: Client) -> None:
    records = valid_records(api, "customers")
    for field in ("phone", "age", "tags", "street", "segment"):
        missing = sum(field not in record for record in records)
        null = sum(record.get(field, "") is None for record in records)
        assert missing > 0, field
        assert null > 0, field
        assert missing + null < len(records) * 0.1, field


def test_orders_add_up_and_amounts_are_numbers_and_strings(api: Client) -> None:
    answer = api.get(f"{api.base}/orders", params={"limit": 4000}, timeout=10)
    kinds: Counter[type] = Counter()
    wrong = []
    for order in json.loads(answer.content, parse_float=Decimal):
        if is_valid("orders", order):
            total = sum(
                item["quantity"] * Decimal(item["price"]) - Decimal(item.get("discount", 0)) for item in order["items"]
            )
            kinds[type(order["total"])] += 1
            if total != Decimal(order["total"]):
                wrong.append(order["id"])
            assert "2024-01-16" <= order["created_at"] <= order["updated_at"] < "2026-01-15T08"
    expectations = api.ask("expectations")["orders"]["kinds"]
    assert len(wrong) == expectations["total_negative"]  # the one valid kind that changes an amount
    assert kinds[str] > 1000
    assert kinds[Decimal] > 1000


def test_orders_name_customers_and_products_that_exist(api: Client) -> None:
    customers = set(ids(valid_records(api, "customers")))
    products = set(ids(valid_records(api, "products")))
    orders = valid_records(api, "orders")
    kinds = api.ask("expectations")["orders"]["kinds"]
    assert sum(order["customer_id"] not in customers for order in orders) == kinds["customer_unknown"]
    unknown = [item for order in orders for item in order["items"] if item["product_id"] not in products]
    assert len(unknown) == kinds["product_unknown"]


# --- dirt and expectations


def is_valid(entity: str, record: Any) -> bool:
    """Whether the contract takes a record: the product's own models, so that demo and contracts cannot drift apart."""
    try:
        MODELS[entity].model_validate(record)
    except ValidationError:
        return False
    if entity == "orders":
        lines = [OrderItemRecord.model_validate(item).line_number for item in record["items"]]
        if len(lines) != len(set(lines)):
            return False
    return not record["updated_at"].startswith("2999")  # more than a day ahead of the source's clock


def valid_records(api: Client, entity: str, **parameters: str | int) -> list[Any]:
    return [record for record in api.records(entity, **parameters) if is_valid(entity, record)]


def counted(entity: str, records: list[Any]) -> dict[str, int]:
    """The expectations' counts, from the records as they came."""
    valid = [record for record in records if is_valid(entity, record)]
    return {
        "records": len(records),
        "quarantined": len(records) - len(valid),
        "duplicates": len(valid) - len(set(ids(valid))),
    }


def expected(api: Client, entity: str, query: str = "") -> dict[str, int]:
    counts = api.ask(f"expectations{query}")[entity]
    del counts["kinds"]
    return counts


@pytest.mark.parametrize("entity", ENTITIES)
def test_two_in_a_hundred_are_dirty_in_every_kind(api: Client, entity: str) -> None:
    counts = api.ask("expectations")[entity]
    assert set(counts["kinds"]) == {dirt.kind for dirt in ENTITIES[entity]}
    assert sum(counts["kinds"].values()) == pytest.approx(counts["records"] * 0.02, abs=2)
    assert max(counts["kinds"].values()) - min(counts["kinds"].values()) <= 2


@pytest.mark.parametrize("entity", ENTITIES)
@pytest.mark.parametrize("dirty", [0.0, 0.02, 0.3])
def test_expectations_equal_what_is_counted(entity: str, dirty: float) -> None:
    with serving(replace(SETTINGS, dirty=dirty)) as url, Client(url) as api:
        assert expected(api, entity) == counted(entity, api.records(entity))
        since = "2025-11-01T00:00:00Z"
        assert expected(api, entity, f"?modified_since={since}") == counted(
            entity, api.records(entity, modified_since=since)
        )
        for _ in range(3):
            api.control("advance", seconds=3600, change=300, add=70, delete=100)
        repeated = [key for key, times in Counter(ids(valid_records(api, entity))).items() if times > 1]
        for key in repeated[:4]:
            api.control("remove", entity=entity, id=key)
        for key in repeated[:2]:
            api.control("restore", entity=entity, id=key)
        for key in repeated[4:8]:
            api.control("put", entity=entity, record={"id": key, "updated_at": "never"}, valid=False)
        assert expected(api, entity) == counted(entity, api.records(entity))
        assert expected(api, entity, "?modified_since=2026-01-15T08:00:00Z") == counted(
            entity, api.records(entity, modified_since="2026-01-15T08:00:00Z")
        )


def test_repeated_records_come_as_the_same_and_as_an_older_version_on_a_later_page(api: Client) -> None:
    versions = defaultdict(list)
    for number, page in enumerate(api.pages("customers", limit=50)):
        for record in page.json():
            if is_valid("customers", record):
                versions[record["id"]].append((number, record))
    repeated = [times for times in versions.values() if len(times) > 1]
    same = [t for t in repeated if t[0][1] == t[1][1]]
    older = [t for t in repeated if t[0][1]["updated_at"] > t[-1][1]["updated_at"] and t[0][0] < t[-1][0]]
    kinds = api.ask("expectations")["customers"]["kinds"]
    assert (len(same), len(older)) == (kinds["duplicate_same"], kinds["duplicate_older"])


def test_shared_emails_belong_to_different_customers(api: Client) -> None:
    owners = defaultdict(set)
    for record in valid_records(api, "customers"):
        owners[record["email_address"].strip().lower()].add(record["id"])
    shared = sum(len(keys) - 1 for keys in owners.values())
    assert shared == api.ask("expectations")["customers"]["kinds"]["email_shared"]


# --- control


def test_the_date_is_the_demos_clock(api: Client) -> None:
    assert parsedate_to_datetime(api.get(f"{api.base}/customers", timeout=10).headers["Date"]) == EPOCH
    assert api.control("advance", seconds=90)["clock"] == "2026-01-15T08:01:30.000Z"
    for answer in (requests.get(f"{api.base}/orders", timeout=10), api.get(f"{api.base}/nothing", timeout=10)):
        assert parsedate_to_datetime(answer.headers["Date"]) == EPOCH + timedelta(seconds=90)
    api.control("reset")
    assert api.get(f"{api.base}/health", timeout=10).json()["clock"] == "2026-01-15T08:00:00.000Z"


def test_the_real_clock_runs_from_the_epoch_and_the_wall_clock_is_the_machines() -> None:
    small = replace(SETTINGS, customers=1, products=1, orders=1)
    with serving(replace(small, clock="real")) as url:
        first = datetime.fromisoformat(requests.get(f"{url}/health", timeout=10).json()["clock"])
        time.sleep(0.2)
        second = datetime.fromisoformat(requests.get(f"{url}/health", timeout=10).json()["clock"])
    assert EPOCH <= first < first + timedelta(seconds=0.2) <= second < EPOCH + timedelta(seconds=10)
    with serving(replace(small, clock="wall")) as url:
        wall = datetime.fromisoformat(requests.get(f"{url}/health", timeout=10).json()["clock"])
    assert abs(datetime.now(UTC) - wall) < timedelta(seconds=5)


@pytest.mark.parametrize("entity", ENTITIES)
def test_advance_changes_adds_and_deletes_exactly_so_many(api: Client, entity: str) -> None:
    before = {record["id"]: record for record in valid_records(api, entity)}
    done = api.control("advance", seconds=60, change=30, add=20, delete=10, entity=entity)[entity]
    after = {record["id"]: record for record in valid_records(api, entity)}

    assert {name: len(keys) for name, keys in done.items()} == {"changed": 30, "added": 20, "deleted": 10}
    assert set(done["added"]) == after.keys() - before.keys()
    assert set(done["deleted"]) == before.keys() - after.keys()
    changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
    assert changed == set(done["changed"])
    assert {after[key]["updated_at"] for key in [*done["changed"], *done["added"]]} == {"2026-01-15T08:01:00.000Z"}

    delta = api.records(entity, modified_since="2026-01-15T08:01:00Z", limit=7)
    assert sorted(ids(delta)) == sorted([*done["changed"], *done["added"]])
    others = [name for name in ENTITIES if name != entity]
    assert all(api.records(name, modified_since="2026-01-15T08:00:00Z") == [] for name in others)


def test_advance_does_the_same_on_every_server_and_reset_takes_it_back(api: Client) -> None:
    begin = api.records("customers")
    done = [api.control("advance", seconds=60, change=50, add=5, delete=5) for _ in range(2)]
    assert done[0] != done[1]
    moved = api.records("customers")
    assert moved != begin
    api.control("reset")
    assert api.records("customers") == begin
    assert [api.control("advance", seconds=60, change=50, add=5, delete=5) for _ in range(2)] == done
    assert api.records("customers") == moved


def test_advance_refuses_more_than_there_is(api: Client) -> None:
    answer = api.post(f"{api.base}/_control/advance", json={"delete": 5000, "entity": "customers"}, timeout=10)
    assert answer.status_code == 409
    assert "only" in answer.json()["error"]
    assert len(api.records("customers")) == 5000


def test_a_removed_record_comes_back_with_a_newer_stamp(api: Client) -> None:
    record = api.records("customers")[17]
    wanted = {"entity": "customers", "id": record["id"]}
    api.control("remove", **wanted)
    assert record["id"] not in ids(valid_records(api, "customers"))
    assert api.post(f"{api.base}/_control/remove", json=wanted, timeout=10).status_code == 404
    api.control("advance", seconds=5)
    api.control("restore", **wanted)
    back = api.records("customers")[17]
    assert (back["id"], back["updated_at"]) == (record["id"], "2026-01-15T08:00:05.000Z")
    assert api.post(f"{api.base}/_control/restore", json=wanted, timeout=10).status_code == 404


def test_put_replaces_by_id_or_comes_last(api: Client) -> None:
    first = api.records("products")[0]
    mine = first | {"name": "Mine", "updated_at": "2026-02-01T00:00:00Z"}
    api.control("put", entity="products", record=mine)
    api.control("put", entity="products", record={"id": "new", "updated_at": "2026-03-01T00:00:00Z"}, valid=False)
    api.control("put", entity="products", record=["no", "object"], valid=False)
    records = api.records("products")
    assert records[0] == mine
    assert records[-2:] == [{"id": "new", "updated_at": "2026-03-01T00:00:00Z"}, ["no", "object"]]
    assert len(records) == 1502
    assert api.records("products", modified_since="2026-02-01T00:00:00Z") == [mine, records[-2]]
    assert expected(api, "products") == counted("products", records)
    api.control("remove", entity="products", id="new")
    assert len(api.records("products")) == 1501
    api.control("restore", entity="products", id="new")
    assert api.records("products")[-2] == {"id": "new", "updated_at": "2026-01-15T08:00:00.000Z"}


def test_a_control_body_that_is_not_understood_is_a_400(api: Client) -> None:
    for path, body in (("advance", {"chnge": 1}), ("faults", {"kind": "flood"}), ("remove", {"entity": "customers"})):
        answer = api.post(f"{api.base}/_control/{path}", json=body, timeout=10)
        assert answer.status_code == 400, path
        assert next(iter(body)) in answer.json()["error"] or "id" in answer.json()["error"]


def test_requests_are_counted_by_path(api: Client) -> None:
    list(api.pages("customers", limit=1000))
    api.get(f"{api.base}/orders", timeout=10)
    assert api.ask("requests") == {"/customers": 5, "/orders": 1}


def test_warm_prepares_and_changes_nothing(api: Client) -> None:
    assert api.control("warm", limit=5000) == {"customers": 5000, "products": 1500, "orders": 4000}
    with serving(SETTINGS) as url, Client(url) as cold:
        assert cold.records("orders") == api.records("orders")


# --- faults


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize(("retry_after", "header"), [(None, None), (7, "7"), ("date", "Thu, 15 Jan 2026 08:00:03 GMT")])
def test_a_status_happens_so_many_times(api: Client, status: int, retry_after: Any, header: str | None) -> None:
    api.control("faults", kind=str(status), times=2, retry_after=retry_after, seconds=3, entity="customers")
    assert api.get(f"{api.base}/orders", timeout=10).status_code == 200
    answers = [api.get(f"{api.base}/customers", timeout=10) for _ in range(3)]
    assert [(answer.status_code, answer.headers.get("Retry-After")) for answer in answers] == [
        (status, header),
        (status, header),
        (200, None),
    ]


def test_a_fault_for_ever_lasts_until_it_is_deleted(api: Client) -> None:
    api.control("faults", kind="500", times=None)
    for entity in [*ENTITIES, *ENTITIES]:
        assert api.get(f"{api.base}/{entity}", timeout=10).status_code == 500
    api.delete(f"{api.base}/_control/faults", timeout=10)
    assert api.get(f"{api.base}/orders", timeout=10).status_code == 200


def test_a_fault_can_wait_for_a_page(api: Client) -> None:
    api.control("faults", kind="503", entity="customers", on_page=3)
    pages = api.pages("customers")
    assert [len(next(pages).json()), len(next(pages).json())] == [1000, 1000]
    with pytest.raises(requests.HTTPError, match="503"):
        next(pages)


def read_raw(api: Client, path: str) -> tuple[bytes, bytes, type[Exception] | None]:
    """Head and body as they came over a bare socket, and the error that ended them."""
    host, port = api.base.removeprefix("http://").split(":")
    received, ended = b"", None
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError as error:
            ended = type(error)
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, ended


@pytest.mark.parametrize(("kind", "error"), [("truncate", None), ("reset", ConnectionResetError)])
def test_an_answer_breaks_off_in_the_middle(api: Client, kind: str, error: type[Exception] | None) -> None:
    whole = api.get(f"{api.base}/products?limit=20", timeout=10).content
    api.control("faults", kind=kind, entity="products")
    head, body, ended = read_raw(api, "/products?limit=20")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(whole)}".encode() in head
    assert (body, ended) == (whole[: len(whole) // 2], error)
    api.control("faults", kind=kind, entity="products")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        api.get(f"{api.base}/products", timeout=10)
    assert api.get(f"{api.base}/products?limit=20", timeout=10).content == whole


def test_slow_waits_and_others_do_not(api: Client) -> None:
    api.control("faults", kind="slow", entity="products", seconds=0.6)
    with pytest.raises(requests.ReadTimeout):
        api.get(f"{api.base}/products", timeout=0.3)
    api.control("faults", kind="slow", entity="products", seconds=0.3)
    began = time.monotonic()
    assert api.get(f"{api.base}/orders", timeout=10).elapsed < timedelta(seconds=0.25)
    assert len(api.get(f"{api.base}/products", timeout=10).json()) == 1000
    assert time.monotonic() - began >= 0.3


def test_html_object_and_empty_bodies(api: Client) -> None:
    answers = {}
    for kind in ("html", "not_array", "empty"):
        api.control("faults", kind=kind, entity="orders")
        answers[kind] = api.get(f"{api.base}/orders", timeout=10)
    assert [answer.status_code for answer in answers.values()] == [200, 200, 200]
    assert answers["html"].headers["Content-Type"].startswith("text/html")
    assert isinstance(answers["not_array"].json(), dict)
    assert answers["empty"].json() == []
    assert all("Link" not in answer.headers for answer in answers.values())


def test_loop_and_foreign_link(api: Client) -> None:
    api.control("faults", kind="loop", entity="orders")
    looping = api.get(f"{api.base}/orders?limit=5", timeout=10)
    assert looping.links["next"]["url"] == looping.url
    api.control("faults", kind="foreign_link", entity="orders", host="127.0.0.2:99")
    foreign = api.get(f"{api.base}/orders?limit=5", timeout=10)
    assert foreign.links["next"]["url"].startswith("http://127.0.0.2:99/orders?limit=5&after=")


def test_half_serves_every_second_record(api: Client) -> None:
    whole = api.records("customers")
    api.control("faults", kind="half", entity="customers", times=None)
    assert api.records("customers", limit=700) == whole[::2]


def test_the_process_runs_from_the_command_line_and_dies_on_demand() -> None:
    with process("--customers", "1200", "--products", "20", "--orders", "30", "--page-size", "500") as (running, api):
        assert [len(page.json()) for page in api.pages("customers")] == [500, 500, 200]
        assert (len(api.records("products")), len(api.records("orders"))) == (20, 30)
        api.control("faults", kind="die", entity="customers", on_page=2)
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            list(api.pages("customers"))
        assert running.wait(timeout=10) == 70


def test_the_process_needs_a_token() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DEMO_API_TOKEN"}
    ended = subprocess.run(
        [sys.executable, "-m", "include.local.demo_api", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert "set DEMO_API_TOKEN" in ended.stderr


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "include.local.demo_api", "--port", "0", *arguments],
        env=os.environ | {"DEMO_API_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        with Client(running.stdout.readline().strip()) as client:
            yield running, client
    finally:
        running.kill()
        running.wait()


# --- Slack

MESSAGE: dict[str, Any] = {
    "text": "customers failed",
    "blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": "customers failed: <b> &amp; more"}},
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": "*Gate*: `a &lt; b`\ntwo"},
            "fields": [{"type": "plain_text", "text": "one"}, {"type": "mrkdwn", "text": "_two_"}],
        },
        {"type": "divider"},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "small"}]},
        {
            "type": "actions",
            "elements": [
                {
                    "type": "button",
                    "text": {"type": "plain_text", "text": "Log"},
                    "url": 'https://example.com/?q="',
                    "style": "primary",
                },
                {"type": "button", "text": {"type": "plain_text", "text": "Nothing"}},
            ],
        },
    ],
}


def test_the_slack_webhook_keeps_what_it_was_sent(api: Client) -> None:
    url = f"{api.base}/slack/services/T000/B000/secret"
    sent = [{"text": "one"}, {"blocks": [{"type": "divider"}]}]
    assert [requests.post(url, json=message, timeout=10).text for message in sent] == ["ok", "ok"]
    assert api.ask("slack") == sent


@pytest.mark.parametrize(("payload", "code"), [(payload, None) for payload in TAKEN] + REFUSED)
def test_the_slack_webhook_takes_and_refuses_what_slack_does(payload: Any, code: str | None) -> None:
    assert refusal(payload) == code


def test_a_refused_message_is_answered_as_slack_does_and_not_kept(api: Client) -> None:
    url = f"{api.base}/slack/services/T000/B000/secret"
    refusals = {
        b"not json": "invalid_payload",
        b"[1]": "invalid_payload",
        b"{}": "no_text",
        b'{"text": ""}': "no_text",
        b'{"blocks": [{"type": "header"}]}': "invalid_blocks",
    }
    for body, code in refusals.items():
        refused = requests.post(url, data=body, timeout=10)
        assert (refused.status_code, refused.text) == (400, code)
    assert api.ask("slack") == []


def test_the_slack_page_shows_what_was_sent_newest_last_and_needs_no_token(api: Client) -> None:
    def shown() -> str:
        answer = requests.get(f"{api.base}/slack", timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
        return answer.text

    url = f"{api.base}/slack/services/T000/B000/secret"
    assert "No message yet." in shown()
    for message in ({"text": "first & <https://example.com/?a=1&amp;b=2|its log>"}, MESSAGE):
        assert requests.post(url, json=message, timeout=10).text == "ok"
    text = shown()
    assert "2 messages, the newest last" in text
    articles = re.findall(r"<article>.*?</article>", text, re.DOTALL)
    frame = (
        '<article><div class="icon">S</div><div class="message"><b>Sluice</b> <span class="app">APP</span> '
        '<time datetime="2026-01-15T08:00:00Z">15 Jan 08:00 UTC</time>\n{}\n</div></article>'
    )
    first = 'first &amp; <a href="https://example.com/?a=1&amp;b=2" rel="noreferrer">its log</a>'
    assert articles == [
        frame.format(f'<div class="section"><div>{first}</div></div>'),
        frame.format(
            "<h2>customers failed: &lt;b&gt; &amp; more</h2>\n"
            '<div class="section"><div><b>Gate</b>: <code>a &lt; b</code><br>two</div>'
            '<div class="fields"><div>one</div><div><i>two</i></div></div></div>\n'
            "<hr>\n"
            '<div class="context"><span>small</span></div>\n'
            '<div class="actions">'
            '<a class="button primary" href="https://example.com/?q=&quot;" rel="noreferrer">Log</a>'
            '<span class="button">Nothing</span></div>'
        ),
    ]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (
            "*bold* _italic_ ~gone~ `code *not bold*`",
            "<b>bold</b> <i>italic</i> <s>gone</s> <code>code *not bold*</code>",
        ),
        (
            "*<https://h/x|a link>* 2*3*4 snake_case_name",
            '<b><a href="https://h/x" rel="noreferrer">a link</a></b> 2*3*4 snake_case_name',
        ),
        ("<https://h/x>", '<a href="https://h/x" rel="noreferrer">https://h/x</a>'),
        ("<javascript:alert(1)|click> <!here> <@U1|ann>", "click !here ann"),
        ("<script>alert(1)</script>", "scriptalert(1)/script"),
        (
            '"<img src=x onerror=alert(1)>" & &lt;b&gt; &amp;lt;',
            "&quot;img src=x onerror=alert(1)&quot; &amp; &lt;b&gt; &amp;lt;",
        ),
        ('<https://h/"onmouseover="x|a>', '<a href="https://h/&quot;onmouseover=&quot;x" rel="noreferrer">a</a>'),
        ("```\nselect 1 &lt; 2\n```after", "<pre>select 1 &lt; 2\n</pre>after"),
    ],
)
def test_slacks_markup_becomes_html_and_nothing_else_does(text: str, html: str) -> None:
    assert mrkdwn(text) == html


def test_the_slack_webhook_has_faults_of_its_own(api: Client) -> None:
    api.control("faults", kind="429", entity="slack", retry_after=1)
    url = f"{api.base}/slack/services/T000/B000/secret"
    answers = [requests.post(url, json={"text": "one"}, timeout=10) for _ in range(2)]
    assert [(answer.status_code, answer.headers.get("Retry-After")) for answer in answers] == [(429, "1"), (200, None)]
    assert api.ask("slack") == [{"text": "one"}]

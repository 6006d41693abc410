"""A contract from a sample: what is guessed of records, files and a source's pages, and a whole run of the command."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest
import requests
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from include.contracts.contract import Contract
from include.contracts.endpoint import Cursor, Endpoint, LinkHeader, NextUrl, Offset, PageNumber, SinglePage
from include.extract.pagination import Pagination
from include.local.new_entity.__main__ import check_name
from include.local.new_entity.guesses import EntityGuess, GuessError, guess, singular, snake_case
from include.local.new_entity.sample import (
    EndpointGuess,
    FilesGuess,
    SampleError,
    open_source,
    read_file,
    read_url,
)
from include.local.new_entity.source_text import contract_text
from include.local.stack import REPOSITORY, Stack
from include.transform.validation import PageValidator

RUFF = Path(sys.executable).parent / "ruff"
BASE = "http://127.0.0.1:1"
WHOLE = EndpointGuess(Endpoint("/things", SinglePage(), page_size_param=""), "SinglePage()", (), BASE)


def things(count: int, **values: Callable[[int], Any]) -> list[dict[str, Any]]:
    """Records of these fields, each value made from the record's number, through JSON as a source sends them."""
    made = [{name: value(number) for name, value in values.items()} for number in range(1, count + 1)]
    return json.loads(json.dumps(made, default=str), parse_float=Decimal)  # type: ignore[no-any-return]


def types(entity: EntityGuess) -> dict[str, str]:
    """Each column's type, a question mark behind it where it may be null."""
    return {column.name: column.type + "?" * column.nullable for column in entity.fields}


def loaded(text: str, folder: Path, name: str) -> Contract:
    """The contract that a module's text declares."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(f"proposed_{name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks up annotations there
    spec.loader.exec_module(module)
    (found,) = [value for value in vars(module).values() if isinstance(value, Contract)]
    return found


# ---- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("invoiceNo", "invoice_no"),
        ("Invoice No.", "invoice_no"),
        ("HTTPStatus", "http_status"),
        ("_id", "id"),
        ("größe", "gr_e"),
        ("2nd-line", "2nd_line"),
        ("—", ""),
    ],
)
def test_names_become_those_of_columns(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def test_plurals() -> None:
    plurals = ["invoices", "categories", "boxes", "addresses", "status", "news", "branches"]
    assert [singular(name) for name in plurals] == ["invoice", "category", "box", "address", "status", "new", "branch"]


# ---- what records say


def test_every_kind_of_field_is_told_by_its_values() -> None:
    entity = guess(
        "invoices",
        things(
            100,
            invoiceNo=lambda n: f"RE-{n:04d}",
            customerId=lambda n: f"00000000-0000-4000-8000-{n % 7:012d}",
            quantity=lambda n: n,
            weight=lambda n: n + 0.25,
            total=lambda n: n,
            net=lambda n: f"{n}.50",
            zip=lambda n: f"{n:05d}",
            issued=lambda n: date(2025, 1, n % 28 + 1),
            createdAt=lambda n: f"2025-01-01T00:{n % 60:02d}:00Z",
            updated=lambda n: 1735689600 + n,
            paid=lambda n: n % 2 == 0,
            email=lambda n: f"a{n}@example.com" if n % 10 else "",
            country=lambda n: "de" if n % 3 else "AT",
            status=lambda n: ["open", "paid"][n % 2],
            note=lambda n: None if n % 4 else "x y",
            labels=lambda n: ["a"] * (n % 3),
            latitude=lambda n: n + 0.1234567,
            nothing=lambda n: None,
            address=lambda n: {"city": "B", "geo": {"zone": n}} if n % 5 else None,
            lines=lambda n: [{"pos": p, "price": "1.10", "qty": 2} for p in range(1, n % 4 + 1)],
        ),
    )
    assert types(entity) == {
        "invoice_no": "Identifier",
        "customer_id": "UUID",
        "quantity": "WholeNumber",
        "weight": "Money",
        "total": "Money",
        "net": "Money",
        "zip": "AnyText",
        "issued": "date",
        "created_at": "Timestamp",
        "paid": "bool",
        "email": "Email?",
        "country": "Country",
        "status": "Literal",
        "note": "AnyText?",
        "labels": "list",
        "address_city": "AnyText?",
        "address_geo_zone": "WholeNumber?",
        "updated_at": "Timestamp",
    }
    assert (entity.key, entity.version) == (("invoice_no",), "updated_at")
    assert [path for path, _ in entity.left_out] == [("latitude",), ("nothing",)]
    (lines,) = entity.children
    assert (lines.table, lines.parent, lines.entity.key) == ("invoice_lines", ("invoice_no",), ("pos",))
    assert types(lines.entity) == {"pos": "WholeNumber", "price": "Money", "qty": "WholeNumber"}


def test_names_that_mean_something_else_are_changed() -> None:
    names = ["id", "order", "class", "date", "position", "deleted_at", "fetched_at", "copy", "model_name", "2x", "a.b"]
    values: dict[str, Callable[[int], Any]] = dict.fromkeys(names, lambda n: n)
    entity = guess("widgets", things(3, **values, updated_at=lambda n: None if n == 1 else "x"))
    assert {column.path[0]: column.name for column in entity.fields} == {
        "id": "id",
        "order": "widget_order",
        "class": "widget_class",
        "date": "widget_date",
        "position": "widget_position",
        "deleted_at": "widget_deleted_at",
        "fetched_at": "widget_fetched_at",
        "copy": "widget_copy",
        "model_name": "widget_model_name",
        "2x": "widget_2x",
        "a.b": "a_b",
        "updated_at": "widget_updated_at",
    }
    assert entity.deleted == "deleted_at"


def test_a_little_dirt_does_not_change_a_type_and_much_does() -> None:
    def dirty(every: int) -> EntityGuess:
        def unless(value: Callable[[int], Any]) -> Callable[[int], Any]:
            return lambda n: "on request" if n % every == 0 else value(n)

        return guess(
            "offers", things(500, id=lambda n: n, price=unless(lambda n: f"{n}.10"), pieces=unless(lambda n: n))
        )

    little, much = dirty(200), dirty(20)
    assert types(little) == {"id": "WholeNumber", "price": "Money", "pieces": "WholeNumber"}
    assert little.fields[1].notes == ('2 of 500 values are no Money, such as "on request", and are rejected',)
    assert types(much) == {"id": "WholeNumber", "price": "AnyText"}
    assert much.left_out == ((("pieces",), "its values are of several types: int, str"),)


def test_what_is_missing_in_some_records_is_taken_in_all(tmp_path: Path) -> None:
    records = things(
        200,
        id=lambda n: n,
        email=lambda n: ["a@example.com", "", None][n % 3],
        status=lambda n: ["open", "paid", " "][n % 3],
        tags=lambda n: [["a"], [], None][n % 3],
        lines=lambda n: [[{"line": 1, "note": None}], [{"line": 1, "note": "x"}], None][n % 3],
        buyer=lambda n: [{"name": "B", "age": 7}, {"name": None}, None][n % 3],
    )
    for record in records[:100]:  # half of them lack the field, the others have null
        for name in [name for name, value in record.items() if value is None]:
            del record[name]
    entity = guess("bills", records)
    assert types(entity) == {
        "id": "WholeNumber",
        "email": "Email?",
        "status": "Literal?",
        "tags": "list?",
        "buyer_name": "AnyText?",
        "buyer_age": "WholeNumber?",
    }
    contract = loaded(contract_text(entity, WHOLE, "source_api", BASE), tmp_path, "bills")
    page = PageValidator(contract, datetime.now(UTC)).page(1, json.dumps(records))
    assert page.rejected == []
    assert [row[2:] for row in page.rows[:3]] == [
        (1, None, "paid", [], None, None, None),
        (2, None, None, [], None, None, None),
        (3, "a@example.com", "open", ["a"], "B", 7, None),
    ]
    assert page.children["lines"][:2] == [(1, 0, 1, "x"), (1, 2, 1, None)]


def test_two_fields_together_may_be_the_key_and_without_any_it_says_so() -> None:
    pair = guess("stock", things(40, shop_id=lambda n: n % 5, sku=lambda n: f"S{n // 5}", left=lambda n: 7))
    assert pair.key == ("sku", "shop_id")
    assert pair.key_notes == ("unique in 40 sampled records, though its name does not say so",)
    with pytest.raises(GuessError, match=r"no field, nor two together.*looked at name"):
        guess("stock", [{"name": "a", "n": 1}, {"name": "a", "n": 1}, {"name": "a", "n": 1, "m": 2}])
    with pytest.raises(GuessError, match="expected records that are JSON objects, but the sample holds str"):
        guess("stock", ["a", "b"])


def test_repeated_records_do_not_hide_the_key() -> None:
    records = things(10, id=lambda n: n, name=lambda n: "x")
    assert guess("things", records + records[5:]).key == ("id",)


MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)).map(lambda time: f"{time:%Y-%m-%dT%H:%M:%SZ}")  # noqa: DTZ001
VALUES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "ref": ("UUID", st.uuids().map(str)),
    "amount": ("Money", st.decimals(-(10**6), 10**6, places=2).map(lambda d: f"{d:.2f}")),
    "height": ("Money", st.decimals(0, 10**6, places=3).map(lambda d: d + Decimal("0.001"))),
    "pieces": ("WholeNumber", st.integers(-(2**63), 2**63 - 1)),
    "seenAt": ("Timestamp", MOMENTS),
    "day": ("date", st.dates(date(2000, 1, 1), date(2030, 1, 1)).map(str)),
    "active": ("bool", st.booleans()),
    "contactEmail": ("Email", st.integers(0, 99).map(lambda n: f"Person{n}@example.com")),
    "title": ("AnyText", st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1).map(
        lambda text: text + " x"
    )),
    "countryCode": ("Country", st.sampled_from(["DE", "fr", "at"])),
}  # fmt: skip


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_proposed_contract_takes_every_sampled_record(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, unique=True))
    optional = data.draw(st.sets(st.sampled_from(names)))
    key = data.draw(st.sampled_from(["id", "uuid", "thingId", "number"]))
    version = data.draw(st.sampled_from(["updated_at", "lastModified", None]))
    count = data.draw(st.integers(3, 12))
    records: list[dict[str, Any]] = []
    for number in range(count):
        record: dict[str, Any] = {key: number if key == "id" else f"K-{number}"}
        for name in names:
            value = VALUES[name][1]
            if name in optional and number > 0:  # the first record has every field, the last lacks the optional ones
                value = st.none() if number == count - 1 else st.none() | value
            record[name] = data.draw(value)
        if version:
            record[version] = data.draw(MOMENTS)
        records.append(record)
    entity = guess("things", records)
    assert entity.key == (snake_case(key),)
    assert entity.version == ("updated_at" if version else None)
    expected = {snake_case(name): VALUES[name][0] + "?" * (name in optional) for name in names}
    assert {name: kind for name, kind in types(entity).items() if name in expected} == expected
    body = json.dumps(records, default=lambda value: f"<{value}>")
    body = re.sub(r'"<(-?[\d.]+)>"', r"\1", body)  # exact decimals, as JSON numbers
    with tempfile.TemporaryDirectory() as folder:
        contract = loaded(contract_text(entity, WHOLE, "source_api", BASE), Path(folder), "things")
    page = PageValidator(contract, datetime(2031, 1, 1, tzinfo=UTC)).page(1, body)
    assert [(rejected.position, rejected.error) for rejected in page.rejected] == []
    assert len(page.rows) == count


# ---- what a source's answers say


@dataclass
class Source:
    """A server of `records`, whose `answer` makes (body, headers) of the query; keeps what it was asked."""

    answer: Callable[[dict[str, str]], tuple[Any, dict[str, str]]]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    token: str = ""


@contextmanager
def serving(answer: Callable[[dict[str, str]], tuple[Any, dict[str, str]]], token: str = "") -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.asked.append(self.path)
            status, body, headers = 200, b"", {}
            if source.token and self.headers["Authorization"] != f"Token {source.token}":
                status, body = 401, b"who are you?"
            else:
                found, headers = source.answer(dict(parse_qsl(urlsplit(self.path).query)))
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    source = Source(answer, f"http://127.0.0.1:{http.server_port}", token=token)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


RECORDS = things(230, id=lambda n: n, name=lambda n: f"n {n}")


def sliced(query: dict[str, str], size: str, default: int = 20, most: int = 100) -> tuple[int, int]:
    """(offset, limit) that a query asks for."""
    limit = min(int(query.get(size, default)), most)
    start = int(query.get("offset", 0)) if "page" not in query else (int(query["page"]) - 1) * limit
    return start, limit


def rest_framework(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start, limit = sliced(query, "limit")
    following = f"?limit={limit}&offset={start + limit}" if start + limit < len(RECORDS) else None
    return {"count": len(RECORDS), "next": following, "results": RECORDS[start : start + limit]}, {}


def link_header(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start, limit = sliced(query, "per_page")
    page = start // limit + 2
    more = start + limit < len(RECORDS)
    return RECORDS[start : start + limit], {"Link": f'<?per_page={limit}&page={page}>; rel="next"'} if more else {}


def cursor(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start, limit = int(query.get("page_token", "c0")[1:]), min(int(query.get("page_size", 50)), 100)
    body = {"data": {"items": RECORDS[start : start + limit]}, "errors": []}
    return body | ({"next_page_token": f"c{start + limit}"} if start + limit < len(RECORDS) else {}), {}


def has_more(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start, limit = int(query.get("starting_after", 0)), int(query.get("limit", 10))
    return {"data": RECORDS[start : start + limit], "has_more": start + limit < len(RECORDS)}, {}


def offsets(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start, limit = sliced(query, "limit", most=1000)
    return RECORDS[start : start + limit], {"X-Total-Count": str(len(RECORDS))}


def page_numbers(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    limit = min(int(query.get("pageSize", 25)), 100)
    start = int(query.get("page", 0)) * limit
    return {"items": RECORDS[start : start + limit], "totalPages": -(-len(RECORDS) // limit)}, {}


def everything(_query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    return {"things": RECORDS, "tags": []}, {}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (rest_framework, (NextUrl("next", stable=False), "results", "limit", 100)),
        (link_header, (LinkHeader(stable=False), "", "per_page", 100)),
        (cursor, (Cursor("page_token", "next_page_token", absent_ends=True), "data.items", "page_size", 100)),
        (has_more, (Cursor("starting_after", last_record="id", more="has_more"), "data", "limit", 1000)),
        (offsets, (Offset(total="header:X-Total-Count"), "", "limit", 1000)),
        (page_numbers, (PageNumber(start=0, pages="totalPages"), "items", "pageSize", 100)),
        (everything, (SinglePage(), "things", "", 100)),
    ],
)
def test_how_a_source_pages_is_found_out(
    answer: Callable[[dict[str, str]], tuple[Any, dict[str, str]]], expected: tuple[Pagination, str, str, int]
) -> None:
    with serving(answer) as source, requests.Session() as session:
        reached = open_source("things", f"{source.url}/v1/things?sort=id", "source_api", session, {})
        records, found = read_url(reached, "things", lambda line: None)
    assert records == RECORDS
    endpoint = found.endpoint
    assert (endpoint.pagination, endpoint.records, endpoint.page_size_param, endpoint.page_size) == expected
    assert endpoint.path == "/v1/things?sort=id"
    assert eval(found.pagination_text) == expected[0]  # noqa: S307 - it is what is written into the contract
    assert len(source.asked) < 30


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><title>Sign in</title></html>", 'HTML or XML titled "Sign in", not JSON'),
        (b"[]", "has no records, so there is nothing to learn from"),
        (b'{"id": 1}', 'expected an array, but the body is an object with the names "id"'),
        (b'{"id": ', "not valid JSON"),
    ],
)
def test_an_answer_without_records_is_said_so(body: bytes, message: str) -> None:
    with serving(lambda query: (body, {})) as source, requests.Session() as session:
        reached = open_source("things", f"{source.url}/things", "source_api", session, {})
        with pytest.raises(SampleError, match=re.escape(message)):
            read_url(reached, "things", lambda line: None)


def test_credentials_are_the_connections_and_go_nowhere_else() -> None:
    def declared(url: str) -> dict[str, str]:
        auth = {"type": "header", "name": "Authorization", "prefix": "Token "}
        return {"AIRFLOW_CONN_SHOP_API": json.dumps({"host": url, "password": "s3cret", "extra": {"auth": auth}})}

    with serving(everything, token="s3cret") as source, requests.Session() as session:
        reached = open_source("things", f"{source.url}/api/things", "shop_api", session, declared(f"{source.url}/api"))
        records, found = read_url(reached, "things", lambda line: None)
        assert (len(records), found.endpoint.path, found.base_url) == (230, "/things", f"{source.url}/api")
        source.token = "another"
        with pytest.raises(SampleError, match="answered 401") as refused:
            read_url(reached, "things", lambda line: None)
        assert "Credentials are read from" not in str(refused.value)
        with requests.Session() as plain:
            reached = open_source("things", f"{source.url}/things", "source_api", plain, {})
            with pytest.raises(SampleError, match=r"answered 401.*Credentials are read from AIRFLOW_CONN_SOURCE_API"):
                read_url(reached, "things", lambda line: None)
        with requests.Session() as other, pytest.raises(SampleError, match="is not below") as caught:
            open_source("things", "http://127.0.0.1:9/things", "shop_api", other, declared(source.url))
    assert "s3cret" not in str(caught.value)
    with requests.Session() as session, pytest.raises(SampleError, match="not in Airflow's JSON form"):
        open_source("things", f"{BASE}/things", "x_api", session, {"AIRFLOW_CONN_X_API": "http://:secret@host"})


# ---- files


def test_a_file_says_its_format_encoding_delimiter_and_the_types_of_its_text(tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["Rechnungsnr", "Menge", "Betrag", "PLZ", "Bezahlt", "Notiz"])
    for n in range(1, 60):
        writer.writerow([f"R{n}", n, f"{n}.20", f"0{n}", str(n % 2 == 1).lower(), "" if n % 3 else "Müller"])
    path = tmp_path / "rechnungen-2025-01-31.csv.zst"
    path.write_bytes(zstandard.compress(text.getvalue().encode("cp1252")))
    records, found = read_file(path, lambda line: None)
    assert asdict(found.files) | {"settled": None} == {
        "uri": tmp_path.as_uri(),
        "format": "csv",
        "holds": "snapshot",
        "pattern": "rechnungen*.csv.zst",
        "marker": "",
        "settled": None,
        "encoding": "cp1252",
        "delimiter": ";",
    }
    entity = guess("rechnungen", records, text_only=True)
    assert (types(entity), entity.key) == (
        {
            "rechnungsnr": "Identifier",
            "menge": "WrittenNumber",
            "betrag": "Money",
            "plz": "AnyText",
            "bezahlt": "bool",
            "notiz": "AnyText?",
        },
        ("rechnungsnr",),
    )
    contract = loaded(contract_text(entity, found, "source_api", path.name), tmp_path, "rechnungen")
    assert contract.files == found.files
    page = PageValidator(contract, datetime.now(UTC)).page(1, json.dumps(records))
    assert page.rejected == []
    assert page.rows[0][2:] == ("R1", 1, Decimal("1.20"), "01", True, None, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"", "expected a name in .csv"),
        ("a.csv", b"", "it is empty"),
        ("a.jsonl", b"", "has no records"),
        ("a.jsonl.gz", b"no", "cannot be unpacked"),
    ],
)
def test_a_file_that_is_no_sample_is_said_so(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SampleError, match=message):
        read_file(path, lambda line: None)
    with pytest.raises(SampleError, match="is no file"):
        read_file(tmp_path / "missing.csv", lambda line: None)


# ---- the command


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Invoices", "is no name of an entity"),
        ("a" * 21, "is no name of an entity"),
        ("order", "means something in SQL"),
        ("orders", r"orders\.py exists"),
        ("order_items", "has a table order_items already"),
        ("contract", r"contract\.py exists"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        check_name(name)


@pytest.fixture
def tree() -> Iterator[Path]:
    """A copy of what the command reads and writes, in a folder that PostgreSQL's own user may pass through."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        copy = Path(folder)
        shutil.copytree(REPOSITORY / "include", copy / "include", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "airflow_settings.yaml"):
            shutil.copy(REPOSITORY / name, copy)
        yield copy


def run(tree: Path, module: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    own |= {"PYTHONPATH": str(tree), "SLUICE_LOCAL": str(tree / ".local"), **environ}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=tree, env=own, capture_output=True, text=True, check=False)


def invoice(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "status": ["open", "paid", "void"][number % 3],
        "total": "on request" if number == 200 else f"{number}.50",
        "buyer": {"name": f"Buyer {number}", "country": "DE"} if number % 7 else None,
        "lines": [{"position": position, "article": f"A{position}", "price": 1.25, "x": []} for position in (1, 2)],
        "geo": {"latitude": 1.23456789},
        "updated": f"2025-06-01T00:00:{number % 60:02d}Z",
    }


def test_a_run_leaves_a_clean_contract_its_migration_and_what_became_of_the_sample(tree: Path) -> None:
    invoices = [invoice(number) for number in range(1, 231)]

    def answer(query: dict[str, str]) -> tuple[Any, dict[str, str]]:
        start, limit = sliced(query, "limit")
        following = f"?limit={limit}&offset={start + limit}" if start + limit < len(invoices) else None
        return {"count": len(invoices), "next": following, "results": invoices[start : start + limit]}, {}

    module = "include.local.new_entity"
    try:
        with serving(answer, token="s3cret") as source:
            auth = {"type": "header", "name": "Authorization", "prefix": "Token "}
            connection = json.dumps({"host": source.url, "password": "s3cret", "extra": {"auth": auth}})
            arguments = ["invoices", f"{source.url}/api/invoices/", "--connection", "shop_api"]
            done = run(tree, module, *arguments, AIRFLOW_CONN_SHOP_API=connection)
            again = run(tree, module, *arguments, AIRFLOW_CONN_SHOP_API=connection)
        assert (done.returncode, done.stderr) == (0, "")
        assert (again.returncode, again.stdout) == (1, "")
        assert "include/contracts/invoices.py exists and stays as it is" in again.stderr
        assert "s3cret" not in done.stdout
        (migration,) = tree.glob("include/database/migrations/app/versions/*_invoices.py")
        said = done.stdout.replace(source.url, "URL")
        assert (
            "wrote include/contracts/invoices.py: 6 fields, 3 of invoice_lines, key id, version updated_at; 2 left out"
            in said
        )
        assert f"wrote {migration.relative_to(tree)}\n" in said
        assert "asked URL/api/invoices/?limit=100&offset=200: 30 records" in said
        assert (
            "230 records: 229 valid, 1 rejected\n"
            "  458 rows of invoice_lines\n"
            "  rejected, 1: total: Input should be a valid decimal\n"
        ) in said
        assert re.search(
            r"^id +status +total +buyer_name +buyer_country *\n[- ]+\n1 +paid +1\.5000 +Buyer 1 +DE$", said, re.M
        )
        assert "- pool_name: shop_api" in said
        assert f"AIRFLOW_CONN_SHOP_API: ${{AIRFLOW_CONN_SHOP_API:-{source.url}/http}}" in done.stdout
        written = tree / "include/contracts/invoices.py"
        mypy = [sys.executable, "-m", "mypy", "--cache-dir", REPOSITORY / ".mypy_cache/new_entity"]
        for command in (
            [RUFF, "check", written, migration],
            [RUFF, "format", "--check", written, migration],
            [*mypy, "-m", "include.contracts.invoices"],
        ):
            checked = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stdout
        contract = loaded(written.read_text(), tree, "invoices")
        assert contract.endpoint == Endpoint(
            "/api/invoices/", NextUrl(stable=False), records="results", page_size=100, page_size_param="limit"
        )
        assert (contract.key, contract.version, contract.delta, contract.connection) == (
            ("id",), "updated_at", "whole", "shop_api",
        )  # fmt: skip
        assert contract.ignored == ("geo", "lines.x")
        assert "drift" not in said
        with psycopg.connect(Stack(tree / ".local", durable=False).dsn()) as database:
            staged = database.execute("select count(*) from pg_tables where schemaname = 'staging'").fetchone()
        assert staged == (0,)
        assert "invoice_lines" in migration.read_text()
    finally:
        run(tree, "include.local", "down")


def test_a_run_that_finds_nothing_writes_nothing(tree: Path) -> None:
    (tree / "empty.csv").write_text("a,b\n")
    done = run(tree, "include.local.new_entity", "invoices", "empty.csv")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {tree}/empty.csv has no records, so there is nothing to learn from\n",
    )
    assert not (tree / "include/contracts/invoices.py").exists()


def test_an_example_of_files_is_a_files_guess(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n')
    assert isinstance(read_file(path, lambda line: None)[1], FilesGuess)

"""Validation: what of a page becomes rows, what is rejected and why, and under which key."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import sys
import types
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.contracts import CONTRACTS
from include.contracts.contract import Children, Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.endpoint import Endpoint
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.contracts.record import AnyText, Record, Timestamp, WholeNumber
from include.transform.validation import PageValidator, Rejected, StagedPage

FETCHED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
CUSTOMER = {
    "id": ID,
    "full_name": "  ada   LOVELACE ",
    "email_address": "Ada@Example.com ",
    "phone": "020 7946 0018",
    "age": 36,
    "tags": ["a", "b"],
    "street": "St James's Square",
    "city": "London",
    "state": "",
    "country": "gb",
    "zip_code": "SW1Y 4JU",
    "segment": "smb",
    "signup_date": "2025-01-02",
    "updated_at": "2026-02-28T10:00:00+01:00",
}
PRODUCT = {"id": "p1", "name": "Lamp", "price": 12.5, "updated_at": "2026-02-28T10:00:00Z"}
ITEM = {"line_number": 1, "product_id": "p1", "quantity": 2, "price": 9.99, "discount": 1}
ORDER = {
    "id": "o1",
    "customer_id": ID,
    "status": "paid",
    "total": 18.98,
    "created_at": "2026-02-01T00:00:00Z",
    "updated_at": "2026-02-28T10:00:00Z",
    "items": [ITEM],
}
VALID = {"customers": CUSTOMER, "products": PRODUCT, "orders": ORDER}
ABSENT = object()


def validated(contract: Contract, *records: Any) -> StagedPage:
    """Page 7 with these records: JSON values, or text as it stands in the body."""
    body = ", ".join(record if isinstance(record, str) else json.dumps(record) for record in records)
    return PageValidator(contract, FETCHED_AT).page(7, f"[{body}]")


def rejection(contract: Contract, record: Any) -> Rejected:
    """The rejection of the only record of a page."""
    page = validated(contract, record)
    assert (page.rows, {name: rows for name, rows in page.children.items() if rows}) == ([], {})
    (rejected,) = page.rejected
    return rejected


def changed(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (record | changes).items() if value is not ABSENT}


def raw(record: dict[str, Any], field: str, token: str) -> str:
    """The record's JSON text with `token` as it is for the field."""
    return json.dumps(changed(record, **{field: "TOKEN"})).replace('"TOKEN"', token)


# --- what is valid ---------------------------------------------------------------------------------------------------


def test_a_valid_record_is_a_row_in_the_order_of_the_columns() -> None:
    version = datetime(2026, 2, 28, 9, tzinfo=UTC)
    page = validated(CUSTOMERS, CUSTOMER)
    assert page.rejected == []
    place_and_key = (7, 0, UUID(ID))
    address = ("St James's Square", "London", "", "GB", "SW1Y 4JU")
    content = ("Ada Lovelace", "ada@example.com", "+442079460018", 36, ["a", "b"], *address, "smb")
    assert page.rows == [(*place_and_key, *content, datetime(2025, 1, 2, tzinfo=UTC), version)]


def test_children_carry_the_place_of_their_parent() -> None:
    second = changed(ITEM, line_number=2, product_id=None, discount=None)
    page = validated(ORDERS, changed(ORDER, items=None), changed(ORDER, id="o2", items=[ITEM, second]))
    assert [row[:3] for row in page.rows] == [(7, 0, "o1"), (7, 1, "o2")]
    assert page.children == {
        "items": [(7, 1, 1, "p1", 2, Decimal("9.99"), Decimal(1)), (7, 1, 2, None, 2, Decimal("9.99"), Decimal(0))]
    }


def test_what_may_be_missing_is_null() -> None:
    required = ("id", "full_name", "email_address", "signup_date", "updated_at")
    page = validated(CUSTOMERS, {name: CUSTOMER[name] for name in required}, changed(CUSTOMER, country=" ", segment=""))
    assert page.rejected == []
    assert page.rows[0][5:14] == (None, None, [], None, None, None, None, None, None)
    assert (page.rows[1][11], page.rows[1][13]) == (None, None)


def test_money_is_exact() -> None:
    tokens = ["12.5", '"0.1"', "1e2", "99999999999999.9999", "0", "null"]
    page = validated(PRODUCTS, *(raw(PRODUCT, "price", token) for token in tokens))
    expected = ["12.5", "0.1", "1E+2", "99999999999999.9999", "0", None]
    assert [str(row[7]) if row[7] is not None else None for row in page.rows] == expected
    assert all(isinstance(row[7], Decimal) for row in page.rows[:-1])


def test_an_entity_without_a_version_has_null_in_its_place() -> None:
    class Plain(Record):
        id: WholeNumber
        name: AnyText

    contract = Contract("plain", Plain, key=("id",), endpoint=Endpoint("/plain", changed_since="since"), version=None)
    page = validated(contract, {"id": 1, "name": "x"}, {"id": 2})
    assert page.rows == [(7, 0, 1, "x", None)]
    assert [(rejected.record_key, rejected.record_version) for rejected in page.rejected] == [("2", None)]


# --- what is rejected ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contract", "field", "value", "message"),
    [
        (CUSTOMERS, "id", ABSENT, "id: Field required"),
        (CUSTOMERS, "id", 5, "id: UUID input should be a string, bytes or UUID object"),
        (CUSTOMERS, "id", "5", "id: Input should be a valid UUID"),
        (CUSTOMERS, "id", "\0", "id: Input should be a valid UUID, invalid character: found `\\x00` at 0"),
        (CUSTOMERS, "full_name", ABSENT, "full_name: Field required"),
        (CUSTOMERS, "full_name", None, "full_name: Input should be a valid string"),
        (CUSTOMERS, "full_name", " \0 ", "full_name: String should have at least 1 character"),
        (CUSTOMERS, "full_name", "x" * 101, "full_name: String should have at most 100 characters"),
        (CUSTOMERS, "full_name", "\ud800", "full_name: String should have at least 1 character"),
        (CUSTOMERS, "email_address", "ada", "email_address: expected an email address like name@example.com: "),
        (CUSTOMERS, "email_address", "a\0@b.com", "email_address: expected an email address like name@example.com: "),
        (CUSTOMERS, "email_address", "a" * 300, "email_address: expected an email address of at most 254 characters"),
        (CUSTOMERS, "phone", 5, "phone: Input should be a valid string"),
        (CUSTOMERS, "phone", "\0", "phone: holds a character that Postgres text cannot hold"),
        (CUSTOMERS, "age", -1, "age: Input should be greater than or equal to 0"),
        (CUSTOMERS, "age", 151, "age: Input should be less than or equal to 150"),
        (CUSTOMERS, "age", True, "age: Input should be a valid integer"),
        (CUSTOMERS, "age", "36", "age: Input should be a valid integer"),
        (CUSTOMERS, "age", 36.0, "age: Input should be a valid integer"),
        (CUSTOMERS, "age", 10**400, "age: Input should be less than or equal to 150"),
        (CUSTOMERS, "tags", "a", "tags: Input should be a valid list"),
        (CUSTOMERS, "tags", ["a", 5], "tags.1: Input should be a valid string"),
        (CUSTOMERS, "tags", ["\0"], "tags.0: holds a character that Postgres text cannot hold"),
        (CUSTOMERS, "city", "\ud800", "city: Input should be a valid string, unable to parse raw data as a unicode"),
        (CUSTOMERS, "country", "GBR", "country: String should match pattern"),
        (CUSTOMERS, "segment", "big", "segment: Input should be 'enterprise', 'smb' or 'consumer'"),
        (CUSTOMERS, "signup_date", "03/04/2025", "signup_date: expected the year first (2025-04-03)"),
        (CUSTOMERS, "signup_date", True, "signup_date: expected a date and time, got True"),
        (CUSTOMERS, "updated_at", ABSENT, "updated_at: Field required"),
        (CUSTOMERS, "updated_at", "2026-02-30", "updated_at: expected a date and time in ISO 8601 or RFC 1123"),
        (PRODUCTS, "id", "", "id: String should have at least 1 character"),
        (PRODUCTS, "id", "p 1", "id: holds a character that Postgres text cannot hold or that a key must not"),
        (PRODUCTS, "id", "p" * 201, "id: String should have at most 200 characters"),
        (PRODUCTS, "id", 1, "id: Input should be a valid string"),
        (PRODUCTS, "name", "  ", "name: String should have at least 1 character"),
        (PRODUCTS, "name", "x" * 201, "name: String should have at most 200 characters"),
        (PRODUCTS, "price", -1, "price: Input should be greater than or equal to 0"),
        (PRODUCTS, "price", True, "price: expected a number, got a boolean"),
        (PRODUCTS, "price", "cheap", "price: Input should be a valid decimal"),
        (PRODUCTS, "price", [], "price: Decimal input should be an integer, float, string or Decimal object"),
        (ORDERS, "status", "lost", "status: Input should be 'pending', 'paid', 'shipped', "),
        (ORDERS, "customer_id", "", "customer_id: Input should be a valid UUID"),
        (ORDERS, "total", None, "total: Decimal input should be"),
        (ORDERS, "items", {}, "items: Input should be a valid list"),
        (ORDERS, "items", [5], "items.0: Input should be a valid dictionary or instance of OrderItemRecord"),
        (
            ORDERS,
            "items",
            [ITEM, changed(ITEM, line_number=2, quantity=0)],
            "items.1.quantity: Input should be greater",
        ),
        (ORDERS, "items", [changed(ITEM, price=ABSENT)], "items.0.price: Field required"),
        (ORDERS, "items", [changed(ITEM, quantity=True)], "items.0.quantity: Input should be a valid integer"),
        (ORDERS, "items", [ITEM, ITEM], "items: line_number 1 stands in it twice"),
    ],
)
def test_a_bad_field_rejects_its_record_with_a_message_that_names_it(
    contract: Contract, field: str, value: Any, message: str
) -> None:
    record = changed(VALID[contract.name], **{field: value})
    found = rejection(contract, record)
    assert found.error.startswith(message)
    assert not any(sign in found.error for sign in ("Traceback", "pydantic", "http", "Value error", "\n", "\0"))
    assert (found.page, found.position, found.stage, found.payload) == (7, 0, "validate", json.dumps(record))


FINITE = "Input should be a finite number"
DIGITS = r"Decimal input should have no more than \d+ digits (in total|before the decimal point)"
DECIMALS = "Decimal input should have no more than 4 decimal places"


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("NaN", FINITE),
        ("Infinity", FINITE),
        ("-Infinity", FINITE),
        ('"NaN"', FINITE),
        ("1e400000", f"{FINITE}|{DIGITS}"),  # the former where the field has bounds
        ("1E+99999999", f"{FINITE}|{DIGITS}"),
        ("1e99999999999999999999", FINITE),
        ("1e-99999999", DIGITS),
        ("100000000000000", DIGITS),
        ("0.00001", DECIMALS),
        ("9" * 400, f"{FINITE}|{DIGITS}"),
        ("9" * (sys.get_int_max_str_digits() + 1), f"{FINITE}|{DIGITS}"),
    ],
    ids=lambda token: token[:20],
)
def test_an_amount_that_the_column_cannot_hold_exactly_is_rejected(token: str, message: str) -> None:
    for contract, field in ((PRODUCTS, "price"), (ORDERS, "total")):
        error = rejection(contract, raw(VALID[contract.name], field, token)).error
        assert re.fullmatch(f"{field}: ({message})", error), error


@pytest.mark.parametrize("token", ["NaN", "Infinity", "1E+99999999", "9" * 400, "true", "5", "[]", "{}", "null"])
def test_a_version_that_is_no_time_is_rejected(token: str) -> None:
    found = rejection(PRODUCTS, raw(PRODUCT, "updated_at", token))
    assert found.error.startswith("updated_at: expected a ")
    assert (found.record_key, found.record_version) == ("p1", None)


@pytest.mark.parametrize("value", [None, True, 5, 1.5, "text", [], [CUSTOMER]])
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_a_record_that_is_no_object_is_rejected(contract: Contract, value: Any) -> None:
    found = rejection(contract, json.dumps(value))
    assert found.error.startswith("record: Input should be a valid dictionary")
    digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    assert (found.record_key, found.key_readable) == (f"sha256:{digest}", False)


def test_one_bad_record_does_not_cost_its_neighbours() -> None:
    page = validated(PRODUCTS, changed(PRODUCT, id="p0"), changed(PRODUCT, id="p1", name=5), changed(PRODUCT, id="p2"))
    assert [row[:3] for row in page.rows] == [(7, 0, "p0"), (7, 2, "p2")]
    assert [(rejected.position, rejected.record_key) for rejected in page.rejected] == [(1, "p1")]


def test_a_bad_child_costs_its_parent_and_its_siblings() -> None:
    bad = changed(ORDER, id="o2", items=[ITEM, changed(ITEM, line_number=0)])
    page = validated(ORDERS, ORDER, bad)
    assert [row[2] for row in page.rows] == ["o1"]
    assert [row[:3] for row in page.children["items"]] == [(7, 0, 1)]
    assert [rejected.record_key for rejected in page.rejected] == ["o2"]


@pytest.mark.parametrize(("wrong", "end"), [(5, "or 'consumer'"), (6, "; and 1 more"), (8, "; and 3 more")])
def test_no_more_than_five_errors_are_listed(wrong: int, end: str) -> None:
    fields = ("full_name", "phone", "age", "street", "segment", "city", "state", "zip_code")[:wrong]
    error = rejection(CUSTOMERS, changed(CUSTOMER, **{name: [] for name in fields})).error
    assert error.count("Input should be") == 5
    assert error.count("; and ") == (wrong > 5)
    assert error.endswith(end)


def test_a_version_over_a_day_ahead_of_the_sources_clock_is_rejected() -> None:
    limit = FETCHED_AT + timedelta(days=1)
    late = limit + timedelta(microseconds=1)
    page = validated(
        PRODUCTS,
        changed(PRODUCT, id="p0", updated_at=limit.isoformat()),
        changed(PRODUCT, id="p1", updated_at=late.isoformat()),
    )
    assert [row[2] for row in page.rows] == ["p0"]
    (found,) = page.rejected
    assert (found.record_key, found.record_version) == ("p1", late)
    assert found.error == (
        "updated_at: 2026-03-02T12:00:00Z is more than a day ahead of the source's clock; it would win over every "
        "later version"
    )


def test_notes_count_what_was_given_up() -> None:
    validator = PageValidator(CUSTOMERS, FETCHED_AT)
    records = [changed(CUSTOMER, phone=phone) for phone in ("12", "nonsense", " ", None, "+442079460018")]
    page = validator.page(0, json.dumps(records))
    assert [row[5] for row in page.rows] == [None, None, None, None, "+442079460018"]
    assert validator.notes == {"phone does not parse, stored as null": 2}


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_rejected_record_keeps_its_key_and_version_where_they_can_be_read() -> None:
    body = json.dumps(CUSTOMER | {"id": ID.upper(), "age": -1})
    assert rejection(CUSTOMERS, body) == Rejected(
        page=7,
        position=0,
        record_key=ID,
        key_readable=True,
        record_version=datetime(2026, 2, 28, 9, tzinfo=UTC),
        stage="validate",
        error="age: Input should be greater than or equal to 0",
        payload=body,
    )


def test_a_key_that_cannot_be_read_is_the_hash_of_the_records_own_text() -> None:
    body = '{ "id" : "\\u0000",\t"name": "x" }'
    found = rejection(PRODUCTS, body)
    assert (found.record_key, found.key_readable) == ("sha256:" + hashlib.sha256(body.encode()).hexdigest(), False)
    assert found.payload == body


class Composite(Record):
    region: AnyText
    number: WholeNumber
    owner: UUID
    updated_at: Timestamp


COMPOSITE = Contract(
    "composite",
    Composite,
    key=("region", "number", "owner"),
    endpoint=Endpoint("/composite", changed_since="since"),
)


def test_a_composite_key_with_a_part_that_cannot_be_read_is_hashed() -> None:
    record = {"region": "eu", "number": "1", "owner": ID}
    assert rejection(COMPOSITE, record).record_key.startswith("sha256:")
    assert rejection(COMPOSITE, changed(record, number=1)).record_key == f'["eu", 1, "{ID}"]'


@pytest.mark.database
def test_keys_are_written_as_postgres_writes_them(app_db: psycopg.Connection[Any]) -> None:
    alphabet = "".join(chr(code) for code in [*range(1, 0x180), 0x2028, 0x20AC, 0xFFFD, 0x1F600])
    regions = ["", "eu", 'a "b" \\c/', "\b\f\n\r\t", "ü€😀", "</script>", alphabet]
    numbers = [0, -1, 2**63 - 1, -(2**63), 7, 8, 9]
    validator = PageValidator(COMPOSITE, FETCHED_AT)
    for region, number in zip(regions, numbers, strict=True):
        key = validator.key_text({"region": region, "number": number, "owner": ID.upper()})
        row = app_db.execute("select jsonb_build_array(%s::text, %s::bigint, %s::uuid)::text", (region, number, ID))
        assert row.fetchone() == (key,)


@pytest.mark.database
def test_a_key_of_one_part_is_its_own_text(app_db: psycopg.Connection[Any]) -> None:
    for contract, value, sql_type in ((CUSTOMERS, ID.upper(), "uuid"), (PRODUCTS, 'p"1\\ü', "text")):
        key = PageValidator(contract, FETCHED_AT).key_text({"id": value})
        assert app_db.execute(f"select %s::{sql_type}::text".encode(), (value,)).fetchone() == (key,)


def test_children_with_a_key_of_several_fields_may_share_a_part() -> None:
    class Part(Record):
        box: WholeNumber
        slot: WholeNumber

    class Thing(Record):
        id: WholeNumber
        updated_at: Timestamp
        parts: list[Part]

    children = {"parts": Children("parts", Part, parent=("thing_id",), key=("box", "slot"))}
    contract = Contract(
        "things", Thing, key=("id",), endpoint=Endpoint("/things", changed_since="since"), children=children
    )
    places = [{"box": 1, "slot": 1}, {"box": 1, "slot": 2}]
    record = {"id": 1, "updated_at": "2026-01-01", "parts": places}
    assert len(validated(contract, record).children["parts"]) == 2
    twice = changed(record, parts=[*places, {"slot": 2, "box": 1}])
    assert rejection(contract, twice).error == "parts: box, slot 1, 2 stands in it twice"


# --- anything that JSON can say --------------------------------------------------------------------------------------

text = st.text(st.characters(), max_size=12) | st.sampled_from(["", " ", "\0", "\ud800", "p1", ID, "2026-01-01", "NaN"])
json_text = text.map(json.dumps)
number_text = st.one_of(
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.sampled_from(["1E+99999999", "1e-99999999", "NaN", "-Infinity", "1e9999999999999999999", "9" * 5000, "-0.0"]),
)
scalar = st.one_of(json_text, number_text, st.sampled_from(["true", "false", "null", "[]", "{}"]))
anything = st.recursive(
    scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.dictionaries(json_text, inner, max_size=3).map(
            lambda parts: "{" + ", ".join(f"{name}: {value}" for name, value in parts.items()) + "}"
        ),
    ),
    max_leaves=5,
)


@st.composite
def nearly_valid(draw: st.DrawFn, valid: dict[str, Any]) -> str:
    """A valid record's text with up to three fields (an order's item's too) replaced by anything at all."""
    parts = {name: json.dumps(value) for name, value in valid.items()}
    for name in draw(st.lists(st.sampled_from(sorted(valid)), max_size=3)):
        if name == "items":
            field = draw(st.sampled_from(sorted(ITEM)))
            item = {**{key: json.dumps(value) for key, value in ITEM.items()}, field: draw(anything)}
            parts[name] = "[{" + ", ".join(f'"{key}": {value}' for key, value in item.items()) + "}]"
        else:
            parts[name] = draw(anything)
    return "{" + ", ".join(f'"{name}": {value}' for name, value in parts.items()) + "}"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_any_record_is_one_row_or_one_rejection(contract: Contract, data: st.DataObject) -> None:
    records = data.draw(st.lists(nearly_valid(VALID[contract.name]) | anything, max_size=4))
    page = validated(contract, *records)
    places = [row[1] for row in page.rows] + [rejected.position for rejected in page.rejected]
    assert sorted(places) == list(range(len(records)))
    kept = {row[1] for row in page.rows}
    for rows in page.children.values():
        assert {row[1] for row in rows} <= kept
    for rejected in page.rejected:
        assert rejected.payload == records[rejected.position]
        for said in (rejected.error, rejected.record_key):
            assert said
            assert storable(said)
    for row in [*page.rows, *(row for rows in page.children.values() for row in rows)]:
        assert all(storable(value) for value in row)


def storable(value: Any) -> bool:
    """Whether Postgres can hold the text: no NUL, no lone surrogate."""
    if isinstance(value, list):
        return all(map(storable, value))
    if not isinstance(value, str):
        return True
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def test_a_rejected_record_leaves_no_cycle_behind() -> None:
    """A batch is validated with the garbage collector off: a cycle would keep its page until the batch ends."""
    records = [CUSTOMER | {"signup_date": bad} for bad in ("not a date", "03/04/2025", "2025-02-30", 12)] * 25
    validator = PageValidator(CUSTOMERS, FETCHED_AT)
    validator.page(1, json.dumps(records))
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        assert len(validator.page(1, json.dumps(records)).rejected) == 100
        gc.collect()
        assert [type(item) for item in gc.garbage if isinstance(item, types.FrameType | types.TracebackType)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

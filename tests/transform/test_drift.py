"""Schema drift: what is counted of records, and what differs from the contract and from the last time."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, AliasPath, Field

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Endpoint
from include.contracts.record import AnyText, Identifier, Money, Record, Timestamp, WholeNumber
from include.transform.drift import MOST_FIELDS, MOST_SHAPES, OTHERS, Shapes, drift
from include.transform.validation import PageValidator


class LineRecord(Record):
    number: WholeNumber = Field(alias="pos")
    price: Money


class InvoiceRecord(Record):
    id: Identifier = Field(alias="no")
    city: AnyText | None = Field(None, validation_alias=AliasPath("buyer", "city"))
    note: AnyText | None = Field(None, validation_alias=AliasChoices("note", "remark"))
    source: Literal["shop"] = "shop"
    gone: bool = False
    updated_at: Timestamp
    lines: list[LineRecord] = Field(default_factory=list)


INVOICES = Contract(
    "invoices",
    InvoiceRecord,
    key=("id",),
    deleted="gone",
    ignored=("internal",),
    endpoint=Endpoint("/invoices", changed_since="since"),
    children={"lines": Children("invoice_lines", LineRecord, parent=("invoice_id",), key=("number",))},
)
WHOLE: dict[str, Any] = {
    "no": "i1",
    "buyer": {"city": "Ulm"},
    "note": None,
    "gone": False,
    "updated_at": "2026-01-01",
    "lines": [{"pos": 1, "price": 1}],
    "internal": 1,
}


def fields(*records: Any) -> dict[str, dict[str, int]]:
    validator = PageValidator(INVOICES, datetime(2026, 3, 1, tzinfo=UTC))
    validator.page(1, json.dumps(records))
    return {field: dict(types) for field, types in validator.shapes.fields().items()}


def texts(seen: Mapping[str, Any], before: Mapping[str, Any] | None = None, contract: Contract = INVOICES) -> list[str]:
    return [found.text for found in drift(contract, seen, before or {})]


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in WHOLE.items() if name not in names}


def test_fields_are_counted_by_json_type_in_records_valid_or_not() -> None:
    assert fields(WHOLE, {"no": 1, "note": "x", "lines": [{"pos": 1.5}, 7], "a.b": True}, "none", 5) == {
        "*": {"object": 2},
        "no": {"string": 1, "number": 1},
        "buyer": {"object": 1},
        "buyer.city": {"string": 1},
        "note": {"null": 1, "string": 1},
        "gone": {"boolean": 1},
        "updated_at": {"string": 1},
        "lines": {"array": 2},
        "internal": {"number": 1},
        "a.b": {"boolean": 1},
        "lines.*": {"object": 2},
        "lines.pos": {"number": 2},
        "lines.price": {"number": 1},
    }


def test_what_the_contract_reads_and_ignores_is_no_drift() -> None:
    assert texts(fields(*[WHOLE] * 30)) == []
    assert texts(fields(*[without("note") | {"remark": "x"}] * 30)) == []


def test_new_fields() -> None:
    seen = fields(WHOLE, WHOLE | {"tier": "gold", "lines": [{"pos": 1, "price": 1, "vat": None}]})
    assert texts(seen) == [
        "new field `lines.vat` (null) in 1 of 2 records: read it in the contract, or list it in its `ignored`",
        "new field `tier` (string) in 1 of 2 records: read it in the contract, or list it in its `ignored`",
    ]
    assert texts(seen, contract=replace(INVOICES, ignored=("internal", "tier", "lines.vat"))) == []


def test_a_required_field_that_is_missing_and_an_optional_one_that_many_records_lack() -> None:
    required = "field `updated_at` is in none of 3 records: ask the source, or drop it"
    assert texts(fields(*[without("updated_at", "buyer", "note")] * 3)) == [required]
    assert texts(fields(*[without("buyer", "note")] * 20)) == [
        "field `buyer.city` is in none of 20 records: ask the source, or drop it",
        "field `note` is in none of 20 records: ask the source, or drop it",
    ]
    assert texts(fields(WHOLE | {"lines": [{"pos": 1}]})) == [
        "field `lines.price` is in none of 1 records: ask the source, or drop it"
    ]
    assert texts(fields(WHOLE | {"lines": []})) == []
    assert texts({}) == []


def test_another_type_than_before() -> None:
    before = fields(WHOLE, WHOLE | {"note": "x"})
    seen = fields(WHOLE, WHOLE | {"note": 1, "no": None, "lines": [{"pos": 1, "price": "1"}] * 2})
    assert texts(seen, before) == [
        "field `lines.price` is another type than before (string) in 2 of 3 records: ask the source",
        "field `note` is another type than before (number) in 1 of 2 records: ask the source",
    ]
    assert texts(seen, fields(WHOLE | {"note": None, "lines": []})) == []


def test_what_is_read_deeper_is_looked_for_there() -> None:
    elsewhere = WHOLE | {"buyer": {"town": "Ulm"}}
    assert texts(fields(*[elsewhere] * 20)) == [
        "field `buyer.city` is in none of 20 records: ask the source, or drop it"
    ]
    assert texts(fields(*[elsewhere] * 19, WHOLE)) == []
    assert texts(fields(WHOLE | {"buyer": {"city": 7}}), fields(WHOLE)) == [
        "field `buyer.city` is another type than before (number) in 1 of 1 records: ask the source"
    ]


def test_a_tombstone_lacks_nothing() -> None:
    tombstone = {"no": "i1", "gone": True, "updated_at": "2026-01-01"}
    assert fields(tombstone) == {}
    assert texts(fields(tombstone, WHOLE)) == []


def test_an_ignored_field_does_not_drift() -> None:
    seen = fields(*[without("note") | {"internal": "x"}] * 20)
    note = "field `note` is in none of 20 records: ask the source, or drop it"
    assert texts(seen, fields(WHOLE)) == [note]
    assert texts(seen, fields(WHOLE), replace(INVOICES, ignored=("internal", "note"))) == []


def test_a_name_may_hold_a_dot_of_its_own() -> None:
    class FlatRecord(Record):
        id: Identifier = Field(alias="meta.id")

    flat = Contract("flat", FlatRecord, key=("id",), version=None, endpoint=Endpoint("/f", changed_since="since"))
    validator = PageValidator(flat, datetime(2026, 3, 1, tzinfo=UTC))
    validator.page(1, json.dumps([{"meta.no": 1}] * 2))
    assert texts(validator.shapes.fields(), contract=flat) == [
        "new field `meta.no` (number) in 2 of 2 records: read it in the contract, or list it in its `ignored`",
        "field `meta.id` is in none of 2 records: ask the source, or drop it",
    ]


def test_generated_names_leave_room_for_what_the_contract_reads() -> None:
    generated = {f"k{number}": 1 for number in range(3 * MOST_FIELDS)}
    seen = fields(*[generated | WHOLE] * 2)
    kept = {name for name in seen if name.startswith("k")}
    assert len(kept) == MOST_FIELDS
    assert seen[OTHERS] == {"number": 2}
    assert {found.kind for found in drift(INVOICES, seen, {})} == {"new"}
    assert texts({"*": {"object": 2}, "no": {"string": 2}, "updated_at": {"string": 2}, OTHERS: {"number": 2}}) == [
        "more than 1,000 different fields: names that are generated belong into one field"
    ]


def test_generated_names_do_not_fill_the_memory() -> None:
    shapes = Shapes(INVOICES)
    tracemalloc.start()
    for number in range(10 * MOST_SHAPES):
        shapes.add({f"{number}-{key}" + "x" * 100: 1 for key in range(10)})
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4_000_000  # all of the names are 15 MB
    seen = shapes.fields()
    assert seen["*"] == {"object": 10 * MOST_SHAPES}
    assert seen[OTHERS] == {"number": 10 * MOST_SHAPES - MOST_FIELDS // 10}


def test_names_are_such_as_postgres_can_hold() -> None:
    names = [*fields({"a\x00b" + "c" * 300: 1, "\ud800": 2})]
    assert sorted(names) == ["*", "?", "a\\x00b" + "c" * 194]


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "no"]), st.one_of(st.none(), st.integers(), st.text()))))
def test_each_value_is_counted_once(records: list[dict[str, Any]]) -> None:
    seen = fields(*records)
    for name in ("a", "b", "no"):
        assert sum(seen.get(name, {}).values()) == sum(name in record for record in records)
    assert seen.get("*", {}).get("object", 0) == len(records)


@pytest.mark.parametrize("value", [[], {}, 0, "", None, True, 1.5])
def test_the_types_are_jsons(value: Any) -> None:
    kinds = {list: "array", dict: "object", int: "number", str: "string", type(None): "null", bool: "boolean"}
    assert fields({"x": value})["x"] == {kinds.get(type(value), "number"): 1}

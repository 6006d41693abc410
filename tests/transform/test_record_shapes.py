"""Records of other shapes than the table's: nested, computed, constant, marked as deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import AliasChoices, AliasPath, Field, computed_field

from include.contracts.contract import Children, Contract, ContractError
from include.contracts.endpoint import Endpoint
from include.contracts.record import AnyText, Identifier, Money, Record, Timestamp, WholeNumber
from include.transform.validation import PageValidator, StagedPage

FETCHED_AT = datetime(2026, 3, 1, tzinfo=UTC)
VERSION = "2026-02-01T10:00:00Z"
VERSIONED = datetime(2026, 2, 1, 10, tzinfo=UTC)


class LineRecord(Record):
    number: WholeNumber = Field(alias="pos")
    quantity: WholeNumber
    price: Money = Field(validation_alias=AliasPath("price", "amount"))

    @computed_field
    def amount(self) -> Money:
        """Quantity by price."""
        return self.quantity * self.price


class InvoiceRecord(Record):
    id: Identifier = Field(validation_alias=AliasPath("meta", "id"))
    updated_at: Timestamp = Field(validation_alias=AliasChoices(AliasPath("meta", "changed"), "changedAt"))
    city: AnyText | None = Field(None, validation_alias=AliasPath("buyer", "addresses", 0, "city"))
    source: Literal["shop"] = "shop"
    lines: list[LineRecord] = Field(default_factory=list)

    @computed_field
    def positions(self) -> WholeNumber:
        """How many lines it has."""
        return len(self.lines)


INVOICES = Contract(
    "invoices",
    InvoiceRecord,
    key=("id",),
    endpoint=Endpoint("/invoices", changed_since="since"),
    children={"lines": Children("invoice_lines", LineRecord, parent=("invoice_id",), key=("number",))},
)


def invoice(**changes: Any) -> dict[str, Any]:
    return {
        "meta": {"id": "i1", "changed": VERSION},
        "buyer": {"addresses": [{"city": "Ulm"}]},
        "lines": [{"pos": 1, "quantity": 3, "price": {"amount": "1.10", "currency": "EUR"}}],
    } | changes


def validated(contract: Contract, *records: Any) -> StagedPage:
    return PageValidator(contract, FETCHED_AT).page(1, json.dumps(records))


def test_nested_constant_and_computed_fields_are_columns() -> None:
    assert INVOICES.columns == ("id", "city", "source", "positions")
    assert INVOICES.children["lines"].columns == ("number", "quantity", "price", "amount")
    page = validated(INVOICES, invoice(), invoice(buyer=None, meta={"id": "i2"}, changedAt=VERSION, lines=[]))
    assert page.rejected == []
    assert page.rows == [(1, 0, "i1", "Ulm", "shop", 1, VERSIONED), (1, 1, "i2", None, "shop", 0, VERSIONED)]
    assert page.children == {"lines": [(1, 0, 1, 3, Decimal("1.10"), Decimal("3.30"))]}


def test_a_constant_refuses_another_value() -> None:
    (rejected,) = validated(INVOICES, invoice(source="market")).rejected
    assert rejected.error == "source: Input should be 'shop'"


def test_a_rejected_record_keeps_its_nested_key_and_version() -> None:
    pages = [validated(INVOICES, invoice(lines="none")), validated(INVOICES, invoice(lines=[{"pos": 1}] * 2))]
    for page in pages:
        (rejected,) = page.rejected
        assert (rejected.record_key, rejected.key_readable, rejected.record_version) == ("i1", True, VERSIONED)
    assert "lines.0.price.amount: Field required" in pages[1].rejected[0].error
    (rejected,) = validated(INVOICES, invoice(meta={"id": ["i1"], "changed": VERSION})).rejected
    assert not rejected.key_readable


def test_readings_are_told_apart_by_nested_keys() -> None:
    validator = PageValidator(INVOICES, FETCHED_AT)
    assert validator.identities(json.dumps([invoice(), invoice(lines=7)])) == {("i1", VERSIONED)}


def test_the_key_of_an_invalid_record_whose_key_is_computed_is_its_hash() -> None:
    class PairRecord(Record):
        left: WholeNumber
        right: WholeNumber
        updated_at: Timestamp

        @computed_field
        def id(self) -> Identifier:
            """Both sides."""
            return f"{self.left}-{self.right}"

    pairs = Contract("pairs", PairRecord, key=("id",), endpoint=Endpoint("/pairs", changed_since="since"))
    page = validated(pairs, {"left": 1, "right": 2, "updated_at": VERSION}, {"left": 1, "updated_at": VERSION})
    assert page.rows == [(1, 0, 1, 2, "1-2", VERSIONED)]
    assert [(rejected.record_key[:7], rejected.key_readable) for rejected in page.rejected] == [("sha256:", False)]


def test_a_computed_field_that_no_column_can_hold_is_an_error_that_names_it() -> None:
    class PairRecord(Record):
        id: Identifier

        @computed_field
        def both(self) -> complex:
            """No column holds it."""
            return 1j

    with pytest.raises(ContractError, match=r"contract pairs: PairRecord\.both: no column type fits"):
        Contract("pairs", PairRecord, key=("id",), version=None, endpoint=Endpoint("/p", changed_since="since"))


class NoteRecord(Record):
    id: Identifier
    text: AnyText
    is_gone: bool = False
    gone_at: Timestamp | None = None
    state: AnyText = "open"
    updated_at: Timestamp

    @computed_field
    def is_archived(self) -> bool:
        """By its state."""
        return self.state == "archived"


NOTES = Contract("notes", NoteRecord, key=("id",), deleted="is_gone", endpoint=Endpoint("/n", changed_since="since"))
LIVING = {"id": "n1", "text": "a", "updated_at": VERSION}


@pytest.mark.parametrize(
    ("deleted", "mark"),
    [("is_gone", {"is_gone": True}), ("gone_at", {"gone_at": VERSION}), ("is_archived", {"state": "archived"})],
)
def test_of_a_tombstone_the_key_and_the_version_are_read(deleted: str, mark: dict[str, Any]) -> None:
    contract = replace(NOTES, deleted=deleted)
    assert deleted not in contract.columns
    page = validated(contract, LIVING, LIVING | mark)
    content = len(contract.columns) - 1
    assert page.rejected == []
    assert page.rows[0][2:4] == ("n1", "a")
    assert page.rows[0][-1] is False
    assert page.rows[1] == (1, 1, "n1", *[None] * content, VERSIONED, True)


def test_a_tombstone_need_hold_no_more_than_its_key_and_version() -> None:
    bare = {"id": "n1", "is_gone": True, "updated_at": VERSION}
    assert validated(NOTES, bare).rows == [(1, 0, "n1", None, None, None, None, VERSIONED, True)]
    for broken in ({**bare, "id": ""}, {**bare, "updated_at": "never"}, {**bare, "updated_at": "2027-01-01"}):
        page = validated(NOTES, broken)
        assert (page.rows, len(page.rejected)) == ([], 1)


def test_a_mark_that_is_none_leaves_the_record_to_its_own_errors() -> None:
    (rejected,) = validated(NOTES, {"id": "n1", "is_gone": "perhaps", "updated_at": VERSION}).rejected
    assert "text: Field required" in rejected.error
    assert "is_gone: Input should be a valid boolean" in rejected.error


@pytest.mark.parametrize(
    ("deleted", "said"),
    [
        ("removed", "deleted field 'removed' is not in NoteRecord"),
        ("id", "deleted field 'id' is its key, version or children"),
        ("updated_at", "deleted field 'updated_at' is its key, version or children"),
    ],
)
def test_a_mark_that_cannot_work(deleted: str, said: str) -> None:
    with pytest.raises(ContractError, match=f"contract notes: {said}"):
        replace(NOTES, deleted=deleted)

"""Contracts: what one derives, and the error of each declaration that cannot work."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import Field
from sqlalchemy import Text

from include.contracts import BY_NAME, CONTRACTS
from include.contracts.contract import BOOKKEEPING, PLACE, Check, Children, Column, Contract, ContractError
from include.contracts.endpoint import Endpoint, Offset
from include.contracts.files import Files
from include.contracts.record import AnyText, Identifier, Money, Record, Timestamp, WholeNumber


class PartRecord(Record):
    number: WholeNumber
    note: AnyText | None = None
    weight: Money
    labels: list[AnyText]


class ThingRecord(Record):
    region: Identifier
    code: WholeNumber
    label: AnyText | None = Field(None, alias="theLabel")
    price: Money
    modified: Timestamp
    checked: Timestamp | None = None
    updated_at: Timestamp
    parts: list[PartRecord] = Field(default_factory=list)


PARTS = Children("thing_parts", PartRecord, parent=("thing_region", "thing_code"), key=("number",))


def thing(**changes: Any) -> Contract:
    declared: dict[str, Any] = {
        "name": "things",
        "record": ThingRecord,
        "key": ("region", "code"),
        "endpoint": Endpoint("/things", changed_since="since"),
        "children": {"parts": PARTS},
    }
    return Contract(**(declared | changes))


def test_a_contract_derives_its_columns() -> None:
    contract = thing()
    assert contract.table == "app.things"
    assert contract.columns == ("region", "code", "label", "price", "modified", "checked")
    assert contract.content == ("label", "price", "modified", "checked")
    assert contract.source_names["label"] == "theLabel"
    assert PARTS.columns == ("number", "note", "weight", "labels")


def test_without_a_version_its_field_is_none_of_the_columns_yet() -> None:
    class Plain(Record):
        id: Identifier
        name: AnyText

    contract = thing(record=Plain, key=("id",), version=None, children={})
    assert (contract.columns, contract.content) == (("id", "name"), ("name",))


def test_defaults() -> None:
    contract = thing()
    assert (contract.version, contract.history, contract.minimum_rows) == ("updated_at", False, 1)
    assert (contract.lookback, contract.connection) == (timedelta(minutes=15), "source_api")
    assert contract.initial_watermark == datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(FrozenInstanceError):
        contract.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Things"}, "contract 'Things': the name must be 1 to 20 of a-z"),
        ({"name": ""}, "contract '': the name must be"),
        ({"name": "9things"}, "contract '9things': the name must be"),
        ({"name": "a" * 21}, f"contract '{'a' * 21}': the name must be"),
        ({"name": "things\n"}, "contract 'things\\n': the name must be"),
        ({"name": "t; drop"}, "contract 't; drop': the name must be"),
        ({"key": ()}, "contract things: it needs a key"),
        ({"key": ("id",)}, "contract things: key field 'id' is not in ThingRecord"),
        ({"key": ("theLabel",)}, "contract things: key field 'theLabel' is not in ThingRecord"),
        ({"key": ("parts",)}, "contract things: key field 'parts' is not in ThingRecord"),
        ({"key": ("label",)}, "contract things: key field 'label' must be a UUID, text or integer, not null"),
        ({"key": ("price",)}, "contract things: key field 'price' must be a UUID, text or integer, not null"),
        ({"version": "changed"}, "contract things: version field 'changed' must be a time, never null"),
        ({"version": "label"}, "contract things: version field 'label' must be a time, never null"),
        ({"version": "checked"}, "contract things: version field 'checked' must be a time, never null"),
        ({"version": "modified"}, "contract things: column 'updated_at' is declared twice, or is one of Sluice's own"),
        ({"version": None}, "contract things: column 'updated_at' is declared twice, or is one of Sluice's own"),
        ({"version": None, "history": True}, "contract things: history needs a version field, to tell versions apart"),
        ({"enrichment": (Column("label", Text()),)}, "contract things: column 'label' is declared twice"),
        ({"enrichment": (Column("score", Text()),) * 2}, "contract things: column 'score' is declared twice"),
        *(
            ({"enrichment": (Column(name, Text()),)}, f"contract things: column {name!r} is")
            for name in (*BOOKKEEPING, *PLACE)
        ),
        ({"delta": "all"}, "contract things: delta 'all' is none of changes, whole, never"),
        ({"on_drift": "error"}, "contract things: on_drift 'error' is none of warn, fail"),
        (
            {"checks": (Check("cheap", "price < 9", "fatal"),)},  # type: ignore[arg-type]
            "contract things: check 'cheap': severity is critical or warning",
        ),
        ({"children": {"parts": PARTS, "bits": PARTS}}, "contract things: children 'bits' are not in ThingRecord"),
        (
            {"children": {"parts": Children("Parts", PartRecord, PARTS.parent, PARTS.key)}},
            "contract things: children 'parts': the table's name must be 1 to 30 of a-z, 0-9 and _",
        ),
        (
            {"children": {"parts": Children("parts", PartRecord, PARTS.parent, ())}},
            "contract things: children 'parts': key () is not in their fields",
        ),
        (
            {"children": {"parts": Children("parts", PartRecord, PARTS.parent, ("number", "line"))}},
            "contract things: children 'parts': key ('number', 'line') is not in their fields",
        ),
        (
            {"children": {"parts": Children("parts", PartRecord, PARTS.parent, ("note",))}},
            "contract things: children 'parts': key field 'note' must be a UUID, text or integer, not null",
        ),
        (
            {"children": {"parts": Children("parts", PartRecord, PARTS.parent, ("number", "labels"))}},
            "contract things: children 'parts': key field 'labels' must be a UUID, text or integer, not null",
        ),
        (
            {"children": {"parts": Children("parts", PartRecord, ("thing_region",), PARTS.key)}},
            "contract things: children 'parts': parent columns must match key ('region', 'code')",
        ),
    ],
)
def test_a_declaration_that_cannot_work_is_an_error_that_names_contract_and_field(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContractError) as raised:
        thing(**changes)
    assert str(raised.value).startswith(message)


def test_a_field_that_no_column_holds_is_an_error_as_soon_as_the_contract_is_declared() -> None:
    class Wrong(ThingRecord):
        ratio: float

    class WrongPart(PartRecord):
        ratio: float

    with pytest.raises(ContractError, match=r"^contract things: Wrong\.ratio: no column type fits"):
        thing(record=Wrong)
    with pytest.raises(ContractError, match=r"^contract things: WrongPart\.ratio: no column type fits"):
        thing(children={"parts": Children("thing_parts", WrongPart, PARTS.parent, PARTS.key)})


def test_a_nested_list_that_is_not_declared_as_children_is_an_error() -> None:
    with pytest.raises(ContractError, match=r"^contract things: ThingRecord\.parts: no column type fits"):
        thing(children={})


def test_the_contracts_have_names_of_their_own() -> None:
    assert CONTRACTS
    assert {contract.name: contract for contract in CONTRACTS} == BY_NAME
    tables = [
        *(contract.name for contract in CONTRACTS),
        *(child.table for contract in CONTRACTS for child in contract.children.values()),
        *(f"{contract.name}_history" for contract in CONTRACTS if contract.history),
    ]
    assert len(tables) == len(set(tables))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": None}, "contract things: it needs an endpoint or files, and not both"),
        ({"files": Files("/data", "csv", "increment")}, "contract things: it needs an endpoint or files, and not both"),
        (
            {"endpoint": Endpoint("/things")},
            'contract things: its endpoint has no `changed_since`: say delta="whole" to read it whole',
        ),
    ],
)
def test_a_source_that_is_not_declared_whole(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=re.escape(message)):
        thing(**changes)


def test_what_a_contract_says_of_its_source() -> None:
    nested = thing(endpoint=Endpoint("/t", Offset(), records="data.items"), delta="whole")
    assert (nested.source, nested.records_path, nested.stable) == ("/t", "data.items", False)
    filed = thing(endpoint=None, files=Files("s3://bucket/things", "csv", "snapshot"))
    assert (filed.source, filed.records_path, filed.stable) == ("s3://bucket/things", "", True)


def test_a_childs_field_may_not_have_the_name_of_a_column_of_sluices_own() -> None:
    class Placed(PartRecord):
        position: WholeNumber

    with pytest.raises(ContractError, match="contract things: column 'position' is declared twice, or is one of"):
        thing(children={"parts": Children("thing_parts", Placed, PARTS.parent, PARTS.key)})

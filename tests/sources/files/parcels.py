"""Parcels of a carrier that leaves csv files in a folder: what was shipped, and what was called off."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from include.contracts.contract import Contract
from include.contracts.files import Files
from include.contracts.record import Identifier, Money, Record, Timestamp, WholeNumberText, blank_to_none


class ParcelRecord(Record):
    """A parcel; all of a csv file's values are text."""

    number: Identifier = Field(alias="parcel_no")
    order_id: Identifier
    grams: Annotated[WholeNumberText, Field(ge=1)]
    postage: Annotated[Money | None, BeforeValidator(blank_to_none)] = None
    called_off: Annotated[bool, BeforeValidator(lambda value: value or False)] = False
    updated_at: Timestamp


PARCELS = Contract(
    name="parcels",
    record=ParcelRecord,
    key=("number",),
    files=Files("file:///srv/carrier/parcels", format="csv", holds="increment", pattern="*.csv*", marker=".done"),
    deleted="called_off",
)

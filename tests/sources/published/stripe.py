"""Stripe's credit notes with their lines: the next page begins after the last record's id while `has_more` is true."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasPath, BeforeValidator, Field

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Cursor, Endpoint
from include.contracts.record import AnyText, Identifier, Record, Timestamp, WholeNumber, not_bool

Cents = Annotated[
    Decimal,
    BeforeValidator(not_bool),
    Field(max_digits=16, decimal_places=0, allow_inf_nan=False),
    AfterValidator(lambda cents: cents / 100),
]
"""An amount that Stripe sends in the currency's smallest unit, here a hundredth."""


def net_amount(fields: dict[str, Any]) -> Decimal:
    """The total without its tax."""
    return Decimal(fields["total"] - fields["tax"])


class StripeCreditNoteLine(Record):
    """One line of a credit note; one without tax has no country."""

    id: Identifier
    kind: Literal["invoice_line_item", "custom_line_item"] = Field(alias="type")
    description: AnyText | None = None
    quantity: WholeNumber | None = None
    amount: Cents
    tax_country: AnyText | None = Field(default=None, validation_alias=AliasPath("tax_rates", 0, "country"))


class StripeCreditNote(Record):
    """A credit note, in a currency that has hundredths."""

    id: Identifier
    number: AnyText
    customer_id: Identifier = Field(alias="customer")
    invoice_id: Identifier = Field(alias="invoice")
    status: Literal["issued", "void"]
    currency: Literal["eur", "gbp", "usd"]
    total: Cents
    tax: Cents = Field(default=Decimal(0), validation_alias=AliasPath("tax_amounts", 0, "amount"))
    net: Decimal = Field(default_factory=net_amount)
    created_at: Timestamp = Field(alias="created")
    voided_at: Timestamp | None = None
    lines: list[StripeCreditNoteLine] = Field(validation_alias=AliasPath("lines", "data"))


STRIPE_CREDIT_NOTES = Contract(
    name="stripe_credit_notes",
    record=StripeCreditNote,
    key=("id",),
    version=None,  # Stripe does not say when a credit note was changed
    connection="stripe_api",
    endpoint=Endpoint(
        "/v1/credit_notes",
        Cursor("starting_after", last_record="id", more="has_more"),
        changed_since="created[gte]",  # brings new ones; one that is voided later comes with the next full read
        since_format="epoch",
        records="data",
        page_size=100,
    ),
    children={"lines": Children("stripe_credit_lines", StripeCreditNoteLine, parent=("credit_note_id",), key=("id",))},
)

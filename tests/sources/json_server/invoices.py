"""Invoices of json-server: buyers are nested, amounts are text, a page links to the next one."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import AliasPath, BeforeValidator, Field

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Endpoint, LinkHeader
from include.contracts.record import AnyText, Country, Identifier, Money, Record, Timestamp, WholeNumber, blank_to_none


class InvoiceLineRecord(Record):
    """One line of an invoice."""

    line_number: Annotated[WholeNumber, Field(ge=1, alias="pos")]
    article: Identifier
    quantity: Annotated[WholeNumber, Field(ge=1, alias="qty")]
    unit_price: Annotated[Money, Field(ge=0, alias="unitPrice")]


class InvoiceRecord(Record):
    """An invoice with its lines."""

    number: Identifier = Field(alias="invoiceNo")
    buyer: Identifier = Field(validation_alias=AliasPath("buyer", "ref"))
    country: Country | None = Field(default=None, validation_alias=AliasPath("buyer", "country"))
    gross_amount: Money = Field(alias="grossAmount")
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    issued: date
    paid_at: Timestamp | None = None
    note: Annotated[AnyText | None, BeforeValidator(blank_to_none)] = None
    updated_at: Timestamp
    lines: list[InvoiceLineRecord]


INVOICES = Contract(
    name="invoices",
    record=InvoiceRecord,
    key=("number",),
    connection="json_server",
    endpoint=Endpoint(
        "/invoices",
        LinkHeader(stable=False),  # its links count pages, which shift when an invoice is deleted
        params={"_page": 1},
        changed_since="updated_at_gte",  # compares text: right for times that are all written alike
        page_size=100,
        page_size_param="_limit",
    ),
    children={"lines": Children("invoice_lines", InvoiceLineRecord, parent=("invoice_number",), key=("line_number",))},
)

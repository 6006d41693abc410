"""DigitalOcean's invoices: the next page's URL stands in the body, and the last page has none."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from include.contracts.contract import Contract
from include.contracts.endpoint import Endpoint, NextUrl
from include.contracts.record import Money, Record


def first_of_month(value: Any) -> Any:
    """The first day of a month written `2019-12`, as ISO 8601; anything else pydantic judges."""
    return f"{value}-01" if isinstance(value, str) and len(value) == len("2019-12") else value


class DigitalOceanInvoice(Record):
    """A month's invoice, in US dollars."""

    id: UUID = Field(alias="invoice_uuid")
    month: Annotated[date, BeforeValidator(first_of_month)] = Field(alias="invoice_period")
    amount: Money
    currency: Literal["USD"] = "USD"


DIGITALOCEAN_INVOICES = Contract(
    name="do_invoices",
    record=DigitalOceanInvoice,
    key=("id",),
    version=None,
    connection="digitalocean_api",
    delta="never",
    endpoint=Endpoint(
        "/v2/customers/my/invoices",
        NextUrl("links.pages.next", absent_ends=True),
        records="invoices",
        page_size=200,
        page_size_param="per_page",
    ),
)

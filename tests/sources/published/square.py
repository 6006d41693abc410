"""Square's customers: a search by POST, whose cursor stands in the body of answer and question."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasPath, Field

from include.contracts.contract import Contract
from include.contracts.endpoint import Cursor, Endpoint
from include.contracts.record import AnyText, Country, Email, Identifier, PersonName, Record, Timestamp


def full_name(fields: dict[str, Any]) -> str:
    """Given and family name, of which a customer may lack one."""
    return " ".join(part for part in (fields["given_name"], fields["family_name"]) if part)


class SquareCustomer(Record):
    """A customer profile."""

    id: Identifier
    source: Literal["square"] = "square"
    given_name: AnyText | None = None
    family_name: AnyText | None = None
    name: PersonName = Field(default_factory=full_name, validate_default=True)
    email: Email | None = Field(default=None, alias="email_address")
    phone: AnyText | None = Field(default=None, alias="phone_number")
    street: AnyText | None = Field(default=None, validation_alias=AliasPath("address", "address_line_1"))
    city: AnyText | None = Field(default=None, validation_alias=AliasPath("address", "locality"))
    state: AnyText | None = Field(
        default=None, validation_alias=AliasPath("address", "administrative_district_level_1")
    )
    country: Country | None = Field(default=None, validation_alias=AliasPath("address", "country"))
    segments: list[AnyText] = Field(default_factory=list, alias="segment_ids")
    unsubscribed: bool | None = Field(default=None, validation_alias=AliasPath("preferences", "email_unsubscribed"))
    created_at: Timestamp
    updated_at: Timestamp


SQUARE_CUSTOMERS = Contract(
    name="square_customers",
    record=SquareCustomer,
    key=("id",),
    version="updated_at",
    history=True,
    connection="square_api",
    endpoint=Endpoint(
        "/v2/customers/search",
        Cursor("cursor", path="cursor", absent_ends=True),
        method="POST",
        params={"query.sort.field": "CREATED_AT", "query.sort.order": "ASC"},
        changed_since="query.filter.updated_at.start_at",
        records="customers?",
        page_size=100,
    ),
)

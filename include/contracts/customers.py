"""Customers: who buys. Versions that are replaced are kept, for the warehouse's slowly changing dimension."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator
from sqlalchemy import BigInteger, DateTime, Double, Numeric, Text

from include.contracts.contract import Column, Contract, Index, PublishedCheck
from include.contracts.endpoint import Endpoint
from include.contracts.record import (
    AnyText,
    Country,
    Email,
    PersonName,
    Record,
    Timestamp,
    WholeNumber,
    blank_to_none,
    none_to_list,
)
from include.transform.cleaners import clean_phone

# An address as `Email` leaves one: dot-atoms, an @-sign, two labels or more, none of them with a hyphen at an end. Of
# what is not ASCII all but blanks may stand in it. PostgreSQL's classes of letters depend on the locale: none is used.
_BEYOND_ASCII = r"\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\U0010ffff"
_ATOM = rf"[A-Za-z0-9_!#$\u0025&''*+/=?^`{{|}}~{_BEYOND_ASCII}-]+"
_ALPHANUMERIC = rf"A-Za-z0-9{_BEYOND_ASCII}"
_LABEL = rf"[{_ALPHANUMERIC}](?:[{_ALPHANUMERIC}-]{{0,61}}[{_ALPHANUMERIC}])?"
_ADDRESS = rf"^{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+$"


class CustomerRecord(Record):
    """A customer as the source sends it; see `include/contracts/record.py` for what the field types mean."""

    id: UUID
    name: PersonName = Field(alias="full_name")
    email: Email = Field(alias="email_address")
    phone: AnyText | None = None
    age: Annotated[WholeNumber, Field(ge=0, le=150)] | None = None
    tags: Annotated[list[AnyText], BeforeValidator(none_to_list)] = Field(default_factory=list)
    street: AnyText | None = None
    city: AnyText | None = None
    state: AnyText | None = None
    country: Annotated[Country | None, BeforeValidator(blank_to_none)] = None
    zip_code: AnyText | None = None
    segment: Annotated[Literal["enterprise", "smb", "consumer"] | None, BeforeValidator(blank_to_none)] = None
    signup_date: Timestamp
    updated_at: Timestamp

    @model_validator(mode="after")
    def clean_phone_by_country(self, info: ValidationInfo) -> Self:
        """A phone that does not parse for the customer's country costs the phone, not the customer."""
        if self.phone is not None:
            cleaned = clean_phone(self.phone, self.country)
            if cleaned is None and self.phone.strip() and info.context is not None:
                info.context["phone does not parse, stored as null"] += 1
            self.__dict__["phone"] = cleaned  # past pydantic's __setattr__, which takes as long as the cleaning
        return self


CUSTOMERS = Contract(
    name="customers",
    record=CustomerRecord,
    key=("id",),
    version="updated_at",
    history=True,
    endpoint=Endpoint("/customers", changed_since="modified_since"),
    enrichment=(
        Column("latitude", Double(), minimum=-90, maximum=90),
        Column("longitude", Double(), minimum=-180, maximum=180),
        Column("lifecycle_stage", Text(), choices=("new", "active", "engaged", "dormant")),
        Column("lifetime_value", Numeric(18, 4)),
        Column("total_orders", BigInteger(), minimum=0),
        Column("enriched_at", DateTime(timezone=True)),
    ),
    published_checks=(
        PublishedCheck(
            "valid_email",
            rf"""
            select id
              from app.customers
             where deleted_at is null and (email !~ '{_ADDRESS}' or strpos(email, '@') > 65)
            """,  # noqa: S608 - a pattern of our own
            expected="name@example.com: at most 64 characters before the @-sign, two labels or more after it",
            column="email",
        ),
        PublishedCheck(
            "no_duplicate_email",
            """
            select id
              from app.customers
             where deleted_at is null
               and lower(email) in (
                 select lower(email) from app.customers where deleted_at is null group by 1 having count(*) > 1
               )
            """,
            expected="no two living customers with one address, whatever its case",
            column="email",
            severity="warning",
        ),
    ),
    indexes=(Index(("email",), serves="customers that share an e-mail address; a customer looked up by address"),),
)

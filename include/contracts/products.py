"""Products: what is sold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from include.contracts.contract import Contract
from include.contracts.endpoint import Endpoint
from include.contracts.record import AnyText, Identifier, Money, Record, Timestamp


class ProductRecord(Record):
    """A product as the source sends it."""

    id: Identifier
    name: Annotated[AnyText, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    category: AnyText | None = None
    brand: AnyText | None = None
    sku: AnyText | None = None
    price: Annotated[Money, Field(ge=0)] | None = None
    updated_at: Timestamp


PRODUCTS = Contract(
    name="products",
    record=ProductRecord,
    key=("id",),
    endpoint=Endpoint("/products", changed_since="modified_since"),
)

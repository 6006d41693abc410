"""The catalogue of a django-oscar shop: products with their stock records, as its API shows them to staff.

The lists cannot be asked for changes (a parameter that they do not know they ignore), so the catalogue is read whole.
A changed stock record does not move its product's `date_updated`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Endpoint, NextUrl
from include.contracts.record import AnyText, Identifier, Money, Record, Timestamp, WholeNumber, blank_to_none


def id_of_url(value: Any) -> Any:
    """The key at the end of a hyperlink: 7 of `https://shop.example/api/admin/partners/7/`, whatever host it has."""
    last = value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else value
    return int(last) if isinstance(last, str) and last.isdecimal() else value


class StockRecord(Record):
    """What a partner has of a product, and at what price; both may be unknown."""

    partner_id: Annotated[WholeNumber, BeforeValidator(id_of_url), Field(alias="partner")]
    partner_sku: Annotated[AnyText, Field(min_length=1)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", alias="price_currency")]
    price: Annotated[Money, Field(ge=0)] | None = None
    in_stock: Annotated[WholeNumber, Field(ge=0)] | None = Field(default=None, alias="num_in_stock")
    allocated: WholeNumber | None = Field(default=None, alias="num_allocated")


class ProductRecord(Record):
    """A product: one that stands alone, a parent, or a child, which has the title and the categories of its parent."""

    id: WholeNumber
    upc: Annotated[Identifier | None, BeforeValidator(blank_to_none)] = None
    structure: Literal["standalone", "parent", "child"]
    parent_id: WholeNumber | None = Field(default=None, alias="parent")
    title: Annotated[AnyText | None, BeforeValidator(blank_to_none)] = None
    description: Annotated[AnyText | None, BeforeValidator(blank_to_none)] = None
    categories: list[AnyText] = Field(default_factory=list)
    is_public: bool
    created_at: Timestamp = Field(alias="date_created")
    updated_at: Timestamp = Field(alias="date_updated")
    stock_records: list[StockRecord] = Field(alias="stockrecords")


CATALOG = Contract(
    name="shop_products",
    record=ProductRecord,
    key=("id",),
    connection="oscar",
    endpoint=Endpoint(
        "/admin/products/",
        NextUrl("next", stable=False),  # it counts products, newest first
        records="results",
        page_size=100,
    ),
    delta="whole",
    children={
        "stock_records": Children("shop_stock", StockRecord, parent=("product_id",), key=("partner_id", "partner_sku"))
    },
)

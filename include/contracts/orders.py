"""Orders and their items. An order may name a customer that has not come yet: the quality checks look for orphans."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from include.contracts.contract import Children, Contract, Index, PublishedCheck
from include.contracts.endpoint import Endpoint
from include.contracts.record import Identifier, Money, Record, Timestamp, WholeNumber, none_to_list, none_to_zero


class OrderItemRecord(Record):
    """One line of an order; `discount` is an amount, not a rate."""

    line_number: Annotated[WholeNumber, Field(ge=1)]
    product_id: Identifier | None = None
    quantity: Annotated[WholeNumber, Field(ge=1)]
    price: Annotated[Money, Field(ge=0)]
    discount: Annotated[Money, BeforeValidator(none_to_zero), Field(ge=0)] = Decimal(0)


class OrderRecord(Record):
    """An order as the source sends it, with its items."""

    id: Identifier
    customer_id: UUID | None = None
    status: Literal["pending", "paid", "shipped", "delivered", "cancelled", "refunded"]
    total: Money
    created_at: Timestamp
    updated_at: Timestamp
    items: Annotated[list[OrderItemRecord], BeforeValidator(none_to_list)] = Field(default_factory=list)


ORDERS = Contract(
    name="orders",
    record=OrderRecord,
    key=("id",),
    endpoint=Endpoint("/orders", changed_since="modified_since"),
    children={"items": Children("order_items", OrderItemRecord, parent=("order_id",), key=("line_number",))},
    published_checks=(
        # An order without a customer is no orphan, nor is one whose customer has been deleted: that one has come.
        PublishedCheck(
            "customer_exists",
            """
            select id
              from app.orders as o
             where deleted_at is null
               and customer_id is not null
               and not exists (select from app.customers as c where c.id = o.customer_id)
            """,
            expected="a customer that has come, or none",
            column="customer_id",
            reads=("customers",),
            severity="warning",
        ),
    ),
    indexes=(
        Index(("created_at",), serves="sales of a range of days"),
        Index(("customer_id",), serves="the orders of a customer: lifetime value, orders without a customer"),
        Index(("product_id",), table="order_items", serves="the sales of a product"),
    ),
)

"""What the gate expects before a load is published: of the facts, dimensions and marts that readers would see."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from uuid import UUID

from include.quality.expectations import Suite

KEYS = {
    "wrong_facts": ("order_id",),
    "wrong_fact_keys": ("order_id",),
    "wrong_customers": ("customer_id",),
    "wrong_products": ("product_id",),
    "wrong_daily_sales": ("date",),
    "wrong_sales_by_region": ("country",),
    "wrong_sales_by_segment": ("segment",),
    "wrong_totals": (),
}
"""The tables that the step `checks` of a load makes (warehouse/checks.sql), a row for all that is wrong; their keys."""
WRONG = tuple(KEYS)


def declared(load: UUID) -> list[Suite]:
    """All that must hold before a load is published: that nothing in it is wrong, a suite a table.

    What is wrong can be read in the tables until the load is dropped.
    """
    expectations: Any = import_module("great_expectations.expectations")  # takes seconds
    return [
        Suite(
            f"warehouse_build.{name}_{load.hex}",
            (expectations.ExpectTableRowCountToEqual(value=0, meta={"name": name}),),
            key,
            name.replace("_", " "),
        )
        for name, key in KEYS.items()
    ]

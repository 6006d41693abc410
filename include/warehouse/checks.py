"""What the gate expects before a load is published: of the facts, dimensions and marts that readers would see."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from uuid import UUID

from include.quality.expectations import Suite

WRONG = (
    "wrong_facts",
    "wrong_fact_keys",
    "wrong_customers",
    "wrong_products",
    "wrong_daily_sales",
    "wrong_sales_by_region",
    "wrong_sales_by_segment",
    "wrong_totals",
)
"""The tables that the step `checks` of a load makes (warehouse/checks.sql): a row for all that is wrong."""


def declared(load: UUID) -> list[Suite]:
    """All that must hold before a load is published: that nothing in it is wrong, a suite a table.

    What is wrong can be read in the tables until the load is dropped.
    """
    expectations: Any = import_module("great_expectations.expectations")  # takes seconds
    return [
        Suite(
            f"warehouse_build.{name}_{load.hex}",
            (expectations.ExpectTableRowCountToEqual(value=0, meta={"name": name}),),
        )
        for name in WRONG
    ]

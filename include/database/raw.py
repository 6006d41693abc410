"""The tables of `raw` in `warehouse_db`: what the warehouse is built from, as replication last found it in `app`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

from include.contracts.contract import Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.database.entities import TIME, entity_tables

REPLICATED: tuple[Contract, ...] = (CUSTOMERS, ORDERS, PRODUCTS)
"""The entities that the warehouse is built from, in the order in which their publish locks are taken: by name."""
LEFT_OUT = ("fetched_at", "absent_since", "synced_at")
"""Bookkeeping of our fetches, which changes without a new `change_seq`; nor is what enrichment writes replicated."""


def raw_tables(metadata: MetaData) -> list[Table]:
    """Adds the tables of `raw` to `metadata`: for each of `REPLICATED` what `app` has, by the same names and keys.

    They hold the keys, the content, `updated_at`, `deleted_at` and `change_seq`, as far as the table in `app` has them.
    """
    tables = [
        Table(
            source.name,
            metadata,
            *(
                Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
                for column in source.columns
                if column.name not in {*LEFT_OUT, *(enriched.name for enriched in contract.enrichment)}
            ),
            schema="raw",
        )
        for contract in REPLICATED
        for source in entity_tables(contract, MetaData())
    ]
    for table in tables:
        if "change_seq" in table.columns:
            Index(None, table.c.change_seq, info={"serves": "what changed since the last load"})
    positions = Table(
        "positions",
        metadata,
        Column("entity", Text(), primary_key=True),
        Column("change_seq", BigInteger(), nullable=False, comment="the highest that was read; 0 of an empty entity"),
        Column(
            "generation",
            BigInteger(),
            nullable=False,
            comment="how often the entity was replicated whole: what was loaded of an earlier one is to be loaded anew",
        ),
        Column("replicated_at", TIME, nullable=False, comment="this database's clock"),
        schema="raw",
    )
    return [*tables, positions]

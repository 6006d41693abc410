"""A warehouse beside the `app` that it is loaded from, in one database, and loads without Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from include.database import migrate
from include.local.postgres import PostgresServer
from include.warehouse import checks, load
from include.warehouse.replication import replicate
from tests.load.syncing import at

Database = psycopg.Connection[Any]
STEPS: tuple[load.Step, ...] = ("dimensions", "facts", "marts", "checks")
MEMBERS = ("dim_customer", "dim_product", "dim_location")

CONTENT = {
    "dim_date": "select * from warehouse.dim_date",
    "dim_customer": """
        select c.customer_id::text, c.name, c.email, c.segment, c.signup_date, c.lifecycle_stage, c.valid_from,
               c.valid_to, c.is_current, c.is_inferred, c.deleted_at, l.country, l.state, l.city, l.zip_code
          from warehouse.dim_customer c
          join warehouse.dim_location l using (location_key)
    """,
    "dim_product": "select product_id, name, category, brand, sku, is_inferred from warehouse.dim_product",
    "dim_location": "select country, state, city, zip_code from warehouse.dim_location",
    "fact_sales": """
        select f.order_id, f.line_number, f.date_key, c.customer_id::text, c.valid_from, p.product_id,
               l.natural_key::text, f.quantity, f.unit_price, f.total_amount, f.discount_amount, f.net_amount,
               f.order_created_at, f.order_count
          from warehouse.fact_sales f
          join warehouse.dim_customer c using (customer_key)
          join warehouse.dim_product p using (product_key)
          join warehouse.dim_location l on l.location_key = f.location_key
    """,
    "daily_sales": "select * from warehouse.daily_sales",
    "customer_totals": """
        select c.customer_id::text, c.valid_from, t.order_count, t.total_revenue
          from warehouse.customer_totals t
          join warehouse.dim_customer c using (customer_key)
    """,
    "sales_by_region": "select * from warehouse.sales_by_region",
    "sales_by_segment": "select * from warehouse.sales_by_segment",
}
"""What the warehouse says, surrogate keys replaced by natural ones; all text, so that rows sort."""

Content = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Warehouse:
    """Connections to one database: of the syncs, and the two of replication."""

    url: str
    app: Database
    source: Database
    db: Database

    def replicate(self) -> None:
        """Brings raw to what app is; ends what a test's queries have begun."""
        self.db.commit()
        replicate(self.source, self.db, report=lambda line: None)

    def load(self, minutes: float = 100, **options: Any) -> dict[str, Any]:
        """Replicates, builds, checks and publishes as of so many minutes after the tests' epoch."""
        self.replicate()
        return self.load_raw(minutes, **options)

    def load_raw(self, minutes: float = 100, **options: Any) -> dict[str, Any]:
        """The same of what raw holds already."""
        drawn = self.built(minutes, **options)
        assert self.wrong(drawn) == []
        row = load.publish(self.db, drawn)
        load.drop(self.db, drawn)
        return row

    def built(self, minutes: float = 100, **options: Any) -> UUID:
        """All steps up to the publish."""
        drawn = load.begin(self.db, run_id=f"run-{minutes}", as_of=at(minutes), **options)
        for step in STEPS:
            load.run(self.db, step, drawn)
        return drawn

    def wrong(self, drawn: UUID) -> list[str]:
        """The gate's views that have rows."""
        found = []
        for name in checks.WRONG:
            query = sql.SQL("select exists (select from {})").format(
                sql.Identifier("warehouse_build", f"{name}_{drawn.hex}")
            )
            if self.db.execute(query).fetchone() == (True,):
                found.append(name)
        self.db.commit()
        return found

    def content(self) -> Content:
        """What the warehouse says."""
        found = {
            name: sorted(
                self.db.execute(query).fetchall(), key=lambda row: [(value is None, str(value)) for value in row]
            )
            for name, query in CONTENT.items()
        }
        facts = self.db.execute("select count(*) from warehouse.fact_sales").fetchone()
        assert facts == (len(found["fact_sales"]),), "a fact's key is no member's"
        self.db.commit()
        return found

    def empty(self) -> None:
        """Empties the warehouse, not raw; the unknown members stay."""
        for table in (
            "fact_sales",
            "daily_sales",
            "customer_totals",
            "sales_by_region",
            "sales_by_segment",
            "load_log",
            "dim_date",
        ):
            self.db.execute(f"delete from warehouse.{table}")
        for table in MEMBERS:
            self.db.execute(f"delete from warehouse.{table} where {table.removeprefix('dim_')}_key <> -1")
        self.db.commit()

    def reset(self) -> None:
        """Empties everything."""
        self.empty()
        self.db.execute(
            "truncate raw.customers, raw.customers_history, raw.products, raw.orders, raw.order_items, raw.positions"
        )
        self.db.execute("truncate app.customers, app.customers_history, app.products, app.orders, app.order_items")
        self.db.execute("truncate operations.sync_log, operations.executions, operations.dead_letters")
        self.db.commit()


@contextmanager
def warehouse(server: PostgresServer, name: str, options: str = "") -> Iterator[Warehouse]:
    """A fresh database with both sets of migrations, dropped afterwards; `options` are those of the load's session."""
    identifier = sql.Identifier(name)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template migrated").format(identifier))
    url = server.dsn(name)
    try:
        migrate.upgrade(url, "warehouse")
        with psycopg.connect(url) as app, psycopg.connect(url) as source, psycopg.connect(url, options=options) as db:
            yield Warehouse(url, app, source, db)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(identifier))


def customer_id(number: int) -> str:
    return str(UUID(int=number))


def customer(number: int, version: float = 0, **fields: Any) -> dict[str, Any]:
    """A customer as the source sends it, its version in minutes."""
    record = {
        "id": customer_id(number),
        "full_name": f"Customer {number}",
        "email_address": f"c{number}@example.com",
        "country": "US",
        "city": "Springfield",
        "segment": "smb",
        "signup_date": (datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=number)).isoformat(),
        "updated_at": at(version).isoformat(),
    }
    return record | fields


def product(number: int, version: float = 0, **fields: Any) -> dict[str, Any]:
    """A product as the source sends it."""
    return {
        "id": f"p{number}",
        "name": f"Product {number}",
        "category": "Things",
        "updated_at": at(version).isoformat(),
    } | fields


def order(
    number: int, customer: int | None, lines: int = 2, created: float = 0, version: float = 0, **fields: Any
) -> dict[str, Any]:
    """An order of products 1, 2, ... as the source sends it, its times in minutes."""
    items = [
        {"line_number": line, "product_id": f"p{line}", "quantity": line, "price": "3.3333", "discount": "0.0001"}
        for line in range(1, lines + 1)
    ]
    record = {
        "id": f"o{number}",
        "customer_id": None if customer is None else customer_id(customer),
        "status": "paid",
        "total": "10",
        "created_at": at(created).isoformat(),
        "updated_at": at(version).isoformat(),
        "items": items,
    }
    return record | fields

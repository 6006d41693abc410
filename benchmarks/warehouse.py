"""The warehouse's load against its floor, and its later loads against its first: `python -m benchmarks.warehouse`.

- the first load of 1,000,000 order items, replication included, in items a second;
- building and publishing it against one INSERT ... SELECT with the same joins into a table with fact_sales' keys and
  indexes;
- loads after 1% of the orders (of the last 30 days, then of all days) and 1% of the customers have changed, and after
  nothing has, against the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg

from include.database import migrate
from include.local.demo import table
from include.local.postgres import PostgresServer
from include.quality import gate
from include.warehouse import checks, load
from include.warehouse.replication import replicate

Database = psycopg.Connection[Any]
AS_OF = datetime(2026, 6, 1, 3, tzinfo=UTC)
DAYS = 730
ITEMS_EACH = 3
ORDERS_EACH = 4
PRODUCTS = 5_000

CUSTOMERS = """
insert into app.customers (id, name, email, tags, street, city, state, country, zip_code, segment, signup_date,
                           updated_at, fetched_at, change_seq)
select lpad(to_hex(n), 32, '0')::uuid, 'Jane Doe ' || n, 'jane' || n || '@example.com', '{{}}', n || ' Main Street',
       'City ' || n % 500, null, (array['US', 'DE', 'FR', 'JP', 'BR'])[n % 5 + 1], (n % 900)::text,
       (array['enterprise', 'smb', 'consumer', null])[n % 4 + 1],
       timestamptz '2024-01-01Z' + make_interval(mins => n * 7),
       timestamptz '2025-06-01Z', timestamptz '2026-05-31Z', nextval('app.change_seq')
  from generate_series(1, {customers}) n;

insert into app.customers_history (id, name, email, tags, street, city, state, country, zip_code, segment, signup_date,
                                   updated_at, fetched_at, change_seq)
select id, name, email, tags, street, 'Town', state, country, zip_code, segment, signup_date,
       timestamptz '2024-01-01Z', fetched_at, nextval('app.change_seq')
  from app.customers
 where ('x' || right(id::text, 6))::bit(24)::integer % 5 = 0;
"""
PRODUCTS_SQL = """
insert into app.products (id, name, category, brand, sku, price, updated_at, fetched_at, change_seq)
select 'p' || n, 'Product ' || n, 'Category ' || n % 20, 'Brand ' || n % 90, 'sku-' || n, n % 100,
       timestamptz '2025-01-01Z', timestamptz '2026-05-31Z', nextval('app.change_seq')
  from generate_series(1, {products}) n
"""
ORDERS = """
insert into app.orders (id, customer_id, status, total, created_at, updated_at, fetched_at, change_seq)
select 'o' || n, lpad(to_hex(n % {customers} + 1), 32, '0')::uuid, 'paid', 30,
       timestamptz '2026-06-01Z' - make_interval(secs => n::double precision / {orders} * {days} * 86400),
       timestamptz '2026-05-31Z', timestamptz '2026-05-31Z', nextval('app.change_seq')
  from generate_series(1, {orders}) n;

insert into app.order_items (order_id, line_number, product_id, quantity, price, discount)
select 'o' || n, line, 'p' || (n * 7 + line) % {products} + 1, n % 3 + 1, n % 100 + 0.99, n % 2
  from generate_series(1, {orders}) n
 cross join generate_series(1, {each}) line;
"""
CHANGED_ORDERS = """
with changed as (
  update app.orders
     set updated_at = updated_at + interval '1 hour', change_seq = nextval('app.change_seq')
   where id in (
     select 'o' || n from generate_series(1, {orders}) n
      where n <= {range} and (hashint4(n) & 65535) < 65536 * {share} * {orders} / {range}
   )
  returning id
)
update app.order_items set quantity = quantity + 1 where order_id in (select id from changed)
"""
CHANGED_CUSTOMERS = """
with changed as (
  select * from app.customers where ('x' || right(id::text, 6))::bit(24)::integer % 100 = {number}
),
kept as (
  insert into app.customers_history (id, name, email, tags, street, city, state, country, zip_code, segment,
                                     signup_date, updated_at, fetched_at, change_seq)
  select id, name, email, tags, street, city, state, country, zip_code, segment, signup_date, updated_at, fetched_at,
         nextval('app.change_seq')
    from changed
)
update app.customers c
   set city = 'Elsewhere', updated_at = timestamptz '2026-05-20Z' + make_interval(hours => {number}),
       change_seq = nextval('app.change_seq')
  from changed
 where changed.id = c.id
"""
FLOOR = """
insert into floor
select o.id, i.line_number, to_char(o.created_at, 'YYYYMMDD')::integer, d.customer_key, p.product_key, d.location_key,
       i.quantity, i.price, i.quantity * i.price, i.discount, i.quantity * i.price - i.discount, o.created_at,
       (i.line_number = 1)::integer
  from raw.orders o
  join raw.order_items i on i.order_id = o.id
  join warehouse.dim_customer d
    on d.customer_id = o.customer_id and o.created_at >= d.valid_from and o.created_at < d.valid_to
  join warehouse.dim_product p on p.product_id = i.product_id
 where o.deleted_at is null and o.status <> 'cancelled'
"""


PARTS = ("replicate", "build", "gate", "publish")


class Clock:
    """Seconds by what took them, printed as they are known."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        print(f"{name}: {self.seconds[name]:.2f} s", flush=True)


def loaded(database: Database, app: Database, url: str, clock: Clock, name: str, number: int) -> dict[str, Any]:
    """Replicates, builds, checks and publishes; the times are `name`: each of PARTS."""
    with clock.of(f"{name}: replicate"):
        replicate(app, database, report=lambda line: None)
    with clock.of(f"{name}: build"):
        drawn = load.begin(database, run_id=name, as_of=AS_OF + timedelta(days=number))
        for step in ("dimensions", "facts", "marts"):
            load.run(database, step, drawn)
    with clock.of(f"{name}: gate"):
        load.run(database, "checks", drawn)
        assert gate.evaluate(url, checks.declared(drawn)).critical == ()
    with clock.of(f"{name}: publish"):
        row = load.publish(database, drawn)
    load.drop(database, drawn)
    return row


def main() -> int:
    """Prints the table; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warehouse", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="order items of the first load")
    items = parser.parse_args().items
    orders = items // ITEMS_EACH
    sizes = {
        "orders": orders,
        "customers": orders // ORDERS_EACH,
        "products": PRODUCTS,
        "each": ITEMS_EACH,
        "days": DAYS,
    }
    import_module("great_expectations.expectations")  # seconds, which a task pays once whatever it checks
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        server = PostgresServer(Path(folder) / "postgres", fsync=False)
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("create database bench")
            migrate.upgrade(server.dsn("bench"))
            migrate.upgrade(server.dsn("bench"), "warehouse")
            with psycopg.connect(server.dsn("bench")) as database, psycopg.connect(server.dsn("bench")) as app:
                measure(database, app, server.dsn("bench"), clock, sizes)
        finally:
            server.stop()
    seconds = clock.seconds
    first = seconds["first: build"] + seconds["first: publish"]
    whole = sum(seconds[f"first: {part}"] for part in PARTS)
    lines = [
        ["first load: items a second", f"{whole:.2f} s", "", f"{orders * ITEMS_EACH / whole:,.0f}"],
        [
            "build and publish / INSERT ... SELECT",
            f"{first:.2f} s",
            f"{seconds['floor']:.2f} s",
            f"{first / seconds['floor']:.2f}",
        ],
    ]
    for name in ("nothing changed", "1% of the last 30 days", "1% of all days"):
        later = sum(seconds[f"{name}: {part}"] for part in PARTS)
        lines.append([f"{name} / first", f"{later:.2f} s", f"{whole:.2f} s", f"{later / whole:.1%}"])
    print("\n" + table([f"{orders * ITEMS_EACH:,} order items", "this", "that", "ratio"], lines))
    return 0


def measure(database: Database, app: Database, url: str, clock: Clock, sizes: dict[str, int]) -> None:
    """Fills app and takes the times."""
    for statement in (CUSTOMERS, PRODUCTS_SQL, ORDERS):
        app.execute(statement.format(**sizes))
    app.execute("analyze app.customers, app.customers_history, app.products, app.orders, app.order_items")
    app.commit()
    app.execute("checkpoint")
    app.commit()
    row = loaded(database, app, url, clock, "first", 0)
    assert row["facts_inserted"] == sizes["orders"] * sizes["each"], row
    database.execute("create table floor (like warehouse.fact_sales including all)")
    database.commit()
    with clock.of("floor"):
        database.execute("set local jit = off")
        database.execute("set local work_mem = '128MB'")
        database.execute(FLOOR)
        database.commit()
    found = database.execute("select count(*), sum(net_amount) from floor").fetchone()
    assert found == database.execute("select count(*), sum(net_amount) from warehouse.fact_sales").fetchone()
    database.execute("drop table floor")
    database.commit()
    row = loaded(database, app, url, clock, "nothing changed", 0)
    assert (row["facts_inserted"], row["facts_updated"], row["facts_deleted"]) == (0, 0, 0), row
    recent = sizes["orders"] * 30 // sizes["days"]
    for number, (name, reach) in enumerate(
        (("1% of the last 30 days", recent), ("1% of all days", sizes["orders"])), 1
    ):
        app.execute(CHANGED_ORDERS.format(share=0.01, range=reach, **sizes))
        app.execute(CHANGED_CUSTOMERS.format(number=number))
        app.commit()
        row = loaded(database, app, url, clock, name, number)
        changed = sizes["orders"] // 100
        assert changed * 0.9 < row["orders_affected"] < changed * 1.1, row


if __name__ == "__main__":
    sys.exit(main())

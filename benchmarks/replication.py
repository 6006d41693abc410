"""Replication against psql's pipe, and what a delta costs, in one run: `python -m benchmarks.replication`.

- the first replication of 1,000,000 order items (their 400,000 orders, 100,000 customers with some history, 5,000
  products), compared and analyzed, against `psql COPY ... TO STDOUT | psql COPY ... FROM STDIN` of the same columns
  into the same tables, which compares nothing;
- a replication after 1% of the orders changed, and one after nothing did.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import MetaData, Table, create_engine, make_url

from include.database import migrate
from include.database.raw import raw_tables
from include.local.demo import table
from include.local.postgres import PostgresServer, binaries
from include.warehouse.replication import Replicated, replicate

Database = psycopg.Connection[Any]
ITEMS = 1_000_000
RAW = {made.name: made for made in raw_tables(MetaData())}
COPIED: list[Table] = [made for made in RAW.values() if made.name != "positions"]

FILL = """
insert into app.customers (
  id, name, email, phone, age, tags, street, city, state, country, zip_code, segment, signup_date,
  updated_at, fetched_at, change_seq
)
select lpad(to_hex(n), 32, '0')::uuid, 'Jane Doe ' || n, 'jane' || n || '@example.com', '+14155550132', n % 90,
       array['a', 'b'], n || ' Main Street', 'Springfield', 'IL', 'US', '62701', 'smb', timestamptz '2025-01-01Z',
       timestamptz '2026-04-01Z', timestamptz '2026-04-30Z', nextval('app.change_seq')
  from generate_series(1, {items} / 10) n;

insert into app.customers_history (
  id, name, email, phone, age, tags, street, city, state, country, zip_code, segment, signup_date,
  updated_at, fetched_at, change_seq
)
select id, 'Jane Roe', email, phone, age, tags, street, city, state, country, zip_code, segment, signup_date,
       updated_at - interval '9 days', fetched_at, nextval('app.change_seq')
  from app.customers
 where age < 30;

insert into app.products (id, name, category, brand, sku, price, updated_at, fetched_at, change_seq)
select 'p' || n, 'Product ' || n, 'Category', 'Brand', 'sku-' || n, n % 100, timestamptz '2026-04-01Z',
       timestamptz '2026-04-30Z', nextval('app.change_seq')
  from generate_series(0, 4999) n;

insert into app.orders (id, customer_id, status, total, created_at, updated_at, fetched_at, change_seq)
select 'o' || n, lpad(to_hex(n % ({items} / 10) + 1), 32, '0')::uuid, 'paid', n % 1000,
       timestamptz '2026-04-01Z' - n * interval '1 minute', timestamptz '2026-04-01Z', timestamptz '2026-04-30Z',
       nextval('app.change_seq')
  from generate_series(1, {items} * 2 / 5) n;

insert into app.order_items (order_id, line_number, product_id, quantity, price, discount)
select 'o' || n, line, 'p' || (n * 7 + line) % 5000, line, n % 100 + 0.99, 0
  from generate_series(1, {items} * 2 / 5) n, generate_series(1, 2 + n % 2) line;
"""
CHANGE = """
update app.orders
   set status = 'shipped', updated_at = updated_at + interval '1 hour', change_seq = nextval('app.change_seq')
 where substr(id, 2)::int %% 100 = %s
"""


def emptied(warehouse: Database) -> None:
    """An empty `raw`, and nothing left to write from the round before."""
    warehouse.execute(f"truncate {', '.join(f'raw.{name}' for name in RAW)}")
    warehouse.commit()
    warehouse.execute("checkpoint")
    warehouse.commit()


def by_psql(app_dsn: str, warehouse_dsn: str) -> None:
    """Copies each table by a pipe of two psql."""
    psql = str(binaries() / "psql")
    for made in COPIED:
        columns = ", ".join(made.columns.keys())
        read = f"copy (select {columns} from app.{made.name}) to stdout (format binary)"
        write = f"copy raw.{made.name} ({columns}) from stdin (format binary)"
        with subprocess.Popen([psql, "-q", app_dsn, "-c", read], stdout=subprocess.PIPE) as reading:
            subprocess.run([psql, "-q", warehouse_dsn, "-c", write], stdin=reading.stdout, check=True)
        assert reading.returncode == 0


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    """Prints the table; 1 where the first replication takes more than 1.5 times psql's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS, help="order items")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        server = PostgresServer(Path(folder) / "postgres", fsync=False)
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("create database app")
                connection.execute("create database warehouse")
            migrate.upgrade(server.dsn("app"))
            engine = create_engine(make_url(server.dsn("warehouse")).set(drivername="postgresql+psycopg"))
            with engine.begin() as made:
                made.exec_driver_sql("create schema raw")
                RAW["positions"].metadata.create_all(made)
            engine.dispose()
            with psycopg.connect(server.dsn("app")) as app, psycopg.connect(server.dsn("warehouse")) as warehouse:
                lines = measured(server, app, warehouse, arguments.items, arguments.rounds)
        finally:
            server.stop()
    print("\n" + table(["copied", "this", "that", "ratio"], [line for line, _ in lines]))
    return 0 if lines[0][1] <= 1.5 else 1


def measured(
    server: PostgresServer, app: Database, warehouse: Database, items: int, rounds: int
) -> list[tuple[list[str], float]]:
    """The lines of the table, each with its ratio."""
    app.execute(FILL.format(items=items).encode())
    app.commit()
    app.autocommit = True
    app.execute("vacuum analyze")
    app.autocommit = False

    results: list[Replicated] = []
    first, floor, one_percent, nothing = [], [], [], []

    def ours() -> None:
        results.append(replicate(app, warehouse, report=lambda line: None))

    for number in range(rounds):
        emptied(warehouse)
        floor.append(timed(lambda: by_psql(server.dsn("app"), server.dsn("warehouse"))))
        emptied(warehouse)
        first.append(timed(ours))
        rows = results[-1].rows
        nothing.append(timed(ours))
        assert results[-1].rows == 0
        app.execute(CHANGE, (number,))
        app.commit()
        one_percent.append(timed(ours))
        print(
            f"round {number + 1}: psql {floor[-1]:.2f} s, first {first[-1]:.2f} s of {rows:,} rows, nothing changed "
            f"{nothing[-1]:.2f} s, 1% of orders {one_percent[-1]:.2f} s of {results[-1].rows:,} rows",
            flush=True,
        )
    whole = statistics.median(first)

    def line(name: str, this: list[float], that: list[float]) -> tuple[list[str], float]:
        ours, theirs = statistics.median(this), statistics.median(that)
        return [name, f"{ours:.2f} s", f"{theirs:.2f} s", f"{ours / theirs:.2f}"], ours / theirs

    return [
        line(f"{items:,} items, first: replicate / psql | psql", first, floor),
        line("1% of the orders changed / first", one_percent, [whole]),
        line("nothing changed / first", nothing, [whole]),
    ]


if __name__ == "__main__":
    sys.exit(main())

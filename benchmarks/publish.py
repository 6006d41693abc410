"""Publish against its floor and its peers, in one run: `python -m benchmarks.publish`.

- 200,000 staged rows, half of them updates and a tenth stale, against a bare INSERT ... ON CONFLICT from the same
  staging table (where history is kept: after an INSERT of the rows that it replaces), and against the usual way of a
  select and a write for each record;
- a delta of 1,000 changes into 2,000,000 rows against the same into 20,000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from include.contracts.contract import Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.products import PRODUCTS
from include.database import migrate
from include.database.entities import StagingNames
from include.load import staging
from include.load.publish import publish
from include.local.demo import table
from include.local.postgres import PostgresServer
from include.operations import executions
from include.transform.validation import PageValidator

Database = psycopg.Connection[Any]
FETCHED = datetime(2026, 5, 1, tzinfo=UTC)
ROWS = 200_000
CHANGES = 1_000
REPEATS = 5

# Records by their number: those below `updated` are newer than the table's, the next up to `stale` older, the rest new.
CONTENT = {
    "customers": """
        lpad(to_hex(n), 32, '0')::uuid, 'Jane Doe ' || n, 'jane' || n || '@example.com', '+14155550132', n % 90,
        array['a', 'b'], n || ' Main Street', 'Springfield', 'IL', 'US', '62701', 'smb', timestamptz '2025-01-01Z'
    """,
    "products": "'p' || n, 'Product ' || n, 'Category', 'Brand', 'sku-' || n, n % 100",
}


def fill(database: Database, contract: Contract, rows: int) -> None:
    """Puts rows 1 to `rows` into the entity's table, as of a day before."""
    database.execute(f"truncate app.{contract.name} cascade")
    database.execute(
        f"""
        insert into app.{contract.name} ({", ".join(contract.columns)}, updated_at, fetched_at, change_seq)
        select {CONTENT[contract.name]}, timestamptz '2026-04-01Z', timestamptz '2026-04-30Z', n
          from generate_series(1, {rows}) n
        """
    )
    database.execute(f"analyze app.{contract.name}")
    database.commit()


def stage(database: Database, contract: Contract, numbers: str, version: str, rows: int, number: int) -> UUID:
    """Stages the records with these numbers, by SQL; `version` is their updated_at as an expression of n."""
    run = executions.Run(contract.name, "benchmark", f"run-{time.monotonic_ns()}")
    since = FETCHED - timedelta(days=1)
    drawn = executions.begin(database, run, mode="delta", landing_uri="memory://", since=since)
    fetched_at = FETCHED + timedelta(minutes=number)
    executions.landed(database, drawn.execution, fetched_at=fetched_at, records_read=rows)
    staging.create(database, contract, drawn.execution, fetched_at)
    database.execute(
        f"""
        insert into staging.{StagingNames(contract, drawn.execution).records}
               (page, position, {", ".join(contract.columns)}, updated_at)
        select 1, n, {CONTENT[contract.name]}, {version} from {numbers} n
        """
    )
    database.commit()
    return drawn.execution


def timed(work: Callable[[], object], database: Database) -> float:
    """Seconds from the first statement to the commit."""
    started = time.perf_counter()
    work()
    database.commit()
    return time.perf_counter() - started


def half_updates(database: Database, contract: Contract) -> UUID:
    """Half updates, a tenth stale, the rest new."""
    known = ROWS * 6 // 10
    fill(database, contract, known)
    version = f"case when n <= {ROWS // 2} then timestamptz '2026-04-15Z' else timestamptz '2026-03-15Z' end"
    execution = stage(database, contract, f"generate_series(1, {ROWS})", version, ROWS, 0)
    database.execute("checkpoint")
    return execution


def ours(database: Database, contract: Contract) -> float:
    execution = half_updates(database, contract)
    row: dict[str, Any] = {}
    seconds = timed(
        lambda: row.update(publish(database, contract, execution, mode="delta", max_deleted_share=0.2)), database
    )
    assert (row["inserted"], row["updated"], row["stale"]) == (ROWS * 4 // 10, ROWS // 2, ROWS // 10)
    staging.drop(database, execution)
    if contract.history:
        database.execute(f"truncate app.{contract.name}_history")
    return seconds


def bare_upsert(database: Database, contract: Contract) -> float:
    execution = half_updates(database, contract)
    names = StagingNames(contract, execution)
    columns = ", ".join(contract.columns)
    changed = ", ".join(f"{name} = excluded.{name}" for name in (*contract.content, "updated_at", "fetched_at"))
    statement = f"""
        insert into app.{contract.name} ({columns}, updated_at, fetched_at, change_seq)
        select {columns}, updated_at, fetched_at, 1 from staging.{names.records}
        on conflict ({", ".join(contract.key)}) do update set {changed}
    """
    if contract.history:
        statement = f"""
            insert into app.{contract.name}_history ({columns}, updated_at, fetched_at, change_seq)
            select {columns}, updated_at, fetched_at, 1 from app.{contract.name} t
             where exists (select from staging.{names.records} s where s.id = t.id and s.updated_at > t.updated_at);
            {statement}
        """
    database.execute(f"analyze staging.{names.records}")
    seconds = timed(lambda: database.execute(statement), database)
    staging.drop(database, execution)
    if contract.history:
        database.execute(f"truncate app.{contract.name}_history")
    return seconds


def row_by_row(database: Database, contract: Contract, rows: int) -> float:
    """The usual way: look each record up, then insert or update it, committing each. Seconds for ROWS at its rate."""
    execution = half_updates(database, contract)
    names = StagingNames(contract, execution)
    columns = [*contract.columns, "updated_at", "fetched_at"]
    records = database.execute(
        f"select {', '.join(columns)} from staging.{names.records} where position % {ROWS // rows} = 0"
    ).fetchall()
    database.commit()
    database.autocommit = True
    values = ", ".join(["%s"] * len(columns))
    assignments = ", ".join(f"{name} = %s" for name in columns[1:])
    started = time.perf_counter()
    for record in records:
        known = database.execute(f"select updated_at from app.{contract.name} where id = %s", record[:1]).fetchone()
        if known is None:
            database.execute(
                f"insert into app.{contract.name} ({', '.join(columns)}, change_seq) values ({values}, 1)", record
            )
        elif known[0] < record[-2]:
            database.execute(f"update app.{contract.name} set {assignments} where id = %s", (*record[1:], record[0]))
    seconds = time.perf_counter() - started
    database.autocommit = False
    staging.drop(database, execution)
    database.commit()
    return seconds * ROWS / len(records)


def delta(database: Database, rows: int) -> float:
    """The median of some deltas of CHANGES customers, spread over a table of so many rows: staging and publish."""
    fill(database, CUSTOMERS, rows)
    database.autocommit = True
    database.execute("vacuum analyze app.customers")
    database.autocommit = False
    since = FETCHED - timedelta(days=1)
    seconds = []
    for number in range(REPEATS):
        changed = range(number + 1, rows + 1, rows // CHANGES)
        body = json.dumps([customer(n, FETCHED - timedelta(hours=1)) for n in changed]).encode()
        fetched_at = FETCHED + timedelta(minutes=number)

        def work(body: bytes = body, fetched_at: datetime = fetched_at) -> None:
            run = executions.Run("customers", "benchmark", f"run-{time.monotonic_ns()}")
            drawn = executions.begin(database, run, mode="delta", landing_uri="memory://", since=since).execution
            executions.landed(database, drawn, fetched_at=fetched_at, records_read=CHANGES)
            staging.create(database, CUSTOMERS, drawn, fetched_at)
            validator = PageValidator(CUSTOMERS, fetched_at)
            staging.stage_batch(database, validator, drawn, [(1, CHANGES)], lambda _: body, "memory://", print)
            row = publish(database, CUSTOMERS, drawn, mode="delta", max_deleted_share=0.2)
            assert row["updated"] == CHANGES
            staging.drop(database, drawn)

        seconds.append(timed(work, database))
    return statistics.median(seconds)


def customer(number: int, updated_at: datetime) -> dict[str, Any]:
    """A customer as a source sends it, with the key that `fill` gave it."""
    return {
        "id": str(UUID(int=number)),
        "full_name": f"John Roe {number}",
        "email_address": f"john{number}@example.com",
        "phone": "+14155550132",
        "country": "US",
        "signup_date": "2025-01-01T00:00:00Z",
        "updated_at": updated_at.isoformat(),
    }


def main() -> int:
    """Prints the table; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("--large", type=int, default=2_000_000, help="rows of the large table of the deltas")
    arguments = parser.parse_args()
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        server = PostgresServer(Path(folder) / "postgres", fsync=False)
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("create database bench")
            migrate.upgrade(server.dsn("bench"))
            with psycopg.connect(server.dsn("bench")) as database:
                for contract in (PRODUCTS, CUSTOMERS):
                    name = f"{contract.name}{' (keeps history)' if contract.history else ''}"
                    floor = statistics.median(bare_upsert(database, contract) for _ in range(3))
                    print(f"{name}: INSERT ... ON CONFLICT {floor:.2f} s", flush=True)
                    own = statistics.median(ours(database, contract) for _ in range(3))
                    print(f"{name}: publish {own:.2f} s", flush=True)
                    naive = row_by_row(database, contract, 4000)
                    print(f"{name}: row by row {naive:.2f} s", flush=True)
                    lines += [
                        [f"{name}: publish / ON CONFLICT", f"{own:.2f} s", f"{floor:.2f} s", f"{own / floor:.2f}"],
                        [f"{name}: row by row / publish", f"{naive:.2f} s", f"{own:.2f} s", f"{naive / own:.1f}"],
                    ]
                small = delta(database, 20_000)
                print(f"delta into 20,000 rows: {small:.3f} s", flush=True)
                large = delta(database, arguments.large)
                lines.append(
                    [
                        f"delta of {CHANGES:,} into {arguments.large:,} / into 20,000",
                        f"{large:.3f} s",
                        f"{small:.3f} s",
                        f"{large / small:.2f}",
                    ]
                )
        finally:
            server.stop()
    print("\n" + table([f"{ROWS:,} rows, half updates, a tenth stale", "this", "that", "ratio"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

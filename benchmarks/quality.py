"""Quality checks against a limit and against bare SQL, in one run: `python -m benchmarks.quality`.

- the gate's checks of 200,000 staged customers, against a second; what importing Great Expectations takes is measured
  apart, in a process of its own;
- the suite "customers" of 1,000,000 published rows, against the same questions in plain SQL: one aggregate for all
  rules of the fields, and a count of the failing rows of every other check.

Exits 1 where a limit is passed.
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

from benchmarks.publish import Database, fill, stage
from include.contracts.customers import CUSTOMERS
from include.database import migrate
from include.load import staging
from include.local.demo import table
from include.local.postgres import PostgresServer
from include.operations import executions
from include.quality import gate, suites

STAGED = 200_000
PUBLISHED = 1_000_000
REPEATS = 5
GATE_SECONDS = 1.0
MOST_TIMES_BARE = 3.0


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def importing() -> float:
    """Seconds that a fresh process takes to import Great Expectations, less what it takes to start."""

    def run(program: str) -> float:
        return statistics.median(
            seconds(lambda: subprocess.run([sys.executable, "-c", program], check=True, capture_output=True))
            for _ in range(3)
        )

    return run("import great_expectations, great_expectations.expectations") - run("pass")


def gated(database: Database, url: str) -> float:
    """The median of the gate's checks of STAGED customers, all of them good."""
    drawn = stage(database, CUSTOMERS, f"generate_series(1, {STAGED})", "timestamptz '2026-04-15Z'", STAGED, 0)
    execution = executions.get(database, drawn)
    database.commit()
    found = []
    for _ in range(REPEATS):
        result: list[gate.GateResult] = []
        found.append(
            seconds(lambda kept=result: kept.append(gate.run(url, CUSTOMERS, execution, max_quarantined_share=0.05)))
        )
        assert not result[0].critical
    staging.drop(database, drawn)
    database.commit()
    return statistics.median(found)


def bare(database: Database) -> None:
    """The questions of the suite "customers" in plain SQL; fails where there is an answer that it would not pass."""
    broken = ["count(*) filter (where updated_at is null)"]
    for spec in (*CUSTOMERS.fields, *CUSTOMERS.enriched):
        if not spec.nullable:
            broken.append(f"count(*) filter (where {spec.name} is null)")
        rules = " and ".join(predicate for _, predicate in spec.predicates)
        if rules:
            broken.append(f"count(*) filter (where not ({rules}))")
        if spec.nullable:
            broken.append(f"(count({spec.name}) = 0)::integer")
    queries = [
        f"select {' + '.join(broken)} + (count(*) < 1)::integer from app.customers where deleted_at is null",
        "select count(*) from (select id from app.customers group by id having count(*) > 1) as twice",
        "select count(*) from app.customers where fetched_at > now() + interval '1 day' or deleted_at < fetched_at "
        "or absent_since < fetched_at",
        *(f"select count(*) from ({check.failing}) as failing" for check in CUSTOMERS.published_checks),
    ]
    for query in queries:
        assert database.execute(query.encode()).fetchone() == (0,), query
    database.commit()


def compared(database: Database, url: str, rows: int) -> tuple[float, float]:
    """The medians of the suite and of bare SQL, turn by turn."""
    fill(database, CUSTOMERS, rows)
    database.execute(
        """
        update app.customers
           set latitude = 52.5, longitude = 13.4, lifecycle_stage = 'active', lifetime_value = 10, total_orders = 1,
               enriched_at = now()
        """
    )
    database.commit()
    database.autocommit = True
    database.execute("vacuum analyze app.customers")
    database.autocommit = False
    own: list[float] = []
    plain: list[float] = []
    for _ in range(REPEATS):
        plain.append(seconds(lambda: bare(database)))
        result: list[gate.GateResult] = []
        own.append(
            seconds(lambda kept=result: kept.append(suites.evaluate("customers", app_url=url, warehouse_url=url)))
        )
        assert not result[0].critical, result[0].summary()
    return statistics.median(own), statistics.median(plain)


def main() -> int:
    """Prints the table; 1 beyond a limit, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--rows", type=int, default=PUBLISHED, help="published customers")
    arguments = parser.parse_args()
    imported = importing()
    __import__("great_expectations.expectations")
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        server = PostgresServer(Path(folder) / "postgres", fsync=False)
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("create database bench")
            url = server.dsn("bench")
            migrate.upgrade(url)
            with psycopg.connect(url) as database:
                staged = gated(database, url)
                print(f"gate: {staged:.2f} s", flush=True)
                own, plain = compared(database, url, arguments.rows)
        finally:
            server.stop()
    ratio = own / plain
    lines: list[list[Any]] = [
        ["importing Great Expectations", f"{imported:.2f} s", "", "", ""],
        [f"gate of {STAGED:,} customers / a second", f"{staged:.2f} s", "1.00 s", f"{staged:.2f}", f"{GATE_SECONDS:g}"],
        [
            f"customers of {arguments.rows:,} / bare SQL",
            f"{own:.2f} s",
            f"{plain:.2f} s",
            f"{ratio:.2f}",
            f"{MOST_TIMES_BARE:g}",
        ],
    ]
    print("\n" + table(["quality checks", "this", "that", "ratio", "limit"], lines))
    return int(staged > GATE_SECONDS or ratio > MOST_TIMES_BARE)


if __name__ == "__main__":
    sys.exit(main())

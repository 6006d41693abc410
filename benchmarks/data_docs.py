"""Data Docs after many evaluations: `python -m benchmarks.data_docs`.

A page of 40 expectations, its results and the index, after the 500th evaluation of a pipeline against after the 5th.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import psycopg

from include.database import migrate
from include.local.demo import table
from include.local.postgres import PostgresServer
from include.operations import quality_results
from include.quality import data_docs, gate
from include.quality.expectations import Suite
from include.quality.gate import GateResult

CHECKS = 40
MEASURED = 5
FEW, MANY = 5, 500
ALLOWED = 2.0


def evaluated(uri: str) -> GateResult:
    """What the gate says of a table of 40 columns."""
    import great_expectations.expectations as gx

    columns = [f"c{n}" for n in range(CHECKS)]
    with psycopg.connect(uri) as database:
        database.execute(f"create table app.wide ({', '.join(f'{column} int' for column in columns)})")
        database.execute(
            f"insert into app.wide ({', '.join(columns[:-2])}) values ({', '.join('1' for _ in columns[:-2])})"
        )
    expectations = tuple(gx.ExpectColumnValuesToNotBeNull(column=column) for column in columns)
    return gate.evaluate(uri, [Suite("app.wide", expectations)])


def main() -> int:
    """Prints the times and their ratio; 1 where it is above what is allowed."""
    with tempfile.TemporaryDirectory() as scratch:
        server = PostgresServer(Path(scratch) / "postgres", fsync=False)
        server.start()
        try:
            migrate.upgrade(server.dsn())
            seconds = measured(server.dsn(), Path(scratch) / "data_docs")
        finally:
            server.stop()
    few, many = (statistics.median(seconds[last - MEASURED : last]) for last in (FEW, MANY))
    print(
        table(
            ["page and index", "milliseconds"],
            [
                [f"after evaluation {FEW}", f"{few * 1000:.0f}"],
                [f"after evaluation {MANY}", f"{many * 1000:.0f}"],
                [f"ratio (at most {ALLOWED:.1f})", f"{many / few:.2f}"],
            ],
        )
    )
    return int(many / few > ALLOWED)


def measured(uri: str, folder: Path) -> list[float]:
    """The seconds that the page and the index of each evaluation took; the first one's imports are not among them."""
    result = evaluated(uri)
    seconds = []
    with psycopg.connect(uri) as connection:
        for number in range(MANY + 1):
            evaluation = UUID(int=number)
            of = {"pipeline": "quality_checks", "run_id": f"run {number}", "task_id": "evaluate", "suite": "wide"}
            quality_results.record(connection, evaluation=evaluation, results=result.results, **of)
            connection.commit()
            started = time.perf_counter()
            data_docs.write_page(folder, evaluation=evaluation, result=result, **of)
            data_docs.write_index(folder, connection, "quality_checks")
            seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    sys.exit(main())

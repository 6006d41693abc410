"""`make demo`: the stack, the migrations, every pipeline through `airflow dags test`, and a table of what each did."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import psycopg
import requests
from psycopg.rows import dict_row

from include.database import migrate
from include.local.processes import StackError, log_tail
from include.local.stack import REPOSITORY, Stack

PIPELINES: dict[str, dict[str, Any]] = {
    "daily_sync": {},
    "delta_sync": {},
    "customer_enrichment": {},
    "warehouse_load": {},
    "quality_checks": {},
    "replay_dead_letters": {"dry_run": True},
    "housekeeping": {},
    "send_alerts": {},
}
"""The pipelines in their order, with the params of each."""
CHANGES = {"change": 200, "add": 50, "delete": 20}
"""What happens at the source, to each entity, between the full sync and the delta sync."""
COUNTS = ("records_read", "inserted", "updated", "unchanged", "stale", "duplicate", "quarantined", "deleted")
STEP = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\S+) map_index=(?P<index>-?\d+)")
PROGRESS = re.compile(r"\[(?:info|warning|error) *\] (?P<text>[a-z_]+: .*?) *\[(?:airflow\.task\.operators\.)?sluice\.")
REASONS = 5

logger = logging.getLogger(__name__)


def main() -> int:
    """Runs the demo; 0 if every pipeline succeeded."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    started = time.monotonic()
    stack = Stack(Path(os.environ.get("SLUICE_LOCAL") or REPOSITORY / ".local"), durable=True)
    try:
        stack.up()
        migrate.upgrade_all(stack.dsn())
        stack.prepare_metadata()
        with psycopg.connect(stack.dsn()) as connection:
            before = connection.execute(
                "select coalesce(max(id), 0), clock_timestamp() from operations.sync_log"
            ).fetchone()
        failed = []
        for pipeline, params in PIPELINES.items():
            if pipeline == "delta_sync":
                change_source(stack)
            if not run(stack, pipeline, params):
                failed.append(pipeline)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    assert before is not None  # noqa: S101 - of an aggregate
    with psycopg.connect(stack.dsn()) as connection:
        print(
            f"\n{report(connection, after=before[0])}\n\n{marts(connection)}\n\n{checks(connection, since=before[1])}\n"
        )
    print(WHERE_TO_LOOK.format(root=stack.root, slack=slack(stack), seconds=time.monotonic() - started))
    for pipeline in failed:
        print(f"{pipeline} failed: see {stack.root}/logs/demo_{pipeline}.log", file=sys.stderr)
    return 1 if failed else 0


def change_source(stack: Stack) -> None:
    """Lets a minute pass at the demo API, in which records change, come and go."""
    environ = {**os.environ, **stack.environment("demo")}
    api = json.loads(environ["AIRFLOW_CONN_SOURCE_API"])
    answer = requests.post(
        f"http://{api['host']}:{api['port']}/_control/advance",
        json={"seconds": 60, **CHANGES},
        headers={"Authorization": f"Bearer {api['password']}"},
        timeout=60,
    )
    answer.raise_for_status()
    logger.info("the source: %s of each entity", ", ".join(f"{n} {verb}d" for verb, n in CHANGES.items()))


def slack(stack: Stack) -> str:
    """The page of the demo API that shows what its Slack webhook was sent."""
    api = json.loads(stack.environment("demo")["AIRFLOW_CONN_SOURCE_API"])
    return f"http://{api['host']}:{api['port']}/slack"


def run(stack: Stack, pipeline: str, params: dict[str, Any]) -> bool:
    """Runs a DAG by `airflow dags test` on the metadata database of the demo; prints its steps and its progress."""
    log = stack.root / "logs" / f"demo_{pipeline}.log"
    environ = {**os.environ, **stack.environment("demo")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    logger.info("%s: airflow dags test (the whole log is in %s)", pipeline, log)
    started = time.monotonic()
    command = [str(Path(sys.executable).parent / "airflow"), "dags", "test", pipeline, "--conf", json.dumps(params)]
    process = subprocess.Popen(  # noqa: S603 - our own program, no shell
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with log.open("w") as file, cast("IO[str]", process.stdout) as output:
        for line in output:
            file.write(line)
            if step := STEP.search(line):
                mapped = "" if step["index"] == "-1" else f" [{step['index']}]"
                logger.info("  %5.1f s  %s%s", time.monotonic() - started, step["task"], mapped)
            elif said := PROGRESS.search(line):
                logger.info("             %s", said["text"])
    succeeded = process.wait() == 0
    logger.info("%s: %s after %.1f s", pipeline, "success" if succeeded else "FAILED", time.monotonic() - started)
    if not succeeded:
        logger.info("%s", log_tail(log))
    return succeeded


def report(connection: psycopg.Connection[Any], after: int) -> str:
    """What each execution did whose id is above `after`, and why records are in the dead letters, as two tables."""
    with connection.cursor(row_factory=dict_row) as cursor:
        synced = cursor.execute(
            "select * from operations.sync_log where id > %s order by mode desc, entity", (after,)
        ).fetchall()
        letters = cursor.execute(
            """
            with counted as (
              select
                entity,
                split_part(regexp_replace(split_part(error, ';', 1), '[0-9]+', 'N'), ', got ', 1) as reason,
                count(*) as letters
              from operations.dead_letters
              where status = 'pending'
              group by entity, reason
            )
            select *
              from (
                select *, row_number() over (partition by entity order by letters desc, reason) as place from counted
              ) as ranked
             where place <= %s
             order by entity, place
            """,
            (REASONS,),
        ).fetchall()
    rows = [[f"{row['entity']} ({row['mode']})", *(f"{row[name]:,}" for name in COUNTS)] for row in synced]
    reasons = [[row["entity"], f"{row['letters']:,}", row["reason"][:80]] for row in letters]
    return "\n\n".join(
        [
            table(["published", *COUNTS], rows),
            table(["dead letters", "records", f"the {REASONS} most frequent reasons"], reasons, left={0, 2}),
        ]
    )


MARTS = {
    "daily_sales": "select * from warehouse.daily_sales order by date desc limit 3",
    "sales_by_region": "select * from warehouse.sales_by_region order by total_revenue desc limit 3",
    "sales_by_segment": "select * from warehouse.sales_by_segment order by total_revenue desc limit 4",
}


def marts(connection: psycopg.Connection[Any]) -> str:
    """The first rows of each mart, as tables."""
    tables = []
    for mart, query in MARTS.items():
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query).fetchall()
        columns = list(rows[0])[1:] if rows else []
        first = next(iter(rows[0])) if rows else ""
        cells = [[str(row[first]), *(f"{row[name]:,.2f}".removesuffix(".00") for name in columns)] for row in rows]
        tables.append(table([f"{mart} ({first})", *columns], cells))
    return "\n\n".join(tables)


def checks(connection: psycopg.Connection[Any], since: datetime) -> str:
    """What each suite of `quality_checks` came to since then, and what was told in Slack, as two tables."""
    suites = connection.execute(
        """
        select
          suite,
          count(*),
          count(*) filter (where success),
          count(*) filter (where not success and severity = 'warning'),
          count(*) filter (where not success and severity = 'critical'),
          coalesce(string_agg(expectation || ': ' || observed, '; ') filter (where not success), '')
          from operations.quality_results
         where pipeline = 'quality_checks' and checked_at > %s
         group by suite
         order by suite
        """,
        (since,),
    ).fetchall()
    told = connection.execute(
        """
        select pipeline, kind, status, payload ->> 'text'
          from operations.messages
         where created_at > %s and status <> 'folded'
         order by id
        """,
        (since,),
    ).fetchall()
    header = ["quality_checks", "expectations", "met", "warnings", "critical", "what was not met"]
    return "\n\n".join(
        [
            table(header, [[suite, *map(str, counts), failed[:100]] for suite, *counts, failed in suites], left={0, 5}),
            table(
                ["message of", "kind", "status", "text"], [[*row[:3], row[3][:100]] for row in told], left={0, 1, 2, 3}
            ),
        ]
    )


def table(header: list[str], rows: list[list[str]], left: set[int] | None = None) -> str:
    """Columns aligned to their widest cell: to the left those in `left` (the first unless said), the others right."""
    left = {0} if left is None else left
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        aligned = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


WHERE_TO_LOOK = """\
Done in {seconds:.0f} s. The stack is still running (make down stops it). Where to look:
  make psql         the data: app.customers, operations.sync_log, warehouse.fact_sales, warehouse.daily_sales ...
  make up           the whole of Airflow, with its UI: the graph, the logs, the trigger form, the Data Docs
  {slack}    what was told in Slack, as Slack would show it
  {root}/landing    what the API sent, page by page, as received
  eval "$(make -s env)"   then any `airflow ...` command works against this stack"""


if __name__ == "__main__":
    sys.exit(main())

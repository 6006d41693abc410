"""How fast `daily_sync` brings customers into an empty table, against the floor that its parts set.

`python -m benchmarks.daily_sync` runs the DAG by `airflow dags test` on a stack of its own (`.local/bench`, durable, as
`make demo` has it) and prints a table for each number of rows. The demo API has made its pages beforehand.

The floor is what nobody gets below who asks for these pages and stores these rows, measured in the same run: the pages
drained by a bare `requests.Session`, the rows copied from ready tuples into an unlogged table, and from there into an
empty table with the keys, constraints and indexes of `app.customers`. In it nothing is parsed, cleaned, validated or
checked.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from uuid import uuid4

import psutil
import psycopg
import requests
from psycopg import sql
from psycopg.rows import dict_row

from include.contracts.customers import CUSTOMERS
from include.database import migrate
from include.extract.landing import Landing, batches
from include.load import staging
from include.local.demo import PROGRESS, table
from include.local.processes import HOST, StackError, log_tail
from include.local.stack import REPOSITORY, Stack
from include.transform.validation import PageValidator

ROWS = (200_000, 1_000_000)
QUICK_ROWS = (50_000,)
TARGETS = {200_000: 15_000, 1_000_000: 25_000}
"""Rows a second from the first request to the commit, on two cores, for so many rows."""

STEPS = ("extract", "stage", "gate", "publish")
ONE_BATCH = 100_000
IMPORT_GREAT_EXPECTATIONS = """
import time
import sluice.sync  # what a task has imported before it reaches the gate
started = time.perf_counter()
import great_expectations.expectations
print(time.perf_counter() - started)
"""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Sync:
    """A run of the DAG. All times are seconds within the first request and the commit."""

    landing: Path
    fetched_at: datetime
    counts: dict[str, int]
    seconds: float
    steps: dict[str, float]
    whole_command: float
    load: float
    """The machine's, over the run's last minute: above the number of processors, the seconds are others' too."""


@dataclass(frozen=True)
class Drained:
    """The pages by a bare client: seconds by the clock, and of the demo API's processor time."""

    seconds: float
    server_seconds: float
    size: int


@dataclass(frozen=True)
class Stored:
    """The rows without a sync: seconds of COPY and of INSERT ... SELECT, each with its commit."""

    rows: int
    copy: float
    insert: float


@dataclass(frozen=True)
class Staged:
    """The stage task's work in a process of its own: `peak` in bytes, resident, with the interpreter."""

    records: int
    seconds: float
    peak: int


def main() -> int:
    """Runs the benchmark; 0 if it came to its end, whatever the numbers say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.daily_sync", description="Speed of daily_sync.")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="how many customers (200000 1000000)")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK_ROWS[0]:,}")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)

    stack = Stack(REPOSITORY / ".local" / "bench", durable=True)
    try:
        tables = [measure(stack, rows) for rows in (QUICK_ROWS if arguments.quick else arguments.rows)]
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        stack.down()
    shutil.rmtree(stack.root)
    print("\n\n".join(["", machine(), *tables]))
    return 0


def measure(stack: Stack, rows: int) -> str:
    """Everything for one number of rows, as a table."""
    logger.info("%s customers, on a fresh stack", f"{rows:,}")
    os.environ |= {"SLUICE_DEMO_CUSTOMERS": str(rows), "SLUICE_DEMO_PRODUCTS": "0", "SLUICE_DEMO_ORDERS": "0"}
    stack.down()
    shutil.rmtree(stack.root)
    stack.up()
    migrate.upgrade(stack.dsn())
    stack.prepare_metadata()
    api = json.loads(stack.environment("demo")["AIRFLOW_CONN_SOURCE_API"])
    url, token = f"http://{HOST}:{api['port']}", api["password"]
    logger.info("the demo API makes its pages")
    warm(url, token)

    first = sync(stack)
    second = sync(stack)
    importing = import_seconds(stack)
    logger.info("the floor: drain, copy, insert")
    server = stack.services()["demo_api"].pid
    drained = apart(drain, f"{url}{CUSTOMERS.endpoint.path}?limit={CUSTOMERS.endpoint.page_size}", token, server)
    stored = apart(store, stack.dsn(), first.landing, first.fetched_at)
    logger.info("the memory that staging takes")
    sizes = (1, None) if rows > ONE_BATCH else (None,)
    memory = [apart(stage, stack.dsn(), first.landing, first.fetched_at, most) for most in sizes]
    found = report(rows, first, second, importing, drained, stored, memory)
    logger.info("\n%s\n", found)
    return found


def warm(url: str, token: str) -> None:
    """Has the demo API make its pages, so that their making is not measured."""
    with requests.Session() as session:
        session.trust_env = False
        body = {"entity": CUSTOMERS.name, "limit": CUSTOMERS.endpoint.page_size}
        headers = {"Authorization": f"Bearer {token}"}
        session.post(f"{url}/_control/warm", json=body, headers=headers, timeout=900).raise_for_status()


def sync(stack: Stack) -> Sync:
    """Runs the DAG for customers alone. Raises StackError, with the end of the log, where it fails."""
    log = stack.root / "logs" / "daily_sync.log"
    command = [str(Path(sys.executable).parent / "airflow"), "dags", "test", "daily_sync"]
    command += ["--conf", json.dumps({"entities": [CUSTOMERS.name]})]
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=environment(stack), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with log.open("w") as file, cast("IO[str]", process.stdout) as output:
        for line in output:
            file.write(line)
            if said := PROGRESS.search(line):
                logger.info("  %s", said["text"])
    if process.wait() != 0:
        raise StackError(f"daily_sync failed. {log_tail(log)}")
    whole_command, load = time.monotonic() - started, os.getloadavg()[0]
    with psycopg.connect(stack.dsn(), row_factory=dict_row) as connection:
        row = connection.execute(
            "select s.*, e.landing from operations.sync_log s join operations.executions e using (execution)"
            " order by s.id desc limit 1"
        ).fetchone()
    assert row is not None
    began, ended = row["started_at"], row["synced_at"]
    return Sync(
        landing=Path(row["landing"].removeprefix("file://")),
        fetched_at=row["fetched_at"],
        counts={name: value for name, value in row.items() if isinstance(value, int) and value and name != "id"},
        seconds=(ended - began).total_seconds(),
        steps=steps(stack, row["run_id"], began, ended),
        whole_command=whole_command,
        load=load,
    )


def environment(stack: Stack) -> dict[str, str]:
    """That of a program that runs on the stack, with the bytecode that an installation has."""
    environ = {**os.environ, **stack.environment("demo")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return environ


def steps(stack: Stack, run_id: str, began: datetime, ended: datetime) -> dict[str, float]:
    """Seconds of each step's tasks within the two times, by Airflow's task instances, and of what lies between."""
    with psycopg.connect(stack.dsn("airflow_demo")) as connection:
        tasks = connection.execute(
            """
            select split_part(task_id, '.', 2), greatest(start_date, %s), least(end_date, %s)
              from task_instance
             where dag_id = 'daily_sync' and run_id = %s and split_part(task_id, '.', 1) = %s
            """,
            (began, ended, run_id, CUSTOMERS.name),
        ).fetchall()
    spent = {step: sum((last - first).total_seconds() for name, first, last in tasks if name == step) for step in STEPS}
    return spent | {"between tasks": (ended - began).total_seconds() - sum(spent.values())}


def import_seconds(stack: Stack) -> float:
    """Seconds that the gate takes to import Great Expectations into a process that has what a task has."""
    command = [sys.executable, "-c", IMPORT_GREAT_EXPECTATIONS]
    said = subprocess.run(command, env=environment(stack), capture_output=True, text=True, check=True).stdout
    return float(said.split()[-1])


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Calls the function in a fresh process: what one measurement leaves in memory must not weigh on the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


def drain(url: str, token: str, server: int) -> Drained:
    """Asks for page after page, by the Link header, and throws them away; `server` is the demo API's process id."""
    size = 0
    following: str | None = url
    process = psutil.Process(server)
    before, started = process.cpu_times(), time.perf_counter()
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {token}"
        while following is not None:
            response = session.get(following, timeout=60)
            response.raise_for_status()
            size += len(response.content)
            following = response.links.get("next", {}).get("url")
    seconds, after = time.perf_counter() - started, process.cpu_times()
    return Drained(seconds, after.user + after.system - before.user - before.system, size)


def store(dsn: str, folder: Path, fetched_at: datetime) -> Stored:
    """Stores the landed pages' valid records, each key once; their parsing and validation is outside the clock."""
    landing, validator = Landing(folder), PageValidator(CUSTOMERS, fetched_at)
    state = landing.load_state()
    assert state is not None
    columns = [*CUSTOMERS.columns, "updated_at"]
    types = [spec.sql_type for spec in CUSTOMERS.fields] + ["timestamptz"]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    typed = zip(map(sql.Identifier, columns), map(sql.SQL, types), strict=True)
    definitions = sql.SQL(", ").join(sql.SQL("{} {}").format(*column) for column in typed)
    seen: set[Any] = set()
    copying = 0.0
    with psycopg.connect(dsn) as connection:
        connection.execute("create schema floor")
        connection.execute("create table floor.customers (like app.customers including all)")
        connection.execute(sql.SQL("create unlogged table floor.staged ({})").format(definitions))
        for batch in batches(state):
            rows = [
                row[2:]
                for number in batch.pages
                for row in validator.page(number, landing.read_page(number).decode()).rows
                if row[2] not in seen and not seen.add(row[2])  # type: ignore[func-returns-value]  # the first of a key
            ]
            gc.disable()
            started = time.perf_counter()
            with (
                connection.cursor() as cursor,
                cursor.copy(sql.SQL("copy floor.staged ({}) from stdin (format binary)").format(names)) as copy,
            ):
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
            copying += time.perf_counter() - started
            gc.enable()
        started = time.perf_counter()
        connection.commit()
        copying += time.perf_counter() - started
        connection.execute("analyze floor.staged")
        started = time.perf_counter()
        connection.execute(
            sql.SQL(
                "insert into floor.customers ({names}, fetched_at, change_seq)"
                " select {names}, now(), 0 from floor.staged"
            ).format(names=names)
        )
        connection.commit()
        inserting = time.perf_counter() - started
        connection.execute("drop schema floor cascade")
    return Stored(len(seen), copying, inserting)


def stage(dsn: str, folder: Path, fetched_at: datetime, most: int | None) -> Staged:
    """Stages the first `most` batches of landed pages (all: None) one after the other, as the stage task does each."""
    landing, execution = Landing(folder), uuid4()
    state = landing.load_state()
    assert state is not None
    landed = {page.number: page.records for page in state.pages}
    chosen = batches(state, ONE_BATCH)[:most]
    with psycopg.connect(dsn) as connection:
        staging.create(connection, CUSTOMERS, execution, fetched_at)
        connection.commit()
        started = time.perf_counter()
        for batch in chosen:
            pages = [(number, landed[number]) for number in batch.pages]
            validator = PageValidator(CUSTOMERS, fetched_at)
            staging.stage_batch(
                connection, validator, execution, pages, landing.read_page, str(folder), lambda line: None
            )
            connection.commit()
        seconds = time.perf_counter() - started
        staging.drop(connection, execution)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Staged(sum(batch.records for batch in chosen), seconds, peak)


def report(
    rows: int,
    first: Sync,
    second: Sync,
    importing: float,
    drained: Drained,
    stored: Stored,
    memory: Sequence[Staged],
) -> str:
    """The table of one number of rows."""

    def line(name: str, seconds: float, of: float | None = None, records: int = rows) -> list[str]:
        return [name, f"{seconds:.2f}", f"{seconds / of:.0%}" if of else "", f"{records / seconds:,.0f}"]

    floor = drained.seconds + stored.copy + stored.insert
    without = first.seconds - importing
    target = TARGETS.get(rows)
    aim = f" (target {target:,})" if target else ""
    lines = [
        *(line(f"  {name}", seconds, first.seconds) for name, seconds in first.steps.items()),
        line(f"daily_sync, first request to commit{aim}", first.seconds),
        [*line("  of it importing Great Expectations", importing, first.seconds)[:3], ""],
        line("  without that import", without),
        ["  the command, with Airflow's own start", f"{first.whole_command:.2f}", "", ""],
        *(line(f"    {name}", seconds, second.seconds) for name, seconds in second.steps.items()),
        line("again, nothing changed, first request to commit", second.seconds),
        line("  drain by a bare requests.Session", drained.seconds, floor),
        line(f"  COPY {stored.rows:,} ready tuples, unlogged", stored.copy, floor, stored.rows),
        line("  INSERT ... SELECT, keys and indexes of app.customers", stored.insert, floor, stored.rows),
        line("the floor", floor),
        ["daily_sync / floor", f"{first.seconds / floor:.2f} x", "", ""],
        ["daily_sync without the import / floor", f"{without / floor:.2f} x", "", ""],
        line(f"demo API alone, processor time for {drained.size / 1e6:,.0f} MB", drained.server_seconds),
        *(
            [
                f"stage alone, {staged.records:,} rows: peak {staged.peak / 2**20:,.0f} MiB",
                f"{staged.seconds:.2f}",
                "",
                f"{staged.records / staged.seconds:,.0f}",
            ]
            for staged in memory
        ),
    ]
    counted = ", ".join(f"{name} {value:,}" for name, value in first.counts.items())
    busy = f"{os.cpu_count()} processors, load {first.load:.1f} after the first run, {second.load:.1f} after the second"
    return f"{counted}\n{busy}\n\n{table([f'{rows:,} customers', 'seconds', 'share', 'rows a second'], lines)}"


def machine() -> str:
    """What the numbers were measured on."""
    memory = psutil.virtual_memory().total / 2**30
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {memory:.0f} GiB"


if __name__ == "__main__":
    sys.exit(main())

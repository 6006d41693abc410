"""What the end-to-end tests drive: the demo API as a process of its own, runs of `daily_sync`, and the databases."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests
from psycopg.rows import dict_row

from include.contracts import CONTRACTS
from include.local.processes import HOST, Service, choose_port, spawn, stop
from include.local.stack import REPOSITORY, Stack

SIZES = {"customers": 3_000, "products": 1_200, "orders": 3_000}
PAGE = 500
PAGES = {entity: -(-size // PAGE) for entity, size in SIZES.items()}
TOKEN = "demo-token-of-the-end-to-end-tests"
NAMES = [contract.name for contract in CONTRACTS]
OPERATIONS = (
    "executions",
    "sync_log",
    "dead_letters",
    "pipeline_runs",
    "loaded_files",
    "geocodes",
    "quality_results",
    "alerts",
    "messages",
)
TABLES = ("customers", "customers_history", "products", "orders", "order_items")
OF_THE_RUN = {"fetched_at", "synced_at", "change_seq"}
"""Columns that say when a row was written, not what it says."""


class Source:
    """The demo API, its clock at the demo's epoch and running on, every page `PAGE` records."""

    slack_token = "T00000000/B00000000/of-the-end-to-end-tests"

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port = choose_port("demo_api_of_the_tests")
        self.service: Service | None = None

    def up(self) -> None:
        """Starts it, unless it runs."""
        if self.service is not None and self.service.is_running():
            return
        sizes = [option for entity, size in SIZES.items() for option in (f"--{entity}", str(size))]
        command = [sys.executable, "-m", "include.local.demo_api", "--port", str(self.port), *sizes]
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DEMO_API_TOKEN": TOKEN}
        self.service = spawn([*command, "--largest-page", str(PAGE)], self.log, environ, self.port, cwd=REPOSITORY)
        until(self._answers, "the demo API answers")

    def down(self) -> None:
        """Stops it."""
        if self.service is not None:
            stop([self.service])

    def connection(self, **other: Any) -> str:
        """The connection `source_api` as Airflow's JSON, with `other` fields in the place of its own."""
        fields = {"conn_type": "http", "schema": "http", "host": HOST, "port": self.port, "password": TOKEN}
        return json.dumps(fields | other)

    def slack_connection(self, path: str = "/slack/services") -> str:
        """The connection `slack_alerts`, to the demo API's webhook."""
        fields = {"conn_type": "slackwebhook", "host": f"http://{HOST}:{self.port}{path}", "password": self.slack_token}
        return json.dumps(fields)

    def reset(self) -> None:
        """The initial data and clock, no faults, no counted requests."""
        self.up()
        self.ask("POST", "reset")

    def advance(self, **wanted: Any) -> dict[str, Any]:
        """Moves the clock by a minute, unless `seconds` says otherwise, and changes what is wanted."""
        return self.ask("POST", "advance", {"seconds": 60} | wanted)

    def fault(self, entity: str, kind: str, **wanted: Any) -> None:
        """Asks for a fault."""
        self.ask("POST", "faults", {"entity": entity, "kind": kind} | wanted)

    def clear_faults(self) -> None:
        self.ask("DELETE", "faults")

    def expectations(self) -> dict[str, dict[str, int]]:
        """What a reader of everything should count."""
        return self.ask("GET", "expectations")

    def requests(self) -> dict[str, int]:
        """How often each path of the source was asked for since the reset."""
        asked: dict[str, int] = self.ask("GET", "requests")
        return {path: times for path, times in asked.items() if not path.startswith("/slack/")}

    def records(self, entity: str) -> list[dict[str, Any]]:
        """The first page of an entity."""
        return self._send("GET", f"/{entity}").json()

    def ask(self, method: str, control: str, body: Any = None) -> Any:
        """An endpoint of control."""
        return self._send(method, f"/_control/{control}", json=body).json()

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = f"http://{HOST}:{self.port}{path}"
            answer = session.request(method, url, headers=headers, timeout=30, **arguments)
        answer.raise_for_status()
        return answer

    def _answers(self) -> bool:
        try:
            return self._send("GET", "/health").ok
        except requests.ConnectionError:
            return False


@dataclass(frozen=True)
class Run:
    """A run that has ended: its state, what it logged, and how long it took."""

    run_id: str
    state: str
    log: str
    seconds: float


class Runner:
    """`dag_runner` on the metadata database of the demo, where no scheduler works.

    `repository` may be a copy that was changed; `more` is set in its environment.
    """

    def __init__(
        self, stack: Stack, log: Path, repository: Path = REPOSITORY, more: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self._answers, answering = os.pipe()
        own = {
            name: value.replace(str(REPOSITORY), str(repository)) for name, value in stack.environment("demo").items()
        }
        environ = {**os.environ, **own, "AIRFLOW_HOME": stack.environment("demo")["AIRFLOW_HOME"], **(more or {})}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.dag_runner", str(answering)],
                cwd=repository,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(answering,),
                text=True,
            )
        os.close(answering)

    def run(self, dag_id: str = "daily_sync", *, environ: dict[str, str] | None = None, **conf: Any) -> Run:
        """One run with these params, to its end."""
        self.begin(dag_id, environ=environ, **conf)
        return self.result()

    def begin(self, dag_id: str = "daily_sync", *, environ: dict[str, str] | None = None, **conf: Any) -> None:
        """Begins a run."""
        self._began, self._offset = time.monotonic(), self.log.stat().st_size
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"dag_id": dag_id, "conf": conf, "environ": environ or {}}) + "\n")
        self._process.stdin.flush()

    def result(self, seconds: float = 120) -> Run:
        """The run that was begun, once it has ended."""
        ready, _, _ = select.select([self._answers], [], [], seconds)
        answer = os.read(self._answers, 4096) if ready else b""
        with self.log.open("rb") as file:
            file.seek(self._offset)
            log = file.read().decode(errors="replace")
        assert answer, f"the run did not end within {seconds:.0f} s, or its process died:\n{log[-6000:]}"
        return Run(**json.loads(answer), log=log, seconds=time.monotonic() - self._began)

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait(10)
        os.close(self._answers)


class Database:
    """A database: rows as dicts, and locks that hold tasks half-way."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query."""
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def column(self, query: str, *values: Any) -> list[Any]:
        """The first column of a query."""
        return [next(iter(row.values())) for row in self.rows(query, *values)]

    def execute(self, statement: str) -> None:
        """Any statement, committed."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def holding(self, *statements: str) -> Iterator[None]:
        """Holds the locks that the statements take until the end of the context."""
        with psycopg.connect(self.dsn) as connection:
            for statement in statements:
                connection.execute(statement.encode())
            yield
            connection.rollback()

    def waiting(self) -> list[str]:
        """The statements that wait for a lock."""
        return self.column("select query from pg_stat_activity where wait_event_type = 'Lock'")


class DataDatabase(Database):
    """The database of the data."""

    def empty(self) -> None:
        """Takes all rows and all staging tables away."""
        tables = [f"app.{name}" for name in TABLES] + [f"operations.{name}" for name in OPERATIONS]

        def emptied() -> bool:
            try:
                self.execute(f"truncate {', '.join(tables)} restart identity")
            except psycopg.errors.DeadlockDetected:  # with send_alerts, where a scheduler runs: every five minutes
                return False
            return True

        until(emptied, "nobody else is at the tables")
        for name in self.staging():
            self.execute(f"drop table staging.{name}")

    def empty_warehouse(self) -> None:
        """Takes all that loads have brought away, and what loads go by."""
        self.execute(
            """
            delete from warehouse.fact_sales;
            delete from warehouse.daily_sales;
            delete from warehouse.customer_totals;
            delete from warehouse.sales_by_region;
            delete from warehouse.sales_by_segment;
            delete from warehouse.load_log;
            delete from warehouse.dim_customer where customer_key <> -1;
            truncate raw.customers, raw.customers_history, raw.orders, raw.order_items, raw.products, raw.positions
            """
        )

    def staging(self) -> list[str]:
        """The staging tables that there are."""
        return self.column("select tablename from pg_tables where schemaname = 'staging' order by 1")

    def contents(self) -> dict[str, Any]:
        """Every row of `app` and every dead letter, without what says when it was written, in a fixed order."""
        found: dict[str, Any] = {}
        for name in TABLES:
            rows = self.rows(f"select * from app.{name} order by 1, 2")
            found[name] = [{column: row[column] for column in row if column not in OF_THE_RUN} for row in rows]
        found["letters"] = self.rows(
            "select entity, record_key, stage, error, payload_raw, status from operations.dead_letters order by 1, 2, 6"
        )
        return found

    def untouched(self) -> dict[str, Any]:
        """All that a run which publishes nothing must leave alone, to the last column."""
        names = [*(f"app.{name}" for name in TABLES), "operations.sync_log", "operations.dead_letters"]
        return {name: self.rows(f"select * from {name} order by 1, 2, 3") for name in names}

    def log_of(self, run_id: str) -> dict[str, dict[str, int]]:
        """What each entity's publish counted in a run, without zeros."""
        names = ("inserted", "updated", "unchanged", "stale", "duplicate", "quarantined", "deleted")
        rows = self.rows("select * from operations.sync_log where run_id = %s order by id", run_id)
        return {row["entity"]: {name: row[name] for name in names if row[name]} for row in rows}

    def pipeline_run(self, run_id: str) -> dict[str, Any]:
        """The run's row in `operations.pipeline_runs`, once it is closed: under a scheduler soon after the end."""
        closed = "select * from operations.pipeline_runs where run_id = %s and ended_at is not null"
        (row,) = until(lambda: self.rows(closed, run_id), f"the row of {run_id} is closed", 90)
        return {name: row[name] for name in ("pipeline", "status", "records_processed", "error_message")}


def until(holds: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Waits until `holds` gives something; gives it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s in vain until {what}")


def leaks(stack: Stack, secrets: list[str]) -> list[str]:
    """Where any of the secrets stands: in a log, in XCom or in a rendered template."""
    files = [path for folder in ("logs", "airflow/logs") for path in (stack.root / folder).rglob("*") if path.is_file()]
    assert files
    found = [
        f"{path}: {line}"
        for path in files
        for line in path.read_text(errors="replace").splitlines()
        if any(secret in line for secret in secrets)
    ]
    for database in ("airflow", "airflow_demo"):
        metadata = Database(stack.dsn(database))
        for table in ("xcom", "rendered_task_instance_fields"):
            texts = metadata.column(f"select to_jsonb(t)::text from {table} t")
            found += [f"{database}.{table}: {text}" for text in texts if any(secret in text for secret in secrets)]
    return found


def secrets(stack: Stack) -> list[str]:
    """Every password and token of the stack and of the source."""
    return [TOKEN, *json.loads((stack.root / "stack.json").read_text())["secrets"].values()]


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two answers of `DataDatabase.untouched`, row by row, for a failure that can be read."""
    return [
        f"{name}: {row}"
        for name in before
        for rows, others in ((before[name], after[name]), (after[name], before[name]))
        for row in rows
        if row not in others
    ]

"""A stack of the tests' own below `.local/test/`, whose migrated databases stay from run to run."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from include.database import migrate
from include.local import airflow
from include.local.stack import REPOSITORY, Stack
from tests.e2e.running import DataDatabase, Runner, Source

ROOT = REPOSITORY / ".local" / "test"


@pytest.fixture(scope="package")
def root() -> Iterator[Stack]:
    """The stack's folder, held: two test runs at once take turns."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack = Stack(ROOT, durable=False)
        stack.down()  # what tests that were killed left behind
        for leftover in ("logs", "airflow/logs", "landing"):
            shutil.rmtree(ROOT / leftover, ignore_errors=True)
        yield stack


@pytest.fixture(scope="package")
def source(root: Stack) -> Iterator[Source]:
    """The demo API."""
    source = Source(root.root / "logs" / "demo_api.log")
    source.up()
    yield source
    source.down()


@pytest.fixture(scope="package")
def stack(root: Stack, source: Source) -> Iterator[Stack]:
    """PostgreSQL with all databases migrated; `source_api` leads to the demo API; retries come after one second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SOURCE_API", source.connection())
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        options = airflow.options

        def impatient(*arguments: Any) -> dict[str, str]:
            return options(*arguments) | {
                "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",  # which Airflow takes as one second, for each retry
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # the files stay as they are
            }

        patch.setattr(airflow, "options", impatient)
        try:
            root.up(("postgres",))
            migrate.upgrade_all(root.dsn())
            root.prepare_metadata()
            yield root
        finally:
            root.down()


@pytest.fixture(scope="package")
def runner(stack: Stack) -> Iterator[Runner]:
    """Runs DAGs without a scheduler."""
    runner = Runner(stack, stack.root / "logs" / "dag_runner.log")
    yield runner
    runner.stop()


@pytest.fixture
def data(stack: Stack, source: Source) -> DataDatabase:
    """The data's database, empty, and the source as it was at first."""
    source.reset()
    data = DataDatabase(stack.dsn())
    data.empty()
    return data

"""A stack of the tests' own below `.local/test/`, whose migrated databases stay from run to run."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.database import migrate
from include.local import airflow
from include.local.stack import REPOSITORY, Stack
from tests.e2e.running import DataDatabase, Runner, Source

ROOT = REPOSITORY / ".local" / "test"
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
BUNDLES = [
    {"name": "dags-folder", "classpath": LOCAL_BUNDLE, "kwargs": {}},
    {"name": "tests", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(REPOSITORY / "tests/e2e/dags")}},
]

PASSWORDS = {"viewer": "of-a-viewer", "stranger": "of-a-stranger"}
"""People beside the admin: one who may look at everything, and one without any permission."""


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
        patch.setenv("AIRFLOW_CONN_SLACK_ALERTS", source.slack_connection())
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        options = airflow.options

        def impatient(*arguments: Any) -> dict[str, str]:
            made = options(*arguments)
            passwords = ROOT / "passwords.json"
            admin = json.loads(Path(made["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
            passwords.write_text(json.dumps(admin | PASSWORDS))
            return made | {
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer,stranger:",
                "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",  # which Airflow takes as one second, for each retry
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLES),
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

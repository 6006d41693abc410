"""What a run's row says after its callbacks, early, late and twice, and what the alerts are told.

Airflow's answers and the alerts are stood in for; `tests/e2e/test_deaths.py` has the callbacks under a real scheduler.
"""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowTaskTimeout

from include.operations import alerts, pipeline_runs
from sluice import alerting, callbacks

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
NAME = {"pipeline": "a_sync", "run_id": "manual__1"}
DONE = {"start": "success", "customers.stage_0": "success", "orders.publish": "skipped", "finish": "success"}
KILLED = DONE | {"customers.stage_0": "failed", "customers.gate": "upstream_failed"}
SILENT = "customers.stage_0: it was killed, or marked as failed by hand"


class Airflow:
    """Its answer to what state tasks are in, and what the alerts were told."""

    def __init__(self) -> None:
        self.states: dict[str, str | None] = {}
        self.told: list[tuple[Any, ...]] = []


@pytest.fixture
def airflow(app_database: str, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    airflow = Airflow()
    monkeypatch.setenv("AIRFLOW_CONN_APP_DB", app_database)
    monkeypatch.setattr(callbacks, "task_states", lambda *_: airflow.states)
    monkeypatch.setattr(alerting, "run_ended", lambda *told: airflow.told.append(told))
    return airflow


def ended(reason: str) -> Any:
    """The least that Airflow gives a run's callback."""
    dag = DAG("a_sync", schedule=None, dagrun_timeout=timedelta(hours=2))
    return {"dag": dag, "run_id": NAME["run_id"], "reason": reason}


def of_a_task(
    exception: BaseException | None = None,
    map_index: int = -1,
    tries: int = 1,
    run_id: str = NAME["run_id"],
    **params: Any,
) -> Any:
    task = SimpleNamespace(execution_timeout=timedelta(minutes=5))
    ti = SimpleNamespace(
        dag_id="a_sync", run_id=run_id, task_id="customers.stage", map_index=map_index, try_number=tries, task=task
    )
    return {"ti": ti, "params": params} | ({"exception": exception} if exception else {})


def noted(database: Database) -> list[tuple[Any, ...]]:
    database.rollback()
    return database.execute(
        "select task_id, map_index, error_class, error, cleared_at is not null from operations.alerts order by id"
    ).fetchall()


def row(database: Database) -> tuple[Any, ...] | None:
    database.rollback()
    return database.execute(
        "select status, error_message, ended_at is not null from operations.pipeline_runs"
    ).fetchone()


@pytest.mark.parametrize(
    ("callback", "reason", "states", "status", "error"),
    [
        pytest.param("run_succeeded", "success", DONE, "success", None, id="success"),
        pytest.param("run_succeeded", "success", KILLED, "failed", SILENT, id="marked, a teardown came after it"),
        pytest.param("run_failed", "task_failure", KILLED, "failed", SILENT, id="killed"),
        pytest.param(
            "run_failed",
            "timed_out",
            DONE | {"orders.publish": "skipped"},
            "failed",
            "timed out: it did not end within 2:00:00",
            id="timed out",
        ),
        pytest.param(
            "run_failed",
            "all_tasks_deadlocked",
            DONE | {"orders.gate": None},
            "failed",
            "deadlock: orders.gate can never run",
            id="deadlock",
        ),
        pytest.param(
            "run_failed",
            "task_failure",
            DONE,
            "failed",
            "no task failed: it timed out, or was marked by hand",
            id="marked",
        ),
        pytest.param(
            "run_failed",
            "task_failure",
            {},
            "failed",
            "no task says why",
            id="Airflow cannot be asked",
        ),
    ],
)
def test_the_end_of_a_run_closes_its_row_and_is_told(
    app_db: Database,
    airflow: Airflow,
    callback: str,
    reason: str,
    states: dict[str, str | None],
    status: str,
    error: str | None,
) -> None:
    callbacks.note_start(of_a_task())
    assert row(app_db) == ("running", None, False)
    airflow.states = states
    getattr(callbacks, callback)(ended(reason))
    assert row(app_db) == (status, error, True)
    assert airflow.told == [("a_sync", "manual__1", status, states)]


@pytest.mark.parametrize("going", [None, "queued", "scheduled", "running", "up_for_retry", "deferred", "restarting"])
@pytest.mark.parametrize(("callback", "reason"), [("run_failed", "task_failure"), ("run_succeeded", "success")])
def test_a_callback_that_comes_when_its_run_was_cleared_leaves_the_row_open(
    app_db: Database, airflow: Airflow, callback: str, reason: str, going: str | None
) -> None:
    callbacks.note_start(of_a_task())
    airflow.states = KILLED | {"customers.gate": going}
    getattr(callbacks, callback)(ended(reason))
    assert row(app_db) == ("running", None, False)
    assert airflow.told == []


def test_the_first_error_of_a_task_is_the_runs_whoever_else_fails_and_whatever_comes_twice(
    app_db: Database, airflow: Airflow
) -> None:
    callbacks.note_start(of_a_task())
    callbacks.note_failure(of_a_task(ValueError("no such column: nme\nand more"), map_index=3))
    callbacks.note_failure(of_a_task(ValueError("another")))
    airflow.states = KILLED
    for _ in range(2):
        callbacks.run_failed(ended("task_failure"))
    assert row(app_db) == ("failed", "customers.stage[3]: no such column: nme", True)
    assert airflow.told == [("a_sync", "manual__1", "failed", KILLED)] * 2
    assert noted(app_db) == [
        ("customers.stage", 3, "ValueError", "ValueError: no such column: nme", False),
        ("customers.stage", -1, "ValueError", "ValueError: another", False),
    ]


@pytest.mark.parametrize(
    ("exception", "error", "kind", "told"),
    [
        (
            AirflowTaskTimeout("Timeout, PID: 4711"),
            "it took longer than its limit of 0:05:00",
            "AirflowTaskTimeout",
            "it took longer than its limit of 0:05:00",
        ),
        (
            None,
            "it was killed, or marked as failed by hand",
            "killed",
            "was killed, or marked as failed by hand",
        ),
        (ValueError("token=hunter22222"), "token=***", "ValueError", "ValueError: token=***"),
    ],
)
def test_a_tasks_error_is_a_sentence_without_secrets(
    app_db: Database, airflow: Airflow, exception: BaseException | None, error: str, kind: str, told: str
) -> None:
    callbacks.note_failure(of_a_task(exception))
    assert row(app_db) == ("running", f"customers.stage: {error}", False)
    assert noted(app_db) == [("customers.stage", -1, kind, told, False)]


def test_alerts_that_break_change_nothing(
    app_db: Database, airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ConnectionError("no Slack")

    monkeypatch.setattr(alerting, "run_ended", broken)
    airflow.states = KILLED
    callbacks.note_failure(of_a_task(ValueError("no answer")))
    callbacks.run_failed(ended("task_failure"))
    assert row(app_db) == ("failed", "customers.stage: no answer", True)
    assert [record.message for record in caplog.records if record.exc_info] == [
        "nobody was told of a_sync manual__1: send_alerts will",
    ]
    assert alerts.untold(app_db) == [("a_sync", "manual__1", "failed")]


def test_a_cleared_run_is_opened_by_whichever_task_comes_first(app_db: Database, airflow: Airflow) -> None:
    pipeline_runs.close_run(app_db, **NAME, status="failed", error="before")
    app_db.commit()
    callbacks.note_start(of_a_task())
    assert row(app_db) == ("running", None, False)


def test_a_task_that_was_not_cleared_is_still_why_the_run_fails(app_db: Database, airflow: Airflow) -> None:
    callbacks.note_start(of_a_task())
    callbacks.note_failure(of_a_task(ValueError("no such column: nme"), map_index=0))
    airflow.states = KILLED
    callbacks.run_failed(ended("task_failure"))
    callbacks.note_start(of_a_task(map_index=1, tries=2))  # another is cleared, and goes well
    callbacks.run_failed(ended("task_failure"))
    assert row(app_db) == ("failed", "customers.stage[0]: ValueError: no such column: nme", True)

    callbacks.note_start(of_a_task(map_index=0, tries=2))  # it is cleared too, and killed
    assert [line[-1] for line in noted(app_db)] == [True]
    callbacks.run_failed(ended("task_failure"))
    assert row(app_db) == ("failed", SILENT, True)


def test_a_run_closes_what_an_earlier_one_of_its_pipeline_left_open_and_says_if_it_is_dry(
    app_db: Database, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks.note_start(of_a_task(run_id="lost", dry_run=False))
    context = of_a_task(dry_run=True)
    context["ti"].get_dagrun_state = lambda dag_id, run_id: "failed"
    airflow.states = KILLED
    for _ in range(2):  # the second task of the run
        callbacks.note_start(context)
        context["ti"].get_dagrun_state = None
    app_db.rollback()
    rows = app_db.execute("select run_id, status, error_message, dry_run from operations.pipeline_runs order by id")
    assert rows.fetchall() == [
        ("lost", "failed", f"{SILENT}; no callback had come when this was found", False),
        ("manual__1", "running", None, True),
    ]
    assert alerts.untold(app_db) == [("a_sync", "lost", "failed")]

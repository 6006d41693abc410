"""From the end of a run to Slack, on a real database and a webhook that checks what it is sent.

Airflow's answers are stood in for; `tests/e2e/test_deaths.py` has them from a real scheduler.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowFailException

from include.operations import alerts, outbox, pipeline_runs
from include.operations.outbox import Answer
from sluice import alerting, callbacks, slack
from tests.operations.test_alerts import pass_time
from tests.slack_server import Reply, SlackServer, serving_slack

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
STATES = {"start": "success", "customers.stage_0": "success", "customers.stage_1": "failed"}


@pytest.fixture
def server(app_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackServer]:
    with serving_slack() as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", server.connection)
        monkeypatch.setenv("AIRFLOW_CONN_APP_DB", app_database)
        monkeypatch.setattr(callbacks, "task_states", lambda *_: STATES)
        yield server


def close(db: Database, run_id: str, status: pipeline_runs.Status = "failed") -> None:
    pipeline_runs.open_run(db, pipeline="daily", run_id=run_id)
    db.commit()
    if status == "failed":
        alerts.note(
            db,
            pipeline="daily",
            run_id=run_id,
            task_id="customers.stage",
            map_index=1,
            try_number=4,
            error=ValueError("no memory"),
        )
    pipeline_runs.close_run(db, pipeline="daily", run_id=run_id, status=status)
    db.commit()


def messages(db: Database) -> list[tuple[str, str]]:
    db.rollback()
    return db.execute("select kind, status from operations.messages order by id").fetchall()


def test_a_failure_and_its_recovery_are_posted_at_once_with_the_log_of_the_instance_that_failed(
    app_db: Database, server: SlackServer
) -> None:
    close(app_db, "r 1")
    alerting.run_ended("daily", "r 1", "failed", STATES)
    close(app_db, "r 2", "success")
    alerting.run_ended("daily", "r 2", "success", {"start": "success"})
    assert messages(app_db) == [("failure", "sent"), ("recovered", "sent")]
    failure, recovered = server.payloads
    assert failure["text"] == "daily failed: customers.stage: ValueError: no memory"
    assert "/dags/daily/runs/r%201/tasks/customers.stage/mapped/1|log>" in json.dumps(failure)
    assert recovered["text"].startswith("daily has recovered after ")


def test_a_success_tells_of_earlier_runs_first_whose_callbacks_have_died(app_db: Database, server: SlackServer) -> None:
    close(app_db, "r1")
    close(app_db, "r2", "success")
    alerting.run_ended("daily", "r2", "success", {"start": "success"})
    assert messages(app_db) == [("failure", "sent"), ("recovered", "sent")]
    alerting.run_ended("daily", "r1", "failed", STATES)  # it was not dead
    assert len(server.payloads) == 2


def test_a_success_is_told_where_an_earlier_run_cannot_be(
    app_db: Database, server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(app_db, "r1")
    alerting.run_ended("daily", "r1", "failed", STATES)
    close(app_db, "r2")
    close(app_db, "r3", "success")

    def gone(*_: str) -> dict[str, str]:
        raise ConnectionError("Airflow's API is down")

    monkeypatch.setattr(callbacks, "task_states", gone)
    alerting.run_ended("daily", "r3", "success", {})
    assert messages(app_db) == [("failure", "sent"), ("recovered", "sent")]


@pytest.mark.parametrize(
    ("given", "minutes"),
    [("90", 90), ("0.5", 0.5), ("0", 0), *((wrong, 60) for wrong in ("60 min", "", "nan", "inf", "-5", "1e12"))],
)
def test_a_wrong_window_stops_no_alert(
    app_db: Database, server: SlackServer, monkeypatch: pytest.MonkeyPatch, given: str, minutes: float
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_ALERT_WINDOW_MINUTES", given)
    assert alerting.window() == timedelta(minutes=minutes)
    close(app_db, "r1")
    alerting.run_ended("daily", "r1", "failed", STATES)
    assert messages(app_db) == [("failure", "sent")]


def test_what_no_callback_could_tell_is_told_whatever_breaks_for_another(
    app_db: Database, server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in ("r1", "r2", "r3"):
        close(app_db, run_id)

    def answers(dag_id: str, run_id: str) -> dict[str, str]:
        if run_id == "r1":
            raise ConnectionError("Airflow's API is down")
        return STATES

    monkeypatch.setattr(callbacks, "task_states", answers)
    with pytest.raises(RuntimeError, match="of 3 runs 1 cannot be told of: daily r1: Airflow's API is down"):
        alerting.untold.function()
    assert messages(app_db) == [("failure", "pending"), ("failure", "folded")]
    monkeypatch.setattr(callbacks, "task_states", lambda *_: STATES)
    assert alerting.untold.function() == 1
    assert alerting.untold.function() == 0
    assert messages(app_db) == [("failure", "pending"), ("failure", "folded"), ("failure", "folded")]
    assert server.payloads == []
    assert alerting.send.function() == {"sent": 1, "refused": 0, "waiting": 0}


def test_a_webhook_that_is_gone_fails_the_task_that_sends_with_what_to_do(
    app_db: Database, server: SlackServer
) -> None:
    for pipeline in ("a", "b"):
        app_db.execute(
            """
            insert into operations.messages (kind, pipeline, fingerprint, payload)
            values ('failure', %s, 'x', '{"text": "a", "blocks": [{"type": "divider"}]}')
            """,
            (pipeline,),
        )
    app_db.commit()
    server.script = [Reply(404, "no_service")]
    gone = "Slack answers 404 no_service: the webhook was removed or switched off: make a new one .*; 1 messages wait"
    with pytest.raises(AirflowFailException, match=gone):
        alerting.send.function()
    assert messages(app_db) == [("failure", "refused"), ("failure", "pending")]


def test_a_wrong_connection_fails_the_task_that_sends_at_once(
    app_db: Database, server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", '{"conn_type": "http", "password": "https://127.0.0.1/x"}')
    close(app_db, "r1")
    alerting.run_ended("daily", "r1", "failed", STATES)
    app_db.execute("update operations.messages set next_attempt_at = now()")
    app_db.commit()
    with pytest.raises(AirflowFailException, match=r'^connection "slack_alerts": its type is "http", .*; 1 messages w'):
        alerting.send.function()
    assert messages(app_db) == [("failure", "pending")]


@pytest.mark.parametrize(
    "broken",
    [Answer(None, None, "no answer"), Answer(None, None, "no password", is_unusable=True), Answer(404, None, "gone")],
    ids=["down", "no webhook", "gone"],
)
def test_an_outage_of_slack_is_one_outage_of_the_task_that_sends(
    app_db: Database, server: SlackServer, monkeypatch: pytest.MonkeyPatch, broken: Answer
) -> None:
    """Three hours, a run of `send_alerts` every five minutes."""
    answers = [broken]
    monkeypatch.setattr(slack, "post", lambda payload, seconds: answers[0])
    monkeypatch.setattr(outbox, "PACE", 0.0)
    monkeypatch.setattr(callbacks, "task_states", lambda *_: {})
    close(app_db, "r1")
    alerting.run_ended("daily", "r1", "failed", STATES)

    def run(number: int) -> str:
        name = {"pipeline": "send_alerts", "run_id": f"r{number}"}
        pass_time(app_db, timedelta(minutes=5))
        pipeline_runs.open_run(app_db, **name)
        app_db.commit()
        status: pipeline_runs.Status = "success"
        try:
            alerting.send.function()
        except AirflowFailException as error:
            alerts.note(app_db, **name, task_id="send", map_index=-1, try_number=1, error=error)
            status = "failed"
        pipeline_runs.close_run(app_db, **name, status=status)
        app_db.commit()
        alerting.run_ended("send_alerts", name["run_id"], status, {"send": status})
        return status

    during = [run(number) for number in range(36)]
    first = during.index("failed")
    assert first <= 12
    assert set(during[first:]) == {"failed"}
    answers[0] = Answer(200)
    after = [run(number) for number in range(36, 44)]
    assert after == sorted(after)  # failed, then success
    assert after[-4:] == ["success"] * 4
    app_db.rollback()
    rows = app_db.execute("select kind, status from operations.messages where pipeline = 'send_alerts'").fetchall()
    told = Counter((kind, status) for kind, status in rows)
    assert told["recovered", "sent"] == 1
    assert told["failure", "sent"] == 1
    assert {status for _, status in rows} <= {"sent", "folded", "refused"}


def test_a_callback_ends_in_time_whatever_slack_does(
    app_db: Database, server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slack.QUICK_SECONDS + alerting.CALLBACK_SECONDS <= 10
    monkeypatch.setattr(slack, "QUICK_SECONDS", 2)
    server.script = [Reply(wait=10)]
    close(app_db, "r1")
    began = time.monotonic()
    alerting.run_ended("daily", "r1", "failed", STATES)
    assert time.monotonic() - began < 3
    assert messages(app_db) == [("failure", "pending")]

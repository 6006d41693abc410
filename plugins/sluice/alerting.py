"""Alerts: what a failing task knows, the message that a run ends with, and how messages get to Slack.

None of it changes the result of a task or a run: whoever calls from a callback catches what is raised here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import quote

from airflow.sdk import Context, Variable, task
from airflow.sdk.configuration import conf

from include.operations import alerts, outbox, quality_results
from include.operations.messages import Links
from include.operations.outbox import Delivered
from sluice import slack
from sluice.connections import app_db
from sluice.data_docs import path as data_docs_path
from sluice.defaults import LATE_AFTER, OWNER

log = logging.getLogger(__name__)

CALLBACK_SECONDS = 4.0
"""How long a callback may begin to post. With one post, of at most `slack.ALL_SECONDS`, it is ten seconds: the DAG
processor ends a callback that outlasts 50 s, and others with it.
"""

SEND_SECONDS = 240.0
"""How long the task `send` posts what waits, one message a second, before it leaves the rest to the next run."""


def task_failed(context: Context) -> None:
    """Notes what a task that has failed for good knows of it."""
    ti = context["ti"]
    with app_db() as connection:
        alerts.note(
            connection,
            pipeline=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
            error=context.get("exception"),
        )


def run_failed(dag_id: str, run_id: str, states: Mapping[str, str | None]) -> None:
    """One message for the run that has failed, whatever failed in it, and one try to post it."""
    with app_db() as connection:
        message = alerts.run_failed(
            connection,
            pipeline=dag_id,
            run_id=run_id,
            states=states,
            links=lambda task_id: links(dag_id, run_id, task_id),
            owner=OWNER,
            window=window(),
        )
    if message is not None:
        _send([message], CALLBACK_SECONDS)


def run_succeeded(dag_id: str, run_id: str) -> None:
    """The warnings of the run, and that its pipeline has recovered if it had failed."""
    with app_db() as connection:
        told = alerts.run_succeeded(
            connection,
            pipeline=dag_id,
            run_id=run_id,
            links=lambda task_id: links(dag_id, run_id, task_id),
            owner=OWNER,
            window=window(),
        )
    if told:
        _send(told, CALLBACK_SECONDS)


@task(execution_timeout=timedelta(minutes=10))
def lateness() -> int:
    """Writes a message for each pipeline that has not succeeded for too long; gives how many. It sends nothing."""
    with app_db() as connection:
        told = alerts.late(connection, limits=LATE_AFTER, links=links, owner=OWNER, window=window())
    log.info("%s pipelines have become late", len(told))
    return len(told)


@task(trigger_rule="all_done", execution_timeout=timedelta(minutes=10))
def send() -> dict[str, int]:
    """Closes the windows that are over, and sends what waits; gives how many messages were sent, refused and wait."""
    with app_db() as connection:
        alerts.close_windows(connection, window=window())
    delivered = _send(None, SEND_SECONDS)
    return {"sent": delivered.sent, "refused": delivered.refused, "waiting": delivered.waiting}


def _send(messages: Sequence[int] | None, seconds: float) -> Delivered:
    """Posts these messages, or all that wait; without a connection to Slack they go to the log."""
    with app_db(autocommit=True) as connection:
        if slack.is_configured():
            delivered = outbox.deliver(connection, slack.post, seconds=seconds, only=messages)
            log.info("Slack: %s sent, %s refused, %s waiting", delivered.sent, delivered.refused, delivered.waiting)
            return delivered
        texts = outbox.log_instead(connection, only=messages)
    if texts:
        log.warning('there is no connection "%s": alerts go to this log', slack.CONNECTION)
    for text in texts:
        log.warning("alert: %s", text)
    return Delivered(sent=0, refused=0, waiting=0)


def window() -> timedelta:
    """How long the same failure is counted, not told again."""
    return timedelta(minutes=float(Variable.get("alert_window_minutes", default="60")))


def links(dag_id: str, run_id: str | None = None, task_id: str | None = None) -> Links:
    """Where to look: at a DAG in Airflow's UI, or a run of it, or a task of that; at its Data Docs; in the runbook."""
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    dag = f"{base}/dags/{quote(dag_id)}"
    run = f"{dag}/runs/{quote(run_id)}" if run_id else dag
    with app_db() as connection:
        evaluation = run_id and quality_results.to_look_at(connection, dag_id, run_id, task_id)
    return Links(
        run=run,
        log=f"{run}/tasks/{quote(task_id)}" if run_id and task_id else None,
        data_docs=base + data_docs_path(dag_id, evaluation) if evaluation else None,
        runbook=Variable.get("runbook_url", default="") or None,
        section=section(dag_id, task_id) if task_id else None,
    )


def section(dag_id: str, task_id: str) -> str:
    """The section of docs/runbook.md about a task: the last part of its name, one for all suites of quality_checks."""
    return "checks" if dag_id == "quality_checks" else task_id.rpartition(".")[2]

"""Alerts: the messages that a run ends with, and how they get to Slack.

None of it changes the result of a task or a run: whoever calls from a callback catches what is raised here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from airflow.sdk import Variable, task
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException
from psycopg import Connection

from include.masking import sentence
from include.operations import alerts, outbox, quality_results
from include.operations.messages import Links
from include.operations.outbox import Delivered
from sluice import callbacks, slack
from sluice.connections import app_db
from sluice.data_docs import path as data_docs_path
from sluice.defaults import LATE_AFTER, OWNER

log = logging.getLogger(__name__)

CALLBACK_SECONDS = 4.0
"""How long a callback may begin to post. With one post, of at most `slack.QUICK_SECONDS`, it is ten seconds: the DAG
processor ends a callback that outlasts 50 s, and others with it.
"""

EARLIER = 5
"""How many earlier runs a callback tells of, since it must end; `send_alerts` tells of all."""

SEND_SECONDS = 240.0
"""How long the task `send` posts what waits, one message a second, before it leaves the rest to the next run."""

SOON = timedelta(seconds=30)
"""After how long a task of `send_alerts` is tried again: the next one waits for it, and the next run is near."""

WINDOW = timedelta(minutes=60)
LONGEST_WINDOW = timedelta(days=366)


def run_ended(dag_id: str, run_id: str, status: str, states: Mapping[str, str | None]) -> None:
    """Writes the messages of a run that has ended, `success` or `failed`, and tries once to post them.

    A failed one makes one message, whatever failed in it; a success tells its warnings, and that its pipeline has
    recovered if it had failed. What was told before is not told again. Earlier runs of which nobody was told come
    first: a success ends only what has begun.
    """
    with app_db() as connection:
        earlier = alerts.untold(connection, pipeline=dag_id, before=run_id)
    told, _ = _tell_untold(earlier[:EARLIER])
    told += _tell(dag_id, run_id, status, states)
    if told:
        _send(told, slack.QUICK_SECONDS, CALLBACK_SECONDS)


def _tell_untold(runs: Iterable[tuple[str, str, str]]) -> tuple[list[int], list[str]]:
    """Writes the messages of these runs; gives their ids, and why one or another run cannot be told of."""
    told: list[int] = []
    broken = []
    for dag_id, run_id, status in runs:
        try:
            messages = _tell(dag_id, run_id, status, callbacks.task_states(dag_id, run_id))
        except Exception as error:  # of any kind: the others are told all the same
            log.exception("%s %s cannot be told of", dag_id, run_id)
            broken.append(f"{dag_id} {run_id}: {sentence(error)}")
        else:
            log.info("%s %s (%s): nobody had been told; %s messages", dag_id, run_id, status, len(messages))
            told += messages
    return told, broken


def _tell(dag_id: str, run_id: str, status: str, states: Mapping[str, str | None]) -> list[int]:
    length, book = window(), runbook()  # Airflow is asked before anything is locked
    with app_db() as connection:

        def links_of(task_id: str | None, map_index: int) -> Links:
            return links(connection, book, dag_id, run_id, task_id, map_index)

        if status == "success":
            return alerts.run_succeeded(
                connection, pipeline=dag_id, run_id=run_id, links=links_of, owner=OWNER, window=length
            )
        message = alerts.run_failed(
            connection, pipeline=dag_id, run_id=run_id, states=states, links=links_of, owner=OWNER, window=length
        )
        return [] if message is None else [message]


@task(retries=1, retry_delay=SOON, execution_timeout=timedelta(minutes=10))
def untold() -> int:
    """Writes the messages of runs whose callbacks could not; gives how many runs. It sends nothing."""
    with app_db() as connection:
        runs = alerts.untold(connection)
    _, broken = _tell_untold(runs)
    if broken:
        raise RuntimeError(f"of {len(runs)} runs {len(broken)} cannot be told of: {'; '.join(broken)}")
    return len(runs)


@task(trigger_rule="all_done", retries=1, retry_delay=SOON, execution_timeout=timedelta(minutes=10))
def lateness() -> int:
    """Writes a message for each pipeline that has not succeeded for too long; gives how many. It sends nothing."""
    length, book = window(), runbook()
    with app_db() as connection:
        told = alerts.late(
            connection, limits=LATE_AFTER, links=partial(links, connection, book), owner=OWNER, window=length
        )
    log.info("%s pipelines have become late", len(told))
    return len(told)


@task(trigger_rule="all_done", retries=1, retry_delay=SOON, execution_timeout=timedelta(minutes=10))
def send() -> dict[str, int]:
    """Closes the windows that are over, and sends what waits; gives how many messages were sent, refused and wait.

    Fails where nothing gets to Slack by the webhook: somebody has to look, and no message can say so.
    """
    length = window()
    with app_db() as connection:
        alerts.close_windows(connection, window=length)
    delivered = _send(None, slack.PATIENT_SECONDS, SEND_SECONDS)
    if delivered.unusable:
        raise AirflowFailException(f"{delivered.unusable}; {delivered.waiting} messages wait")
    return {"sent": delivered.sent, "refused": delivered.refused, "waiting": delivered.waiting}


def _send(messages: Sequence[int] | None, post_seconds: int, seconds: float) -> Delivered:
    """Posts these messages, or all that wait; without a connection to Slack they go to the log.

    `post_seconds` is what one may take; none is begun after `seconds`.
    """
    with app_db(autocommit=True) as connection:
        if slack.is_configured():
            post = partial(slack.post, seconds=post_seconds)
            delivered = outbox.deliver(connection, post, seconds=seconds, only=messages)
            log.info("Slack: %s sent, %s refused, %s waiting", delivered.sent, delivered.refused, delivered.waiting)
            return delivered
        texts = outbox.log_instead(connection, only=messages)
    if texts:
        log.warning('there is no connection "%s": alerts go to this log', slack.CONNECTION)
    for text in texts:
        log.warning("alert: %s", text)
    return Delivered(sent=0, refused=0, waiting=0)


def window() -> timedelta:
    """How long the same failure is counted, not told again: a wrong Variable stops no alert."""
    given = Variable.get("alert_window_minutes", default=WINDOW / timedelta(minutes=1))
    with suppress(ValueError, OverflowError):
        length = timedelta(minutes=float(given))
        if timedelta(0) <= length <= LONGEST_WINDOW:
            return length
    log.error('the Variable alert_window_minutes is "%s", not a number of minutes up to a year: %s', given, WINDOW)
    return WINDOW


def runbook() -> str | None:
    """The address of the runbook, where somebody has given one."""
    return Variable.get("runbook_url", default="") or None


def links(
    connection: Connection[Any],
    book: str | None,
    dag_id: str,
    run_id: str | None = None,
    task_id: str | None = None,
    map_index: int = -1,
) -> Links:
    """Where to look: at a DAG in Airflow's UI, or a run of it, or a task of that; at its Data Docs; in the runbook."""
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    dag = f"{base}/dags/{quote(dag_id)}"
    run = f"{dag}/runs/{quote(run_id)}" if run_id else dag
    evaluation = run_id and quality_results.to_look_at(connection, dag_id, run_id, task_id)
    instance = f"/mapped/{map_index}" if map_index >= 0 else ""
    return Links(
        run=run,
        log=f"{run}/tasks/{quote(task_id)}{instance}" if run_id and task_id else None,
        data_docs=base + data_docs_path(dag_id, evaluation) if evaluation else None,
        runbook=book,
        section=section(dag_id, task_id) if task_id else None,
    )


def section(dag_id: str, task_id: str) -> str:
    """The section of docs/runbook.md about a task: the last part of its name, one for all suites of quality_checks."""
    return "checks" if dag_id == "quality_checks" else task_id.rpartition(".")[2]

"""What Airflow calls when a task begins or has failed for good, and when a run has ended.

The callbacks of a task run in its process, or in the DAG processor where that process is gone; those of a run in the
DAG processor, which gives them a few seconds. None of them changes the result of a task or a run: Airflow logs what
they raise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from airflow.sdk import Context, DagRunState
from airflow.sdk.api.client import ServerResponseError
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowTaskTimeout
from airflow.sdk.execution_time import task_runner
from airflow.sdk.types import RuntimeTaskInstanceProtocol
from psycopg import Connection

from include.masking import sentence
from include.operations import alerts, pipeline_runs
from include.operations.pipeline_runs import Closed, Status
from sluice.connections import app_db

log = logging.getLogger(__name__)

States = Mapping[str, str | None]
"""The state of each task of a run; a mapped instance is `task_index`."""

FAILED = ("failed", "upstream_failed")
ENDED = (*FAILED, "success", "skipped", "removed")

SILENT = "it was killed, or marked as failed by hand"


def note_start(context: Context) -> None:
    """Opens the run's row in `operations.pipeline_runs`, or opens it again if the run was cleared.

    Whoever opens it closes what earlier runs of the pipeline have left open.
    """
    ti = context["ti"]
    with app_db() as connection:
        opened = pipeline_runs.ensure_open(
            connection, pipeline=ti.dag_id, run_id=ti.run_id, dry_run=is_dry_run(context)
        )
        alerts.begin_again(
            connection,
            pipeline=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=_map_index(ti),
        )
    if opened:
        sweep(context, pipeline=ti.dag_id, but=ti.run_id)


def is_dry_run(context: Context) -> bool:
    """Whether the run publishes nothing: the param `dry_run`, where the DAG has one."""
    return bool(context["params"].get("dry_run"))


def note_failure(context: Context) -> None:
    """Puts the task and its error into the run's row, where the first one stays, and tells the alerts."""
    ti = context["ti"]
    map_index = _map_index(ti)
    place = alerts.place(ti.task_id, map_index)
    exception: BaseException | str | None = context.get("exception")
    error = sentence(exception) or SILENT
    if isinstance(exception, AirflowTaskTimeout):  # which says the number of its process
        error = f"it took longer than its limit of {ti.task.execution_timeout}"
        exception = AirflowTaskTimeout(error)
    log.error("%s failed in run %s: %s", place, ti.run_id, error)
    with app_db() as connection:
        pipeline_runs.note_error(connection, pipeline=ti.dag_id, run_id=ti.run_id, error=f"{place}: {error}")
        alerts.note(
            connection,
            pipeline=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=map_index,
            try_number=ti.try_number,
            error=exception,
        )


def run_succeeded(context: Context) -> None:
    """Closes the run's row as a success, and tells the alerts."""
    _close(context, "success")


def run_failed(context: Context) -> None:
    """Closes the run's row as failed, with a reason where no task noted an error, and tells the alerts."""
    _close(context, "failed")


def sweep(context: Context, *, pipeline: str | None = None, but: str | None = None) -> list[Closed]:
    """Closes the rows of runs that have ended without a callback; only inside a task. `send_alerts` tells of them.

    Only runs of `pipeline`, where it is given, and not the run `but`.
    """
    ti = context["ti"]

    def state_of(dag_id: str, run_id: str) -> str | None:
        try:
            state = DagRunState(ti.get_dagrun_state(dag_id, run_id)).value
        except AirflowRuntimeError as error:
            if (error.error.detail or {}).get("status_code") != HTTPStatus.NOT_FOUND:
                raise
            return None
        except ServerResponseError as error:  # which `airflow dags test` lets through
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            return None
        return _outcome("success", task_states(dag_id, run_id)) if state == "success" else state

    def reason_of(dag_id: str, run_id: str) -> str:
        return _reason(connection, dag_id, run_id, task_states(dag_id, run_id))

    with app_db(autocommit=True) as connection:
        closed = pipeline_runs.sweep(connection, state_of, reason_of, pipeline=pipeline, but=but)
    for run in closed:
        log.warning("%s %s had ended (%s) and nobody had said so", run.pipeline, run.run_id, run.status)
    return closed


def task_states(dag_id: str, run_id: str) -> dict[str, str | None]:
    """The states of a run's tasks; none where Airflow cannot be asked: in callbacks of `airflow dags test`."""
    if not hasattr(task_runner, "SUPERVISOR_COMMS"):
        return {}
    found = task_runner.RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id])
    return dict(found.get(run_id, {}))


def _close(context: Context, told: Status) -> None:
    dag, run_id, reason = context["dag"], context["run_id"], context.get("reason")
    states = task_states(dag.dag_id, run_id)
    going = sorted(name for name, state in states.items() if state not in ENDED)
    if going and reason != "all_tasks_deadlocked":
        log.info("%s %s was cleared and goes on with %s: it stays open", dag.dag_id, run_id, ", ".join(going))
        return
    error = None
    with app_db() as connection:
        if (status := _outcome(told, states)) == "failed":
            error = _reason(connection, dag.dag_id, run_id, states)
            if reason == "timed_out":
                error = f"timed out: it did not end within {dag.dagrun_timeout}"
            elif reason == "all_tasks_deadlocked":
                error = f"deadlock: {', '.join(going)} can never run"
        pipeline_runs.close_run(connection, pipeline=dag.dag_id, run_id=run_id, status=status, error=error)
    try:
        from sluice import alerting  # it reads the defaults, which name these functions

        alerting.run_ended(dag.dag_id, run_id, status, states)
    except Exception:
        log.exception("nobody was told of %s %s: send_alerts will", dag.dag_id, run_id)


def _outcome(told: Status, states: States) -> Status:
    """How a run ended: it has failed if one of its tasks has.

    Airflow looks at the last tasks only, and calls a run a success that was marked as failed while it had a teardown to
    come: what should have followed is skipped then.
    """
    return "failed" if "failed" in states.values() else told


def _reason(connection: Connection[Any], dag_id: str, run_id: str, states: States) -> str:
    """Why a run failed in whose row no task has noted an error since it was opened."""
    if not states:
        return "no task says why"
    if noted := alerts.first_error(connection, pipeline=dag_id, run_id=run_id, states=states):
        return noted
    failed = sorted(name for name, state in states.items() if state == "failed")
    return f"{', '.join(failed)}: {SILENT}" if failed else "no task failed: it timed out, or was marked by hand"


def _map_index(ti: RuntimeTaskInstanceProtocol) -> int:
    """-1 where the task is not mapped."""
    return -1 if ti.map_index is None else ti.map_index

"""What happens when a task fails for good."""

from __future__ import annotations

import logging

from airflow.sdk import Context

from include.operations import pipeline_runs
from sluice.connections import app_db

log = logging.getLogger(__name__)


def note_failure(context: Context) -> None:
    """Puts the task and its error into the run's row in `operations.pipeline_runs`, where the first one stays."""
    ti = context["ti"]
    place = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
    error = f"{place}: {context.get('exception')}"
    log.error("%s failed in run %s: %s", place, ti.run_id, context.get("exception"))
    with app_db() as connection:
        pipeline_runs.note_error(connection, pipeline=ti.dag_id, run_id=ti.run_id, error=error)

"""What every DAG has in common: owner, retries, time limits, who is told how its runs and tasks end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from jinja2 import StrictUndefined

from include.sql import SQL
from sluice.callbacks import note_failure, note_start, run_failed, run_succeeded

OWNER = "data-engineering"

DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER,
    "retries": 3,  # the first after core.default_task_retry_delay, the next ones after twice as long each
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(hours=2),
    "on_execute_callback": note_start,
    "on_failure_callback": note_failure,
}

DAG_ARGS: dict[str, Any] = {
    "start_date": pendulum.datetime(2025, 1, 1, tz="UTC"),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": DEFAULT_ARGS,
    "on_success_callback": run_succeeded,
    "on_failure_callback": run_failed,
    "template_undefined": StrictUndefined,
}
"""What each DAG is given beside its own: `DAG(..., **DAG_ARGS)`."""

TEMPLATE_SEARCHPATH = [str(SQL)]

LATE_AFTER = {
    "daily_sync": timedelta(hours=26),
    "delta_sync": timedelta(hours=1),
    "customer_enrichment": timedelta(hours=26),
    "warehouse_load": timedelta(hours=26),
    "quality_checks": timedelta(hours=26),
    "housekeeping": timedelta(hours=26),
    "send_alerts": timedelta(hours=1),
}
"""How old the last good run of a pipeline may be: what its schedule asks for, and the time that a run may take."""

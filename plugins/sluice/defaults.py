"""What every DAG has in common: owner, retries, time limits, templates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from include.load.publish import SQL
from sluice.callbacks import note_failure

OWNER = "data-engineering"

DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER,
    "retries": 3,  # the first after core.default_task_retry_delay, the next ones after twice as long each
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(hours=2),
    "on_failure_callback": note_failure,
}

TEMPLATE_SEARCHPATH = [str(SQL)]

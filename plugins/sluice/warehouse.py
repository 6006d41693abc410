"""The tasks of `warehouse_load` around its SQL: what it begins with, and what it leaves."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any
from uuid import UUID

import psycopg
from airflow.sdk import Param, Variable, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from include.operations import pipeline_runs
from include.warehouse import load
from include.warehouse.replication import replicate as replicate_changes
from sluice.connections import app_db, warehouse_db
from sluice.enrichment import run_time

log = logging.getLogger(__name__)

BEGIN = "begin"
"""The task whose return value is the load's id."""

PUBLISH = "publish"
"""The task whose return value is what the load has changed."""

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="As of",
        description="Tell the lifecycle stages of current customers as of then, not as of the run's own time.",
    ),
    "first_day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="First day",
        description="Build the sales of these days anew, whatever changed: the first of them.",
    ),
    "last_day": Param(None, type=["null", "string"], format="date", title="Last day", description="The last of them."),
    "full": Param(
        False, type="boolean", title="Full", description="Replicate and build everything anew, whatever changed."
    ),
    "dry_run": Param(False, type="boolean", title="Dry run", description="Build and check; publish nothing."),
}


@task
def replicate() -> dict[str, int]:
    """Brings what changed in `app` into `raw`, as it is at one moment; returns the rows by entity. Safe to repeat."""
    full = bool(get_current_context()["params"]["full"])
    with app_db() as app, warehouse_db() as warehouse:
        try:
            replicated = replicate_changes(app, warehouse, full=full, report=log.info)
        except psycopg.errors.LockNotAvailable as error:
            raise TimeoutError(str(error)) from error
    return {each.entity: sum(each.rows.values()) for each in replicated.entities}


@task(task_id=BEGIN)
def begin() -> str:
    """Says what is affected by what raw holds now; returns the load's id. To clear it is to begin anew."""
    context = get_current_context()
    params = context["params"]
    try:
        with warehouse_db() as warehouse:
            drawn = load.begin(
                warehouse,
                run_id=context["ti"].run_id,
                as_of=run_time(params, context["dag_run"]),
                business_timezone=Variable.get("business_timezone", default="UTC"),
                holiday_country=Variable.get("holiday_country", default="US"),
                days=_days(params),
                full=bool(params["full"]),
            )
    except (load.LoadError, ValueError) as error:
        raise AirflowFailException(str(error)) from error
    log.info("load %s begins", drawn)
    return str(drawn)


def finish() -> None:
    """Drops what the load has built, published or not, and notes how many sales changed, whatever happened before."""
    ti = get_current_context()["ti"]
    if (drawn := ti.xcom_pull(task_ids=BEGIN)) is not None:
        with warehouse_db() as warehouse:
            load.drop(warehouse, UUID(drawn))
    if (counts := ti.xcom_pull(task_ids=PUBLISH)) is not None:
        changed = sum(counts[f"facts_{how}"] for how in ("inserted", "updated", "deleted"))
        with app_db() as connection:
            pipeline_runs.processed(connection, pipeline=ti.dag_id, run_id=ti.run_id, records=changed)


def _days(params: Any) -> tuple[date, date] | None:
    first, last = params["first_day"], params["last_day"]
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise ValueError("an interval needs both its days, `first_day` and `last_day`")
    return date.fromisoformat(first), date.fromisoformat(last)

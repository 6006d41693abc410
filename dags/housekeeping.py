"""### Retention: what grows and what is left behind

Deletes landing folders, resolved dead letters, and the staging and build tables of runs that died. Pending letters are
kept however old they are; `operations.sync_log` and the tables of `app` and `warehouse` are not touched.

**How long**: the Variables `landing_retention_days` (14), `letter_retention_days` (90) and `staging_retention_hours`
(24). A dry run says what would go.

**When it fails** something is kept longer than it should be: read the log, mend, clear the task. Each of the four goes
on where it was.

**Safe to re-run**, at any time and beside syncs: what a run may still use is younger than what goes. It works by now,
not by data interval.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from sluice import retention
from sluice.defaults import DEFAULT_ARGS

with DAG(
    dag_id="housekeeping",
    schedule="30 5 * * *",
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=DEFAULT_ARGS,
    params={
        "dry_run": Param(False, type="boolean", title="Dry run", description="Say what would go; delete nothing."),
    },
    tags=["housekeeping"],
    description="Retention of landing folders, resolved dead letters and orphaned staging tables",
    doc_md=__doc__,
):
    retention.landing()
    retention.letters()
    retention.staging_tables()
    retention.abandoned_loads()

"""### Retention: what grows and what is left behind

Deletes landing folders, resolved dead letters, the staging and build tables of runs that died, old results of quality
checks with their pages, and old alerts; *runs* closes the rows of `operations.pipeline_runs` whose runs ended without
saying so, and deletes old ones. Pending letters are kept however old they are; `operations.sync_log` and the tables of
`app` and `warehouse` are not touched.

**How long**: the Variables `landing_retention_days` (14), `letter_retention_days` (90), `staging_retention_hours` (24),
`quality_retention_days` (90), `alert_retention_days` (90), `run_retention_days` (365), and `data_docs_keep` (the pages
of 500 runs of a pipeline). A dry run deletes nothing; it says how many folders, letters and staging tables would go.

**When it fails** something is kept longer than it should be: read the log, mend, clear the task. Each goes on where it
was.

**Safe to re-run**, at any time and beside syncs: what a run may still use is younger than what goes. It works by now,
not by data interval.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from sluice import retention
from sluice.defaults import DAG_ARGS

with DAG(
    dag_id="housekeeping",
    schedule="30 5 * * *",
    dagrun_timeout=timedelta(hours=6),
    params={
        "dry_run": Param(False, type="boolean", title="Dry run", description="Say what would go; delete nothing."),
    },
    tags=["housekeeping"],
    description="Retention of landing folders, resolved dead letters and orphaned tables; runs that ended unseen",
    doc_md=__doc__,
    **DAG_ARGS,
):
    retention.landing()
    retention.letters()
    retention.staging_tables()
    retention.abandoned_loads()
    retention.runs()
    retention.quality()
    retention.alerts()

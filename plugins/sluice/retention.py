"""The tasks of `housekeeping`; what they may delete is in `include/operations/housekeeping.py`."""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow.sdk import ObjectStoragePath, Variable, get_current_context, task

from include.load import staging
from include.operations import alerts as told
from include.operations import housekeeping, pipeline_runs, quality_results
from include.quality import data_docs
from include.quality.data_docs import DataDocsError
from include.warehouse import load
from sluice import callbacks
from sluice.connections import app_db, warehouse_db
from sluice.data_docs import folder

log = logging.getLogger(__name__)


@task
def landing() -> int:
    """Removes landing folders, with the executions they belong to; gives how many."""
    age = timedelta(days=float(Variable.get("landing_retention_days", default="14")))
    with app_db() as connection:
        old = housekeeping.old_executions(connection, age)
    log.info("%s landing folders are older than %s", f"{len(old):,}", age)
    if _dry_run():
        return 0
    for number, (execution, uri) in enumerate(old, start=1):
        with app_db() as connection:
            housekeeping.forget(connection, execution, uri, _remove)
        if number % 1000 == 0 or number == len(old):
            log.info("removed %s of %s landing folders", f"{number:,}", f"{len(old):,}")
    return len(old)


@task
def letters() -> int:
    """Deletes dead letters that were resolved long ago; gives how many."""
    age = timedelta(days=float(Variable.get("letter_retention_days", default="90")))
    with app_db() as connection:
        log.info("%s letters were resolved more than %s ago", housekeeping.resolved_letters(connection, age), age)
        return 0 if _dry_run() else housekeeping.delete_resolved_letters(connection, age)


@task
def staging_tables() -> int:
    """Drops the staging tables of runs that ended without dropping them; gives how many."""
    age = timedelta(hours=float(Variable.get("staging_retention_hours", default="24")))
    dropped = 0
    with app_db() as connection:
        orphaned = housekeeping.orphaned_staging(connection, age)
        log.info("%s executions have staging tables that nobody will use", len(orphaned))
        if not _dry_run():
            dropped = sum(len(staging.drop(connection, execution)) for execution in orphaned)
    log.info("dropped %s staging tables", dropped)
    return dropped


@task
def abandoned_loads() -> int:
    """Drops what loads of the warehouse have built that ended without dropping it; gives how many loads."""
    age = timedelta(hours=float(Variable.get("staging_retention_hours", default="24")))
    if _dry_run():
        return 0
    with warehouse_db() as connection:
        dropped = load.drop_abandoned(connection, older_than=age)
    log.info("dropped what %s loads of the warehouse have left", len(dropped))
    return len(dropped)


@task
def runs() -> dict[str, int]:
    """Closes rows of `operations.pipeline_runs` whose runs ended without saying so, and deletes old ones."""
    age = timedelta(days=float(Variable.get("run_retention_days", default="365")))
    if _dry_run():
        return {"closed": 0, "deleted": 0}
    closed = callbacks.sweep(get_current_context())
    with app_db() as connection:
        deleted = pipeline_runs.delete_older(connection, age)
    log.info("deleted the rows of %s runs that ended more than %s ago", f"{deleted:,}", age)
    return {"closed": len(closed), "deleted": deleted}


@task
def quality() -> dict[str, int]:
    """Removes results of quality checks that are old, and pages past the newest; gives how many of each."""
    age = timedelta(days=float(Variable.get("quality_retention_days", default="90")))
    keep = int(Variable.get("data_docs_keep", default="500"))
    if _dry_run():
        return {"results": 0, "pages": 0}
    with app_db() as connection:
        results = quality_results.delete_older(connection, age)
    log.info("removed %s results older than %s", f"{results:,}", age)
    pages, broken = 0, []
    place = folder()
    with app_db() as connection:
        for name in sorted(data_docs.pipelines(place)):
            try:
                pages += data_docs.prune(place, connection, name, keep)
            except DataDocsError as error:
                broken.append(str(error))
    log.info("removed %s pages past the newest %s runs of a pipeline", f"{pages:,}", keep)
    if broken:
        raise DataDocsError("; ".join(broken))
    return {"results": results, "pages": pages}


@task
def alerts() -> int:
    """Deletes what was told in Slack long ago; gives how many messages."""
    age = timedelta(days=float(Variable.get("alert_retention_days", default="90")))
    if _dry_run():
        return 0
    with app_db() as connection:
        deleted = told.delete_older(connection, age)
    log.info("deleted %s messages older than %s, and what tasks had noted for them", f"{deleted:,}", age)
    return deleted


def _dry_run() -> bool:
    return callbacks.is_dry_run(get_current_context())


def _remove(uri: str) -> None:
    folder = ObjectStoragePath(uri)
    if folder.exists():
        folder.rmdir(recursive=True)

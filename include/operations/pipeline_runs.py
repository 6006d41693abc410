"""`operations.pipeline_runs`: one row a run of a pipeline, whatever became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from psycopg import Connection
from psycopg.rows import class_row

Status = Literal["success", "failed"]

UNKNOWN_AFTER = timedelta(hours=24)
"""How long a run that Airflow does not know is left open: another Airflow may work on it."""


@dataclass(frozen=True)
class Run:
    """A run by name; its age is the time since it was opened."""

    pipeline: str
    run_id: str
    age: timedelta


@dataclass(frozen=True)
class Closed:
    """A run that the sweep has closed."""

    pipeline: str
    run_id: str
    status: Status


def open_run(connection: Connection[Any], *, pipeline: str, run_id: str, dry_run: bool = False) -> None:
    """Notes that the run begins, now; one that is cleared begins again in its own row."""
    _open(connection, pipeline, run_id, dry_run, anew=True)


def ensure_open(connection: Connection[Any], *, pipeline: str, run_id: str, dry_run: bool = False) -> bool:
    """The same for a run whose row is not open: of one that is open nothing is written, nothing is locked.

    Gives whether the row was opened.
    """
    return _open(connection, pipeline, run_id, dry_run, anew=False)


def _open(connection: Connection[Any], pipeline: str, run_id: str, dry_run: bool, *, anew: bool) -> bool:
    opened = connection.execute(
        """
        insert into operations.pipeline_runs (pipeline, run_id, dry_run)
        select %(pipeline)s, %(run_id)s, %(dry_run)s
         where %(anew)s or not exists (
           select from operations.pipeline_runs
            where pipeline = %(pipeline)s and run_id = %(run_id)s and status = 'running'
         )
        on conflict (pipeline, run_id) do update set
          started_at = excluded.started_at,
          ended_at = null,
          status = 'running',
          error_message = null,
          dry_run = excluded.dry_run
        where %(anew)s or pipeline_runs.status <> 'running'
        """,
        {"pipeline": pipeline, "run_id": run_id, "dry_run": dry_run, "anew": anew},
    )
    return opened.rowcount == 1


def note_error(connection: Connection[Any], *, pipeline: str, run_id: str, error: str) -> None:
    """Adds the first error to an open run's row; later ones are in the logs of their tasks."""
    connection.execute(
        """
        insert into operations.pipeline_runs as r (pipeline, run_id, error_message)
        values (%s, %s, %s)
        on conflict (pipeline, run_id) do update set error_message = excluded.error_message
        where r.status = 'running' and r.error_message is null
        """,
        (pipeline, run_id, error),
    )


def processed(connection: Connection[Any], *, pipeline: str, run_id: str, records: int) -> None:
    """Notes how many records the run worked on, where no execution counts them. Safe to repeat."""
    connection.execute(
        "update operations.pipeline_runs set records_processed = %s where pipeline = %s and run_id = %s",
        (records, pipeline, run_id),
    )


def close_run(
    connection: Connection[Any], *, pipeline: str, run_id: str, status: Status, error: str | None = None
) -> bool:
    """Notes how the run ended, with the records that it published; gives whether that was news.

    Of an entity that it published more than once, because it was cleared, those of the last time count. A run that
    nobody opened gets its row here. A row that is closed with this status already stays as it is. `error` is for a
    failed run in which no task noted its own.
    """
    return (
        connection.execute(
            """
            with counted as (
              select sum(records_read) as records
                from (
                  select distinct on (s.entity) s.records_read
                    from operations.executions e
                    join operations.sync_log s on s.execution = e.execution
                   where e.pipeline = %(pipeline)s and e.run_id = %(run_id)s
                   order by s.entity, s.id desc
                ) as published
            )
            insert into operations.pipeline_runs as r
              (pipeline, run_id, ended_at, status, error_message, records_processed)
            select %(pipeline)s, %(run_id)s, now(), %(status)s, %(error)s, coalesce(records, 0)
              from counted
            on conflict (pipeline, run_id) do update set
              ended_at = excluded.ended_at,
              status = excluded.status,
              error_message = case
                when excluded.status = 'failed' then coalesce(r.error_message, excluded.error_message)
              end,
              records_processed = coalesce((select records from counted), r.records_processed),
              told = false
            where r.status <> excluded.status
            """,
            {"pipeline": pipeline, "run_id": run_id, "status": status, "error": error if status == "failed" else None},
        ).rowcount
        == 1
    )


def sweep(
    connection: Connection[Any],
    state_of: Callable[[str, str], str | None],
    reason_of: Callable[[str, str], str],
    *,
    pipeline: str | None = None,
    but: str | None = None,
) -> list[Closed]:
    """Closes the open runs of which Airflow says that they have ended; gives those, the oldest first.

    They are runs whose end nobody was told, or is being told just now. `state_of(pipeline, run_id)` is Airflow's word:
    `success`, `failed`, another while the run goes on, None where it knows no such run; `reason_of` says why one failed
    in which no task noted an error. One that Airflow does not know is closed as failed once it is `UNKNOWN_AFTER` old.
    Only runs of `pipeline`, where it is given, and not the run `but`.

    The connection must be in autocommit: nothing is held while Airflow is asked. Safe to repeat, and beside callbacks.
    """
    closed = []
    for run in _open_runs(connection, pipeline, but):
        state = state_of(run.pipeline, run.run_id)
        error = None
        if state == "failed":
            error = f"{reason_of(run.pipeline, run.run_id)}; no callback had come when this was found"
        elif state is None and run.age >= UNKNOWN_AFTER:
            error = f"Airflow does not know this run, which was begun {run.age // timedelta(hours=1)} hours ago"
        elif state != "success":
            continue
        status: Status = "failed" if error else "success"
        if close_run(connection, pipeline=run.pipeline, run_id=run.run_id, status=status, error=error):
            closed.append(Closed(run.pipeline, run.run_id, status))
    return closed


def delete_older(connection: Connection[Any], age: timedelta) -> int:
    """Deletes the rows of runs that ended longer ago, but each pipeline's last good one; gives how many."""
    return connection.execute(
        """
        delete from operations.pipeline_runs r
         where status <> 'running'
           and ended_at < now() - %s::interval
           and not exists (
             select from operations.last_good_runs g where (g.pipeline, g.run_id) = (r.pipeline, r.run_id)
           )
        """,
        (age,),
    ).rowcount


def _open_runs(connection: Connection[Any], pipeline: str | None, but: str | None) -> list[Run]:
    """The oldest first."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(
            """
            select pipeline, run_id, now() - started_at as age
              from operations.pipeline_runs
             where status = 'running'
               and pipeline = coalesce(%s, pipeline)
               and run_id is distinct from %s
             order by id
            """,
            (pipeline, but),
        ).fetchall()

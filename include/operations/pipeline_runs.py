"""`operations.pipeline_runs`: one row a run of a pipeline, whatever became of it."""

from __future__ import annotations

from typing import Any, Literal

from psycopg import Connection


def open_run(connection: Connection[Any], *, pipeline: str, run_id: str) -> None:
    """Notes that the run has begun; one that is cleared begins again in its own row."""
    connection.execute(
        """
        insert into operations.pipeline_runs (pipeline, run_id)
        values (%s, %s)
        on conflict (pipeline, run_id) do update set
          started_at = excluded.started_at,
          ended_at = null,
          status = 'running',
          records_processed = 0,
          error_message = null
        """,
        (pipeline, run_id),
    )


def close_run(
    connection: Connection[Any],
    *,
    pipeline: str,
    run_id: str,
    status: Literal["success", "failed"],
    error: str | None = None,
) -> None:
    """Notes how the run ended, with the records that its executions published. Safe to repeat.

    `error` is for a run in which no task noted its own.
    """
    connection.execute(
        """
        insert into operations.pipeline_runs as r (pipeline, run_id, ended_at, status, error_message, records_processed)
        select %(pipeline)s, %(run_id)s, now(), %(status)s, %(error)s, coalesce(sum(s.records_read), 0)
          from operations.executions e
          join operations.sync_log s on s.execution = e.execution
         where e.pipeline = %(pipeline)s and e.run_id = %(run_id)s
        on conflict (pipeline, run_id) do update set
          ended_at = excluded.ended_at,
          status = excluded.status,
          error_message = case
            when excluded.status = 'failed' then coalesce(r.error_message, excluded.error_message)
          end,
          records_processed = excluded.records_processed
        """,
        {"pipeline": pipeline, "run_id": run_id, "status": status, "error": error},
    )


def note_error(connection: Connection[Any], *, pipeline: str, run_id: str, error: str) -> None:
    """Adds the first error of an open run to its row; later ones are in the logs of their tasks."""
    connection.execute(
        """
        update operations.pipeline_runs
           set error_message = coalesce(error_message, %s)
         where pipeline = %s and run_id = %s
        """,
        (error, pipeline, run_id),
    )

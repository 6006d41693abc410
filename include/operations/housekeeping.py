"""What grows and what is left behind: landing folders, resolved letters, staging tables of runs that died."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from include.load import staging


def old_executions(connection: Connection[Any], older_than: timedelta) -> list[tuple[UUID, str]]:
    """(id, landing folder) of the executions that began that long ago."""
    return connection.execute(
        "select execution, landing from operations.executions where started_at < now() - %s order by started_at",
        (older_than,),
    ).fetchall()


def forget(connection: Connection[Any], execution: UUID, landing: str, remove: Callable[[str], None]) -> None:
    """Removes an old execution: its landing folder, its staging tables, and its row last, so that it can be repeated.

    What it did stays in `operations.sync_log`; its dead letters carry their own bytes.
    """
    remove(landing)
    staging.drop(connection, execution)
    connection.execute("delete from operations.loaded_files where execution = %s and status = 'pending'", (execution,))
    connection.execute("delete from operations.executions where execution = %s", (execution,))


def resolved_letters(connection: Connection[Any], older_than: timedelta) -> int:
    """How many letters were resolved that long ago."""
    row = connection.execute(
        "select count(*) from operations.dead_letters where status <> 'pending' and resolved_at < now() - %s",
        (older_than,),
    ).fetchone()
    return int(row[0]) if row else 0


def delete_resolved_letters(connection: Connection[Any], older_than: timedelta) -> int:
    """Deletes the letters that were resolved that long ago; pending ones are kept however old. Gives how many."""
    return connection.execute(
        "delete from operations.dead_letters where status <> 'pending' and resolved_at < now() - %s", (older_than,)
    ).rowcount


def orphaned_staging(connection: Connection[Any], older_than: timedelta) -> list[UUID]:
    """The executions whose staging tables nobody will use.

    Their run is closed, or they began so long ago that it must be dead, or nothing is known of them at all.
    """
    rows = connection.execute(
        """
        with staged as (
          select distinct substring(tablename from '[0-9a-f]{32}$')::uuid as execution
            from pg_tables
           where schemaname = 'staging' and tablename ~ '_[0-9a-f]{32}$'
        )
        select s.execution
          from staged s
          left join operations.executions e on e.execution = s.execution
          left join operations.pipeline_runs r on r.pipeline = e.pipeline and r.run_id = e.run_id
         where e.execution is null
            or e.started_at < now() - %s
            or r.status <> 'running' and r.ended_at < now() - interval '1 hour'
         order by 1
        """,
        (older_than,),
    ).fetchall()
    return [execution for (execution,) in rows]

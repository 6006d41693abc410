"""Publishing: the statement that moves an execution from staging into the entity's tables, and what it may refuse."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

from include.contracts.contract import Contract
from include.database.entities import StagingNames
from include.sql import render

ALREADY_PUBLISHED = "SL001"
OVERTAKEN = "SL002"
TOO_MANY_DELETES = "SL003"
ACCOUNTING = "SL004"
"""The SQLSTATEs that `sync/publish.sql` raises."""
LOCK_SECONDS = 120
"""How long a publish waits for the entity before it says who holds it."""


def publish(
    connection: Connection[Any],
    contract: Contract,
    execution: UUID,
    *,
    mode: str,
    max_deleted_share: float,
    lock_seconds: int = LOCK_SECONDS,
) -> dict[str, Any]:
    """Publishes a staged execution in a transaction of its own; gives the row of `sync_log`, with what it superseded.

    Raises psycopg.Error with one of the SQLSTATEs above where it refuses, and psycopg.errors.LockNotAvailable where
    another publish holds the entity for longer than `lock_seconds`: `holder` says which.
    """
    values = {"mode": mode, "max_deleted_share": max_deleted_share, "lock_seconds": lock_seconds}
    text = _rendered("sync/publish.sql", contract, execution, **values)
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(text.encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
    assert row is not None  # noqa: S101 - the file's last statement is a select of one row
    return row


def holder(connection: Connection[Any], contract: Contract) -> str:
    """Who holds the entity's publish lock, in words for an error."""
    row = connection.execute(
        """
        select e.pipeline, e.run_id, a.xact_start, a.pid, a.application_name
          from pg_locks l
          join pg_stat_activity a on a.pid = l.pid
          left join operations.executions e on a.application_name = 'sluice ' || e.execution
         where l.locktype = 'advisory'
           and l.granted
           and l.database = (select oid from pg_database where datname = current_database())
           and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%s, 0)
        """,
        (f"sluice.{contract.name}",),
    ).fetchone()
    if row is None:
        return "nobody holds it any more"
    pipeline, run_id, since, pid, application = row
    who = f"run {run_id} of {pipeline}" if pipeline else f"session {application!r}"
    return f"{who} holds it since {since} (process {pid} of the database)"


def queue_dead_letters(connection: Connection[Any], contract: Contract, execution: UUID) -> None:
    """Queues what the execution rejected, without publishing anything; safe to repeat."""
    connection.execute(_rendered("sync/queue_dead_letters.sql", contract, execution).encode())


def _rendered(template: str, contract: Contract, execution: UUID, **values: Any) -> str:
    names = StagingNames(contract, execution)
    return render(template, contract=contract, staging=names, execution=execution, **values)

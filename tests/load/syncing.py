"""An execution without Airflow: lands, stages and publishes pages that a test gives, by the code that the tasks run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from psycopg import Connection

from include.contracts.contract import Contract
from include.load import staging
from include.load.publish import publish
from include.operations import executions
from include.transform.validation import PageValidator

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
_runs = count()


def at(minutes: float) -> datetime:
    """A time that many minutes after the tests' epoch."""
    return EPOCH + timedelta(minutes=minutes)


def staged(
    connection: Connection[Any],
    contract: Contract,
    pages: Sequence[Sequence[Any] | bytes],
    *,
    fetched_at: datetime,
    mode: executions.Mode = "snapshot",
    since: datetime | None = None,
    until: datetime | None = None,
    read: int | None = None,
    **options: bool,
) -> UUID:
    """Lands and stages the pages (JSON values, or bytes as they are); commits, and gives the execution."""
    bodies = [page if isinstance(page, bytes) else json.dumps(page).encode() for page in pages]
    counts = [len(json.loads(body)) for body in bodies]
    run = executions.Run(contract.name, "test", f"run-{next(_runs)}")
    drawn = executions.begin(connection, run, mode=mode, landing_uri="memory://landing", since=since, options=options)
    total = sum(counts) if read is None else read
    executions.landed(connection, drawn.execution, fetched_at=fetched_at, records_read=total, until=until)
    staging.create(connection, contract, drawn.execution, fetched_at)
    staging.stage_batch(
        connection,
        PageValidator(contract, fetched_at),
        drawn.execution,
        list(enumerate(counts)),
        lambda number: bodies[number],
        drawn.landing,
        lambda line: None,
    )
    connection.commit()
    return drawn.execution


def synced(
    connection: Connection[Any],
    contract: Contract,
    pages: Sequence[Sequence[Any] | bytes],
    *,
    mode: executions.Mode = "snapshot",
    max_deleted_share: float = 0.2,
    **arguments: Any,
) -> dict[str, Any]:
    """Stages and publishes; gives the row of `sync_log`. Raises what publish refuses, with nothing changed."""
    execution = staged(connection, contract, pages, mode=mode, **arguments)
    try:
        row = publish(connection, contract, execution, mode=mode, max_deleted_share=max_deleted_share)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        staging.drop(connection, execution)
        connection.commit()
    return row


def counts(row: dict[str, Any]) -> dict[str, int]:
    """The parts of the accounting that are not zero."""
    names = ("inserted", "updated", "unchanged", "stale", "duplicate", "quarantined", "deleted")
    return {name: row[name] for name in names if row[name]}

"""Executions: the attempts to bring an entity, from the drawing of an id to the row in `sync_log`.

`operations.executions` says what each is about, so that publish needs nothing but its id; and which run it belongs to,
so that a retry finds what it can go on with and the end of the run drops what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from psycopg import Connection, sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

RESUMABLE_FOR = timedelta(hours=1)
"""How old a fetch that was cut off may be for a retry to go on with it: later pages must not be of another day."""

Mode = Literal["snapshot", "delta", "replay"]
OPTIONS = ("allow_deletes", "allow_quarantined", "trust_source", "reset_watermark")
"""What a run's params may ask of its executions."""


@dataclass(frozen=True)
class Run:
    """An entity in a run of a pipeline. A run id alone is not unique: two DAGs have the same one at the same hour."""

    entity: str
    pipeline: str
    run_id: str


@dataclass(frozen=True)
class Execution:
    """A row of `operations.executions`; times are aware; `fetched_at` and `records_read` None until all has landed."""

    execution: UUID
    entity: str
    mode: Mode
    pipeline: str
    run_id: str
    landing: str
    since: datetime | None
    started_at: datetime
    fetched_at: datetime | None
    records_read: int | None
    settled: bool
    until: datetime | None
    allow_deletes: bool
    allow_quarantined: bool
    trust_source: bool
    reset_watermark: bool
    fields: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    drift: Sequence[Mapping[str, Any]] = ()

    @property
    def first_task(self) -> str:
        """The task that draws the entity's execution: to clear it is to begin anew."""
        return f"{self.entity}.{'choose' if self.mode == 'replay' else 'extract'}"


def begin(
    connection: Connection[Any],
    run: Run,
    *,
    mode: Mode,
    landing_uri: str,
    since: datetime | None = None,
    options: Mapping[str, bool] | None = None,
) -> Execution:
    """Draws a new execution; `options` are of those in OPTIONS."""
    execution = uuid4()
    columns = {
        "execution": execution,
        "entity": run.entity,
        "mode": mode,
        "pipeline": run.pipeline,
        "run_id": run.run_id,
        "landing": f"{landing_uri.rstrip('/')}/{run.entity}/{execution}",
        "since": since,
        **(options or {}),
    }
    statement = sql.SQL("insert into operations.executions ({}) values ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join(map(sql.Placeholder, columns))
    )
    connection.execute(statement, columns)
    return get(connection, execution)


def get(connection: Connection[Any], execution: UUID) -> Execution:
    """The execution of that id. Raises LookupError if there is none."""
    with connection.cursor(row_factory=class_row(Execution)) as cursor:
        found = cursor.execute("select * from operations.executions where execution = %s", (execution,)).fetchone()
    if found is None:
        raise LookupError(
            f"execution {execution} is not in operations.executions: clear the entity's first task to begin anew"
        )
    return found


def resumable(connection: Connection[Any], run: Run) -> Execution | None:
    """The run's last execution of the entity, if its fetch was cut off less than an hour ago and nobody works on it.

    Takes a session-level lock on it: while this connection lives, nobody else goes on with it. One whose landing is
    complete is not resumed: whoever clears extract then wants the source to be asked anew.
    """
    with connection.cursor(row_factory=class_row(Execution)) as cursor:
        last = cursor.execute(
            """
            select *
              from operations.executions
             where pipeline = %s and run_id = %s and entity = %s
             order by started_at desc
             limit 1
            """,
            (run.pipeline, run.run_id, run.entity),
        ).fetchone()
    if last is None or last.records_read is not None:
        return None
    young = connection.execute("select clock_timestamp() - %s < %s", (last.started_at, RESUMABLE_FOR)).fetchone()
    return last if young == (True,) and hold(connection, last.execution) else None


def hold(connection: Connection[Any], execution: UUID) -> bool:
    """Takes the execution's session-level lock; False if another session has it."""
    key = f"sluice.extract.{execution}"
    row = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone()
    return bool(row and row[0])


def landed(
    connection: Connection[Any],
    execution: UUID,
    *,
    fetched_at: datetime,
    records_read: int,
    settled: bool = True,
    until: datetime | None = None,
) -> None:
    """Records that all pages have landed.

    `fetched_at` is the source's clock when the fetch began; `settled` says that it brought all that it asked for, up to
    `until` or, without it, up to the source's present.
    """
    connection.execute(
        """
        update operations.executions
           set fetched_at = %s, records_read = %s, settled = %s, until = %s
         where execution = %s
        """,
        (fetched_at, records_read, settled, until, execution),
    )


def note_fields(
    connection: Connection[Any],
    execution: UUID,
    fields: Mapping[str, Mapping[str, int]],
    drift: Sequence[Mapping[str, Any]],
) -> None:
    """Records which fields the execution's records have, and how that has drifted; publish hands it on."""
    connection.execute(
        "update operations.executions set fields = %s, drift = %s where execution = %s",
        (Jsonb(fields), Jsonb(drift), execution),
    )


def superseded(connection: Connection[Any], execution: Execution) -> list[UUID]:
    """The ids of the run's earlier executions of the entity: what they staged nobody publishes any more."""
    rows = connection.execute(
        """
        select execution
          from operations.executions
         where pipeline = %s and run_id = %s and entity = %s and started_at < %s
        """,
        (execution.pipeline, execution.run_id, execution.entity, execution.started_at),
    )
    return [earlier for (earlier,) in rows]


def of_run(connection: Connection[Any], *, pipeline: str, run_id: str) -> list[UUID]:
    """The ids of all executions that a run has begun."""
    rows = connection.execute(
        "select execution from operations.executions where pipeline = %s and run_id = %s", (pipeline, run_id)
    )
    return [execution for (execution,) in rows]

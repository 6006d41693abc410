"""`operations.sync_log`: what each published execution did, and up to where its entity has been read."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row


class WatermarkError(Exception):
    """The watermark in force is not a time that a source could be asked from."""


def published(connection: Connection[Any], execution: UUID) -> dict[str, Any] | None:
    """The execution's row; None while it is not published."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from operations.sync_log where execution = %s", (execution,)).fetchone()


def watermark(connection: Connection[Any], entity: str) -> datetime | None:
    """The watermark in force: that of the entity's newest row, since each carries it on; None where there is none.

    Raises WatermarkError for one that is no point in time, such as infinity.
    """
    try:
        row = connection.execute(
            "select watermark from operations.sync_log where entity = %s order by id desc limit 1", (entity,)
        ).fetchone()
    except psycopg.DataError as error:
        raise WatermarkError(
            f"{entity}: the newest row of operations.sync_log has a watermark that is no time ({error}): "
            "somebody has changed it. Run delta_sync with reset_watermark, and `since` if you know from when"
        ) from error
    return row[0] if row else None


def fields(connection: Connection[Any], entity: str) -> dict[str, dict[str, int]]:
    """Which fields, by JSON type, the entity's records had when last read whole and since; empty before the first.

    Not in the last execution alone: a delta of one record says little of the fields. At most the last 100 executions
    that read records are looked at.
    """
    rows = connection.execute(
        """
        with fetches as (
          select id, mode, fields
            from operations.sync_log
           where entity = %s and mode <> 'replay' and fields <> '{}'
           order by id desc
           limit 100
        )
        select field, json_type, sum(records::bigint)::bigint
          from fetches
         cross join lateral jsonb_each(fields) as by_field (field, kinds)
         cross join lateral jsonb_each_text(kinds) as by_type (json_type, records)
         where id >= coalesce((select max(id) from fetches where mode = 'snapshot'), 0)
         group by field, json_type
        """,
        (entity,),
    )
    found: dict[str, dict[str, int]] = {}
    for field, kind, records in rows:
        found.setdefault(field, {})[kind] = records
    return found

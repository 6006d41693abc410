"""Which files of an entity have been loaded: written when they have landed, in force when publish commits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from include.extract.landing import LoadedFile

__all__ = ["note", "of_entity"]


def note(connection: Connection[Any], execution: UUID, entity: str, files: Iterable[LoadedFile]) -> None:
    """Notes what an execution has landed or passed over, as pending; to repeat it changes nothing."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into operations.loaded_files (execution, entity, uri, size, checksum, modified_at, records)
            values (%s, %s, %s, %s, %s, %s, %s)
            on conflict (execution, uri) do nothing
            """,
            [(execution, entity, file.uri, file.size, file.checksum, file.modified_at, file.records) for file in files],
        )


def of_entity(connection: Connection[Any], entity: str) -> list[LoadedFile]:
    """Each file's last state that was published, loaded or passed over, in the order of their URIs."""
    with connection.cursor(row_factory=class_row(LoadedFile)) as cursor:
        return cursor.execute(
            """
            select distinct on (uri) uri, size, checksum, modified_at, records
              from operations.loaded_files
             where entity = %s and status <> 'pending'
             order by uri, loaded_at desc, id desc
            """,
            (entity,),
        ).fetchall()

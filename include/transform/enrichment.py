"""Enrichment of customers: the statement that writes where they are, their lifecycle stage and what they have spent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from include.load.publish import LOCK_SECONDS
from include.sql import render
from include.transform.geocoding import Gazetteer, Nominatim

GEOCODERS: dict[str, type[Gazetteer] | type[Nominatim]] = {kind.name: kind for kind in (Gazetteer, Nominatim)}


def statement(as_of: datetime, geocoder: str, *, dry_run: bool = False, lock_seconds: int = LOCK_SECONDS) -> str:
    """`enrichment/enrich.sql`, as text of several statements.

    `as_of` is aware; `geocoder` is a name in `GEOCODERS`, else KeyError.
    """
    kind = GEOCODERS[geocoder]
    return render(
        "enrichment/enrich.sql",
        as_of=as_of.isoformat(),
        geocoder=kind.name,
        parts=kind.reads,
        needs=kind.needs,
        dry_run=dry_run,
        lock_seconds=lock_seconds,
    )


def enrich(connection: Connection[Any], as_of: datetime, geocoder: str, **options: Any) -> dict[str, int]:
    """Enriches all live customers in a transaction of its own; gives the counts, see the file.

    `options` are those of `statement`. Raises psycopg.errors.LockNotAvailable where a publish of customers holds them
    for longer than `lock_seconds`.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(statement(as_of, geocoder, **options).encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
    assert row is not None  # noqa: S101 - the file's last statement is a select of one row
    counts: dict[str, int] = row[0]
    return counts

"""`operations.geocodes`: what a geocoder has answered, so that it is asked for an address once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from psycopg import Connection

from include.sql import render
from include.transform.geocoding import Address, Geocoder, GeocodingError, Location

NOT_FOUND_AGE = timedelta(days=30)
"""After so long a geocoder is asked again for what it did not find: maps grow."""
MOST_SECONDS = 900.0
"""How long one run asks: the rest of the enrichment waits for it, and the next run goes on."""
MOST_FAILURES = 5
"""So many in a row mean that the geocoder is down, or its connection wrong: asking further only takes time."""
STORE_SECONDS = 5.0
STORE_ANSWERS = 5000
REPORT_SECONDS = 15.0


@dataclass
class Counts:
    """What became of the addresses that the cache lacked: `wanted = found + not_found + failed + left`."""

    wanted: int = 0
    found: int = 0
    not_found: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        """Those that nobody asked for: the next run does."""
        return self.wanted - self.found - self.not_found - self.failed

    def __str__(self) -> str:
        parts = ("found", "not_found", "failed", "left")
        told = ", ".join(f"{getattr(self, part):,} {part.replace('_', ' ')}" for part in parts)
        return f"{self.wanted:,} addresses to ask for: {told}"


def unanswered(
    connection: Connection[Any], geocoder: Geocoder, *, not_found_age: timedelta = NOT_FOUND_AGE
) -> Generator[tuple[bytes, Address, int]]:
    """The addresses that the geocoder is to be asked for, in any order: (key, address, how many there are in all).

    Needs a connection in autocommit; the rows stay on the server until they are read.
    """
    query = render("enrichment/unanswered.sql", parts=geocoder.reads, needs=geocoder.needs)
    with connection.cursor("unanswered_addresses", withhold=True) as cursor:
        cursor.execute(query.encode(), {"geocoder": geocoder.name, "not_found_age": not_found_age})
        for key, *parts, total in cursor:
            yield key, Address(*parts), total


def store(connection: Connection[Any], geocoder: str, answers: dict[bytes, Location | None]) -> None:
    """Keeps answers, those that found nothing too, in the place of older ones."""
    if not answers:
        return
    latitudes = [location and location.latitude for location in answers.values()]
    longitudes = [location and location.longitude for location in answers.values()]
    connection.execute(
        """
        insert into operations.geocodes (geocoder, address, latitude, longitude)
        select %s, * from unnest(%s::bytea[], %s::float8[], %s::float8[])
        on conflict (geocoder, address) do update set
          latitude = excluded.latitude,
          longitude = excluded.longitude,
          answered_at = excluded.answered_at
        """,
        (geocoder, list(answers), latitudes, longitudes),
    )


def fill(
    connection: Connection[Any],
    geocoder: Geocoder,
    report: Callable[[str], None],
    *,
    dry_run: bool = False,
    most_seconds: float = MOST_SECONDS,
    not_found_age: timedelta = NOT_FOUND_AGE,
) -> Counts:
    """Asks the geocoder for what the cache lacks and keeps its answers; says how far it is every 15 seconds.

    A failure is counted and not kept, so that the next run asks again; it never raises. Asking ends after
    `most_seconds`, and after five failures in a row. A dry run asks for nothing. Needs a connection in autocommit;
    killed half-way, it loses what the last five seconds answered.
    """
    counts = Counts()
    answers: dict[bytes, Location | None] = {}
    failures_in_a_row = 0
    began = stored_at = reported_at = time.monotonic()
    rows = unanswered(connection, geocoder, not_found_age=not_found_age)
    for key, address, counts.wanted in rows:
        now = time.monotonic()
        if dry_run or failures_in_a_row == MOST_FAILURES or now - began > most_seconds:
            break
        if now - stored_at > STORE_SECONDS or len(answers) >= STORE_ANSWERS:
            store(connection, geocoder.name, answers)
            answers, stored_at = {}, now
        if now - reported_at > REPORT_SECONDS:
            report(str(counts))
            reported_at = now
        try:
            location = answers[key] = geocoder.locate(address)
        except GeocodingError as error:
            counts.failed += 1
            counts.errors[str(error)] += 1
            failures_in_a_row += 1
            continue
        failures_in_a_row = 0
        if location is None:
            counts.not_found += 1
        else:
            counts.found += 1
    rows.close()  # the cursor, where asking ended early
    store(connection, geocoder.name, answers)
    return counts

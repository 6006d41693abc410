"""A load of the warehouse, from what replication has brought to what people read.

It begins with what is affected, builds dimensions, facts and marts beside the tables that people read, each step in a
transaction of its own and safe to repeat, and publishes all of it in one. A load that dies leaves tables in
`warehouse_build`, nothing else: the next one begins anew from `warehouse.load_log`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from psycopg import Connection, errors, sql
from psycopg.rows import dict_row

from include import sql as files
from include.load.publish import LOCK_SECONDS
from include.warehouse import calendar, checks

Database = Connection[Any]
Step = Literal["dimensions", "facts", "marts", "checks", "publish"]

ALREADY_LOADED = "SL011"
OVERTAKEN = "SL012"
RAW_MOVED = "SL013"
OUT_OF_ORDER = "SL014"
"""The SQLSTATEs that the steps raise. After each but the first the load is to begin anew, or a step to be cleared."""

_FILES: dict[Step, str] = {
    "dimensions": "warehouse/dimensions.sql",
    "facts": "warehouse/facts.sql",
    "marts": "marts/marts.sql",
    "checks": "warehouse/checks.sql",
    "publish": "warehouse/publish.sql",
}
_NEEDS: dict[Step, tuple[str, str]] = {
    "dimensions": ("affected_products", "begin"),
    "facts": ("next_dim_location", "dimensions"),
    "marts": ("next_fact_sales", "facts"),
    "checks": ("sales_by_segment", "marts"),
    "publish": ("sales_by_segment", "marts"),
}
"""The last that the step before makes, and that step."""
_MAKES: dict[Step, tuple[str, ...]] = {
    "dimensions": ("dim_customer", "dim_product", "dim_location", "gone_locations"),
    "facts": ("fact_sales", "repointed", "replaced"),
    "marts": (
        "affected_days",
        "daily_sales",
        "affected_keys",
        "customer_totals",
        "sales_by_region",
        "sales_by_segment",
    ),
    "checks": checks.WRONG,
}
"""The tables of each step; its views go with them."""


class LoadError(Exception):
    """A load that cannot begin; it says what to do."""


def begin(
    connection: Database,
    *,
    run_id: str,
    as_of: datetime,
    business_timezone: str = "UTC",
    holiday_country: str = "US",
    days: tuple[date, date] | None = None,
    full: bool = False,
    lock_seconds: int = LOCK_SECONDS,
) -> UUID:
    """Begins a load of what raw holds now: says what is affected, and commits. Gives the load's id.

    `as_of` (aware) is when the current versions' lifecycle stages are true. `business_timezone` (an IANA name) says
    whose days the days are, `holiday_country` whose holidays (see `calendar.rows`). Affected is what changed in raw
    since the newest load; `days` (the first and the last) are built anew besides. Everything is where `full` is asked
    for, there is no load yet, the time zone is another one, or raw was replicated whole.

    What an earlier attempt of `run_id` has built is dropped.

    Raises LoadError where raw has not been replicated, ValueError for what no load can have, and
    psycopg.errors.LockNotAvailable where replication goes on for longer than `lock_seconds`.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of must have a time zone, not {as_of.isoformat()}")
    if days is not None and days[0] > days[1]:
        raise ValueError(f"the interval ends ({days[1]}) before it begins ({days[0]})")
    _check_time_zone(connection, business_timezone)
    for dead, dead_run, _ in _builds(connection):
        if dead_run == run_id:
            drop(connection, dead)
    load = uuid4()
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_rendered("warehouse/begin.sql", load, lock_seconds=lock_seconds))
        while cursor.nextset():
            pass
        positions = {row["entity"]: row for row in cursor.execute("select * from raw.positions").fetchall()}
        missing = sorted({"customers", "products", "orders"} - set(positions))
        if missing:
            raise LoadError(f"raw has no {' and no '.join(missing)}: run replicate first")
        base = cursor.execute("select * from warehouse.load_log order by id desc limit 1").fetchone()
        row: dict[str, Any] = {
            "load": load,
            "run_id": run_id,
            "as_of": as_of,
            "business_timezone": business_timezone,
            "holiday_country": holiday_country,
            "base": base and base["load"],
            "base_as_of": base and base["as_of"],
        }
        for entity, position in positions.items():
            row |= {f"{entity}_seq": position["change_seq"], f"{entity}_generation": position["generation"]}
        row["is_full"] = (
            full
            or base is None
            or base["business_timezone"] != business_timezone
            or any(
                base[f"{entity}_generation"] != row[f"{entity}_generation"]
                or base[f"{entity}_seq"] > row[f"{entity}_seq"]
                for entity in positions
            )
        )
        insert = sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier("warehouse_build", _name("load", load)),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        )
        cursor.execute(insert, row)
        keys = None if days is None else tuple(day.year * 10000 + day.month * 100 + day.day for day in days)
        cursor.execute(_rendered("warehouse/affected.sql", load, full=row["is_full"], base=base, days=keys))
        while cursor.nextset():
            pass
        years = {found["year"] for found in cursor.fetchall()}
        copy = sql.SQL("copy {} ({}) from stdin").format(
            sql.Identifier("warehouse_build", _name("dim_date", load)),
            sql.SQL(", ").join(map(sql.Identifier, calendar.COLUMNS)),
        )
        with cursor.copy(copy) as stream:
            for day in calendar.rows(sorted(years | set(calendar.YEARS)), holiday_country):
                stream.write_row(day)
    return load


def render(step: Step, load: UUID, *, lock_seconds: int = LOCK_SECONDS) -> str:
    """The SQL of a step, as text of several statements for one transaction that the caller opens and commits.

    Nothing goes into the text but names of our own, numbers and the load's id.
    """
    later = list(_MAKES)[list(_MAKES).index(step) :] if step in _MAKES else []
    return _text(
        _FILES[step],
        load,
        step=step,
        needs=_NEEDS[step],
        makes=[name for made in later for name in _MAKES[made]],
        lock_seconds=lock_seconds,
        first_year=calendar.YEARS[0],
        last_year=calendar.YEARS[-1],
    )


def run(connection: Database, step: Step, load: UUID, *, lock_seconds: int = LOCK_SECONDS) -> None:
    """Does a step of a load in a transaction of its own; safe to repeat, what came after it is to be done again.

    Raises psycopg.Error with one of the SQLSTATEs above where it refuses.
    """
    with connection.transaction():
        connection.execute(render(step, load, lock_seconds=lock_seconds).encode())


def publish(connection: Database, load: UUID, *, lock_seconds: int = LOCK_SECONDS) -> dict[str, Any]:
    """Publishes what a load has built, in a transaction of its own; gives the row of `load_log`.

    A load that is published already stays as it is. Raises psycopg.Error with one of the SQLSTATEs above where it
    refuses, and psycopg.errors.LockNotAvailable where another load publishes for longer than `lock_seconds`.
    """
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select * from warehouse.load_log where load = %s", (load,)).fetchone()
        if row is None:
            cursor.execute(render("publish", load, lock_seconds=lock_seconds).encode())
            while cursor.nextset():
                pass
            row = cursor.fetchone()
    assert row is not None  # noqa: S101 - the file's last statement is a select of one row
    return row


def drop(connection: Database, load: UUID) -> None:
    """Drops whatever a load has built; safe to repeat, and while it is published or not."""
    with connection.transaction():
        _drop(connection, _relations(connection, load.hex))


def drop_abandoned(connection: Database, *, older_than: timedelta) -> list[UUID]:
    """Drops what loads have left that began so long ago, or that a crash has emptied; gives their ids."""
    now = connection.execute("select now()").fetchone()
    assert now is not None  # noqa: S101 - a select without from
    dead = [load for load, _, begun_at in _builds(connection) if begun_at is None or begun_at < now[0] - older_than]
    for load in dead:
        drop(connection, load)
    return dead


def _check_time_zone(connection: Database, name: str) -> None:
    try:
        ZoneInfo(name)
        with connection.transaction():
            connection.execute("select timestamptz '2000-01-01 00:00:00+00' at time zone %s", (name,))
    except (KeyError, ValueError, OSError, errors.InvalidParameterValue) as error:
        raise ValueError(f"business_timezone {name!r} is no time zone that Python and PostgreSQL both know") from error


def _builds(connection: Database) -> list[tuple[UUID, str | None, datetime | None]]:
    """The loads that have tables, with their run and when they began, where that is left to read."""
    found: list[tuple[UUID, str | None, datetime | None]] = []
    with connection.transaction():
        names = {name for name, _ in _relations(connection, "")}
        for hexadecimal in sorted({name[-32:] for name in names}):
            load, row = UUID(hexadecimal), None
            if _name("load", load) in names:
                query = sql.SQL("select run_id, begun_at from {}")
                table = sql.Identifier("warehouse_build", _name("load", load))
                row = connection.execute(query.format(table)).fetchone()
            found.append((load, *(row or (None, None))))
    return found


def _relations(connection: Database, ending: str) -> list[tuple[str, str]]:
    """(name, kind as DROP calls it) of what loads have built."""
    rows = connection.execute(
        """
        select relname, case relkind when 'v' then 'view' else 'table' end
          from pg_class
         where relnamespace = 'warehouse_build'::regnamespace and relkind in ('r', 'v') and relname ~ %s
        """,
        (r"_[0-9a-f]{32}$",),
    ).fetchall()
    return [(name, kind) for name, kind in rows if name.endswith(ending)]


def _drop(connection: Database, relations: Iterable[tuple[str, str]]) -> None:
    for name, kind in relations:
        statement = sql.SQL("drop {} if exists {} cascade")
        connection.execute(statement.format(sql.SQL(kind), sql.Identifier("warehouse_build", name)))


def _name(name: str, load: UUID) -> str:
    return f"{name}_{load.hex}"


def _text(template: str, load: UUID, **values: Any) -> str:
    def build(name: str) -> str:
        return f"warehouse_build.{_name(name, load)}"

    return files.render(template, load=load, build=build, **values)


def _rendered(template: str, load: UUID, **values: Any) -> bytes:
    return _text(template, load, **values).encode()

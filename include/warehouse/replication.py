"""Replication: what changed in `app` is copied into `raw`, whether the two are one server or two.

The source's side is one snapshot, begun while nobody publishes; the warehouse's is one transaction, in which rows and
positions commit together. Rows go from COPY to COPY as the bytes that they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from psycopg import Connection, OperationalError, errors, sql
from psycopg.pq import TransactionStatus
from sqlalchemy import MetaData, Table

from include.contracts.contract import Contract
from include.database.raw import REPLICATED, raw_tables
from include.load.publish import LOCK_SECONDS, holder

Database = Connection[Any]
Report = Callable[[str], None]

ROWS_AT_ONCE = (
    128  # more would wake the garbage collector, which takes as long as the rows; psycopg sends by the megabyte
)
REPORT_EVERY = 10.0  # seconds
SETTINGS = """
set local client_encoding = 'UTF8';
set local idle_in_transaction_session_timeout = 0;
set local jit = off
"""
"""Of both sides: text in the same encoding, and neither is cut off while it waits for the other."""

_RAW: dict[str, Table] = {table.name: table for table in raw_tables(MetaData())}


class ReplicationError(Exception):
    """Nothing was committed: `raw` is what it was. It names the entity and what to do."""


@dataclass(frozen=True)
class EntityReplicated:
    """What was copied of an entity: `rows` by table of `raw`; `whole` where all of it was, not only what changed.

    `change_seq` is the highest that was read, the entity's position from now on; `generation` grows with each whole.
    """

    entity: str
    whole: bool
    rows: dict[str, int]
    change_seq: int
    generation: int
    seconds: float


@dataclass(frozen=True)
class Replicated:
    """What a replication copied, an entity after the other, by name."""

    entities: tuple[EntityReplicated, ...]

    @property
    def rows(self) -> int:
        """All rows that were copied."""
        return sum(sum(entity.rows.values()) for entity in self.entities)


@dataclass(frozen=True)
class _Part:
    """A table of an entity; `owner` are its columns that hold the key of the entity's row."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    owner: tuple[str, ...]

    @property
    def numbered(self) -> bool:
        return "change_seq" in self.columns


@dataclass(frozen=True)
class _State:
    """What an entity is on one side: its newest change_seq, and a fingerprint of which row carries which."""

    newest: int
    fingerprint: tuple[tuple[int, int], ...]


def replicate(
    app: Database,
    warehouse: Database,
    *,
    full: bool = False,
    report: Report,
    lock_seconds: int = LOCK_SECONDS,
) -> Replicated:
    """Brings `raw` in `warehouse` to what `app` is now, in one transaction of `warehouse`, which it commits.

    Copies the rows above each entity's position, with all of their children and history, and the whole of an entity
    that has none yet, with `full` of every one. Afterwards both sides must hold the same keys with the same numbers;
    where they do not (`app` was restored from a backup), the entity is replicated whole, with a line that says so. Of
    all that is copied the two sides compare counts and checksums. `report` gets a line an entity, more of a long one.

    Neither connection may be in a transaction. The publish locks are held for a moment, by `app`'s session; a wait for
    them, or for somebody who uses `raw`, ends after `lock_seconds`.

    Raises ReplicationError, with nothing committed, where a lock is not to be had, a connection breaks, or the sides
    differ.
    """
    for name, connection in (("app_db", app), ("warehouse_db", warehouse)):
        if connection.info.transaction_status != TransactionStatus.IDLE:
            raise ReplicationError(f"replicate: the connection {name} must be open, and in no transaction")
    try:
        with warehouse.transaction():
            _begin(warehouse, lock_seconds)
            with _snapshot(app, lock_seconds):
                copied = [_replicate(app, warehouse, contract, full, report) for contract in REPLICATED]
    except errors.LockNotAvailable as error:
        raise ReplicationError(
            f"replicate: raw is in use for over {lock_seconds} s, nothing was committed: by {_users(warehouse)}; "
            "run it again afterwards"
        ) from error
    except OperationalError as error:
        broken = [name for name, one in (("app_db", app), ("warehouse_db", warehouse)) if one.closed]
        if not broken:
            raise
        raise ReplicationError(
            f"replicate: the connection {' and '.join(broken)} broke, nothing was committed: run it again ({error})"
        ) from error
    return Replicated(tuple(copied))


def _begin(warehouse: Database, lock_seconds: int) -> None:
    """Lets one replication at a time work on `raw`: a later snapshot must not be followed by an earlier one."""
    warehouse.execute(SETTINGS)
    warehouse.execute(sql.SQL("set local lock_timeout = {}").format(f"{lock_seconds}s"))
    warehouse.execute("lock table raw.positions in share row exclusive mode")


def _users(warehouse: Database) -> str:
    """Who uses tables of `raw`, in words for an error."""
    with warehouse.transaction():
        rows = warehouse.execute(
            """
            select a.pid, a.application_name, a.xact_start
              from pg_stat_activity a
             where a.pid <> pg_backend_pid()
               and a.pid in (
                 select l.pid
                   from pg_locks l
                   join pg_class c on c.oid = l.relation and c.relnamespace = 'raw'::regnamespace
                  where l.granted and l.database = (select oid from pg_database where datname = current_database())
               )
             order by a.xact_start
            """
        ).fetchall()
    found = [f"session {name!r} since {since} (process {pid} of the database)" for pid, name, since in rows]
    return ", ".join(found) or "nobody any more"


@contextmanager
def _snapshot(app: Database, lock_seconds: int) -> Iterator[None]:
    """A repeatable-read transaction whose snapshot is taken while this session holds every publish lock.

    So no publish is half-way: all numbers up to the highest that the snapshot shows are in it.
    """
    held: list[Contract] = []
    try:
        for contract in REPLICATED:
            _lock(app, contract, lock_seconds)
            held.append(contract)
        with app.transaction():
            app.execute("set transaction isolation level repeatable read, read only")
            app.execute("select pg_current_snapshot()")
            while held:
                _unlock(app, held.pop())
            app.execute(SETTINGS)
            yield
    finally:
        while held and not app.closed:
            _unlock(app, held.pop())


def _lock(app: Database, contract: Contract, lock_seconds: int) -> None:
    try:
        with app.transaction():
            app.execute(sql.SQL("set local lock_timeout = {}").format(f"{lock_seconds}s"))
            app.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (f"sluice.{contract.name}",))
    except errors.LockNotAvailable as error:
        with app.transaction():
            who = holder(app, contract)
        raise ReplicationError(
            f"replicate: {contract.name} is being published for over {lock_seconds} s: {who}; run it again afterwards"
        ) from error


def _unlock(app: Database, contract: Contract) -> None:
    with app.transaction():
        app.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (f"sluice.{contract.name}",))


def _replicate(app: Database, warehouse: Database, contract: Contract, full: bool, report: Report) -> EntityReplicated:
    started = time.monotonic()
    parts = _parts(contract)
    state = _state(app, "app", parts)
    known = warehouse.execute(
        "select change_seq, generation from raw.positions where entity = %s", (contract.name,)
    ).fetchone()
    position, generation = known or (0, 0)
    whole = full or known is None
    rows = {part.name: 0 for part in parts}
    if not whole:
        if state.newest > position:
            rows = _copy_changes(app, warehouse, contract, parts, position, report)
        if _state(warehouse, "raw", parts) != state:
            report(
                f"{contract.name}: WARNING: app is not what raw was copied from up to change_seq {position}, as after "
                f"a restore from a backup (its newest is {state.newest}): all of it is replicated anew"
            )
            whole = True
    if whole:
        rows = _copy_whole(app, warehouse, parts, report)
    if whole or state.newest > position:
        _compare(app, warehouse, contract, parts, None if whole else position)
    generation += int(whole)
    warehouse.execute(
        """
        insert into raw.positions (entity, change_seq, generation, replicated_at)
        values (%s, %s, %s, clock_timestamp())
        on conflict (entity) do update set
          change_seq = excluded.change_seq,
          generation = excluded.generation,
          replicated_at = excluded.replicated_at
        """,
        (contract.name, state.newest, generation),
    )
    seconds = time.monotonic() - started
    total = sum(rows.values())
    report(f"{contract.name}: {total:,} rows in {seconds:.1f} s, {total / seconds:,.0f} a second, compared")
    return EntityReplicated(contract.name, whole, rows, state.newest, generation, seconds)


def _parts(contract: Contract) -> list[_Part]:
    owners = {contract.name: contract.key}
    if contract.history:
        owners[f"{contract.name}_history"] = contract.key
    for children in contract.children.values():
        owners[children.table] = children.parent
    return [
        _Part(name, tuple(_RAW[name].columns.keys()), tuple(_RAW[name].primary_key.columns.keys()), owner)
        for name, owner in owners.items()
    ]


def _state(database: Database, schema: str, parts: Sequence[_Part]) -> _State:
    found: list[tuple[int, int, int]] = []
    for part in parts:
        if part.numbered:
            query = sql.SQL(
                """
                select coalesce(max(change_seq), 0), count(*),
                       coalesce(bit_xor(hash_record_extended(row({}), 0)), 0)
                  from {}
                """
            ).format(_names((*part.key, "change_seq")), sql.Identifier(schema, part.name))
            found += database.execute(query).fetchall()
    return _State(max(newest for newest, _, _ in found), tuple((rows, bits) for _, rows, bits in found))


def _copy_whole(app: Database, warehouse: Database, parts: Sequence[_Part], report: Report) -> dict[str, int]:
    warehouse.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(_raw(part) for part in parts)))
    rows = {}
    for part in parts:
        query = sql.SQL("select {} from {}").format(_names(part.columns), sql.Identifier("app", part.name))
        rows[part.name] = _pipe(app, query, warehouse, _raw(part), part, report, freeze=True)
    return rows


def _copy_changes(
    app: Database, warehouse: Database, contract: Contract, parts: Sequence[_Part], position: int, report: Report
) -> dict[str, int]:
    """Replaces the changed rows, and with each its children and history, of which some may be gone."""
    rows = {}
    for part in parts:
        changed = _changed_table(part)
        warehouse.execute(sql.SQL("create temporary table {} (like {}) on commit drop").format(changed, _raw(part)))
        query = sql.SQL("select {} from {} where {}").format(
            _names(part.columns), sql.Identifier("app", part.name), _is_changed("app", contract, parts, part, position)
        )
        rows[part.name] = _pipe(app, query, warehouse, changed, part, report)
        warehouse.execute(sql.SQL("analyze {}").format(changed))
    owners = sql.SQL("select {} from {}").format(_names(contract.key), _changed_table(parts[0]))
    for part in parts:
        replace = sql.SQL("delete from {} where ({}) in ({})").format(_raw(part), _names(part.owner), owners)
        warehouse.execute(replace)
        columns = _names(part.columns)
        insert = sql.SQL("insert into {} ({}) select {} from {}")
        warehouse.execute(insert.format(_raw(part), columns, columns, _changed_table(part)))
    return rows


def _pipe(
    app: Database,
    query: sql.Composed,
    warehouse: Database,
    target: sql.Identifier,
    part: _Part,
    report: Report,
    *,
    freeze: bool = False,
) -> int:
    """Copies what the query gives into a table, the bytes as they come; gives how many rows were taken.

    What is under way is a megabyte and what the sockets hold: enough that each side works while the other one does.
    `freeze` is for a table that this transaction has emptied: its rows need no second writing when they are read.
    """
    read = sql.SQL("copy ({}) to stdout (format binary)").format(query)
    options = sql.SQL("format binary, freeze" if freeze else "format binary")
    write = sql.SQL("copy {} ({}) from stdin ({})").format(target, _names(part.columns), options)
    started = reported = time.monotonic()
    rows = 0
    with app.cursor() as source, warehouse.cursor() as sink:
        with source.copy(read) as outgoing, sink.copy(write) as incoming:
            while block := b"".join(islice(outgoing, ROWS_AT_ONCE)):
                incoming.write(block)
                rows += ROWS_AT_ONCE
                if time.monotonic() - reported > REPORT_EVERY:
                    reported = time.monotonic()
                    report(f"{part.name}: {rows:,} rows, {rows / (reported - started):,.0f} a second")
        return sink.rowcount


def _compare(
    app: Database, warehouse: Database, contract: Contract, parts: Sequence[_Part], position: int | None
) -> None:
    """Compares what was copied, on both sides at the same time; `position` is None where all of it was.

    Analyzes what was copied whole, for those who read it next: the other side takes as long anyway.

    Raises ReplicationError, naming the table, where counts or checksums differ.
    """
    with ThreadPoolExecutor(1) as other_side:
        reading = other_side.submit(_checksums, app, "app", contract, parts, position)
        if position is None:
            warehouse.execute(sql.SQL("analyze {}").format(sql.SQL(", ").join(map(_raw, parts))))
        found = _checksums(warehouse, "raw", contract, parts, position)
        expected = reading.result()
    for part, there, here in zip(parts, expected, found, strict=True):
        if there != here:
            raise ReplicationError(
                f"{part.name}: app_db has {there[0]:,} rows with checksum {there[1]:x}, of these warehouse_db has "
                f"{here[0]:,} with {here[1]:x}; nothing is committed. Run it again with full=True"
            )


def _checksums(
    database: Database, schema: str, contract: Contract, parts: Sequence[_Part], position: int | None
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for part in parts:
        query = sql.SQL(
            "select count(*), coalesce(bit_xor(hash_record_extended(row({}), 0)), 0) from {} where {}"
        ).format(
            _names(part.columns),
            sql.Identifier(schema, part.name),
            sql.SQL("true") if position is None else _is_changed(schema, contract, parts, part, position),
        )
        found += database.execute(query).fetchall()
    return found


def _is_changed(schema: str, contract: Contract, parts: Sequence[_Part], part: _Part, position: int) -> sql.Composed:
    """Whether a row of the part belongs to an owner of which anything has a number above the position."""
    owners = sql.SQL(" union ").join(
        sql.SQL("select {} from {} where change_seq > {}").format(
            _names(contract.key), sql.Identifier(schema, numbered.name), position
        )
        for numbered in parts
        if numbered.numbered
    )
    return sql.SQL("({}) in ({})").format(_names(part.owner), owners)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _raw(part: _Part) -> sql.Identifier:
    return sql.Identifier("raw", part.name)


def _changed_table(part: _Part) -> sql.Identifier:
    return sql.Identifier(f"changed_{part.name}")

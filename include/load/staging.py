"""Staging: the unlogged tables of one execution, and the loading of landed batches into them by binary COPY."""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection, Cursor, Error, errors, sql
from psycopg.types.json import Jsonb
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from include.contracts.contract import Contract
from include.database.entities import StagingNames, staging_tables
from include.extract.json_records import decode_body
from include.transform.drift import FieldCounts
from include.transform.validation import PageValidator, Rejected, Row, StagedPage

REPORT_EVERY = 5.0  # seconds
DATA_ERRORS = (errors.DataError, errors.IntegrityError, OverflowError, struct.error)
"""What one bad record causes: SQLSTATE classes 22 and 23, and what psycopg itself cannot write as the column's type."""
PAYLOAD_ERRORS = (*DATA_ERRORS, errors.ProgramLimitExceeded)
"""What jsonb refuses: a NUL, a lone surrogate, NaN, a number or a string beyond its limits."""

PLACE = ("page", "position")
PLACE_TYPES = ("int4", "int4")
REJECTED_COLUMNS = (
    *PLACE,
    "record_key",
    "key_readable",
    "record_version",
    "stage",
    "error",
    "payload",
    "payload_raw",
    "landing_ref",
)
REJECTED_TYPES = (*PLACE_TYPES, "text", "bool", "timestamptz", "text", "text", "jsonb", "bytea", "text")


@dataclass
class StagedBatch:
    """What a batch came to: `records` = `valid` + `rejected`; `notes` counts what was given up without rejecting."""

    records: int = 0
    valid: int = 0
    rejected: int = 0
    notes: dict[str, int] = field(default_factory=dict)


def create(
    connection: Connection[Any], contract: Contract, execution: UUID, fetched_at: datetime, *, replay: bool = False
) -> None:
    """Creates the execution's staging tables; what is there already under these names stays."""
    for table in staging_tables(contract, execution, fetched_at, replay=replay):
        ddl = str(CreateTable(table, if_not_exists=True).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        connection.execute(ddl.replace("%%", "%").encode())


def exists(connection: Connection[Any], contract: Contract, execution: UUID) -> bool:
    """Whether the execution's staging tables are still there."""
    name = f"staging.{StagingNames(contract, execution).rejected}"
    row = connection.execute("select to_regclass(%s) is not null", (name,)).fetchone()
    return bool(row and row[0])


def drop(connection: Connection[Any], execution: UUID) -> list[str]:
    """Drops whatever staging tables the execution has; gives their names."""
    found = connection.execute(
        "select tablename from pg_tables where schemaname = 'staging' and tablename like %s order by 1",
        (f"%\\_{execution.hex}",),
    ).fetchall()
    for (name,) in found:
        connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier("staging", name)))
    return [name for (name,) in found]


def fields(connection: Connection[Any], contract: Contract, execution: UUID) -> dict[str, dict[str, int]]:
    """How many of the execution's staged records have which fields, by JSON type; see `include/transform/drift.py`."""
    statement = sql.SQL(
        """
        select field, json_type, sum(records)::bigint
          from {}
         group by field, json_type
         order by sum(sum(records)) over (partition by field) desc, field, json_type
        """
    ).format(sql.Identifier("staging", StagingNames(contract, execution).fields))
    found = FieldCounts(contract)  # each batch has its own thousand
    for name, kind, records in connection.execute(statement):
        found.add(found.name("", name), kind, records)
    return {name: dict(kinds) for name, kinds in found.counted.items()}


def stage_batch(
    connection: Connection[Any],
    validator: PageValidator,
    execution: UUID,
    pages: Sequence[tuple[int, int]],
    read_page: Callable[[int], bytes],
    landing: str,
    report: Callable[[str], None],
) -> StagedBatch:
    """Validates the batch's pages and loads them, in the caller's transaction.

    `pages` are the (number, records) of contiguous landed pages; `read_page` gives a page's bytes; `landing` is the URI
    that dead letters refer to. What an earlier attempt of this batch left is deleted first, so that it can run again.
    A record that Postgres refuses is found by bisection and rejected; its neighbours stay.

    Raises ValueError where a page does not hold the records that were counted when it landed.
    """
    contract = validator.contract
    loader = _Loader(connection, validator, execution, landing)
    counted = StagedBatch()
    total = sum(records for _, records in pages)
    started = reported = time.monotonic()
    if not pages:
        return counted
    loader.clear(pages[0][0], pages[-1][0])
    with _without_garbage_collection():
        for number, records in pages:
            staged = validator.page(number, decode_body(read_page(number)))
            found = len(staged.rows) + len(staged.rejected)
            if found != records:
                raise ValueError(
                    f"{contract.name}: page {number} of {landing} holds {found} records, "
                    f"{records} were counted when it landed; "
                    "clear the entity's first task to begin anew"
                )
            loader.load(staged)
            counted.records += found
            counted.valid += len(staged.rows)
            counted.rejected += len(staged.rejected)
            gc.collect(0)
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                rate = counted.records / (reported - started)
                share = counted.records / total
                report(f"{contract.name}: staged {counted.records:,} of {total:,} ({share:.0%}), {rate:,.0f} a second")
    loader.load_fields(pages[0][0])
    counted.notes = dict(validator.notes)
    return counted


class _Loader:
    """Copies staged pages into the execution's tables."""

    def __init__(self, connection: Connection[Any], validator: PageValidator, execution: UUID, landing: str) -> None:
        contract = validator.contract
        names = StagingNames(contract, execution)
        self._connection = connection
        self._validator = validator
        self._landing = landing
        self._execution = execution
        types = [spec.sql_type for spec in contract.fields]
        marks, mark_types = (("is_deleted",), ("bool",)) if contract.deleted else ((), ())
        self._records = _copy(names.records, (*PLACE, *contract.columns, "updated_at", *marks))
        self._record_types = _oid_names([*PLACE_TYPES, *types, "timestamptz", *mark_types])
        self._children = {
            name: (
                _copy(names.children(child), (*PLACE, *child.columns)),
                _oid_names([*PLACE_TYPES, *(spec.sql_type for spec in child.fields)]),
            )
            for name, child in contract.children.items()
        }
        self._rejected = _copy(names.rejected, REJECTED_COLUMNS)
        self._retrying = Retrying(
            retry=retry_if_exception(self._may_pass), stop=stop_after_attempt(3), wait=wait_exponential(2), reraise=True
        )
        children = [names.children(child) for child in contract.children.values()]
        self._tables = [names.records, *children, names.rejected, names.fields]
        self._fields = _copy(names.fields, (*PLACE, "field", "json_type", "records"))

    def clear(self, first: int, last: int) -> None:
        """Deletes the rows of these pages, whoever staged them: a retry may run beside the attempt it replaces."""
        key = f"sluice.stage.{self._execution}.{first}"
        self._connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (key,))
        for table in self._tables:
            statement = sql.SQL("delete from {} where page between %s and %s").format(sql.Identifier("staging", table))
            self._connection.execute(statement, (first, last))

    def load(self, staged: StagedPage) -> None:
        """Loads a page; what Postgres refuses moves from its rows to its rejected."""
        refused = {row[1]: error for row, error in self._refused(staged.rows, staged.children)}
        if refused:
            staged.rejected.extend(self._rejections(staged, refused))
            staged.rows = [row for row in staged.rows if row[1] not in refused]
        self._load_rejected([self._rejected_row(rejected) for rejected in staged.rejected])

    def load_fields(self, page: int) -> None:
        """Loads how many of the batch's records have which fields, beside its first page."""
        rows = [
            (page, 0, field, kind, records)
            for field, kinds in self._validator.shapes.fields().items()
            for kind, records in kinds.items()
        ]
        with self._connection.cursor() as cursor:
            _copy_rows(cursor, self._fields, [*PLACE_TYPES, "text", "text", "int8"], rows)

    def _rejected_row(self, rejected: Rejected) -> Row:
        return (
            rejected.page,
            rejected.position,
            rejected.record_key,
            rejected.key_readable,
            rejected.record_version,
            rejected.stage,
            rejected.error,
            Jsonb(rejected.payload, dumps=_as_is),
            rejected.payload.encode(),
            f"{self._landing}#page={rejected.page}&position={rejected.position}",
        )

    def _refused(self, rows: list[Row], children: dict[str, list[Row]]) -> Iterator[tuple[Row, str]]:
        """Copies the records with their children; gives those that Postgres refuses, found by halving."""
        if not rows:
            return
        try:
            self._retrying(self._copy_records, rows, children)
        except DATA_ERRORS as error:
            if len(rows) == 1:
                yield rows[0], _reason(error)
                return
            middle = len(rows) // 2
            for half in (rows[:middle], rows[middle:]):
                positions = {row[1] for row in half}
                yield from self._refused(
                    half, {name: [c for c in all_ if c[1] in positions] for name, all_ in children.items()}
                )

    def _copy_records(self, rows: list[Row], children: dict[str, list[Row]]) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            _copy_rows(cursor, self._records, self._record_types, rows)
            for name, (statement, types) in self._children.items():
                _copy_rows(cursor, statement, types, children[name])

    def _may_pass(self, error: BaseException) -> bool:
        """Whether an error is neither of the data, which is final, nor of a lost connection, which fails the task."""
        return isinstance(error, Error) and not isinstance(error, DATA_ERRORS) and not self._connection.closed

    def _rejections(self, staged: StagedPage, refused: dict[int, str]) -> Iterator[Rejected]:
        for position, value, payload in staged.sources(refused):
            yield self._validator.reject(staged.number, position, value, payload, refused[position], stage="load")

    def _load_rejected(self, rows: list[Row]) -> None:
        if not rows:
            return
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                _copy_rows(cursor, self._rejected, REJECTED_TYPES, rows)
        except PAYLOAD_ERRORS:
            if len(rows) == 1:
                without = REJECTED_COLUMNS.index("payload")
                with self._connection.cursor() as cursor:
                    _copy_rows(
                        cursor, self._rejected, REJECTED_TYPES, [(*rows[0][:without], None, *rows[0][without + 1 :])]
                    )
                return
            middle = len(rows) // 2
            self._load_rejected(rows[:middle])
            self._load_rejected(rows[middle:])


def _copy(table: str, columns: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("copy {} ({}) from stdin (format binary)").format(sql.Identifier("staging", table), names)


def _copy_rows(cursor: Cursor[Any], statement: sql.Composed, types: Sequence[str], rows: Sequence[Row]) -> None:
    with cursor.copy(statement) as copy:
        copy.set_types(types)
        write = copy.write_row
        for row in rows:
            write(row)


def _oid_names(types: Sequence[str]) -> list[str]:
    """psycopg's names for column types: without a precision."""
    return [name.split("(")[0] for name in types]


def _as_is(payload: str) -> str:
    return payload


def _reason(error: BaseException) -> str:
    """Postgres' own words, without the row's values, which its DETAIL and CONTEXT carry."""
    diagnostics = getattr(error, "diag", None)
    if diagnostics is None or diagnostics.message_primary is None:
        return f"cannot be written as the column's type: {type(error).__name__}"
    return f"Postgres refused it: {diagnostics.message_primary} (SQLSTATE {diagnostics.sqlstate})"


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A batch makes millions of objects and few cycles; looking for those all the time takes longer than the work.

    Once a page is enough: an exception that a cycle keeps keeps its page too, by its frames.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

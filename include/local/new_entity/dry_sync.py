"""Writes the migration of a contract that was just written, and tries the contract on its source's first records.

A process of its own, `python -m include.local.new_entity.dry_sync NAME FROM`: contracts are read once a process.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import requests
from psycopg import Connection, sql
from psycopg.rows import dict_row

from include.contracts import BY_NAME
from include.contracts.contract import Contract
from include.database import migrate
from include.database.entities import StagingNames
from include.extract.client import SourceError, http_date
from include.extract.json_records import MalformedBody, NotAnArray
from include.extract.pagination import PagingError
from include.load import staging
from include.local.demo import table
from include.local.new_entity.sample import SampleError, file_page, first_pages, open_source
from include.local.processes import StackError
from include.local.stack import REPOSITORY, Stack
from include.masking import mask_url
from include.transform.drift import drift
from include.transform.validation import PageValidator

__all__ = ["dry_sync"]

ROWS = 5
COLUMNS = 8
CELL = 28
REASONS = 5
LONGEST_REASON = 110


def main(name: str, address: str) -> int:
    """The migration, then the dry sync; 0 if both went well."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    contract = BY_NAME[name]
    stack = Stack(Path(os.environ.get("SLUICE_LOCAL") or REPOSITORY / ".local"), durable=True)
    try:
        stack.up(("postgres",))
        migrate.upgrade(stack.dsn())
        with redirect_stdout(StringIO()):  # Alembic's own words
            migration = migrate.write_revision(stack.dsn(), name)
        print(f"wrote {os.path.relpath(migration)}")
        with closing(psycopg.connect(stack.dsn())) as connection:
            print(dry_sync(connection, contract, address, lambda line: print(f"  {line}")))
    except (StackError, SampleError, SourceError, PagingError, MalformedBody, NotAnArray, psycopg.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def dry_sync(connection: Connection[Any], contract: Contract, address: str, report: Callable[[str], None]) -> str:
    """What becomes of the first records at `address`, staged as a sync stages them, in a transaction that is undone.

    Raises what reading the source raises, and SampleError where the connection cannot be used.
    """
    pages, fetched_at = _landed(contract, address, report)
    execution = uuid4()
    names = StagingNames(contract, execution)
    try:
        staging.create(connection, contract, execution, fetched_at)
        staged = staging.stage_batch(
            connection,
            PageValidator(contract, fetched_at),
            execution,
            [(number, records) for number, (_, records) in enumerate(pages, start=1)],
            lambda number: pages[number - 1][0],
            mask_url(address),
            report,
        )
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_select("*", names.records)).fetchall()
            errors = cursor.execute(_select("error", names.rejected)).fetchall()
            children = {
                child.table: len(cursor.execute(_select("page", names.children(child))).fetchall())
                for child in contract.children.values()
            }
            drifted = drift(contract, staging.fields(connection, contract, execution), {})
    finally:
        connection.rollback()
    lines = [_shown(contract, rows[:ROWS]), ""] if rows else []
    lines.append(f"{staged.records:,} records: {staged.valid:,} valid, {staged.rejected:,} rejected")
    lines += [f"  {count:,} rows of {name}" for name, count in children.items()]
    reasons = Counter(row["error"].split(";")[0][:LONGEST_REASON] for row in errors)
    lines += [f"  rejected, {count:,}: {reason}" for reason, count in reasons.most_common(REASONS)]
    lines += [f"  noted, {count:,}: {note}" for note, count in staged.notes.items()]
    lines += [f"  drift: {found.text}" for found in drifted]
    return "\n".join(lines)


def _landed(
    contract: Contract, address: str, report: Callable[[str], None]
) -> tuple[list[tuple[bytes, int]], datetime]:
    """The first pages with their numbers of records, and the source's clock."""
    if contract.endpoint is None:
        if contract.files is None:
            raise TypeError(f"{contract.name} has neither an endpoint nor files")
        return [file_page(Path(address), contract.files)], datetime.now(UTC)
    with requests.Session() as session:
        reached = open_source(contract.name, address, contract.connection, session)
        pages = list(first_pages(reached.client, contract.endpoint, report))
    return [(page.body, page.records) for page in pages], http_date(pages[0].headers.get("Date")) or datetime.now(UTC)


def _select(columns: str, name: str) -> sql.Composed:
    return sql.SQL("select {} from {} order by page, position").format(
        sql.SQL("*") if columns == "*" else sql.Identifier(columns), sql.Identifier("staging", name)
    )


def _shown(contract: Contract, rows: list[dict[str, Any]]) -> str:
    """The first rows, of each its first columns."""
    columns = contract.columns[:COLUMNS]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    more = len(contract.columns) - len(columns)
    shown = table(list(columns), cells, left=set(range(len(columns))))
    return f"{shown}\n... and {more} more columns" if more else shown


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= CELL else f"{printable[: CELL - 3]}..."


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Dead letters as people handle them: chosen, landed anew for a replay, discarded with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection, sql

from include.contracts.contract import Contract
from include.database.entities import StagingNames
from include.extract.landing import FetchState, Landing, PageInfo
from include.extract.pagination import PageRequest
from include.load import staging
from include.operations.executions import Execution

PAGE = 5000
CLOCK_MARGIN = timedelta(minutes=5)


@dataclass(frozen=True)
class Choice:
    """Which pending letters of an entity: all criteria that are given must be met.

    `error` is a regular expression (Postgres', ignoring case) that the letter's error must match.
    """

    entity: str
    ids: Sequence[int] = ()
    error: str = ""
    older_than: timedelta | None = None
    younger_than: timedelta | None = None

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition on `operations.dead_letters l`, and what is bound to it."""
        conditions = ["l.entity = %(entity)s", "l.status = 'pending'"]
        conditions += ["l.id = any(%(ids)s)"] if self.ids else []
        conditions += ["l.error ~* %(error)s"] if self.error else []
        conditions += ["l.queued_at < now() - %(older_than)s"] if self.older_than is not None else []
        conditions += ["l.queued_at > now() - %(younger_than)s"] if self.younger_than is not None else []
        values = {
            "entity": self.entity,
            "ids": list(self.ids),
            "error": self.error,
            "older_than": self.older_than,
            "younger_than": self.younger_than,
        }
        return " and ".join(conditions), values


def count(connection: Connection[Any], choice: Choice) -> int:
    """How many letters are chosen. Raises psycopg.errors.InvalidRegularExpression for an error pattern that is none."""
    condition, values = choice.where()
    statement = sql.SQL("select count(*) from operations.dead_letters l where {}").format(sql.SQL(condition))
    row = connection.execute(statement, values).fetchone()
    assert row is not None  # noqa: S101 - count gives a row
    return int(row[0])


def discard(connection: Connection[Any], choice: Choice, reason: str) -> int:
    """Resolves the chosen letters as discarded, for that reason; gives how many."""
    condition, values = choice.where()
    statement = sql.SQL(
        """
        update operations.dead_letters l
           set status = 'discarded', resolved_at = now(), resolution = %(reason)s
         where {}
        """
    ).format(sql.SQL(condition))
    return connection.execute(statement, values | {"reason": reason}).rowcount


def land(
    connection: Connection[Any], contract: Contract, execution: Execution, choice: Choice, landing: Landing
) -> FetchState:
    """Lands the chosen letters' original bytes as pages, as if the source had sent them, oldest fetch first.

    Creates the execution's staging tables, one of which notes which record is which letter's. The execution's clock is
    ours less five minutes: no source is asked. Gives the complete state; one without pages where nothing is chosen.
    """
    fetched_at = execution.started_at - CLOCK_MARGIN
    staging.create(connection, contract, execution.execution, fetched_at, replay=True)
    state = FetchState(
        entity=contract.name,
        execution=execution.execution,
        fetched_at=fetched_at,
        started_at=execution.started_at,
        first=PageRequest("operations.dead_letters"),
    )
    letters = sql.Identifier("staging", StagingNames(contract, execution.execution).letters)
    copy = sql.SQL("copy {} (page, position, letter, fetched_at) from stdin").format(letters)
    for number, page in enumerate(_chosen(connection, choice), start=1):
        landing.write_page(number, _body((payload for _, _, payload in page), contract.records_path))
        state.pages.append(PageInfo(number=number, records=len(page)))
        with connection.cursor().copy(copy) as rows:
            for position, (letter, fetched_at, _) in enumerate(page):
                rows.write_row((number, position, letter, fetched_at))
    landing.save_state(state)
    return state


def _chosen(connection: Connection[Any], choice: Choice) -> Iterator[list[tuple[int, datetime, bytes]]]:
    """(id, fetched_at, bytes) of the chosen letters, a page at a time."""
    condition, values = choice.where()
    statement = sql.SQL(
        "select l.id, l.fetched_at, l.payload_raw from operations.dead_letters l where {} order by l.fetched_at, l.id"
    ).format(sql.SQL(condition))
    with connection.cursor("chosen_letters") as cursor:
        cursor.execute(statement, values)
        while page := cursor.fetchmany(PAGE):
            yield page


def _body(payloads: Iterable[bytes], path: str) -> bytes:
    """A body as the source sends it: the records in an array, at its path."""
    body = b"[" + b",\n".join(payloads) + b"]"
    for name in reversed(path.removesuffix("?").split(".") if path else []):
        body = b'{"' + name.encode() + b'": ' + body + b"}"
    return body

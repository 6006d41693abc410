"""Publishing: the statement that moves an execution from staging into the entity's tables, and what it may refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from psycopg import Connection
from psycopg.rows import dict_row

from include.contracts.contract import Contract
from include.database.entities import StagingNames

SQL = Path(__file__).parents[1] / "sql"
"""Where the .sql files lie: the template search path of DAGs that run them."""

ALREADY_PUBLISHED = "SL001"
OVERTAKEN = "SL002"
TOO_MANY_DELETES = "SL003"
ACCOUNTING = "SL004"
"""The SQLSTATEs that `sync/publish.sql` raises."""


def render(template: str, contract: Contract, execution: UUID, **values: Any) -> str:
    """The SQL of a file under `include/sql/` for one execution, as text of several statements.

    Everything that goes into the text is an identifier from the contract, a number or a UUID; nothing that a source or
    a person sent.
    """
    environment = Environment(loader=FileSystemLoader(SQL), undefined=StrictUndefined, autoescape=False)  # noqa: S701 - SQL, not HTML
    names = StagingNames(contract, execution)
    return environment.get_template(template).render(contract=contract, staging=names, execution=execution, **values)


def publish(
    connection: Connection[Any], contract: Contract, execution: UUID, *, mode: str, max_deleted_share: float
) -> dict[str, Any]:
    """Publishes a staged execution in a transaction of its own; gives the row of `sync_log`, with what it superseded.

    Raises psycopg.Error with one of the SQLSTATEs above where it refuses.
    """
    text = render("sync/publish.sql", contract, execution, mode=mode, max_deleted_share=max_deleted_share)
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(text.encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
    assert row is not None  # noqa: S101 - the file's last statement is a select of one row
    return row


def queue_dead_letters(connection: Connection[Any], contract: Contract, execution: UUID) -> None:
    """Queues what the execution rejected, without publishing anything; safe to repeat."""
    connection.execute(render("sync/queue_dead_letters.sql", contract, execution).encode())

"""The quality suites by their names: one a contract, those of the syncs and the warehouse, and both compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

from psycopg import Connection, Error
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from include.contracts import BY_NAME, CONTRACTS
from include.quality import app_suites, gate, reconciliation, warehouse_suites
from include.quality.expectations import Suite
from include.quality.gate import GateError, GateResult

ON_WAREHOUSE = ("warehouse", "reconciliation")
OTHERS = ("syncs", *ON_WAREHOUSE)


def names() -> tuple[str, ...]:
    """All suites, those of the contracts first. Great Expectations is not imported."""
    return (*(contract.name for contract in CONTRACTS), *OTHERS)


def declared(name: str, *, late_after: Mapping[str, timedelta] | None = None) -> list[Suite]:
    """What a suite expects, a `Suite` a relation; all but reconciliation, which has to be prepared.

    Those of contracts and syncs are to be evaluated on `app`, that of the warehouse there. `late_after` gives for each
    pipeline how old its last success may be, which syncs warns about.

    Raises GateError for a name that no suite has, and for a contract whose checks cannot be made.
    """
    if name == "syncs":
        return app_suites.syncs(CONTRACTS, late_after or {})
    if name == "warehouse":
        return warehouse_suites.declared()
    if name in BY_NAME:
        return app_suites.entity(BY_NAME[name], BY_NAME)
    raise GateError(f"there is no suite {name!r} to declare: there are {', '.join(names())}")


def evaluate(
    name: str,
    *,
    app_url: str | URL,
    warehouse_url: str | URL,
    late_after: Mapping[str, timedelta] | None = None,
) -> GateResult:
    """Evaluates a suite where it belongs; reads only, but for reconciliation's own tables in `warehouse_build`.

    Raises GateError where it could not be evaluated, whatever the reason.
    """
    if name != "reconciliation":
        suites = declared(name, late_after=late_after)
        return gate.evaluate(warehouse_url if name == "warehouse" else app_url, suites)
    with (
        _connection(app_url) as app,
        _connection(warehouse_url) as warehouse,
        reconciliation.prepared(app, warehouse) as suites,
    ):
        return gate.evaluate(warehouse_url, suites)


@contextmanager
def _connection(url: str | URL) -> Iterator[Connection[Any]]:
    """A connection of psycopg, in autocommit, closed at the end."""
    target = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(target, poolclass=NullPool)
    try:
        opened = engine.raw_connection()
    except (Error, SQLAlchemyError) as error:
        raise GateError(f"{target.render_as_string()}: {gate.cause(str(error))}") from error
    try:
        connection = cast("Connection[Any]", opened.driver_connection)
        connection.autocommit = True
        yield connection
    finally:
        opened.close()

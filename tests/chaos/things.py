"""The entities of the simulated sources: contracts as strict as they begin, and as they are mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import psycopg
from pydantic import Field, StringConstraints
from sqlalchemy import MetaData, create_engine

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Endpoint
from include.contracts.record import Identifier, Record, Timestamp, WholeNumber
from include.database import migrate
from include.database.entities import entity_tables
from include.extract.pagination import LinkHeader
from include.local.postgres import PostgresServer

Label = Annotated[str, StringConstraints(max_length=3)]
LongLabel = Annotated[str, StringConstraints(max_length=8)]


class PartRecord(Record):
    number: WholeNumber
    name: str


class ThingRecord(Record):
    id: Identifier
    label: Label
    updated_at: Timestamp
    parts: list[PartRecord] = Field(default_factory=list)


class MendedThing(ThingRecord):
    label: LongLabel


class ContentRecord(Record):
    id: Identifier
    label: Label
    parts: list[PartRecord] = Field(default_factory=list)


class MendedContent(ContentRecord):
    label: LongLabel


def _parts(table: str) -> dict[str, Children]:
    return {"parts": Children(table, PartRecord, parent=("thing_id",), key=("number",))}


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract(
            name="things",
            record=ThingRecord,
            key=("id",),
            history=True,
            endpoint=Endpoint("/things", changed_since="modified_since"),
            children=_parts("thing_parts"),
        ),
        Contract(
            name="shifting",
            record=ThingRecord,
            key=("id",),
            history=True,
            endpoint=Endpoint("/shifting", pagination=LinkHeader(stable=False), changed_since="modified_since"),
            children=_parts("shifting_parts"),
        ),
        Contract(
            name="contents",
            record=ContentRecord,
            key=("id",),
            version=None,
            endpoint=Endpoint("/contents", changed_since="modified_since"),
            children=_parts("content_parts"),
        ),
    )
}

MENDED = {
    name: replace(contract, record=MendedThing if contract.version else MendedContent)
    for name, contract in CONTRACTS.items()
}


def parts_table(contract: Contract) -> str:
    """The table of the contract's only children."""
    return f"app.{contract.children['parts'].table}"


@contextmanager
def database(folder: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database of its own, migrated and with the tables of the entities here, on a server below
    `folder`: a schedule makes and drops a hundred tables, which in memory takes half the time."""
    server = PostgresServer(folder / "postgres", fsync=False)
    server.start()
    try:
        migrate.upgrade(server.dsn())
        metadata = MetaData()
        for contract in MENDED.values():
            entity_tables(contract, metadata)
        engine = create_engine(server.dsn().replace("postgresql:", "postgresql+psycopg:"))
        metadata.create_all(engine)
        engine.dispose()
        with psycopg.connect(server.dsn(), options="-c timezone=UTC") as connection:
            yield connection
    finally:
        server.stop()

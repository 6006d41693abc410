"""The entities of the simulated sources: contracts as strict as they begin, and as they are mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import psycopg
from pydantic import Field, StringConstraints
from sqlalchemy import MetaData, create_engine

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Endpoint
from include.contracts.record import Identifier, Record, Timestamp, WholeNumber
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
def database(server: PostgresServer, template: str, name: str = "chaos") -> Iterator[psycopg.Connection[Any]]:
    """A connection to a copy of the migrated database that also has the tables of the entities here."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
    metadata = MetaData()
    for contract in MENDED.values():
        entity_tables(contract, metadata)
    engine = create_engine(server.dsn(name).replace("postgresql:", "postgresql+psycopg:"))
    metadata.create_all(engine)
    engine.dispose()
    with psycopg.connect(server.dsn(name), options="-c timezone=UTC") as connection:
        yield connection

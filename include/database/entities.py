"""The tables of an entity, derived from its contract: `app.<entity>`, its history, its children, and its staging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from include.contracts.contract import Children, Contract
from include.contracts.fields import FieldSpec

TYPES: dict[str, TypeEngine[Any]] = {
    "uuid": Uuid(),
    "text": Text(),
    "bigint": BigInteger(),
    "boolean": Boolean(),
    "numeric(18,4)": Numeric(18, 4),
    "timestamptz": DateTime(timezone=True),
    "date": Date(),
    "text[]": ARRAY(Text()),
}
TIME = TYPES["timestamptz"]


def entity_tables(contract: Contract, metadata: MetaData) -> list[Table]:
    """The permanent tables of an entity in `app`, added to `metadata`: its own, its children's and its history."""
    Sequence("change_seq", schema="app", metadata=metadata)
    keys = [spec for spec in contract.fields if spec.name in contract.key]
    table = Table(
        contract.name,
        metadata,
        *_fields(contract.fields, primary_key=contract.key),
        Column("updated_at", TIME, nullable=contract.version is None),
        Column("fetched_at", TIME, nullable=False),
        Column("absent_since", TIME),
        Column("deleted_at", TIME),
        Column("synced_at", TIME, nullable=False, server_default=func.now()),
        Column("change_seq", BigInteger(), nullable=False),
        *(Column(column.name, column.type) for column in contract.enrichment),
        *_checks(contract.fields),
        schema="app",
    )
    tables = [table]
    for children in contract.children.values():
        parent = [
            Column(name, TYPES[key.sql_type], primary_key=True) for name, key in zip(children.parent, keys, strict=True)
        ]
        own = _fields(children.fields, primary_key=children.key)
        parent_key = ForeignKeyConstraint(children.parent, [f"app.{contract.name}.{name}" for name in contract.key])
        tables.append(
            Table(children.table, metadata, *parent, *own, *_checks(children.fields), parent_key, schema="app")
        )
    if contract.history:
        tables.append(
            Table(
                f"{contract.name}_history",
                metadata,
                *_fields(contract.fields, primary_key=contract.key),
                Column("updated_at", TIME, primary_key=True),
                Column("fetched_at", TIME, nullable=False),
                Column("change_seq", BigInteger(), nullable=False),
                schema="app",
            )
        )
    by_name = {made.name: made for made in tables}
    for index in contract.indexes:
        indexed = by_name[index.table or contract.name]
        Index(None, *(indexed.c[name] for name in index.columns), info={"serves": index.serves})
    return tables


def staging_tables(contract: Contract, execution: UUID, fetched_at: datetime, *, replay: bool = False) -> list[Table]:
    """The unlogged tables of one execution: valid records, their children, the rejected beside them, and their fields.

    A record's `fetched_at` is the execution's; in a replay it is its letter's, and one more table says which that is.

    `page` and `position` say where a record lay in the landed snapshot; they order records and tie children to parents.
    They carry the target's types, NOT NULL and CHECK constraints, so that what Postgres refuses shows here, but not its
    keys: a snapshot may hold a record twice.
    """
    metadata = MetaData()
    names = StagingNames(contract, execution)
    own = [
        *_fields(contract.fields, may_lack=contract.content if contract.deleted else ()),
        Column("updated_at", TIME, nullable=contract.version is None),
        Column("fetched_at", TIME, nullable=False, server_default=fetched_at.isoformat()),
        *_checks(contract.fields),
    ]
    if contract.deleted:
        required = [f"{spec.name} is not null" for spec in contract.fields if not spec.nullable]
        own += [
            Column("is_deleted", Boolean(), nullable=False),
            CheckConstraint(f"is_deleted or {' and '.join(required)}", name="tombstone_or_whole"),
        ]
    tables = [_staging(names.records, metadata, own)]
    for children in contract.children.values():
        tables.append(
            _staging(names.children(children), metadata, [*_fields(children.fields), *_checks(children.fields)])
        )
    rejected = [
        Column("record_key", Text(), nullable=False),
        Column("key_readable", Boolean(), nullable=False),
        Column("record_version", TIME),
        Column("stage", Text(), nullable=False),
        Column("error", Text(), nullable=False),
        Column("payload", JSONB()),
        Column("payload_raw", LargeBinary(), nullable=False),
        Column("landing_ref", Text(), nullable=False),
    ]
    tables.append(_staging(names.rejected, metadata, rejected))
    fields = [
        Column("field", Text(), nullable=False),
        Column("json_type", Text(), nullable=False),
        Column("records", BigInteger(), nullable=False),
    ]
    tables.append(_staging(names.fields, metadata, fields))
    if replay:
        letters = [Column("letter", BigInteger(), nullable=False), Column("fetched_at", TIME, nullable=False)]
        tables.append(_staging(names.letters, metadata, letters))
    return tables


class StagingNames:
    """The names of an execution's staging tables, without the schema `staging`."""

    def __init__(self, contract: Contract, execution: UUID) -> None:
        self._execution = execution.hex
        self.records = f"{contract.name}_{self._execution}"
        self.rejected = f"{contract.name}_rejected_{self._execution}"
        self.fields = f"{contract.name}_fields_{self._execution}"
        self.letters = f"{contract.name}_letters_{self._execution}"

    def children(self, children: Children) -> str:
        return f"{children.table}_{self._execution}"


def _staging(name: str, metadata: MetaData, items: Iterable[Any]) -> Table:
    place = [Column("page", Integer(), nullable=False), Column("position", Integer(), nullable=False)]
    return Table(
        name,
        metadata,
        *place,
        *items,
        schema="staging",
        prefixes=["UNLOGGED"],
        postgresql_with={"autovacuum_enabled": False},
    )


def _fields(
    specs: Iterable[FieldSpec], primary_key: tuple[str, ...] = (), may_lack: tuple[str, ...] = ()
) -> Iterator[Column[Any]]:
    for spec in specs:
        if spec.name in primary_key:
            yield Column(spec.name, TYPES[spec.sql_type], primary_key=True, autoincrement=False)
        else:
            yield Column(spec.name, TYPES[spec.sql_type], nullable=spec.nullable or spec.name in may_lack)


def _checks(specs: Iterable[FieldSpec]) -> Iterator[CheckConstraint]:
    for spec in specs:
        for rule, predicate in spec.predicates:
            yield CheckConstraint(predicate, name=f"{spec.name}_{rule}")

"""What a contract declares of an entity; tables, staging, publish SQL, gate and asset are derived from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from sqlalchemy.types import TypeEngine

from include.contracts.endpoint import Endpoint
from include.contracts.fields import FieldSpec, Path, field_specs, source_paths
from include.contracts.files import Files
from include.contracts.record import Record

KEY_TYPES = ("uuid", "text", "bigint")
DELTAS = ("changes", "whole", "never")
ON_DRIFT = ("warn", "fail")
BOOKKEEPING = ("fetched_at", "absent_since", "deleted_at", "synced_at", "change_seq")
"""Columns that every `app` table has behind its fields and `updated_at`; publish writes them."""
PLACE = ("page", "position", "is_deleted")
"""Columns that every staging table has before, or behind, those of the record."""


class ContractError(ValueError):
    """A contract that cannot work, named with its field."""


@dataclass(frozen=True)
class Column:
    """A column of the entity's table that a sync never writes (enrichment does).

    What its values may be, inclusive, is checked with the published rows.
    """

    name: str
    type: TypeEngine[Any]
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Index:
    """An index of the entity's table, and the query that it serves."""

    columns: tuple[str, ...]
    serves: str
    table: str | None = None  # a child's table; the entity's own where it is None


@dataclass(frozen=True)
class Check:
    """A condition that every row of the staging table must meet, as a SQL predicate over its columns.

    A row for which the predicate is null does not meet it: say `x is null or ...` where null will do. A subquery tells
    the row's columns from its own as `staged.x`. Of severity "critical" the entity stops; a "warning" passes.
    """

    name: str
    predicate: str
    severity: Literal["critical", "warning"] = "critical"


@dataclass(frozen=True)
class PublishedCheck:
    """A condition of the published tables, as the SELECT of the rows of `app` that do not meet it.

    `failing` gives at least the contract's key, a row for each that fails, and decides itself about deleted rows and
    nulls; it is read only, and no percent sign may stand in it. `expected` says in a few words what holds where there
    are none. `reads` names the other contracts whose tables it asks. Of severity "critical" the pipeline fails; a
    "warning" is told and passes.
    """

    name: str
    failing: str
    expected: str
    column: str | None = None
    reads: tuple[str, ...] = ()
    severity: Literal["critical", "warning"] = "critical"


@dataclass(frozen=True)
class Children:
    """A nested list of the record, kept in a table of its own and replaced together with its parent.

    `parent` names the columns that hold the parent's key, in its order; `key` the fields that tell siblings apart.
    `minimum_rows` is the floor of the published table, 0 where none need be there.
    """

    table: str
    record: type[Record]
    parent: tuple[str, ...]
    key: tuple[str, ...]
    minimum_rows: int = 1

    @cached_property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The child's own columns, without those of the parent's key."""
        return field_specs(self.record)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.fields)


@dataclass(frozen=True)
class Contract:
    """An entity, declared once.

    `key` names the fields of the primary key. `version` names the field that says which of two records is newer;
    without one content is compared. `history` keeps replaced versions in `app.<name>_history`. `minimum_rows` is the
    floor of a full snapshot. `endpoint` or `files` say where the records come from, `connection` how an endpoint is
    reached. `delta` says what `delta_sync` does: ask for changes; read the entity whole; or leave it to `daily_sync`.
    `checks` are made of what is staged, before it is published; `published_checks` daily of what is published, and so
    is whether it was synced `fresh_within` the last hours, and whether every column has a value in some row, but for
    those that `may_be_all_null` (of children as `table.column`).
    `deleted` names the field by which a source marks a deleted record: true, or not empty; no more of such a record is
    read than its key and version, and the row is marked as deleted. What a source's records have besides, or lack, is
    warned about, or fails the entity (`on_drift`); `ignored` names fields that are left out on purpose.

    Raises `ContractError`, naming contract and field, for a declaration that cannot work.
    """

    name: str
    record: type[Record]
    key: tuple[str, ...]
    endpoint: Endpoint | None = None
    files: Files | None = None
    version: str | None = "updated_at"
    history: bool = False
    children: Mapping[str, Children] = field(default_factory=dict)
    enrichment: tuple[Column, ...] = ()
    indexes: tuple[Index, ...] = ()
    checks: tuple[Check, ...] = ()
    published_checks: tuple[PublishedCheck, ...] = ()
    fresh_within: timedelta = timedelta(hours=26)
    may_be_all_null: tuple[str, ...] = ()
    deleted: str | None = None
    ignored: tuple[str, ...] = ()
    on_drift: Literal["warn", "fail"] = "warn"
    minimum_rows: int = 1
    lookback: timedelta = timedelta(minutes=15)
    initial_watermark: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    connection: str = "source_api"
    delta: Literal["changes", "whole", "never"] = "changes"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,19}", self.name):
            raise ContractError(f"contract {self.name!r}: the name must be 1 to 20 of a-z, 0-9 and _, a letter first")
        try:
            specs = {spec.name: spec for spec in self.all_fields}
            for children in self.children.values():
                _ = children.fields
        except TypeError as error:
            raise ContractError(f"contract {self.name}: {error}") from None
        if self.deleted is not None and self.deleted not in {*self.record.model_fields, *self.computed}:
            raise ContractError(
                f"contract {self.name}: deleted field {self.deleted!r} is not in {self.record.__name__}"
            )
        if self.deleted is not None and self.deleted in (*self.key, self.version, *self.children):
            raise ContractError(f"contract {self.name}: deleted field {self.deleted!r} is its key, version or children")
        for name in self.key:
            if name not in specs:
                raise ContractError(f"contract {self.name}: key field {name!r} is not in {self.record.__name__}")
            if specs[name].sql_type not in KEY_TYPES or specs[name].nullable:
                raise ContractError(
                    f"contract {self.name}: key field {name!r} must be a UUID, text or integer, not null"
                )
        if not self.key:
            raise ContractError(f"contract {self.name}: it needs a key")
        if (self.endpoint is None) == (self.files is None):
            raise ContractError(f"contract {self.name}: it needs an endpoint or files, and not both")
        if self.endpoint is not None and self.endpoint.changed_since is None and self.delta == "changes":
            raise ContractError(
                f'contract {self.name}: its endpoint has no `changed_since`: say delta="whole" to read it whole in '
                'every delta_sync, or delta="never" to leave it to daily_sync'
            )
        if self.version is not None:
            version = specs.get(self.version)
            if version is None or version.sql_type != "timestamptz" or version.nullable:
                raise ContractError(f"contract {self.name}: version field {self.version!r} must be a time, never null")
        elif self.history:
            raise ContractError(f"contract {self.name}: history needs a version field, to tell versions apart")
        for name, choice, choices in (("delta", self.delta, DELTAS), ("on_drift", self.on_drift, ON_DRIFT)):
            if choice not in choices:
                raise ContractError(f"contract {self.name}: {name} {choice!r} is none of {', '.join(choices)}")
        declared: tuple[Check | PublishedCheck, ...] = (*self.checks, *self.published_checks)
        for check in declared:
            if isinstance(check, PublishedCheck) and "%" in check.failing:
                raise ContractError(
                    f"contract {self.name}: check {check.name!r}: a percent sign is doubled on its way to PostgreSQL: "
                    "say mod(a, b), or ~ instead of like"
                )
            if check.severity not in ("critical", "warning"):
                raise ContractError(f"contract {self.name}: check {check.name!r}: severity is critical or warning")
        for name, children in self.children.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,29}", children.table):
                raise ContractError(
                    f"contract {self.name}: children {name!r}: the table's name must be 1 to 30 of a-z, 0-9 and _"
                )
            if name not in self.record.model_fields:
                raise ContractError(f"contract {self.name}: children {name!r} are not in {self.record.__name__}")
            if not children.key or not set(children.key) <= set(children.columns):
                raise ContractError(
                    f"contract {self.name}: children {name!r}: key {children.key} is not in their fields"
                )
            for spec in children.fields:
                if spec.name in children.key and (spec.sql_type not in KEY_TYPES or spec.nullable):
                    raise ContractError(
                        f"contract {self.name}: children {name!r}: key field {spec.name!r} must be a UUID, text or "
                        "integer, not null"
                    )
            if len(children.parent) != len(self.key):
                raise ContractError(
                    f"contract {self.name}: children {name!r}: parent columns must match key {self.key}"
                )
        of_children = {f"{child.table}.{name}" for child in self.children.values() for name in child.columns}
        known = {*specs, *of_children, *(column.name for column in self.enrichment)}
        if unknown := sorted({*self.may_be_all_null} - known):
            raise ContractError(f"contract {self.name}: may_be_all_null names {unknown[0]!r}, which is no field")
        own = [*self.columns, "updated_at", *BOOKKEEPING, *PLACE, *(column.name for column in self.enrichment)]
        for taken in (own, *([*child.parent, *child.columns, *PLACE] for child in self.children.values())):
            if twice := sorted({name for name in taken if taken.count(name) > 1}):
                raise ContractError(
                    f"contract {self.name}: column {twice[0]!r} is declared twice, or is one of Sluice's own: give the "
                    "field another name, and the source's as its alias"
                )

    @cached_property
    def all_fields(self) -> tuple[FieldSpec, ...]:
        """The record's own fields, without the children and the mark of deletion."""
        return field_specs(self.record, exclude=frozenset({*self.children, self.deleted or ""}))

    @cached_property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The record's own columns: key and content, without the version."""
        return tuple(spec for spec in self.all_fields if spec.name != self.version)

    @cached_property
    def enriched(self) -> tuple[FieldSpec, ...]:
        """The columns of `enrichment`, of which nobody has to have a value."""
        return tuple(
            FieldSpec(
                name=column.name,
                paths=(),
                sql_type=str(column.type).lower(),
                nullable=True,
                minimum=column.minimum,
                maximum=column.maximum,
                choices=column.choices,
            )
            for column in self.enrichment
        )

    def paths(self, name: str) -> tuple[Path, ...]:
        """Where a source's record may have a field of the record model; none for a computed one."""
        info = self.record.model_fields.get(name)
        return () if info is None else source_paths(name, info)

    @cached_property
    def source_names(self) -> dict[str, str]:
        """The source's own name for each field that is not computed; of a nested one, the outermost."""
        return {spec.name: str(spec.paths[0][0]) for spec in self.all_fields if spec.paths}

    @property
    def computed(self) -> tuple[str, ...]:
        """The names of the fields that are computed from others."""
        return tuple(self.record.model_computed_fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of `fields`."""
        return tuple(spec.name for spec in self.fields)

    @property
    def content(self) -> tuple[str, ...]:
        """The columns that can change: neither key nor version."""
        return tuple(name for name in self.columns if name not in self.key)

    @property
    def table(self) -> str:
        return f"app.{self.name}"

    @property
    def records_path(self) -> str:
        """Where the records stand in a landed page: a dotted path, `""` for the page itself."""
        return "" if self.endpoint is None else self.endpoint.records

    @property
    def stable(self) -> bool:
        """Whether a snapshot surely holds what lives at the source throughout, so that one is enough to delete."""
        return self.endpoint is None or self.endpoint.pagination.stable

    @property
    def source(self) -> str:
        """Where the records come from, for people."""
        return self.endpoint.path if self.endpoint is not None else self.files.uri if self.files is not None else ""

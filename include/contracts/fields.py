"""Reads a record model's fields: column type, nullability, bounds and choices.

The one place that maps Python types to Postgres types. Tables, staging, CHECK constraints and gate expectations all
come from these specifications, so that they cannot disagree.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import annotated_types
from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import ComputedFieldInfo, FieldInfo

SQL_TYPES: dict[Any, str] = {
    UUID: "uuid",
    str: "text",
    int: "bigint",
    bool: "boolean",
    Decimal: "numeric(18,4)",
    datetime: "timestamptz",
    date: "date",
    list[str]: "text[]",
}
INTEGER_RANGE = (-(2**63), 2**63 - 1)
ABSENT = object()
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class FieldSpec:
    """A field as a column: `minimum` and `maximum` are inclusive, lengths are in characters.

    `paths` are the places of a source's record where it may stand, as names and indexes; a computed field has none. A
    `constant` is no field of the source, but has the same value in every record.
    """

    name: str
    paths: tuple[Path, ...]
    sql_type: str
    nullable: bool
    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    choices: tuple[str, ...] = ()
    required: bool = field(default=True, compare=False)
    constant: bool = field(default=False, compare=False)

    @property
    def predicates(self) -> Iterator[tuple[str, str]]:
        """(name of the rule, SQL predicate) for each rule of the field; true for null, as a CHECK constraint is."""
        if self.minimum is not None:
            yield "minimum", f"{self.name} >= {self.minimum}"
        if self.maximum is not None:
            yield "maximum", f"{self.name} <= {self.maximum}"
        if self.min_length is not None:
            yield "min_length", f"char_length({self.name}) >= {self.min_length}"
        if self.max_length is not None:
            yield "max_length", f"char_length({self.name}) <= {self.max_length}"
        if self.choices:
            listed = ", ".join(f"'{choice}'" for choice in self.choices)
            yield "choices", f"{self.name} in ({listed})"


def field_specs(record: type[BaseModel], exclude: frozenset[str] = frozenset()) -> tuple[FieldSpec, ...]:
    """The columns of a record model, in its order, computed fields last, without the fields in `exclude`.

    Raises TypeError, naming model and field, for a type that no column type fits.
    """
    fields: dict[str, FieldInfo | ComputedFieldInfo] = {**record.model_fields, **record.model_computed_fields}
    return tuple(_spec(record, name, info) for name, info in fields.items() if name not in exclude)


def value_at(value: Any, path: Iterable[str | int]) -> Any:
    """What stands at a path of names and indexes, or ABSENT."""
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return ABSENT
    return value


def source_paths(name: str, info: FieldInfo | ComputedFieldInfo) -> tuple[Path, ...]:
    """Where a source's record may have the field: its alias, or each of several, or its name."""
    if isinstance(info, ComputedFieldInfo):
        return ()
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [name if alias is None else alias]
    return tuple(tuple(choice.path) if isinstance(choice, AliasPath) else (choice,) for choice in choices)


def _spec(record: type[BaseModel], name: str, info: FieldInfo | ComputedFieldInfo) -> FieldSpec:
    if isinstance(info, ComputedFieldInfo):
        plain, metadata = _unwrap(info.return_type, [])
    else:
        plain, metadata = _unwrap(info.annotation, list(info.metadata))
    optional = types.NoneType in get_args(plain) if get_origin(plain) in (Union, types.UnionType) else False
    if optional:
        members = [member for member in get_args(plain) if member is not types.NoneType]
        if len(members) != 1:
            raise TypeError(f"{record.__name__}.{name}: no column holds a choice of types ({plain})")
        plain, metadata = _unwrap(members[0], metadata)
    choices: tuple[str, ...] = ()
    if get_origin(plain) is Literal:
        choices = tuple(get_args(plain))
        if not all(isinstance(choice, str) and choice.replace("_", "").isalnum() for choice in choices):
            raise TypeError(f"{record.__name__}.{name}: choices must be words of letters, digits and _, not {choices}")
        plain = str
    if get_origin(plain) is list:
        plain = list[_unwrap(get_args(plain)[0], [])[0]]  # type: ignore[misc]  # the item's type without its constraints
    if plain not in SQL_TYPES:
        raise TypeError(f"{record.__name__}.{name}: no column type fits {plain}; use one of {list(SQL_TYPES)}")
    try:
        bounds = _bounds(metadata) if plain != list[str] else {}
    except TypeError as error:
        raise TypeError(f"{record.__name__}.{name}: {error}") from None
    if plain is int:
        lowest, highest = INTEGER_RANGE
        bounds = {key: value for key, value in bounds.items() if value not in (lowest, highest)}
    required = isinstance(info, FieldInfo) and info.is_required()
    return FieldSpec(
        name,
        source_paths(name, info),
        SQL_TYPES[plain],
        optional,
        choices=choices,
        required=required,
        constant=not required and len(choices) == 1,
        **bounds,
    )


def _unwrap(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """The annotation without `Annotated`, and all that the layers of it say."""
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for item in more:
            metadata = [*metadata, *(item.metadata if isinstance(item, FieldInfo) else [item])]
    return annotation, metadata


def _bounds(metadata: list[Any]) -> dict[str, int]:
    """Inclusive bounds; of one that several layers give, the narrowest, since a value must meet them all."""
    bounds: dict[str, int] = {}
    for item in metadata:
        is_group = isinstance(item, annotated_types.GroupedMetadata)  # StringConstraints, Len, Interval
        for name, value in (_bounds(list(item)) if is_group else _bound(item)).items():
            narrower = max if name.startswith("min") else min
            bounds[name] = narrower(value, bounds.get(name, value))
    return bounds


def _bound(item: Any) -> dict[str, int]:
    match item:
        case annotated_types.Ge(ge=value):
            return {"minimum": _whole(value)}
        case annotated_types.Le(le=value):
            return {"maximum": _whole(value)}
        case annotated_types.MinLen(min_length=value):
            return {"min_length": value}
        case annotated_types.MaxLen(max_length=value):
            return {"max_length": value}
        case annotated_types.Gt() | annotated_types.Lt():
            raise TypeError("use ge= and le= for bounds: a column's CHECK and its expectation are inclusive")
    return {}


def _whole(value: Any) -> int:
    if not isinstance(value, int | Decimal | float) or value != int(value):
        raise TypeError(f"a bound of a column must be a whole number, not {value!r}")
    return int(value)

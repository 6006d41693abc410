"""Schema drift: which fields a source's records have, and how that differs from the contract and from the last time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from types import NoneType
from typing import Any, Literal

from include.contracts.contract import Contract
from include.contracts.fields import FieldSpec, Path, value_at

ALL = "*"
"""Stands for the records themselves: as a field of type object it counts them; `items.*` counts the items."""
MOST_FIELDS = 1000
MOST_SHAPES = 1000
LONGEST_NAME = 200  # characters
OTHERS = "(other fields)"
FEW_RECORDS = 20
"""A small delta may lack an optional field by chance."""

_TYPES = {str: "string", bool: "boolean", NoneType: "null", list: "array", dict: "object"}
_TYPES |= dict.fromkeys((int, float, Decimal), "number")

Fields = Mapping[str, Mapping[str, int]]
"""How many records have a value of each JSON type, by field: `city`, `address.city` where the contract reads it there,
`items.price` for a nested list's."""


class FieldCounts:
    """Sums up fields. Of those that the contract does not read, a thousand keep their names; more are no schema."""

    def __init__(self, contract: Contract) -> None:
        self.counted: dict[str, Counter[str]] = {}
        self._named = {*_known(contract), *(prefix + ALL for prefix in _specs(contract))}
        self._room = MOST_FIELDS

    def name(self, prefix: str, field: str) -> str:
        """The name that the field is counted under, as Postgres can hold it."""
        name = prefix + field.replace("\x00", "\\x00").encode(errors="replace").decode()[:LONGEST_NAME]
        if name not in self._named:
            if self._room == 0:
                return OTHERS
            self._named.add(name)
            self._room -= 1
        return name

    def add(self, name: str, kind: str, records: int) -> None:
        """Counts so many more records with a value of that type."""
        self.counted.setdefault(name, Counter())[kind] += records


class Shapes:
    """Counts the fields of records and their JSON types, by the shape of the whole record: there are few of these."""

    def __init__(self, contract: Contract) -> None:
        self._fields = FieldCounts(contract)
        self._own, *lists = (_Level(prefix, specs, self._fields) for prefix, specs in _specs(contract).items())
        paths = [path for name in contract.children for path in contract.paths(name)]
        self._lists = list(zip(paths, lists, strict=True))

    def add(self, value: Any) -> None:
        """Counts a record, valid or not; one that is no object has no fields."""
        if type(value) is not dict:
            return
        self._own.add(value)
        for path, level in self._lists:
            items = value_at(value, path)
            if type(items) is list:
                for item in items:
                    if type(item) is dict:
                        level.add(item)

    def fields(self) -> dict[str, Counter[str]]:
        """What was counted, by field."""
        for level in (self._own, *(level for _, level in self._lists)):
            level.settle()
        return self._fields.counted


class _Level:
    """The shapes of the records themselves, or of a nested list's items; few are kept, since names can be generated."""

    def __init__(self, prefix: str, specs: Iterable[FieldSpec], fields: FieldCounts) -> None:
        self._prefix = prefix
        self._fields = fields
        self._deep = [path for spec in specs for path in spec.paths if len(path) > 1]
        self._records: dict[int, int] = {}
        self._shapes: dict[int, tuple[Any, ...]] = {}

    def add(self, value: dict[str, Any]) -> None:
        shape: tuple[Any, ...] = (*value, *map(type, value.values()))
        if self._deep:
            shape += tuple(type(value_at(value, path)) for path in self._deep)
        known = hash(shape)  # 64 bits; to compare all names, which are new strings in each record, takes twice as long
        if known in self._records:
            self._records[known] += 1
            return
        if len(self._records) == MOST_SHAPES:
            self.settle()
        self._records[known] = 1
        self._shapes[known] = shape

    def settle(self) -> None:
        """Resolves the shapes into fields."""
        deep = [".".join(map(str, path)) for path in self._deep]
        for known, records in self._records.items():
            shape = self._shapes[known]
            names = [part for part in shape if isinstance(part, str)]
            named = zip((ALL, *names, *deep), (dict, *shape[len(names) :]), strict=True)
            # A set: of a record's fields that share a name (`OTHERS`, or cut short) each type counts once.
            for name, kind in {(self._fields.name(self._prefix, name), _TYPES.get(kind)) for name, kind in named}:
                if kind is not None:  # else it is ABSENT's
                    self._fields.add(name, kind, records)
        self._records.clear()
        self._shapes.clear()


@dataclass(frozen=True)
class Drift:
    """A field that is not as the contract or the last executions have it; `records` of `total` have it so."""

    field: str
    kind: Literal["new", "missing", "type"]
    types: tuple[str, ...]
    records: int
    total: int

    @property
    def text(self) -> str:
        """For people, with what to do."""
        if self.field == OTHERS:
            return f"more than {MOST_FIELDS:,} different fields: names that are generated belong into one field"
        seen = f"({', '.join(self.types)}) in {self.records:,} of {self.total:,} records"
        match self.kind:
            case "new":
                return f"new field `{self.field}` {seen}: read it in the contract, or list it in its `ignored`"
            case "missing":
                return f"field `{self.field}` is in none of {self.total:,} records: ask the source, or drop it"
            case "type":
                return f"field `{self.field}` is another type than before {seen}: ask the source"

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def drift(contract: Contract, seen: Fields, before: Fields) -> list[Drift]:
    """What has drifted in an execution's fields, against the contract and the fields of those published before.

    Fields in the contract's `ignored` never drift.
    """
    found = [*_new(contract, seen), *_missing(contract, seen), *_changed(contract, seen, before)]
    return [one for one in found if one.field not in contract.ignored]


def _specs(contract: Contract) -> dict[str, tuple[FieldSpec, ...]]:
    """The specifications of the contract's own fields and of its nested lists', by what stands before their names."""
    return {"": contract.all_fields} | {
        _prefix(path): child.fields for name, child in contract.children.items() for path in contract.paths(name)
    }


def _known(contract: Contract) -> set[str]:
    """All that the contract reads, and the objects that it reads something of."""
    paths = [("", path) for name in (*contract.children, contract.deleted) if name for path in contract.paths(name)]
    paths += [(prefix, path) for prefix, specs in _specs(contract).items() for spec in specs for path in spec.paths]
    return {prefix + _dotted(part) for prefix, path in paths for part in (path, path[:1])}


def _new(contract: Contract, seen: Fields) -> Iterator[Drift]:
    known = _known(contract) | {prefix + ALL for prefix in _specs(contract)}
    for field in sorted(seen.keys() - known):
        types = seen[field]
        yield Drift(field, "new", tuple(sorted(types)), sum(types.values()), _total(contract, seen, field))


def _missing(contract: Contract, seen: Fields) -> Iterator[Drift]:
    choices: dict[tuple[str, FieldSpec], list[str]] = {}
    for name, child in contract.children.items():
        for spec in child.fields:
            paths = [(path, inner) for path in contract.paths(name) for inner in spec.paths]
            choices[name, spec] = [_prefix(path) + _dotted(inner) for path, inner in paths]
    for spec in contract.all_fields:
        choices["", spec] = [_dotted(path) for path in spec.paths]
    for (_, spec), names in choices.items():
        if not names or spec.constant or any(name in seen for name in names):
            continue
        total = max(_total(contract, seen, name) for name in names)
        if total >= (1 if spec.required else FEW_RECORDS):
            yield Drift(names[0], "missing", (), 0, total)


def _changed(contract: Contract, seen: Fields, before: Fields) -> Iterator[Drift]:
    for field in sorted(_known(contract) & seen.keys()):
        types = seen[field]
        earlier = before.get(field, {}).keys() - {"null"}
        others = sorted(types.keys() - earlier - {"null"})
        if earlier and others:
            records = sum(types[name] for name in others)
            yield Drift(field, "type", tuple(others), records, _total(contract, seen, field))


def _prefix(path: Path) -> str:
    """What stands before the names of a nested list's fields: `items.`."""
    return _dotted(path) + "."


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _total(contract: Contract, seen: Fields, field: str) -> int:
    """How many records, or items of that nested list, there were. A name may hold a dot of its own."""
    prefix = max((prefix for prefix in _specs(contract) if field.startswith(prefix)), key=len)
    return seen.get(prefix + ALL, {}).get("object", 0)

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
OTHERS = "(other fields)"
FEW_RECORDS = 20
"""A small delta may lack an optional field by chance."""

_TYPES = {str: "string", bool: "boolean", NoneType: "null", list: "array", dict: "object"}
_TYPES |= dict.fromkeys((int, float, Decimal), "number")

Fields = Mapping[str, Mapping[str, int]]
"""How many records have a value of each JSON type, by field; a nested list's fields as `items.price`."""


class Shapes:
    """Counts the fields of records and their JSON types, by the shape of the whole record: there are few of these."""

    def __init__(self, contract: Contract) -> None:
        self._lists = [(path, _prefix(path)) for name in contract.children for path in contract.paths(name)]
        self._counted: dict[str, Counter[tuple[tuple[str, ...], tuple[type, ...]]]] = {
            prefix: Counter() for prefix in ("", *(prefix for _, prefix in self._lists))
        }

    def add(self, value: Any) -> None:
        """Counts a record, valid or not; one that is no object has no fields."""
        if type(value) is not dict:
            return
        self._counted[""][tuple(value), tuple(map(type, value.values()))] += 1
        for path, prefix in self._lists:
            items = value_at(value, path)
            if type(items) is list:
                counted = self._counted[prefix]
                for item in items:
                    if type(item) is dict:
                        counted[tuple(item), tuple(map(type, item.values()))] += 1

    def fields(self) -> dict[str, Counter[str]]:
        """What was counted, by field. Beyond a thousand fields, which no schema has, the others count as one."""
        fields: dict[str, Counter[str]] = {}
        for prefix, shapes in self._counted.items():
            for (names, types), records in shapes.items():
                for name, kind in ((ALL, dict), *zip(names, types, strict=True)):
                    field = prefix + name.replace("\x00", "\\x00")[:200]
                    if field not in fields and len(fields) >= MOST_FIELDS:
                        field = prefix + OTHERS
                    fields.setdefault(field, Counter())[_TYPES[kind]] += records
        return fields


@dataclass(frozen=True)
class Drift:
    """A field that is not as the contract or the last execution has it; `records` of `total` have it so."""

    field: str
    kind: Literal["new", "missing", "type"]
    types: tuple[str, ...]
    records: int
    total: int

    @property
    def text(self) -> str:
        """For people, with what to do."""
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
    """What has drifted in an execution's fields, against the contract and the fields of the one published before."""
    return [*_new(contract, seen), *_missing(contract, seen), *_changed(seen, before)]


def _declared(contract: Contract) -> Iterator[tuple[str, str, FieldSpec | None]]:
    """(prefix, name, specification) of all that the contract reads, by each name that the source may have for it."""
    lists: Iterable[tuple[str, tuple[FieldSpec, ...]]] = [
        ("", contract.all_fields),
        *((_prefix(path), child.fields) for name, child in contract.children.items() for path in contract.paths(name)),
    ]
    for prefix, specs in lists:
        for spec in specs:
            for path in spec.paths:
                yield prefix, str(path[0]), spec
    for name in (*contract.children, contract.deleted):
        for path in contract.paths(name) if name is not None else ():
            yield "", str(path[0]), None


def _new(contract: Contract, seen: Fields) -> Iterator[Drift]:
    known = {prefix + name for prefix, name, _ in _declared(contract)} | {*contract.ignored}
    for field, types in sorted(seen.items()):
        if field not in known and field.rpartition(".")[2] != ALL:
            yield Drift(field, "new", tuple(sorted(types)), sum(types.values()), _total(seen, field))


def _missing(contract: Contract, seen: Fields) -> Iterator[Drift]:
    choices: dict[tuple[str, str], list[str]] = {}
    optional: set[tuple[str, str]] = set()
    for prefix, name, spec in _declared(contract):
        if spec is not None and not spec.constant:
            choices.setdefault((prefix, spec.name), []).append(prefix + name)
            if not spec.required:
                optional.add((prefix, spec.name))
    for field, names in choices.items():
        total = _total(seen, names[0])
        enough = total >= FEW_RECORDS if field in optional else total > 0
        if enough and not any(name in seen for name in names):
            yield Drift(names[0], "missing", (), 0, total)


def _changed(seen: Fields, before: Fields) -> Iterator[Drift]:
    for field, types in sorted(seen.items()):
        earlier = before.get(field, {}).keys() - {"null"}
        others = sorted(types.keys() - earlier - {"null"})
        if earlier and others:
            yield Drift(field, "type", tuple(others), sum(types[name] for name in others), _total(seen, field))


def _prefix(path: Path) -> str:
    """What stands before the names of a nested list's fields: `items.`."""
    return ".".join(map(str, path)) + "."


def _total(seen: Fields, field: str) -> int:
    """How many records, or items of that nested list, there were."""
    prefix, dot, _ = field.rpartition(".")
    return seen.get(prefix + dot + ALL, seen.get(ALL, {})).get("object", 0)  # a name may hold a dot of its own

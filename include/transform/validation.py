"""Turns the text of a landed page into rows for staging: the valid ones, their children, and the rejected with reasons.

Pure: it takes text and gives tuples. One bad record never costs its page; a bad child costs its parent, whole.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from include.contracts.contract import Contract
from include.contracts.fields import ABSENT, value_at
from include.extract.json_records import iter_records
from include.transform.drift import Shapes

FUTURE = timedelta(days=1)
"""How far a version may lie ahead of the source's clock: one from the far future would win for ever."""

ERRORS_SHOWN = 5
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Rejected:
    """A record that does not enter the entity's table, and all that its dead letter needs."""

    page: int
    position: int
    record_key: str
    key_readable: bool
    record_version: datetime | None
    stage: str
    error: str
    payload: str


@dataclass
class StagedPage:
    """What one page gives: rows in staging's column order, `page` and `position` first."""

    number: int
    text: str
    path: str
    rows: list[Row] = field(default_factory=list)
    children: dict[str, list[Row]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)

    def sources(self, positions: Container[int]) -> Iterator[tuple[int, Any, str]]:
        """(position, value, original text) of the records at these positions."""
        for position, (value, start, end) in enumerate(iter_records(self.text, self.path)):
            if position in positions:
                yield position, value, self.text[start:end]


class PageValidator:
    """Validates the pages of one execution against a contract.

    `fetched_at` is the source's clock when the fetch began (aware). `malformed` says, by page and position, what is
    wrong with what the landing knows to be no record. `notes` counts what was given up without rejecting its record,
    such as a phone number that does not parse; `shapes` which fields the records have.
    """

    def __init__(
        self, contract: Contract, fetched_at: datetime, malformed: Mapping[tuple[int, int], str] | None = None
    ) -> None:
        self.contract = contract
        self.notes: Counter[str] = Counter()
        self.shapes = Shapes(contract)
        self._malformed = malformed or {}
        self._latest = fetched_at + FUTURE
        self._validate = contract.record.__pydantic_validator__.validate_python
        self._columns = [*contract.columns, contract.version] if contract.version else list(contract.columns)
        self._values = _getter(self._columns)
        self._children = {
            name: (_getter(child.columns), _getter(child.key), tuple(child.record.model_computed_fields))
            for name, child in contract.children.items()
        }
        fields = contract.record.model_fields
        named = (*contract.key, contract.version, contract.deleted)
        names = [name for name in named if name is not None and name in fields]
        self._readers = {name: TypeAdapter(_with_metadata(fields[name])).validate_python for name in names}
        self._paths = {name: contract.paths(name) for name in names}

    def page(self, number: int, text: str) -> StagedPage:
        """The rows of page `number`, whose body is `text`: a JSON array at the endpoint's `records` path."""
        path = self.contract.records_path
        staged = StagedPage(number, text, path, children={name: [] for name in self.contract.children})
        for position, (value, start, end) in enumerate(iter_records(text, path)):
            try:
                record = self._tombstone(value)
                if record is None:
                    self.shapes.add(value)  # a tombstone need not have the fields
                    record = self._valid(value)
            except ValueError as error:
                reason = self._malformed.get((number, position)) or describe(error)
                staged.rejected.append(self.reject(number, position, value, text[start:end], reason))
                continue
            row = self._values(record) if self.contract.version else (*self._values(record), None)
            if self.contract.deleted is not None:
                row = (*row, bool(record[self.contract.deleted]))
            staged.rows.append((number, position, *row))
            for name, (values, _, _) in self._children.items():
                staged.children[name].extend((number, position, *values(child)) for child in record[name])
        return staged

    def _valid(self, value: Any) -> dict[str, Any]:
        """The fields of a valid record, computed ones and its children's too. Raises ValueError."""
        model = self._validate(value, context=self.notes)
        record = _with_computed(model, self.contract.computed)
        for name, (_, _, computed) in self._children.items():
            record[name] = [_with_computed(child, computed) for child in record[name]]
        self._check(record)
        if self.contract.deleted is not None and record[self.contract.deleted]:
            return self._buried(record)
        return record

    def _tombstone(self, value: Any) -> dict[str, Any] | None:
        """The fields of a record that is marked as deleted, of which only key and version are read; None for others."""
        deleted = self.contract.deleted
        if deleted is None or not self._read(deleted, value):
            return None
        known = {name: self._read(name, value) for name in self._readers}
        if any(known[name] is None for name in self._readers):
            return None
        record = self._buried(known)
        self._check(record)
        return record

    def _buried(self, record: dict[str, Any]) -> dict[str, Any]:
        kept = {
            name: record[name] for name in (*self.contract.key, self.contract.version, self.contract.deleted) if name
        }
        return dict.fromkeys(self._columns) | kept | {name: [] for name in self._children}

    def reject(
        self, page: int, position: int, value: Any, payload: str, error: str, stage: str = "validate"
    ) -> Rejected:
        """The record at that place as a rejected one, under its key if that can be read, else under its hash."""
        key = self.key_text(value)
        version = self._read(self.contract.version, value) if self.contract.version else None
        record_key = key or "sha256:" + hashlib.sha256(payload.encode("utf-8", "surrogatepass")).hexdigest()
        return Rejected(page, position, record_key, key is not None, version, stage, error, payload)

    def identities(self, text: str) -> set[tuple[str, datetime | str | None]]:
        """(key, version) of each record of a page, valid or not: what tells whether two readings brought the same.

        Where records have no version, their text stands for it.
        """
        found: set[tuple[str, datetime | str | None]] = set()
        for value, start, end in iter_records(text, self.contract.records_path):
            payload = text[start:end]
            record = self.reject(0, 0, value, payload, "")
            found.add((record.record_key, record.record_version if self.contract.version else payload))
        return found

    def key_text(self, value: Any) -> str | None:
        """The record's key as text, as Postgres writes it; None where it cannot be read."""
        parts = [self._read(name, value) for name in self.contract.key]
        if any(part is None for part in parts):
            return None
        if len(parts) == 1:
            return str(parts[0])
        return json.dumps([part if isinstance(part, int) else str(part) for part in parts], ensure_ascii=False)

    def _read(self, name: str, value: Any) -> Any:
        """The field of a record that need not be valid; None where it is computed, or not there."""
        if not isinstance(value, dict) or name not in self._readers:
            return None
        for path in self._paths[name]:
            found = value_at(value, path)
            if found is not ABSENT:
                try:
                    return self._readers[name](found)
                except ValueError:
                    return None
        return None

    def _check(self, record: dict[str, Any]) -> None:
        if self.contract.version is not None and record[self.contract.version] > self._latest:
            raise ValueError(
                f"{self.contract.version}: {record[self.contract.version]:%Y-%m-%dT%H:%M:%SZ} is more than a day "
                "ahead of the source's clock; it would win over every later version"
            )
        for name, (_, key, _) in self._children.items():
            siblings = [key(child) for child in record[name]]
            if len(siblings) != len(set(siblings)):
                twice = next(k for k, count in Counter(siblings).items() if count > 1)
                fields = ", ".join(self.contract.children[name].key)
                raise ValueError(f"{name}: {fields} {', '.join(map(str, twice))} stands in it twice")


def describe(error: ValueError) -> str:
    """What is wrong with a record, by the source's field names, as text that Postgres can hold."""
    return _said(error).replace("\x00", "\\x00")  # pydantic quotes the character that a UUID cannot have


def _said(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_input=False)
    said = [f"{_path(item['loc'])}: {_message(item)}" for item in found[:ERRORS_SHOWN]]
    more = len(found) - ERRORS_SHOWN
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")


def _path(location: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in location) or "record"


def _message(item: Any) -> str:
    if item["type"] == "string_pattern_mismatch" and "x00" in item["msg"]:
        return "holds a character that Postgres text cannot hold or that a key must not (NUL, blank, control character)"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _with_computed(model: BaseModel, computed: tuple[str, ...]) -> dict[str, Any]:
    """A model's fields by name. Without computed ones its own dict, which costs nothing."""
    fields = model.__dict__
    return fields | {name: getattr(model, name) for name in computed} if computed else fields


def _getter(names: Iterable[str]) -> Callable[[dict[str, Any]], Row]:
    names = tuple(names)
    if len(names) == 1:
        only = names[0]
        return lambda values: (values[only],)
    return itemgetter(*names)


def _with_metadata(info: Any) -> Any:
    """A field's annotation with the constraints that pydantic keeps apart from it."""
    annotation = info.annotation
    for item in info.metadata:
        annotation = Annotated[annotation, item]
    return annotation

"""What a sample of records says about an entity: names, types, what may be null, key, version, nested lists.

A type is proposed only where the contract's own field type takes the sampled values; what rests on the sample alone
carries a note for people to confirm.
"""

from __future__ import annotations

import json
import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import combinations
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic import Field as PydanticField
from sqlalchemy.dialects import postgresql

from include.contracts.contract import BOOKKEEPING, PLACE
from include.contracts.record import AnyText, Country, Email, Identifier, Money, Timestamp, WholeNumber

__all__ = ["ChildrenGuess", "EntityGuess", "FieldGuess", "GuessError", "guess", "is_sql_word", "singular", "snake_case"]

WrittenNumber = Annotated[int, PydanticField(ge=-(2**63), le=2**63 - 1)]
"""A whole number that a csv file writes as text."""

ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "UUID": TypeAdapter(UUID),
    "WholeNumber": TypeAdapter(WholeNumber),
    "WrittenNumber": TypeAdapter(WrittenNumber),
    "Money": TypeAdapter(Money),
    "Timestamp": TypeAdapter(Timestamp),
    "date": TypeAdapter(date),
    "bool": TypeAdapter(bool),
    "Email": TypeAdapter(Email),
    "Country": TypeAdapter(Country),
    "Identifier": TypeAdapter(Identifier),
    "AnyText": TypeAdapter(AnyText),
}
KEY_TYPES = {"UUID", "WholeNumber", "WrittenNumber", "Identifier"}

DEEPEST = 4
MOST_NAMES = 40
"""An object whose records have more different names than this is a map: its names are data."""
MOST_CHOICES = 8
LONGEST_CHOICES = 70
"""Characters of all together: a migration has them in one line."""
RECORDS_A_CHOICE = 20
TOLERATED = 0.01
"""The share of values that may not be of the proposed type: dirty ones, which the gate is there for."""
LONGEST_NAME = 40
LONGEST_TABLE = 30
MOST_IN_PAIRS = 8
VERSION = "updated_at"

TYPE_NAMES = ("bool", "date", "int", "list", "str", "Any")
SQL_WORDS = postgresql.dialect().identifier_preparer.reserved_words | {  # type: ignore[no-untyped-call]  # SQLAlchemy's
    "collation", "concurrently", "current_schema", "lateral", "system_user", "tablesample",
}  # fmt: skip

CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
WRITTEN_DATE = re.compile(r"\d{4}-\d\d-\d\d")
WRITTEN_TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} .*)")
WRITTEN_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
WRITTEN_DECIMAL = re.compile(r"-?\d+\.\d+")
WRITTEN_AMOUNT = re.compile(r"-?\d+(\.\d+)?")
WRITTEN_BOOL = {"true", "false", "True", "False", "TRUE", "FALSE"}
UNIX_TIME = re.compile(r"\d{10}|\d{13}")

TIME_WORDS = {"at", "on", "time", "timestamp", "created", "updated", "modified", "changed", "date", "since", "until"}
CHANGE_WORDS = {"updated", "modified", "changed", "edited", "update", "mtime"}
MONEY_WORDS = {"price", "amount", "total", "subtotal", "cost", "tax", "fee", "balance", "discount", "revenue", "sum"}
FREE_WORDS = {"name", "title", "description", "city", "street", "address", "brand", "note", "comment", "country", "sku"}
FREE_WORDS |= {"email", "phone", "url", "slug", "code", "zip", "postcode", "version", "id", "uuid", "key", "text"}
DELETED_NAMES = {"deleted", "is_deleted", "deleted_at", "archived", "archived_at", "is_archived", "removed"}
KEY_NAMES = ("id", "uuid", "guid", "key", "number", "no", "code", "sku", "slug", "reference")
LINE_NAMES = ("line_number", "line", "line_no", "position", "pos", "index", "sequence")
CHANGE_NAMES = {"updated_at": 0, "modified_at": 1, "last_modified": 2, "date_updated": 3}
TEXT_NUMBERS = {"zip", "postcode", "phone", "mobile", "fax", "iban", "code", "sku", "ean", "upc", "postal", "account"}


class GuessError(ValueError):
    """The sample cannot become a contract; says why, and what to do."""


@dataclass(frozen=True)
class FieldGuess:
    """A column. `path` leads to its value in a record; `type` is one of ADAPTERS or of `choices` or a list's.

    `blanks` says that the source sends blank text where it has no value, `dirty` that some values are not of the type;
    `notes` are to be confirmed.
    """

    name: str
    path: tuple[str, ...]
    type: str
    nullable: bool = False
    blanks: bool = False
    choices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dirty: bool = False


@dataclass(frozen=True)
class ChildrenGuess:
    """A nested list: the record's field that holds it, its own table, and what names the parent's key there."""

    field: FieldGuess
    table: str
    parent: tuple[str, ...]
    entity: EntityGuess


@dataclass(frozen=True)
class EntityGuess:
    """All that is proposed of an entity; `left_out` are the reasons for what has no column, by path."""

    name: str
    records: int
    fields: tuple[FieldGuess, ...]
    key: tuple[str, ...] = ()
    key_notes: tuple[str, ...] = ()
    version: str | None = None
    version_notes: tuple[str, ...] = ()
    children: tuple[ChildrenGuess, ...] = ()
    left_out: tuple[tuple[tuple[str, ...], str], ...] = ()
    deleted: str = ""


def guess(name: str, records: Sequence[Any], *, text_only: bool = False, tables: Iterable[str] = ()) -> EntityGuess:
    """What the decoded `records` of a source say of the entity `name`.

    Args:
        name: the entity's.
        records: JSON values, fractions as `Decimal`.
        text_only: the source is csv, whose every value is text.
        tables: names that a table of children cannot have.

    Raises GuessError: no records, none that are objects, or nothing that could be a key.
    """
    objects = [record for record in records if isinstance(record, dict)]
    if not objects:
        kind = type(records[0]).__name__ if records else "nothing"
        raise GuessError(f"{name}: expected records that are JSON objects, but the sample holds {kind}")
    entity = _Entity(name, objects, text_only, taken_tables={*tables, name}).proposed()
    if not entity.key:
        columns = ", ".join(field.name for field in entity.fields)
        raise GuessError(
            f"{name}: no field, nor two together, is in every one of {len(objects):,} sampled records and differs "
            f"between them, so there is no key to propose (looked at {columns}); ask the source's owner what tells two "
            "records apart"
        )
    return entity


def snake_case(name: str) -> str:
    """A name as columns have it: `invoiceNo`, `Invoice No` and `invoice-no` are `invoice_no`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def singular(name: str) -> str:
    """One of what an English plural names: `categories` is `category`, `invoices` is `invoice`."""
    for plural, one in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if name.endswith(plural):
            return name.removesuffix(plural) + one
    return name.removesuffix("s") if not name.endswith(("ss", "us", "is")) else name


def is_sql_word(name: str) -> bool:
    """Whether a name would need quoting in SQL."""
    return name in SQL_WORDS


@dataclass
class _Entity:
    """An entity, or a nested list of one, while it is worked out. `groups` are the siblings, by their parent."""

    name: str
    records: list[dict[str, Any]]
    text_only: bool
    taken_tables: set[str]
    groups: list[list[dict[str, Any]]] = field(default_factory=list)
    reserved: tuple[str, ...] = ()
    left_out: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    lists: dict[tuple[str, ...], list[list[dict[str, Any]]]] = field(default_factory=dict)

    def proposed(self) -> EntityGuess:
        fields: list[FieldGuess] = []
        self._walk((), self.records, fields)
        version, version_notes = (None, ()) if self.groups else _version(fields, nested=bool(self.lists))
        named = self._named(fields, version)
        chosen, key_notes = self._key([f for f in named if f.type not in ("children", "list")])
        named = [next((k for k in chosen if k.path == f.path), f) for f in named]
        key = tuple(f.name for f in chosen)
        children = [child for f in named if f.type == "children" and (child := self._nested(f, key)) is not None]
        return EntityGuess(
            name=self.name,
            records=len(self.records),
            fields=tuple(f for f in named if f.type != "children"),
            key=key,
            key_notes=key_notes,
            version=None if version is None else VERSION,
            version_notes=version_notes,
            children=tuple(children),
            left_out=tuple(self.left_out),
            deleted=next((f.path[0] for f in named if snake_case(".".join(f.path)) in DELETED_NAMES), ""),
        )

    def _walk(self, path: tuple[str, ...], objects: Sequence[dict[str, Any] | None], fields: list[FieldGuess]) -> None:
        """Adds the fields of the objects at `path`, one a record, None where a record has none."""
        names = list(dict.fromkeys(name for value in objects if value is not None for name in value))
        for name in names:
            here = (*path, name)
            values = [None if value is None else value.get(name) for value in objects]
            present = [value for value in values if value is not None]
            if not present:
                self._leave_out(here, "it was null in every sampled record")
            elif not snake_case(name):
                self._leave_out(here, "its name has no letter and no digit")
            elif all(isinstance(value, dict) for value in present):
                self._object(here, values, fields)
            elif all(isinstance(value, list) for value in present):
                self._list(here, values, fields)
            elif any(isinstance(value, dict | list) for value in present):
                self._leave_out(here, "it is an object or a list in some records only")
            elif (column := self._scalar(here, values)) is not None:
                fields.append(column)

    def _object(self, path: tuple[str, ...], values: list[Any], fields: list[FieldGuess]) -> None:
        names = {name for value in values if value is not None for name in value}
        if len(path) >= DEEPEST:
            self._leave_out(path, "it is nested too deeply")
        elif len(names) > MOST_NAMES:
            self._leave_out(path, f"its {len(names):,} names differ from record to record, as data do")
        elif not names:
            self._leave_out(path, "it is an object without names")
        else:
            self._walk(path, values, fields)

    def _list(self, path: tuple[str, ...], values: list[Any], fields: list[FieldGuess]) -> None:
        items = [item for value in values if value is not None for item in value]
        nullable = any(value is None for value in values)
        if not items:
            self._leave_out(path, "it was an empty list in every sampled record")
        elif all(isinstance(item, str) for item in items) and _takes("AnyText", items):
            fields.append(FieldGuess(snake_case("_".join(path)), path, "list", nullable))
        elif all(isinstance(item, dict) for item in items) and not self.groups:
            fields.append(FieldGuess(snake_case("_".join(path)), path, "children", nullable))
            self.lists[path] = [value for value in values if value]
        elif all(isinstance(item, dict) for item in items):
            self._leave_out(path, "it is a list within a list")
        else:
            self._leave_out(path, "it is a list of something else than text or objects")

    def _nested(self, column: FieldGuess, key: tuple[str, ...]) -> ChildrenGuess | None:
        """The nested list as a table of its own, whose rows name their parent by its `key`; None without a key."""
        one = singular(self.name)
        table = snake_case(f"{one}_{column.path[-1]}")[:LONGEST_TABLE].rstrip("_")
        if table in self.taken_tables or is_sql_word(table):
            table = f"{table[: LONGEST_TABLE - 5]}_list"
        parent = tuple(name if name.startswith(f"{one}_") else f"{one}_{name}" for name in key)
        groups = self.lists[column.path]
        items = [item for group in groups for item in group]
        child = _Entity(table, items, self.text_only, self.taken_tables, groups, reserved=parent).proposed()
        if not child.key or table in self.taken_tables:
            self._leave_out(column.path, "no field differs among the objects of one list, so they have no key")
            return None
        self.taken_tables.add(table)
        return ChildrenGuess(column, table, parent, child)

    def _scalar(self, path: tuple[str, ...], values: list[Any]) -> FieldGuess | None:
        words = set(snake_case(path[-1]).split("_"))
        present = [value for value in values if value is not None]
        name = snake_case("_".join(path))
        filled = [value for value in present if not (isinstance(value, str) and not value.strip())]
        blanks = len(filled) < len(present)
        nullable = len(present) < len(values)
        for kind, note in _candidates(words, filled, text_only=self.text_only) if filled else ():
            bad = len(filled) - sum(map(_taker(kind), filled))
            if bad and (bad > TOLERATED * len(filled) or kind in ("AnyText", "Identifier")):
                continue
            notes = [note] if note else []
            if bad:
                example = next(value for value in filled if not _taker(kind)(value))
                notes.append(
                    f"{bad:,} of {len(filled):,} values are no {kind}, such as {_shown(example)}, and are rejected"
                )
            is_text = kind == "AnyText"
            gaps = blanks and not is_text
            return FieldGuess(name, path, kind, nullable or gaps, gaps, notes=tuple(notes), dirty=bad > 0)
        texts = [value for value in present if isinstance(value, str)]
        if len(texts) == len(present) and _takes("AnyText", texts):
            choices = self._choices(words, filled)
            if choices:
                note = f"{len(choices)} values in {len(filled):,} sampled records; a record with another is rejected"
                return FieldGuess(name, path, "Literal", nullable or blanks, blanks, choices, (note,))
            return FieldGuess(name, path, "AnyText", nullable)
        self._leave_out(path, _why_no_type(present))
        return None

    def _choices(self, words: set[str], values: list[str]) -> tuple[str, ...]:
        distinct = sorted(set(values))
        repeated = len(distinct) * RECORDS_A_CHOICE <= len(values)
        short = sum(len(value) + len("'', ") for value in distinct) <= LONGEST_CHOICES
        if words & FREE_WORDS or not 1 < len(distinct) <= MOST_CHOICES or not repeated or not short:
            return ()
        words_only = all(value.isascii() and value.replace("_", "").isalnum() for value in distinct)
        return tuple(distinct) if words_only else ()

    def _named(self, fields: list[FieldGuess], version: FieldGuess | None) -> list[FieldGuess]:
        """The fields by names that are free: in Python, pydantic, SQL, and among Sluice's own columns."""
        taken = {VERSION, *self.reserved}
        found: list[FieldGuess] = []
        one = singular(self.name)
        for column in fields:
            if column is version:
                continue
            name = column.name[:LONGEST_NAME].rstrip("_")
            if _is_taken(name) or name in taken:
                name = f"{one}_{name}"[:LONGEST_NAME].rstrip("_")
            plain, number = name, 2
            while name in taken or _is_taken(name):
                name, number = f"{plain}_{number}", number + 1
            taken.add(name)
            found.append(replace(column, name=name))
        return found if version is None else [*found, replace(version, name=VERSION)]

    def _key(self, fields: list[FieldGuess]) -> tuple[tuple[FieldGuess, ...], tuple[str, ...]]:
        """The fields that tell records apart, in the types of a key, and what is to be confirmed of them."""
        one = singular(self.name)
        own = tuple(f"{one}_{name}" for name in KEY_NAMES)
        names = (*LINE_NAMES, *KEY_NAMES) if self.groups else (*KEY_NAMES[:3], *own, *KEY_NAMES[3:])
        usable = [f for f in map(self._as_key, fields) if f is not None]
        usable.sort(key=lambda f: _key_rank(f, names))
        groups = self.groups or [_distinct(self.records)]
        dirty = TOLERATED * len(groups) if self.groups else 0
        for chosen in (*((f,) for f in usable), *combinations(usable[:MOST_IN_PAIRS], 2)):
            doubled = sum(not _is_unique(chosen, group) for group in groups)
            if doubled <= dirty:
                note = f"unique in {len(groups) - doubled:,} of {len(groups):,} lists"
                if not self.groups:
                    note = f"unique in {len(groups[0]):,} sampled records"
                unsure = len(chosen) > 1 or _key_rank(chosen[0], names) >= len(names)
                return chosen, (f"{note}{', though its name does not say so' if unsure else ''}",)
        return (), ()

    def _as_key(self, column: FieldGuess) -> FieldGuess | None:
        """The field as one that a key can have, or None."""
        if len(column.path) != 1 or column.nullable:
            return None
        if column.type in KEY_TYPES:
            return None if column.dirty else column
        texts = [record[column.path[0]] for record in self.records]
        if column.type in ("AnyText", "Literal") and _takes("Identifier", texts):
            return replace(column, type="Identifier", choices=(), notes=())
        return None

    def _leave_out(self, path: tuple[str, ...], why: str) -> None:
        self.left_out.append((path, why))


def _version(fields: list[FieldGuess], *, nested: bool) -> tuple[FieldGuess | None, tuple[str, ...]]:
    """The time of a record's last change, and what is to be confirmed of it."""
    changes = [
        f
        for f in fields
        if f.type == "Timestamp" and len(f.path) == 1 and CHANGE_WORDS & set(snake_case(f.path[0]).split("_"))
    ]
    sure = [f for f in changes if not f.nullable and not f.dirty]
    if not sure:
        lacking = f' ("{changes[0].path[0]}" is not a time in every record)' if changes else ""
        return None, (f"no time of a record's last change was found{lacking}, so contents are compared",)
    best = min(sure, key=lambda f: (CHANGE_NAMES.get(snake_case(f.path[0]), len(CHANGE_NAMES)), len(f.path[0])))
    others = ", ".join(f.path[0] for f in sure if f is not best)
    moves = "moves with every change of a record" + (", of its nested lists too" if nested else "")
    return best, (f'"{best.path[0]}" {moves}' + (f"; and not {others}" if others else ""),)


def _candidates(words: set[str], values: list[Any], *, text_only: bool) -> list[tuple[str, str]]:
    """Types to try on the values, which are neither null nor blank, best first, each with what is to be confirmed."""
    kinds = Counter(type(value) for value in values)
    if kinds[bool]:
        return [("bool", "")]
    numbers = kinds[int] + kinds[Decimal]
    if numbers > kinds[str]:
        return _number_candidates(words, values)
    texts = [value.strip() for value in values if isinstance(value, str)]
    most = (1 - TOLERATED) * len(texts)

    def mostly(pattern: re.Pattern[str]) -> bool:
        return sum(pattern.fullmatch(text) is not None for text in texts) >= most

    if mostly(CANONICAL_UUID):
        return [("UUID", "")]
    if mostly(WRITTEN_DATE):
        return [("date", "")]
    if mostly(WRITTEN_TIME):
        return [("Timestamp", "")]
    if sum("@" in text for text in texts) >= most:
        return [("Email", "")]
    if "country" in words and all(len(text) == 2 for text in texts):
        return [("Country", "")]
    if any(map(WRITTEN_DECIMAL.fullmatch, texts)) and mostly(WRITTEN_AMOUNT):
        return [] if words & {"version", "ip"} else [("Money", "")]
    if text_only and set(texts) <= WRITTEN_BOOL:
        return [("bool", "")]
    if text_only and mostly(WRITTEN_INTEGER) and not words & TEXT_NUMBERS:
        written = [int(text) if WRITTEN_INTEGER.fullmatch(text) else text for text in texts]
        return _number_candidates(words, written, written=True)
    if words & {"id", "uuid", "guid"}:
        return [("Identifier", "")]
    return []


def _number_candidates(words: set[str], values: list[Any], *, written: bool = False) -> list[tuple[str, str]]:
    whole = all(isinstance(value, int | str) for value in values)
    if whole and words & TIME_WORDS and all(UNIX_TIME.fullmatch(str(value)) for value in values):
        return [("Timestamp", "a Unix time, by its name and size")]
    if whole and words & MONEY_WORDS:
        return [("Money", "whole numbers so far, an amount by its name")]
    return [("WrittenNumber" if written else "WholeNumber", "")] if whole else [("Money", "")]


def _taker(kind: str) -> Callable[[Any], bool]:
    """Whether a value is one of the type."""
    validate = ADAPTERS[kind].validate_python

    def takes(value: Any) -> bool:
        try:
            validate(value)
        except ValidationError:
            return False
        return True

    return takes


def _takes(kind: str, values: Iterable[Any]) -> bool:
    return all(map(_taker(kind), values))


def _why_no_type(values: list[Any]) -> str:
    if all(isinstance(value, int | Decimal) for value in values):
        return "no column holds numbers of more than 4 decimals or 18 digits; a validator in the model may round them"
    if all(isinstance(value, str) for value in values):
        return "its text holds characters that Postgres cannot"
    return "its values are of several types: " + ", ".join(sorted({type(value).__name__ for value in values}))


def _is_taken(name: str) -> bool:
    """Whether Python, pydantic, SQL or Sluice mean something else by the name."""
    return (
        not name.isidentifier()
        or keyword.iskeyword(name)
        or name in (*BOOKKEEPING, *PLACE, *TYPE_NAMES)
        or is_sql_word(name)
        or hasattr(BaseModel, name)
        or name.startswith("model_")
    )


def _key_rank(column: FieldGuess, names: tuple[str, ...]) -> int:
    plain = snake_case(column.path[0])
    if plain in names:
        return names.index(plain)
    return len(names) + (0 if plain.endswith(("_id", "_uuid", "_number", "_code")) else 1)


def _distinct(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without repetitions, which pages that overlap bring."""
    return list({json.dumps(record, sort_keys=True, default=str): record for record in records}.values())


def _is_unique(fields: Sequence[FieldGuess], records: list[dict[str, Any]]) -> bool:
    values = [tuple(str(record[f.path[0]]) for f in fields) for record in records]
    return len(set(values)) == len(values)


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:40]

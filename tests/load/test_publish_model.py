"""Publish against a model of its rules, on generated executions in any order of their fetches.

The model is written from the rules, row by row, as nobody would in SQL: whoever changes a rule changes both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, StringConstraints
from sqlalchemy import MetaData, create_engine

from include.contracts.contract import Children, Contract
from include.contracts.endpoint import Endpoint
from include.contracts.record import Identifier, Record, Timestamp, WholeNumber
from include.database.entities import entity_tables
from include.load.publish import OVERTAKEN
from include.local.postgres import PostgresServer
from tests.load.syncing import at, synced

pytestmark = pytest.mark.database


class PartRecord(Record):
    number: WholeNumber
    name: str


class ThingRecord(Record):
    id: Identifier
    label: Annotated[str, StringConstraints(max_length=3)]
    updated_at: Timestamp
    parts: list[PartRecord] = Field(default_factory=list)


THINGS = Contract(
    name="things",
    record=ThingRecord,
    key=("id",),
    history=True,
    endpoint=Endpoint("/things", changed_since="since"),
    children={"parts": Children("things_parts", PartRecord, parent=("thing_id",), key=("number",))},
)


class BuriedRecord(ThingRecord):
    is_deleted: bool = False


BURIED = replace(
    THINGS,
    name="buried",
    record=BuriedRecord,
    deleted="is_deleted",
    children={"parts": Children("buried_parts", PartRecord, parent=("thing_id",), key=("number",))},
)
"""Things whose source marks what it has deleted."""


@dataclass(frozen=True)
class Thing:
    """A record as the source sends it; times are minutes. One that is not valid has a label that is too long.

    One that is gone is a tombstone, with no more than its key and version.
    """

    key: str
    version: int
    label: str
    parts: tuple[str, ...]
    valid: bool
    gone: bool = False

    def as_json(self) -> dict[str, Any]:
        if self.gone:
            return {"id": self.key, "updated_at": at(self.version).isoformat(), "is_deleted": True}
        return {
            "id": self.key,
            "label": self.label if self.valid else "too long",
            "updated_at": at(self.version).isoformat(),
            "parts": [{"number": number, "name": name} for number, name in enumerate(self.parts)],
        }


@dataclass(frozen=True)
class Fetch:
    """An execution: when it was fetched (minutes), how, and what it brought, page by page."""

    mode: str
    fetched_at: int
    trust_source: bool
    pages: tuple[tuple[Thing, ...], ...]
    since: int | None


@dataclass
class Row:
    version: int
    label: str
    parts: tuple[str, ...]
    fetched_at: int
    deleted_at: int | None = None

    @property
    def entombed(self) -> bool:
        return self.deleted_at == self.fetched_at


@dataclass
class Letter:
    version: int
    fetched_at: int


@dataclass
class Model:
    """The entity's tables, as the rules say that they must be."""

    rows: dict[str, Row] = field(default_factory=dict)
    history: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    letters: dict[str, Letter] = field(default_factory=dict)
    snapshots: list[int] = field(default_factory=list)
    watermark: int | None = None

    def publish(self, fetch: Fetch) -> dict[str, int] | None:
        """The counts of the accounting; None where a later snapshot has overtaken the fetch."""
        now, snapshot = fetch.fetched_at, fetch.mode == "snapshot"
        if any(published > now for published in self.snapshots):
            return None
        records = [thing for page in fetch.pages for thing in page]
        valid = [thing for thing in records if thing.valid]
        winners: dict[str, Thing] = {}
        for thing in valid:
            if thing.key not in winners or thing.version >= winners[thing.key].version:
                winners[thing.key] = thing
        counted = dict.fromkeys(("inserted", "updated", "unchanged", "stale", "deleted"), 0)
        counted["duplicate"] = len(valid) - len(winners)
        counted["quarantined"] = len(records) - len(valid)
        late = {}
        for thing in valid:
            if thing is not winners[thing.key] and not thing.gone:
                late[thing.key, thing.version] = thing
        for key, thing in winners.items():
            verdict = self._verdict(key, thing, fetch)
            counted[verdict] += 1
            old = self.rows.get(key)
            if verdict in ("inserted", "updated") and thing.gone:
                assert old is not None
                if old.version != thing.version and not old.entombed:
                    self.history[key, old.version] = (old.label, old.fetched_at)
                self.rows[key] = Row(thing.version, old.label, old.parts, now, deleted_at=now)
            elif verdict in ("inserted", "updated"):
                if old is not None and old.version != thing.version and not old.entombed:
                    self.history[key, old.version] = (old.label, old.fetched_at)
                self.history.pop((key, thing.version), None)
                self.rows[key] = Row(thing.version, thing.label, thing.parts, now)
            elif verdict == "stale":
                if not thing.gone:
                    late[key, thing.version] = thing
            elif (
                not snapshot
                and not thing.gone
                and now > self.rows[key].fetched_at
                and (fetch.since is None or thing.version >= fetch.since)
            ):
                self.rows[key].fetched_at = now
        for (key, version), thing in late.items():
            if key not in self.rows or version == self.rows[key].version:
                continue
            known = self.history.get((key, version))
            if known is None or (now > known[1] and known[0] != thing.label):
                self.history[key, version] = (thing.label, now)
        if snapshot:
            present = {thing.key for thing in records}
            for key, row in self.rows.items():
                if row.deleted_at is None and row.fetched_at < now and key not in present:
                    row.deleted_at = now
                    counted["deleted"] += 1
            self.snapshots.append(now)
        self._letters(fetch, records, valid)
        self._watermark(fetch, records)
        return counted

    def _verdict(self, key: str, thing: Thing, fetch: Fetch) -> str:
        row = self.rows.get(key)
        if row is None:
            return "unchanged" if thing.gone else "inserted"
        if thing.gone and row.deleted_at is not None and thing.version == row.version:
            return "unchanged"
        exceptional = thing.gone or row.entombed
        if row.deleted_at is not None and not exceptional:
            return "updated" if fetch.fetched_at > row.deleted_at else "stale"
        if not exceptional and (thing.version, thing.label, thing.parts) == (row.version, row.label, row.parts):
            return "unchanged"
        fetched_later = fetch.fetched_at > row.fetched_at
        if fetch.trust_source or thing.version == row.version:
            return "updated" if fetched_later else "stale"
        return "updated" if thing.version > row.version else "stale"

    def _letters(self, fetch: Fetch, records: list[Thing], valid: list[Thing]) -> None:
        now = fetch.fetched_at
        for thing in records:
            known = self.letters.get(thing.key)
            if not thing.valid and (known is None or known.fetched_at <= now):
                self.letters[thing.key] = Letter(thing.version, now)
        for key, letter in list(self.letters.items()):
            shown = [(self.rows[key].version, self.rows[key].fetched_at)] if key in self.rows else []
            shown += [(thing.version, now) for thing in valid if thing.key == key]
            if (
                any(v > letter.version or (v == letter.version and f > letter.fetched_at) for v, f in shown)
                or (fetch.trust_source and now > letter.fetched_at and any(thing.key == key for thing in valid))
                or (
                    fetch.mode == "snapshot"
                    and letter.fetched_at < now
                    and not any(thing.key == key for thing in records)
                )
            ):
                del self.letters[key]

    def _watermark(self, fetch: Fetch, records: list[Thing]) -> None:
        if not records:
            return
        newest = min(max(thing.version for thing in records), fetch.fetched_at)
        if fetch.mode == "snapshot":
            self.watermark = newest if self.watermark is None else self.watermark
        elif fetch.since is not None and self.watermark is not None and fetch.since <= self.watermark - 15:
            self.watermark = max(self.watermark, newest)


def fetches_of(gone: st.SearchStrategy[bool]) -> st.SearchStrategy[Fetch]:
    """Executions that bring things of which some may be `gone`; tombstones are valid whatever they hold."""
    things = st.builds(
        Thing,
        key=st.sampled_from("abcd"),
        version=st.integers(0, 6).map(lambda n: n * 10),
        label=st.sampled_from(["x", "y"]),
        parts=st.sampled_from([(), ("p",), ("p", "q")]),
        valid=st.integers(0, 5).map(bool),
        gone=gone,
    ).map(lambda thing: replace(thing, valid=thing.valid or thing.gone))
    return st.builds(
        Fetch,
        mode=st.sampled_from(["snapshot", "delta"]),
        fetched_at=st.integers(5, 12).map(lambda n: n * 10),
        trust_source=st.just(False),
        pages=st.lists(st.lists(things, max_size=4).map(tuple), min_size=1, max_size=2).map(tuple),
        since=st.one_of(st.none(), st.integers(0, 6).map(lambda n: n * 10)),
    ).flatmap(
        lambda fetch: st.sampled_from([True, False, False]).map(
            lambda trust: Fetch(
                fetch.mode,
                fetch.fetched_at,
                trust and fetch.mode == "snapshot",
                fetch.pages,
                fetch.since if fetch.mode == "delta" else None,
            )
        )
    )


@pytest.fixture(scope="module")
def things_db(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A migrated database that also has the tables of THINGS and BURIED."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("create database things template migrated")
    engine = create_engine(postgres.dsn("things").replace("postgresql:", "postgresql+psycopg:"))
    metadata = MetaData()
    entity_tables(THINGS, metadata)
    entity_tables(BURIED, metadata)
    metadata.create_all(engine)
    engine.dispose()
    with psycopg.connect(postgres.dsn("things")) as connection:
        yield connection


def shown(connection: psycopg.Connection[Any], contract: Contract) -> Model:
    """What the database holds, in the model's terms."""

    def minutes(time: datetime | None) -> Any:
        return None if time is None else round((time - at(0)).total_seconds() / 60)

    model = Model()
    for key, label, version, fetched_at, deleted_at in connection.execute(
        f"select id, label, updated_at, fetched_at, deleted_at from app.{contract.name}"
    ).fetchall():
        parts = connection.execute(
            f"select name from app.{contract.name}_parts where thing_id = %s order by number", (key,)
        ).fetchall()
        model.rows[key] = Row(
            minutes(version), label, tuple(name for (name,) in parts), minutes(fetched_at), minutes(deleted_at)
        )
    for key, label, version, fetched_at in connection.execute(
        f"select id, label, updated_at, fetched_at from app.{contract.name}_history"
    ):
        model.history[key, minutes(version)] = (label, minutes(fetched_at))
    for key, version, fetched_at in connection.execute(
        "select record_key, record_version, fetched_at from operations.dead_letters where status = 'pending'"
    ):
        model.letters[key] = Letter(minutes(version), minutes(fetched_at))
    for (watermark,) in connection.execute("select watermark from operations.sync_log order by id desc limit 1"):
        model.watermark = minutes(watermark)
    return model


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(fetches_of(st.just(False)), min_size=1, max_size=5))
def test_any_executions_in_any_order_give_what_the_rules_say(
    things_db: psycopg.Connection[Any], executed: list[Fetch]
) -> None:
    check(things_db, THINGS, executed)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(fetches_of(st.booleans()), min_size=1, max_size=5))
def test_tombstones_delete_and_newer_records_return(things_db: psycopg.Connection[Any], executed: list[Fetch]) -> None:
    check(things_db, BURIED, executed)


def check(things_db: psycopg.Connection[Any], contract: Contract, executed: list[Fetch]) -> None:
    """Publishes what was fetched and compares it with the model."""
    name = contract.name
    things_db.execute(
        f"truncate app.{name}, app.{name}_parts, app.{name}_history, operations.dead_letters, operations.sync_log"
    )
    things_db.commit()
    model = Model()
    for fetch in executed:
        expected = model.publish(fetch)
        arguments: dict[str, Any] = {
            "fetched_at": at(fetch.fetched_at),
            "mode": fetch.mode,
            "since": None if fetch.since is None else at(fetch.since),
            "trust_source": fetch.trust_source,
            "allow_deletes": True,
        }
        pages = [[thing.as_json() for thing in page] for page in fetch.pages]
        if expected is None:
            with pytest.raises(psycopg.Error) as refused:
                synced(things_db, contract, pages, **arguments)
            assert refused.value.sqlstate == OVERTAKEN
        else:
            row = synced(things_db, contract, pages, **arguments)
            assert {name: row[name] for name in expected} == expected
    found = shown(things_db, contract)
    assert found.rows == model.rows
    assert found.history == model.history
    assert found.letters == model.letters
    assert found.watermark == model.watermark

"""Plays a schedule against a syncing client, looks at every publish, and judges what is in the target at the end."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from psycopg import Connection

from include.contracts.contract import Contract
from tests.chaos.client import Published, SyncClient
from tests.chaos.references import NaiveClient, Rule
from tests.chaos.schedule import Begin, Clear, Do, Kill, Mend, Schedule, Wait
from tests.chaos.source import SECOND, Source, State, milliseconds
from tests.chaos.tally import Tally
from tests.chaos.things import CONTRACTS, MENDED, parts_table

FINAL = 1000
"""The number of the first run after quiescence."""


class BrokenPromiseError(AssertionError):
    """What a schedule showed to be wrong."""


class Client(Protocol):
    """What plays a schedule: the syncs here, or a reference."""

    def begin(self, begin: Begin) -> None: ...
    def clear(self, number: int, task: str) -> None: ...
    def do(self, number: int, kill: Kill | None = None) -> None: ...


@dataclass(frozen=True)
class Row:
    """A row of the entity's table with its children; times are simulated milliseconds."""

    stamp: int | None
    label: str
    parts: tuple[str, ...]
    fetched_at: int
    absent_since: int | None
    deleted_at: int | None


@dataclass(frozen=True)
class Letter:
    """A pending dead letter."""

    payload: Any
    fetched_at: int


REPAIRS: tuple[tuple[Any, ...], ...] = (("delta",), ("delta",), ("snapshot",), ("snapshot", "trust_source"))
"""The runs that follow a schedule beyond the bounds."""


@dataclass(frozen=True)
class Repair:
    """Of the `live` records, how many are missing or wrong after each of REPAIRS; what the third called regressed."""

    live: int
    missing: tuple[int, ...]
    regressed: int


@dataclass
class Shown:
    """What the database holds of the entity."""

    rows: dict[str, Row]
    history: dict[tuple[str, int], str]
    letters: dict[str, Letter]


def play_steps(schedule: Schedule, source: Source, client: Client) -> None:
    """Everything that happens before quiescence."""
    for step in schedule.steps:
        match step:
            case Wait():
                source.advance(step.duration)
            case Begin():
                client.begin(step)
            case Do():
                client.do(step.run, step.kill)
            case Clear():
                client.clear(step.run, step.task)
            case Mend() if isinstance(client, SyncClient):
                client.contract = MENDED[schedule.entity]


def truncate(connection: Connection[Any], contract: Contract) -> None:
    """Forgets everything of the entity."""
    tables = [contract.table, parts_table(contract), *([f"{contract.table}_history"] if contract.history else [])]
    tables += [f"operations.{name}" for name in ("executions", "sync_log", "dead_letters")]
    connection.execute(f"truncate {', '.join(tables)}".encode())
    connection.commit()


def play_naively(schedule: Schedule, rule: Rule) -> Tally:
    """What a reference makes of the schedule, counted at the same moments."""
    source = Source(schedule.behaviour, schedule.changes, schedule.seed)
    client = NaiveClient(source, f"/{schedule.entity}", rule)
    play_steps(schedule, source, client)
    source.quiesce()
    client.complete(Begin(FINAL + 1, "delta"))
    tally = client.counted()
    client.complete(Begin(FINAL + 2, "snapshot"))
    after = client.counted()
    if schedule.entity == "shifting":
        tally = after
    tally.left_over = after.left_over
    tally.executions, tally.read = after.executions, after.read
    return tally


class Simulation:
    """One schedule played by the syncs, every publish of which is looked at."""

    def __init__(self, connection: Connection[Any], schedule: Schedule, landing: Path, url: str | None = None) -> None:
        """`connection` is the simulation's own, to a database of `things.database`; `landing` a folder of its own."""
        self.schedule = schedule
        self.source = Source(schedule.behaviour, schedule.changes, schedule.seed)
        self.client = SyncClient(
            connection,
            self.source,
            CONTRACTS[schedule.entity],
            landing,
            url=url,
            watch=self._watch,
        )
        self._landing = landing
        self._before = Shown({}, {}, {})
        self._versions: set[tuple[str, int]] = set()
        self._watermark: datetime | None = None
        self._snapshots: list[tuple[int, datetime]] = []

    @property
    def contract(self) -> Contract:
        return self.client.contract

    def play(self) -> Tally:
        """Plays the schedule and judges it; gives the counts. Raises BrokenPromiseError."""
        truncate(self.client.connection, self.contract)
        try:
            play_steps(self.schedule, self.source, self.client)
            return self._judged()
        finally:
            self._forget()

    def run(self, number: int, mode: Any, *options: str) -> None:
        """A run after quiescence, at a time of its own."""
        self.source.advance(self.schedule.behaviour.first_answer + 2 * SECOND)
        self.client.complete(Begin(FINAL + number, mode, options=options if mode == "snapshot" else ()))

    def _judged(self) -> Tally:
        """The counts at the moments that the promise names."""
        self._quiesce()
        stable = self.contract.stable
        self.run(1, "delta")
        self._expect_live(skipped=not stable)
        tally = self.counted()
        unreadable = any(state.flaw == "key" for state in self.source.shown().values())
        for number in range(1 + unreadable + (not stable)):  # a key that is newly unreadable may be any row's
            self.run(2 + number, "snapshot", "allow_deletes")
            self._expect_live()
            if number == 0 and not stable:
                tally = self.counted()
        self._expect_gone()
        tally.left_over = self.counted().left_over
        tally.executions, tally.read = self.client.executed, self.client.read
        return tally

    def _quiesce(self) -> None:
        self.source.quiesce()
        if self.contract is MENDED[self.schedule.entity]:
            self.client.begin(Begin(FINAL, "replay"))
            for _ in range(3):
                self.client.do(FINAL)

    def repair(self) -> Repair:
        """Plays a schedule beyond the bounds; gives what is lost or wrong after each of the runs that follow it."""
        truncate(self.client.connection, self.contract)
        try:
            play_steps(self.schedule, self.source, self.client)
            self._quiesce()
            missing = []
            for number, (mode, *options) in enumerate(REPAIRS, start=1):
                self.run(number, mode, "allow_deletes", *options)
                counted = self.counted()
                missing.append(counted.lost + counted.wrong)
            regressed = self.client.connection.execute(
                "select sum(regressed) from operations.sync_log where run_id = %s", (str(FINAL + 3),)
            ).fetchone()
            assert regressed is not None
            return Repair(counted.live, tuple(missing), int(regressed[0] or 0))
        finally:
            self._forget()

    def valid(self, state: State) -> bool:
        """Whether the contract of now takes the record."""
        return state.flaw == "" or (state.flaw == "long" and self.contract is MENDED[self.schedule.entity])

    def counted(self) -> Tally:
        """How the target differs from the source now."""
        shown = self.shown()
        tally = Tally(schedules=1)
        held = self.source.shown()
        for key, state in held.items():
            if not self.valid(state):
                continue
            tally.live += 1
            row = shown.rows.get(key)
            if row is None or row.deleted_at is not None:
                tally.lost += 1
            elif not self._same(row, state):
                tally.wrong += 1
        tally.left_over = sum(row.deleted_at is None and key not in held for key, row in shown.rows.items())
        tally.doubled = sum((key, row.stamp) in shown.history for key, row in shown.rows.items())
        tally.losing_schedules = int(tally.lost + tally.wrong > 0)
        return tally

    def _same(self, row: Row, state: State) -> bool:
        label = f"long {state.label}" if state.flaw == "long" else state.label
        stamp = state.stamp if self.contract.version else None
        return (row.stamp, row.label, row.parts) == (stamp, label, state.parts)

    def _expect_live(self, *, skipped: bool = False) -> None:
        """What lives is right, what is not valid has its letter. `skipped`: shifting snapshots may have deleted it."""
        shown, held = self.shown(), self.source.shown()
        for key, state in held.items():
            row, letter = shown.rows.get(key), shown.letters.get(key)
            if not self.valid(state):
                keys = [key] if state.flaw != "key" else [k for k in shown.letters if k.startswith("sha256:")]
                payloads = [shown.letters[k].payload for k in keys if k in shown.letters]
                expect(state.as_json() in payloads, f"no letter of {state}, but {payloads}")
                continue
            if skipped and row is not None and row.deleted_at is not None:
                continue
            expect(row is not None, f"lost: {state}")
            assert row is not None
            expect(row.deleted_at is None, f"deleted: {state}, {row}")
            expect(self._same(row, state), f"wrong: {row} instead of {state}")
            expect(letter is None, f"{letter} although {state}")

    def _expect_gone(self) -> None:
        """What the source does not hold is deleted, and has no letter."""
        shown, held = self.shown(), self.source.shown()
        for key, row in shown.rows.items():
            expect(key in held or row.deleted_at is not None, f"left over: {key} {row}")
        if not self.contract.stable:
            return
        payloads = [state.as_json() for state in held.values() if not self.valid(state)]
        for key, letter in shown.letters.items():
            expect(letter.payload in payloads, f"a letter left over: {key} {letter}")

    def shown(self) -> Shown:
        """What the database holds now."""
        execute = self.client.connection.execute
        contract = self.contract
        parts: dict[str, tuple[str, ...]] = {
            key: tuple(names)
            for key, names in execute(
                f"select thing_id, array_agg(name order by number) from {parts_table(contract)} group by 1"
            )
        }
        rows = {
            key: Row(stamp and milliseconds(stamp), label, parts.pop(key, ()), *(t and milliseconds(t) for t in times))
            for key, stamp, label, *times in execute(
                f"select id, updated_at, label, fetched_at, absent_since, deleted_at from {contract.table}"
            )
        }
        expect(not parts, f"children without a parent: {parts}")
        history = {}
        if contract.history:
            history = {
                (key, milliseconds(stamp)): label
                for key, stamp, label in execute(f"select id, updated_at, label from {contract.table}_history")
            }
        letters: dict[str, Letter] = {}
        for key, payload, fetched_at in execute(
            "select record_key, payload, fetched_at from operations.dead_letters where status = 'pending'"
        ):
            expect(key not in letters, f"two pending letters of {key}")
            letters[key] = Letter(payload, milliseconds(fetched_at))
        self.client.connection.commit()
        return Shown(rows, history, letters)

    def _forget(self) -> None:
        self.client.connection.rollback()
        for number in self.client.runs:
            self.client.finish(number)
        shutil.rmtree(self._landing, ignore_errors=True)

    def _watch(self, published: Published) -> None:
        """What holds after every publish; nothing else writes to the entity's tables."""
        before, after, row = self._before, self.shown(), published.row
        overtaken = row["mode"] != "replay" and any(milliseconds(row["fetched_at"]) < f for f, _ in self._snapshots)
        expect(not overtaken, f"published although a snapshot that began later was: {row}")
        expect(row["records_read"] == published.records, f"{published.records} records landed: {row}")
        changed = {
            "inserted": {key for key in after.rows if key not in before.rows},
            "updated": {
                key
                for key, now in after.rows.items()
                if (was := before.rows.get(key)) is not None
                and now.deleted_at is None
                and (
                    (was.stamp, was.label, was.parts) != (now.stamp, now.label, now.parts) or was.deleted_at is not None
                )
            },
            "deleted": {
                key
                for key, now in after.rows.items()
                if now.deleted_at is not None and (key not in before.rows or before.rows[key].deleted_at is None)
            },
        }
        for name, keys in changed.items():
            expect(row[name] == len(keys), f"{name}: counted {row[name]}, but {keys}")
        expect(set(before.rows) <= set(after.rows), "a row is gone")
        for key, was in before.rows.items():
            self._expect_moved_forward(published, was, after.rows[key])
        self._expect_states(after)
        self._expect_deleted(published, changed["deleted"])
        self._before = after
        self._expect_watermark(published)
        if self.contract.history:
            self._versions |= {(key, milliseconds(version)) for key, version in published.staged}
            kept = set(after.history) | {(key, now.stamp) for key, now in after.rows.items()}
            expect(
                kept == self._versions, f"versions published but not kept, or never published: {kept ^ self._versions}"
            )
            doubled = [key for key, now in after.rows.items() if (key, now.stamp) in after.history]
            expect(not doubled, f"in the table and in history: {doubled}")

    def _expect_moved_forward(self, published: Published, was: Row, now: Row) -> None:
        """A row changes by a newer version, or by a later fetch where the rules say so."""
        moved = f"{was} became {now}"
        if was.deleted_at is not None:
            expect(
                now.deleted_at is not None or now.fetched_at > was.deleted_at, f"returned by an earlier fetch: {moved}"
            )
        elif (was.stamp, was.label, was.parts) == (now.stamp, now.label, now.parts):
            snapshot = published.row["mode"] == "snapshot"
            expect(not snapshot or now.fetched_at == was.fetched_at, f"a snapshot wrote on an unchanged row: {moved}")
        elif was.stamp == now.stamp or "trust_source" in published.run.request.options:
            expect(now.fetched_at > was.fetched_at, f"changed by an earlier fetch: {moved}")
        else:
            assert was.stamp is not None
            assert now.stamp is not None
            expect(now.stamp > was.stamp, f"went back: {moved}")

    def _expect_states(self, after: Shown) -> None:
        """Each row is a state that its record had, children and all."""
        for key, row in after.rows.items():
            states = self.source.states[key]
            had = any(
                (row.stamp in (None, s.stamp), row.label, row.parts)
                == (True, f"long {s.label}" if s.flaw == "long" else s.label, s.parts)
                for s in states
            )
            expect(had, f"{key} never was {row}")

    def _expect_deleted(self, published: Published, deleted: set[str]) -> None:
        row = published.row
        if row["mode"] != "snapshot":
            expect(not deleted, f"a {row['mode']} deleted {deleted}")
            return
        fetched_at = milliseconds(row["fetched_at"])
        newer = {key for key in deleted if self._before.rows[key].fetched_at >= fetched_at}
        expect(not newer, f"deleted by a snapshot that began no later than they were fetched: {newer}")
        begun = fetched_at - self.schedule.behaviour.answering_skew
        if self.contract.stable:
            held = {key for key in deleted if self.source.held_throughout(key, begun, published.run.fetched_until)}
            expect(not held, f"deleted although it was at the source throughout: {held}")
        keys = {key for key, _ in published.staged}
        expect(not deleted & keys, f"deleted although it was brought: {deleted & keys}")
        if not self.contract.stable:
            for key in deleted:
                absent_since = self._before.rows[key].absent_since
                told = [at for fetched, at in self._snapshots if fetched == absent_since and at < row["started_at"]]
                expect(
                    bool(told), f"deleted although no snapshot before had said so: {key}, absent since {absent_since}"
                )
        self._snapshots.append((fetched_at, row["synced_at"]))

    def _expect_watermark(self, published: Published) -> None:
        row, before = published.row, self._watermark
        watermark = row["watermark"]
        if before is not None and "reset_watermark" not in published.run.request.options:
            expect(watermark is not None and watermark >= before, f"the watermark fell from {before}: {row}")
        if watermark is not None and watermark != before:
            shifted = not published.settled or (row["mode"] == "snapshot" and not self.contract.stable)
            expect(not shifted, f"the watermark moved although pages shift: {row}")
            expect(row["mode"] != "replay" and watermark <= row["fetched_at"], f"the watermark leapt: {row}")
        self._watermark = watermark


def expect(holds: bool, otherwise: str) -> None:
    """Raises BrokenPromiseError, saying `otherwise`, unless it holds."""
    if not holds:
        raise BrokenPromiseError(otherwise)

"""An entity as the demo API serves it: the records of `data.py`, what has changed since, and pages made beforehand.

Only changes are held as records. What is served is kept in chunks of 1,000 slots as ready JSON, so that a second
reading costs a copy of bytes: about 350 bytes a customer, 650 an order.
"""

from __future__ import annotations

import random
import threading
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from include.local.demo_api.data import OLDER_VERSION, Entity, last_clean, stamp
from include.local.demo_api.dirt import OLDER, SAME, SHARED_EMAIL, Dirt, Outcome

CHUNK = 1000
_OLDER_BY_MS = 20 * 86_400_000


class NotEnoughRecordsError(ValueError):
    """A change asks for more records than there are clean ones."""


class Held(NamedTuple):
    """A record that is no longer, or never was, what `data.py` draws."""

    body: bytes
    updated_ms: int
    version: int
    valid: bool


@dataclass(frozen=True)
class Chunk:
    """The records of up to 1,000 slots, joined by commas: record k is `blob[starts[k]:starts[k + 1] - 1]`."""

    slots: Sequence[int]
    blob: bytes
    starts: array[int]
    updated: array[int]
    newest: int

    def between(self, first: int, last: int) -> bytes:
        """Records first to last - 1, joined by commas."""
        return self.blob[self.starts[first] : self.starts[last] - 1]


class Page(NamedTuple):
    """A page: its records as a JSON array, the slot of the last, and whether there are more."""

    body: bytes
    last: int
    more: bool


class Collection:
    """The records of one entity. Its methods may be called from several threads."""

    def __init__(self, entity: Entity, seed: int) -> None:
        self.entity = entity
        self._seed = seed
        self._lock = threading.RLock()
        self._chunks: dict[int, Chunk] = {}
        self._originals = {
            slot: last_clean(entity.dealt, slot - 1 if dirt is SAME else slot // 2)
            for slot, dirt in entity.dealt.items()
            if dirt.outcome is Outcome.DUPLICATE
        }
        self._repeats: dict[int, list[int]] = {}
        for slot, original in self._originals.items():
            self._repeats.setdefault(original, []).append(slot)
        self._touched: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        self._size = self.entity.initial
        self._revision = 0
        self._held: dict[int, Held] = {}
        self._born: dict[int, int] = {}
        self._deleted: set[int] = set()
        self._put: dict[str, int] = {}  # the slots of records that were put, by id
        self._put_slots: set[int] = set()
        self._pending: dict[int, set[int]] = {}  # slots changed since their chunk was made, by chunk

    def reset(self) -> None:
        """Back to the initial records."""
        with self._lock:
            for number in self._touched:
                self._chunks.pop(number, None)
            self._touched.clear()
            self._begin()

    def page(self, after: int, limit: int, since_ms: int | None = None, every_second: bool = False) -> Page:
        """Up to `limit` records behind slot `after` (-1: from the start) in the order of slots.

        With `since_ms`, those changed at or after it only. `every_second` leaves out half of them (the odd slots), as
        a broken source does: the page is shorter then, the paging the same. A record deleted meanwhile moves no
        other.
        """
        with self._lock:
            bodies: list[bytes] = []
            left, last = limit, after
            for chunk in self._from(after):
                if since_ms is not None and chunk.newest < since_ms:
                    continue
                first = bisect_right(chunk.slots, after)
                if since_ms is None:
                    if first == len(chunk.slots):
                        continue
                    if not left:
                        return Page(_array(bodies), last, True)
                    end = min(first + left, len(chunk.slots))
                    more_here = end < len(chunk.slots)
                    chosen: Sequence[int] = range(first, end)
                else:
                    matching = [k for k in range(first, len(chunk.slots)) if chunk.updated[k] >= since_ms]
                    if not matching:
                        continue
                    if not left:
                        return Page(_array(bodies), last, True)
                    chosen, more_here = matching[:left], len(matching) > left
                last = chunk.slots[chosen[-1]]
                left -= len(chosen)
                if since_ms is None and not every_second:
                    bodies.append(chunk.between(chosen[0], chosen[-1] + 1))
                else:
                    bodies += [chunk.between(k, k + 1) for k in chosen if not every_second or chunk.slots[k] % 2 == 0]
                if more_here:
                    return Page(_array(bodies), last, True)
            return Page(_array(bodies), last, False)

    def warm(self) -> int:
        """Makes every chunk that is not made yet; returns the number of records. They serve every limit."""
        for number in range(-(-self._size // CHUNK)):
            with self._lock:
                self._chunk(number)
        return self._size - len(self._deleted)

    def advance(self, now_ms: int, change: int, add: int, delete: int) -> dict[str, list[str]]:
        """Changes, adds and deletes so many clean records, at `now_ms`; returns their ids.

        Which ones depends on the seed and on how often this was done before. No record is both changed and deleted.
        Raises NotEnoughRecordsError, and does nothing, if there are not as many.
        """
        with self._lock:
            self._revision += 1
            chooser = random.Random(f"{self._seed}:{self.entity.name}:advance:{self._revision}")  # noqa: S311
            eligible = [slot for slot in range(self._size) if self._is_plain(slot)] if change + delete else []
            if change + delete > len(eligible):
                raise NotEnoughRecordsError(
                    f"{self.entity.name}: {change} to change and {delete} to delete, but only {len(eligible)} are clean"
                )
            chosen = chooser.sample(eligible, change + delete)
            added = range(self._size, self._size + add)
            for slot in chosen[:change]:
                self._draw(slot, now_ms)
            for slot in chosen[change:]:
                self._delete(slot)
            self._size += add
            for slot in added:
                self._born[slot] = now_ms
                self._hold(slot, Held(self.entity.record(slot, 0, now_ms, now_ms).text.encode(), now_ms, 0, True))
            return {
                "changed": [self.entity.identity(slot) for slot in chosen[:change]],
                "added": [self.entity.identity(slot) for slot in added],
                "deleted": [self.entity.identity(slot) for slot in chosen[change:]],
            }

    def remove(self, identity: str) -> bool:
        """Deletes the record of an id, repeated ones too; False if there is none."""
        with self._lock:
            slot = self._find(identity)
            if slot is None or slot in self._deleted:
                return False
            self._delete(slot)
            return True

    def restore(self, identity: str, now_ms: int) -> bool:
        """Brings a deleted record back with a newer stamp; False if none of that id was deleted."""
        with self._lock:
            slot = self._find(identity)
            if slot is None or slot not in self._deleted:
                return False
            for each in (slot, *self._repeats.get(slot, ())):
                self._deleted.discard(each)
                self._touch(each)
            if slot in self._put_slots:
                record = orjson.loads(self._held[slot].body) | {"updated_at": stamp(now_ms)}
                self._hold(slot, self._held[slot]._replace(body=orjson.dumps(record), updated_ms=now_ms))
            else:
                self._draw(slot, now_ms)
            return True

    def put(self, record: Any, valid: bool, now_ms: int) -> None:
        """Stores any JSON value as a record: in the place of the one with its id if there is one, else as the last.

        `valid` says what the expectations count it as. Its `updated_at` is its time of change, else `now_ms`.
        """
        with self._lock:
            fields = record if isinstance(record, dict) else {}
            identity = fields.get("id")
            slot = self._find(identity) if isinstance(identity, str) else None
            if slot is None:
                slot, self._size = self._size, self._size + 1
            self._put_slots.add(slot)
            if isinstance(identity, str):
                self._put[identity] = slot
            for each in (slot, *self._repeats.get(slot, ())):
                self._deleted.discard(each)
                self._touch(each)
            version = self._held[slot].version + 1 if slot in self._held else 1
            self._hold(slot, Held(orjson.dumps(record), _parsed(fields.get("updated_at"), now_ms), version, valid))

    def expectations(self, since_ms: int | None = None) -> dict[str, Any]:
        """What a pipeline should count that reads everything, or what changed since: by construction, not by checks.

        `records` are all; `quarantined` those that violate the contract; `duplicates` the valid ones that lose to
        another of the same id; `kinds` how many of each kind of dirt are among them.
        """
        with self._lock:
            recent: set[int] = set()
            if since_ms is not None:
                for chunk in self._from(-1):
                    recent.update(slot for slot, at in zip(chunk.slots, chunk.updated, strict=True) if at >= since_ms)

            def shown(slot: int) -> bool:
                return slot not in self._deleted if since_ms is None else slot in recent

            records = self._size - len(self._deleted) if since_ms is None else len(recent)
            dealt = {slot: dirt for slot, dirt in self.entity.dealt.items() if slot not in self._held and shown(slot)}
            quarantined = sum(dirt.outcome is Outcome.QUARANTINED for dirt in dealt.values())
            quarantined += sum(not held.valid and shown(slot) for slot, held in self._held.items())
            duplicates = 0
            for original, repeats in self._repeats.items():
                group = [slot for slot in (original, *repeats) if shown(slot)]
                if original in self._held and not self._held[original].valid:
                    same = [slot for slot in group if slot != original and self.entity.dealt[slot] is SAME]
                    quarantined += len(same)
                    group = [slot for slot in group if slot != original and slot not in same]
                duplicates += max(0, len(group) - 1)
            kinds = Counter(dirt.kind for dirt in dealt.values())
            return {
                "records": records,
                "quarantined": quarantined,
                "duplicates": duplicates,
                "kinds": dict(sorted(kinds.items())),
            }

    def _from(self, after: int) -> Iterator[Chunk]:
        """The chunks from the one with the slot behind `after` on."""
        for number in range((after + 1) // CHUNK, -(-self._size // CHUNK)):
            yield self._chunk(number)

    def _chunk(self, number: int) -> Chunk:
        made = self._chunks.get(number)
        pending = self._pending.pop(number, None)
        if made is not None and not pending:
            return made
        slots: Sequence[int] = range(number * CHUNK, min((number + 1) * CHUNK, self._size))
        if not self._deleted.isdisjoint(slots):
            slots = [slot for slot in slots if slot not in self._deleted]
        known: dict[int, int] = {}
        if made is not None:
            known = {slot: k for k, slot in enumerate(made.slots) if slot not in (pending or ())}
        bodies: list[bytes] = []
        updated, starts, start = array("q"), array("I", [0]), 0
        for slot in slots:
            if made is not None and slot in known:
                k = known[slot]
                body, updated_ms = made.between(k, k + 1), made.updated[k]
            else:
                body, updated_ms = self._record(slot)
            bodies.append(body)
            updated.append(updated_ms)
            start += len(body) + 1
            starts.append(start)
        chunk = Chunk(slots, b",".join(bodies), starts, updated, max(updated, default=-1))
        self._chunks[number] = chunk
        return chunk

    def _record(self, slot: int) -> tuple[bytes, int]:
        """What the source says for a slot now, and when it changed."""
        held = self._held.get(slot)
        if held is not None:
            return held.body, held.updated_ms
        dirt = self.entity.dealt.get(slot)
        if dirt is SAME:
            return self._record(self._originals[slot])
        if dirt is OLDER:
            original = self._originals[slot]
            older_ms = self.entity.record(original, 0).updated_ms - _OLDER_BY_MS
            drawn = self.entity.record(original, OLDER_VERSION, older_ms)
        else:
            drawn = self.entity.record(slot, 0)
        return (self._spoiled(slot, dirt, drawn.text) if dirt else drawn.text.encode()), drawn.updated_ms

    def _spoiled(self, slot: int, dirt: Dirt, text: str) -> bytes:
        record = orjson.loads(text)
        if dirt is SHARED_EMAIL:
            other = orjson.loads(self.entity.record(last_clean(self.entity.dealt, slot // 3), 0).text)
            record["email_address"] = other["email_address"]
        return orjson.dumps(dirt.spoil(record, slot))

    def _draw(self, slot: int, now_ms: int) -> None:
        """The next version of a record."""
        version = self._held[slot].version + 1 if slot in self._held else 1
        drawn = self.entity.record(slot, version, now_ms, self._born.get(slot))
        self._hold(slot, Held(drawn.text.encode(), now_ms, version, True))

    def _hold(self, slot: int, held: Held) -> None:
        self._held[slot] = held
        self._touch(slot)

    def _delete(self, slot: int) -> None:
        for each in (slot, *self._repeats.get(slot, ())):
            self._deleted.add(each)
            self._touch(each)

    def _touch(self, slot: int) -> None:
        self._touched.add(slot // CHUNK)
        self._pending.setdefault(slot // CHUNK, set()).add(slot)

    def _is_plain(self, slot: int) -> bool:
        """Neither deleted nor dirty, repeated or put: what a change may choose."""
        if slot in self._deleted or slot in self.entity.dealt or slot in self._repeats:
            return False
        return slot not in self._put_slots

    def _find(self, identity: str) -> int | None:
        """The slot of an id: of a record that was put, or of one that was drawn and is not sent under another id."""
        if identity in self._put:
            return self._put[identity]
        slot = self.entity.slot_of(identity)
        if slot is None or slot >= self._size or slot in self._put_slots or slot in self._originals:
            return None
        dirt = self.entity.dealt.get(slot)
        return None if dirt is not None and dirt.kind in ("id_not_uuid", "id_null", "not_an_object") else slot


def _array(bodies: list[bytes]) -> bytes:
    return b"[" + b",".join(bodies) + b"]"


def _parsed(value: Any, otherwise: int) -> int:
    """An ISO 8601 text as milliseconds since 1970; `otherwise` for anything else."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return otherwise
    return int(moment.timestamp() * 1000) if moment.tzinfo else otherwise

"""A schedule: what a source is, what happens to its records, and what is run against it when; all drawn from a seed.

A schedule is data, so that a failing one can be cut down to what makes it fail: `smallest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, TypeVar

from tests.chaos.source import MINUTE, SECOND, Behaviour, Change, Flaw

LOOKBACK = 15 * MINUTE
HOUR = 60 * MINUTE

Mode = Literal["snapshot", "delta", "replay"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    duration: int


@dataclass(frozen=True)
class Begin:
    """A run is triggered; nothing is done yet. `since_ago`: a repair of that last window."""

    run: int
    mode: Mode
    since_ago: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kill:
    """The process dies at the `count`-th time that it comes to `point`."""

    point: str
    count: int = 1


@dataclass(frozen=True)
class Do:
    """The run's next task is tried: the first that has not succeeded."""

    run: int
    kill: Kill | None = None


@dataclass(frozen=True)
class Clear:
    """Somebody clears a task of the run, and what follows it."""

    run: int
    task: Literal["extract", "stage", "publish"]


@dataclass(frozen=True)
class Mend:
    """The contract is mended: what was too long is valid from here on."""


Step = Wait | Begin | Do | Clear | Mend


@dataclass(frozen=True)
class Schedule:
    """Everything that happens until quiescence."""

    seed: int
    entity: Literal["things", "shifting", "contents"]
    behaviour: Behaviour
    changes: tuple[Change, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.entity}", repr(self.behaviour)]
        lines += [f"  {change}" for change in self.changes]
        lines += [f"  {number}. {step}" for number, step in enumerate(self.steps, start=1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Beyond:
    """What a schedule does that a source may not, for the runs outside of the bounds. All in milliseconds."""

    delay: int = 0
    stamps_every: int = 0
    skew: int = 0
    stamps_back: int = 0
    entity: str = "things"
    steps: dict[str, Any] = field(default_factory=dict)


EXTRACT_POINTS = ("asking", "asked", "writing", "wrote", "saving", "saved", "landed", "returning")
STAGE_POINTS = ("reading", "staged", "returning")
PUBLISH_POINTS = ("publishing", "uncommitted", "returning")


def draw(seed: int, beyond: Beyond | None = None) -> Schedule:
    """The schedule of that seed."""
    chance = Random(seed)
    entity: Any = beyond.entity if beyond else chance.choice(["things"] * 5 + ["shifting"] * 3 + ["contents"] * 2)
    behaviour, longest_delay = _behaviour(chance, entity, beyond)
    return Schedule(seed, entity, behaviour, _changes(chance, entity, longest_delay, beyond), _steps(chance))


def _behaviour(chance: Random, entity: str, beyond: Beyond | None) -> tuple[Behaviour, int]:
    """A source within the bounds, and the longest delay of its commits that still is."""
    stamps_every = chance.choice([1, SECOND, MINUTE])
    first_answer = chance.choice([200, 5 * SECOND, 60 * SECOND, 4 * MINUTE])
    left = LOOKBACK - stamps_every - first_answer - 2 * SECOND
    apart = chance.choice([0, chance.randint(-5 * MINUTE, 5 * MINUTE), chance.randint(0, 10 * MINUTE)])
    apart = max(min(apart, left), -left)
    stamping_skew = chance.randint(-5 * MINUTE, 5 * MINUTE)
    stamping_skew = max(min(stamping_skew, 5 * MINUTE - apart), -5 * MINUTE - apart)
    delay = left - abs(apart)
    if beyond:
        delay = beyond.delay or delay
        stamps_every = beyond.stamps_every or stamps_every
        stamping_skew -= beyond.skew
    behaviour = Behaviour(
        paging="by offset" if entity == "shifting" else chance.choice(["by key", "by stamp"]),
        page_size=chance.choice([2, 2, 3, 5]),
        repeats=chance.random() < 0.3,
        stamps_every=stamps_every,
        stamping_skew=stamping_skew,
        answering_skew=stamping_skew + apart + (beyond.skew if beyond else 0),
        first_answer=first_answer,
        answer=chance.choice([SECOND, 20 * SECOND, 2 * MINUTE, 5 * MINUTE]),
        fault_share=chance.choice([0.0, 0.0, 0.1, 0.3]),
    )
    return behaviour, delay


def _changes(chance: Random, entity: str, longest_delay: int, beyond: Beyond | None) -> tuple[Change, ...]:
    keys = [f"k{number:02d}" for number in range(chance.choice([2, 4, 6, 9, 14]))]
    flaws: list[Flaw] = ["long", "long", "number", "child", "key"]
    if entity != "contents":
        flaws.append("version")
    flawed = chance.choice([0.0, 0.15, 0.4])
    vanishing = chance.choice([0.1, 0.3])
    few_labels = chance.random() < 0.4
    delays = chance.choice([[0], [0, longest_delay], [0, longest_delay // 2, longest_delay]])

    def change(at: int, number: int, key: str) -> Change:
        if chance.random() < vanishing and at > 0:
            return Change(at, key, None, delay=chance.choice(delays))
        return Change(
            at,
            key,
            chance.choice("xy") if few_labels else f"{number:03d}",
            chance.choice([(), ("p",), ("p", "q"), ("q",)]),
            chance.choice(flaws) if chance.random() < flawed else "",
            chance.choice(delays),
            chance.randint(0, beyond.stamps_back) if beyond and beyond.stamps_back and at > 0 else 0,
        )

    changes = [replace(change(-chance.randint(1, 24 * HOUR), 0, key), delay=0) for key in keys if chance.random() < 0.8]
    at = 0
    gaps = chance.choice([[2 * SECOND, MINUTE, 10 * MINUTE], [SECOND, 20 * SECOND], [2 * MINUTE, 20 * MINUTE]])
    for number in range(1, 121):
        at += chance.randint(1, chance.choice(gaps))
        changes.append(change(at, number, chance.choice(keys)))
    return tuple(changes)


def _steps(chance: Random) -> tuple[Step, ...]:
    """Runs that begin one after the other, whose tasks interleave, die, are tried again and cleared."""
    steps: list[Step] = []
    killing = chance.choice([0.0, 0.15, 0.3])
    waits = chance.choice([[2 * SECOND, MINUTE], [10 * SECOND, 5 * MINUTE, 15 * MINUTE], [MINUTE, 40 * MINUTE]])
    beside = chance.choice([1, 2, 3])
    left = {}  # tasks to do, by run
    begun, runs = 0, chance.randint(3, 6)
    while begun < runs or left:
        if chance.random() < 0.3:
            steps.append(Wait(chance.randint(1, chance.choice(waits))))
        if begun < runs and len(left) < beside and (not left or chance.random() < 0.4):
            steps.append(_begin(chance, begun))
            left[begun] = 3
            begun += 1
        else:
            run = chance.choice(list(left))
            if chance.random() < killing:
                points = [EXTRACT_POINTS, STAGE_POINTS, PUBLISH_POINTS][3 - left[run]]
                steps.append(Do(run, Kill(chance.choice(points), chance.choice([1, 1, 2, 3]))))
            else:
                steps.append(Do(run))
                left[run] -= 1
                if chance.random() < 0.05:
                    task = chance.choice(["extract", "extract", "stage", "publish"])
                    steps.append(Clear(run, task))  # type: ignore[arg-type]  # choice forgets the literals
                    left[run] = {"extract": 3, "stage": 2, "publish": 1}[task]
                if not left[run] or chance.random() < 0.03:  # some are never brought to their end
                    del left[run]
    if chance.random() < 0.3:
        steps.insert(chance.randint(0, len(steps)), Mend())
    return tuple(steps)


def _begin(chance: Random, run: int) -> Begin:
    mode: Mode = chance.choices(["snapshot", "delta", "replay"], [4, 6, 1])[0]
    if mode == "replay":
        return Begin(run, mode)
    if mode == "snapshot":
        options = [name for name, share in (("allow_deletes", 0.6), ("trust_source", 0.05)) if chance.random() < share]
        return Begin(run, mode, options=tuple(options))
    if chance.random() < 0.2:
        return Begin(run, mode, since_ago=chance.randint(0, chance.choice([MINUTE, 30 * MINUTE, 24 * HOUR])))
    return Begin(run, mode, options=("reset_watermark",) if chance.random() < 0.04 else ())


def smallest(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The schedule without the steps and changes that it fails without, cut away by halves, then one by one."""
    while True:
        steps = _cut(schedule.steps, lambda kept: fails(replace(schedule, steps=kept)))
        schedule = replace(schedule, steps=steps)
        changes = _cut(schedule.changes, lambda kept: fails(replace(schedule, changes=kept)))
        if len(changes) == len(schedule.changes):
            return schedule
        schedule = replace(schedule, changes=changes)


def _cut(items: tuple[Item, ...], still: Callable[[tuple[Item, ...]], bool]) -> tuple[Item, ...]:
    size = max(len(items) // 2, 1)
    while True:
        begin = 0
        while begin < len(items):
            kept: Sequence[Item] = items[:begin] + items[begin + size :]
            if still(tuple(kept)):
                items = tuple(kept)
            else:
                begin += size
        if size == 1:
            return items
        size //= 2

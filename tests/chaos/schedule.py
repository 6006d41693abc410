"""A schedule: what a source is, what happens to its records, and what is run against it when; all drawn from a seed.

A schedule is data, so that a failing one can be cut down to what makes it fail: `smallest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    """What a source does that it may not, in milliseconds: the rest of its schedule stays within the bounds.

    Commits show up to `delay` late; `stamps_every` is how coarse its stamps are; its answers are dated `ahead` of its
    stamps; a stamp may lie up to `stamps_back` behind the clock, and so behind the record's last one.
    """

    delay: int = 0
    stamps_every: int = 0
    ahead: int = 0
    stamps_back: int = 0


EXTRACT_POINTS = ("asking", "asked", "writing", "wrote", "saving", "saved", "landed", "returning")
STAGE_POINTS = ("reading", "staged", "returning")
PUBLISH_POINTS = ("publishing", "uncommitted", "returning")


def draw(seed: int, beyond: Beyond | None = None) -> Schedule:
    """The schedule of that seed."""
    chance = Random(seed)  # noqa: S311 - nothing secret
    entity: Any = "things" if beyond else chance.choice(["things"] * 5 + ["shifting"] * 3 + ["contents"] * 2)
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
    behaviour = Behaviour(
        paging=_paging(chance, entity, beyond),
        page_size=chance.choice([2, 3] if entity == "shifting" else [2, 2, 3, 5]),
        repeats=chance.random() < 0.3,
        stamps_every=stamps_every,
        stamping_skew=stamping_skew,
        answering_skew=stamping_skew + apart + (beyond.ahead if beyond else 0),
        first_answer=first_answer,
        answer=chance.choice([SECOND, 20 * SECOND, MINUTE, 2 * MINUTE]),
        fault_share=chance.choice([0.0, 0.0, 0.1, 0.3]),
    )
    return behaviour, delay


def _paging(chance: Random, entity: str, beyond: Beyond | None) -> Any:
    if entity == "shifting":
        return "by offset"
    return "by key" if beyond and beyond.stamps_back else chance.choice(["by key", "by stamp"])


def _changes(chance: Random, entity: str, longest_delay: int, beyond: Beyond | None) -> tuple[Change, ...]:
    keys = [f"k{number:02d}" for number in range(chance.choice([5, 8, 16, 30]))]
    flaws: list[Flaw] = ["long", "long", "number", "child", "key"]
    if entity != "contents":
        flaws.append("version")
    flawed = chance.choice([0.0, 0.15, 0.4])
    vanishing = chance.choice([0.3, 0.5] if entity == "shifting" else [0.1, 0.3])  # pages shift by what vanishes
    few_labels = chance.random() < 0.4
    delays = chance.choice([[0], [0, longest_delay], [0, longest_delay], [0, longest_delay // 2, longest_delay]])

    if beyond:
        delays = [0, longest_delay]

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
    gaps = chance.choice([[2 * SECOND, MINUTE, 10 * MINUTE], [20 * SECOND, MINUTE], [MINUTE, 5 * MINUTE]])
    for number in range(1, 121):
        at += chance.randint(1, chance.choice(gaps))
        changes.append(change(at, number, chance.choice(keys)))
    return tuple(changes)


def _steps(chance: Random) -> tuple[Step, ...]:
    """Runs that begin one after the other, whose tasks interleave, die, are tried again and cleared.

    One may lie half done until all others have come to their end, as it does behind a broken worker.
    """
    steps: list[Step] = []
    killing = chance.choice([0.0, 0.15, 0.3])
    waits = chance.choice([[10 * SECOND, 5 * MINUTE], [5 * MINUTE, 20 * MINUTE], [MINUTE, HOUR]])
    beside = chance.choice([1, 2, 3])
    begun, runs = 0, chance.randint(3, 6)
    late = chance.choice([None, 0, 1])
    snapshots = chance.choice([0.1, 0.4])
    left: dict[int, int] = {}  # tasks to do, by run
    cut: int | None = None  # a run whose fetch has just been cut off
    while begun < runs or left:
        if chance.random() < 0.4:
            steps.append(Wait(chance.randint(1, chance.choice(waits))))
        ready = [run for run in left if run != late or left[run] == 3 or (begun == runs and len(left) == 1)]
        if begun < runs and (not ready or (len(ready) < beside and (cut is not None or chance.random() < 0.4))):
            likely: Mode | None = None
            if late is not None and begun >= late and chance.random() < 0.6:
                likely = "snapshot" if begun == late else "delta"
            steps.append(_begin(chance, begun, snapshots, likely))
            left[begun] = 3
            begun += 1
            continue
        run = chance.choice([other for other in ready if other != cut] or ready)
        cut = run if left[run] == 3 and beside > 1 and chance.random() < 0.3 else None
        if cut is not None:  # it goes on with its fetch when another has run
            steps.append(Do(run, Kill("asking", chance.choice([2, 2, 3]))))
            continue
        if chance.random() < killing:
            points = [EXTRACT_POINTS, STAGE_POINTS, PUBLISH_POINTS][3 - left[run]]
            steps.append(Do(run, Kill(chance.choice(points), chance.choice([1, 1, 2, 3]))))
            continue
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


def _begin(chance: Random, run: int, snapshots: float, likely: Mode | None) -> Begin:
    modes: list[Mode] = ["snapshot", "delta", "replay"]
    mode = likely or chance.choices(modes, [snapshots, 0.9 - snapshots, 0.1])[0]
    if mode == "replay":
        return Begin(run, mode)
    if mode == "snapshot":
        options = [name for name, share in (("allow_deletes", 0.6), ("trust_source", 0.05)) if chance.random() < share]
        return Begin(run, mode, options=tuple(options))
    if chance.random() < 0.25:
        return Begin(run, mode, since_ago=chance.randint(0, chance.choice([MINUTE, MINUTE, 24 * HOUR])))
    return Begin(run, mode, options=("reset_watermark",) if chance.random() < 0.04 else ())


def smallest(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The schedule without the steps and changes that it fails without, cut away by halves, then one by one."""
    steps = _cut(schedule.steps, lambda kept: fails(replace(schedule, steps=kept)))
    changes = _cut(schedule.changes, lambda kept: fails(replace(schedule, steps=steps, changes=kept)))
    smaller = replace(schedule, steps=steps, changes=changes)
    return smaller if smaller == schedule else smallest(smaller, fails)


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

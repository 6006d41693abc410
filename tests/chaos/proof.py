"""Many schedules: played one after the other, counted, the first that breaks a promise cut down to what breaks it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import Connection

from tests.chaos.references import Rule
from tests.chaos.schedule import HOUR, Beyond, Schedule, draw, smallest
from tests.chaos.simulation import BrokenPromiseError, Repair, Simulation, play_naively
from tests.chaos.source import MINUTE, Server
from tests.chaos.tally import Tally
from tests.chaos.things import database
from tests.memory import temporary_folder

CUTTING_SECONDS = 120.0
OURS = "Sluice"
RULES: tuple[Rule, ...] = ("own clock", "newest seen")
BEYOND = {
    "commits show up to 40 minutes late": Beyond(delay=40 * MINUTE),
    "commits show up to 2 hours late": Beyond(delay=2 * HOUR),
    "stamps are whole hours": Beyond(stamps_every=HOUR),
    "answers are dated 45 minutes ahead of stamps": Beyond(ahead=45 * MINUTE),
    "stamps lie up to 2 hours back": Beyond(stamps_back=2 * HOUR),
}
"""Sources that break what the promise presumes."""


@dataclass
class Proof:
    """The counts of each client over the same schedules."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in (OURS, *RULES)})
    over_http: int = 0
    seconds: float = 0.0

    def table(self) -> str:
        """The counts as a Markdown table."""
        head = ["client", "schedules", "executions", "records read", "records at the end"]
        head += ["missing", "wrong", "left over", "doubled", "schedules that lose"]
        rows = [
            (
                name,
                t.schedules,
                t.executions,
                t.read,
                t.live,
                t.lost,
                t.wrong,
                t.left_over,
                t.doubled,
                t.losing_schedules,
            )
            for name, t in self.tallies.items()
        ]
        return markdown(head, rows)


def markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; numbers to the right."""
    head = list(head)
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    lines += [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Prover:
    """Plays schedules on one database."""

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Prover]:
        """One with a PostgreSQL server and an HTTP server of its own, in memory where that is possible."""
        with (
            temporary_folder() as folder,
            database(Path(folder)) as connection,
            Server().running() as server,
        ):
            yield cls(connection, Path(folder) / "landing", server)

    def __init__(self, connection: Connection[Any], landing: Path, server: Server) -> None:
        self._connection = connection
        self._landing = landing
        self._server = server

    def play(self, schedule: Schedule, *, http: bool = False) -> Tally:
        """The schedule's counts. Raises BrokenPromiseError, with its seed and the smallest schedule that fails."""
        try:
            return self._simulated(schedule, http=http).play()
        except Exception as error:
            raise BrokenPromiseError(self._cut_down(schedule, error, http=http)) from error

    def prove(
        self, seeds: Iterable[int], *, http: int = 0, progress: Callable[[Proof], None] = lambda proof: None
    ) -> Proof:
        """Plays the schedules of these seeds, the first `http` over HTTP, and the references on each."""
        proof = Proof()
        began = time.monotonic()
        for number, seed in enumerate(seeds):
            schedule = draw(seed)
            proof.tallies[OURS].add(self.play(schedule, http=number < http))
            proof.over_http += number < http
            for rule in RULES:
                proof.tallies[rule].add(play_naively(schedule, rule))
            proof.seconds = time.monotonic() - began
            progress(proof)
        return proof

    def repaired(self, seeds: Iterable[int], beyond: Beyond) -> Repair:
        """The sum over schedules beyond the bounds."""
        repairs = [self._simulated(draw(seed, beyond)).repair() for seed in seeds]
        missing = tuple(map(sum, zip(*(repair.missing for repair in repairs), strict=True)))
        return Repair(sum(r.live for r in repairs), missing, sum(r.regressed for r in repairs))

    def _simulated(self, schedule: Schedule, *, http: bool = False) -> Simulation:
        simulation = Simulation(self._connection, schedule, self._landing, self._server.url if http else None)
        self._server.source = simulation.source
        return simulation

    def _cut_down(self, schedule: Schedule, error: Exception, *, http: bool) -> str:
        said = _said(error)
        last = {said: str(error)}
        until = time.monotonic() + CUTTING_SECONDS

        def fails(smaller: Schedule) -> bool:
            if time.monotonic() > until:
                return False
            try:
                self._simulated(smaller, http=http).play()
            except Exception as other:  # whatever it is, it is compared
                if _said(other) == said:
                    last[said] = str(other)
                    return True
            return False

        smaller = smallest(schedule, fails)
        again = f"python -m tests.chaos --schedules 1 --seed {schedule.seed}"
        return f"seed {schedule.seed}: {error}\nto see it again: {again}\ncut down, it says: {last[said]}\n{smaller}"


def _said(error: Exception) -> str:
    """What kind of failure it is: its type and its words before the values."""
    return f"{type(error).__name__} {str(error).split(':')[0]}"


def repairs_table(repaired: dict[str, Repair]) -> str:
    """What sources beyond the bounds cost, as a Markdown table."""
    head = ["source", "records at the end", "missing or wrong after a delta", "after another", "after a daily run"]
    head += ["which called regressed", "after one with `trust_source`"]
    rows = [(name, r.live, *r.missing[:3], r.regressed, r.missing[3]) for name, r in repaired.items()]
    return markdown(head, rows)

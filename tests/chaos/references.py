"""Two syncs as they are often written, over the same sources: what is lost where the rules are simpler.

Neither has faults of its own making: rows are set at once, in memory, and a run that dies begins anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from include.extract.pagination import LinkHeader, Page, PageRequest
from tests.chaos.schedule import Begin, Kill
from tests.chaos.source import Source, State, moment
from tests.chaos.tally import Tally

Rule = Literal["own clock", "newest seen"]
TASKS = 3


@dataclass
class NaiveRun:
    """A run; `fetched` is what its extract brought, by key."""

    request: Begin
    done: int = 0
    fetched: dict[str, State | None] = field(default_factory=dict)
    clock: int = 0


class NaiveClient:
    """Keeps a watermark by a simple rule and asks for what is strictly newer, without a lookback.

    "own clock": the client's clock when the fetch has ended; whatever comes is written. "newest seen": the newest
    `updated_at` that came; what is older than its row is not written. Both take a daily run's word for what is gone.
    """

    def __init__(self, source: Source, path: str, rule: Rule) -> None:
        self.source = source
        self.rows: dict[str, State] = {}
        self.watermark: int | None = None
        self.executed = 0
        self.read = 0
        self._path = path
        self._rule = rule
        self._runs: dict[int, NaiveRun] = {}

    def begin(self, begin: Begin) -> None:
        """Triggers a run; there are no dead letters that one could replay."""
        if begin.mode != "replay":
            self._runs[begin.run] = NaiveRun(begin)

    def clear(self, number: int, task: str) -> None:
        """Clears a run's task and what follows it."""
        if number in self._runs:
            run = self._runs[number]
            run.done = min(run.done, ("extract", "stage", "publish").index(task))

    def do(self, number: int, kill: Kill | None = None) -> None:
        """Tries the run's next task; one that is killed has done nothing, but a publish that had committed."""
        run = self._runs.get(number)
        if run is None or run.done == TASKS:
            return
        done = True
        if run.done == 0:
            done = self._extract(run)
        elif run.done == TASKS - 1 and (kill is None or kill.point == "returning"):
            self._publish(run)
        run.done += done and kill is None

    def complete(self, begin: Begin) -> None:
        """A run from its trigger to its end."""
        self.begin(begin)
        for _ in range(TASKS):
            self.do(begin.run)

    def counted(self) -> Tally:
        """How the rows differ from the source now."""
        held = self.source.shown()
        tally = Tally(schedules=1, executions=self.executed, read=self.read)
        for key, state in held.items():
            if not state.flaw:
                tally.live += 1
                tally.lost += key not in self.rows
                tally.wrong += key in self.rows and self.rows[key].as_json() != state.as_json()
        tally.left_over = len(set(self.rows) - set(held))
        tally.losing_schedules = int(tally.lost + tally.wrong > 0)
        return tally

    def _since(self, run: NaiveRun) -> int | None:
        if run.request.mode == "snapshot":
            return None
        if run.request.since_ago is not None:
            return self.source.now + self.source.behaviour.answering_skew - run.request.since_ago
        return None if "reset_watermark" in run.request.options else self.watermark

    def _extract(self, run: NaiveRun) -> bool:
        """Whether all pages came."""
        since, records = self._since(run), {}
        target: str | None = self._path
        if since is not None:
            target = f"{self._path}?strictly=1&modified_since={moment(since).isoformat().replace('+', '%2B')}"
        while target is not None:
            reply = self.source.respond(target)
            if reply.status != 200 or reply.body == b"[{":
                return False
            for record in json.loads(reply.body):
                self.read += 1
                if record["id"] is not None:
                    records[record["id"]] = self._valid(record)
            following = LinkHeader().next(Page(PageRequest(""), "", reply.headers, reply.body))
            target = following.url if following else None
        run.fetched = records
        run.clock = self.source.now + self.source.behaviour.answering_skew
        return True

    def _valid(self, record: dict[str, object]) -> State | None:
        """The state that was sent; None for one that is not valid."""
        sent = [state for state in self.source.states[str(record["id"])] if state.label is not None]
        state = next(state for state in sent if state.as_json() == record)
        return None if state.flaw else state

    def _publish(self, run: NaiveRun) -> None:
        self.executed += 1
        for key, state in run.fetched.items():
            row = self.rows.get(key)
            if state is not None and (self._rule == "own clock" or row is None or state.stamp >= row.stamp):
                self.rows[key] = state
        if run.request.mode == "snapshot":
            self.rows = {key: row for key, row in self.rows.items() if key in run.fetched}
        if run.request.since_ago is None:
            seen = [state.stamp for state in run.fetched.values() if state is not None]
            if self._rule == "own clock":
                self.watermark = run.clock
            elif seen:
                self.watermark = max(seen)

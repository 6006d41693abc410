"""The syncs without Airflow: runs whose tasks call what the operators call, die where a schedule says, are tried again.

The gate is left out: what it stops, publishes nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection

from include.contracts.contract import Contract
from include.extract.client import SourceClient, SourceError
from include.extract.execution import HttpSource, Request, SinceAheadError, extract
from include.extract.landing import FetchState, Landing, batches
from include.load import staging
from include.load.publish import OVERTAKEN, TOO_MANY_DELETES, publish, queue_dead_letters
from include.operations import dead_letters, executions, sync_log
from include.transform.validation import PageValidator
from tests.chaos.schedule import HOUR, Begin, Kill
from tests.chaos.source import SECOND, InProcess, Session, Source, moment

PIPELINE = "chaos"
BATCH_ROWS = 12
TASKS = ("extract", "stage", "publish")


class KilledError(BaseException):
    """The process is gone: nothing below may catch this."""


@dataclass
class Run:
    """A run and how far it has come; what its tasks handed on is lost when they are cleared or die."""

    request: Begin
    begun_at: int
    done: int = 0
    execution: UUID | None = None
    batches: list[range] = field(default_factory=list)
    fetched_until: int = 0
    failed: bool = False


@dataclass
class Published:
    """A publish that has committed: its row in `sync_log`, and what it was made of."""

    row: dict[str, Any]
    run: Run
    staged: set[tuple[str, Any]]
    records: int
    settled: bool


class Deadly:
    """Where the process dies, once."""

    def __init__(self) -> None:
        self.plan: Kill | None = None

    def at(self, point: str) -> None:
        """Comes to `point`. Raises KilledError where that is the planned end."""
        if self.plan is None or self.plan.point != point:
            return
        left = self.plan.count - 1
        self.plan = Kill(point, left) if left else None
        if not left:
            raise KilledError(point)


class DeadlyLanding(Landing):
    """A landing folder whose writer may die before and after each file."""

    def __init__(self, folder: Path, deadly: Deadly) -> None:
        super().__init__(folder)
        self._deadly = deadly

    def write_page(self, number: int, body: bytes) -> None:
        self._deadly.at("writing")
        super().write_page(number, body)
        self._deadly.at("wrote")

    def save_state(self, state: FetchState) -> None:
        self._deadly.at("saving")
        super().save_state(state)
        self._deadly.at("saved")

    def read_page(self, number: int) -> bytes:
        self._deadly.at("reading")
        return super().read_page(number)


class SyncClient:
    """Syncs one entity of a source into a database."""

    def __init__(
        self,
        connection: Connection[Any],
        source: Source,
        contract: Contract,
        landing: Path,
        *,
        url: str | None = None,
        watch: Callable[[Published], None] = lambda published: None,
    ) -> None:
        """`url` is where a server serves the source; None asks it in this process. `watch` sees every publish."""
        self.connection = connection
        self.source = source
        self.contract = contract
        self.runs: dict[int, Run] = {}
        self.executed = 0
        self.read = 0
        self._landing = landing
        self._deadly = Deadly()
        self._watch = watch
        self._session = Session(lambda: self._deadly.at("asking"), lambda: self._deadly.at("asked"))
        if url is None:
            self._session.mount("http://", InProcess(source))
        self._url = url or "http://source.invalid"

    def begin(self, begin: Begin) -> None:
        """Triggers a run."""
        self.runs[begin.run] = Run(begin, self.source.now)

    def clear(self, number: int, task: str) -> None:
        """Clears a task of the run and what follows it."""
        run = self.runs.get(number)
        if run is not None:
            run.done = min(run.done, TASKS.index(task))
            run.failed = False

    def do(self, number: int, kill: Kill | None = None) -> None:
        """Tries the run's next task; whatever fails or dies stays to be tried again."""
        run = self.runs.get(number)
        if run is None or run.failed or run.done == len(TASKS):
            return
        self._deadly.plan = kill
        try:
            [self._extract, self._stage, self._publish][run.done](number, run)
            self._deadly.at("returning")
            run.done += not run.failed
        except KilledError:
            pass
        except SourceError as error:
            if not error.retryable:
                raise
        finally:
            for thread in threading.enumerate():
                if thread.name.startswith("fetch-"):
                    thread.join()
            self._deadly.plan = None
            self.connection.rollback()
            self.connection.execute("select pg_advisory_unlock_all()")
            self.connection.commit()
        if run.failed or run.done == len(TASKS):
            self.finish(number)

    def complete(self, begin: Begin) -> None:
        """A run from its trigger to its end."""
        self.begin(begin)
        for _ in TASKS:
            self.do(begin.run)
        assert self.runs[begin.run].done == len(TASKS), f"{begin} did not come to its end"

    def finish(self, number: int) -> None:
        """Drops what the run has staged, as its teardown does."""
        for execution in executions.of_run(self.connection, pipeline=PIPELINE, run_id=str(number)):
            staging.drop(self.connection, execution)
        self.connection.commit()

    def _extract(self, number: int, run: Run) -> None:
        identity = executions.Run(self.contract.name, PIPELINE, str(number))
        if run.request.mode == "replay":
            self._choose(identity, run)
            return
        if self.source.now - run.begun_at > HOUR:  # what was cut off is as old by the database's clock
            self.connection.execute(
                "update operations.executions set started_at = started_at - %s where run_id = %s",
                (executions.RESUMABLE_FOR, identity.run_id),
            )
            self.connection.commit()
            run.begun_at = self.source.now
        since = None
        if run.request.since_ago is not None:
            since = moment(self.source.now + self.source.behaviour.answering_skew - run.request.since_ago)
        request = Request(run.request.mode, since, dict.fromkeys(run.request.options, True))
        client = SourceClient(
            self._session,
            self._url,
            self.contract.name,
            attempts=2,
            sleep=lambda seconds: self.source.advance(int(seconds) * SECOND),  # without the jitter
        )
        self.connection.autocommit = True
        try:
            execution, state = extract(
                self.connection,
                HttpSource(client),
                self.contract,
                identity,
                request,
                landing_uri=str(self._landing),
                open_landing=lambda uri: DeadlyLanding(Path(uri), self._deadly),
                report=self._report,
            )
        except SinceAheadError:
            run.failed = True
            return
        finally:
            self.connection.autocommit = False
        run.fetched_until = self.source.now
        self._hand_on(run, execution.execution, state)

    def _report(self, line: str) -> None:
        if "complete" in line:
            self._deadly.at("landed")

    def _choose(self, identity: executions.Run, run: Run) -> None:
        choice = dead_letters.Choice(entity=self.contract.name)
        if not dead_letters.count(self.connection, choice):
            run.failed = True  # the operator skips what follows
            return
        execution = executions.begin(
            self.connection,
            identity,
            mode="replay",
            landing_uri=str(self._landing),
            options={"allow_quarantined": True},
        )
        for earlier in executions.superseded(self.connection, execution):
            staging.drop(self.connection, earlier)
        landing = DeadlyLanding(Path(execution.landing), self._deadly)
        state = dead_letters.land(self.connection, self.contract, execution, choice, landing)
        executions.landed(self.connection, execution.execution, fetched_at=state.fetched_at, records_read=state.records)
        self._deadly.at("landed")
        self.connection.commit()
        self._hand_on(run, execution.execution, state)

    def _hand_on(self, run: Run, execution: UUID, state: FetchState) -> None:
        run.execution = execution
        run.batches = [batch.pages for batch in batches(state, rows=BATCH_ROWS)]

    def _open(self, execution: executions.Execution) -> DeadlyLanding:
        return DeadlyLanding(Path(execution.landing), self._deadly)

    def _stage(self, number: int, run: Run) -> None:
        assert run.execution is not None
        execution = executions.get(self.connection, run.execution)
        if sync_log.published(self.connection, run.execution) is not None:
            return
        if execution.fetched_at is None or not staging.exists(self.connection, self.contract, run.execution):
            run.failed = True
            return
        landing = self._open(execution)
        state = landing.load_state()
        landed = {page.number: page.records for page in state.pages} if state else {}
        for pages in run.batches:
            staging.stage_batch(
                self.connection,
                PageValidator(self.contract, execution.fetched_at),
                run.execution,
                [(page, landed[page]) for page in pages],
                landing.read_page,
                execution.landing,
                lambda line: None,
            )
            self._deadly.at("staged")
            self.connection.commit()

    def _publish(self, number: int, run: Run) -> None:
        assert run.execution is not None
        if sync_log.published(self.connection, run.execution) is not None:
            return
        if not staging.exists(self.connection, self.contract, run.execution):
            run.failed = True
            return
        self._deadly.at("publishing")
        staged = {
            (key, version)
            for key, version in self.connection.execute(
                f"select id, updated_at from staging.{self.contract.name}_{run.execution.hex}"
            )
        }
        self.connection.commit()
        try:
            with self.connection.transaction():
                row = publish(
                    self.connection, self.contract, run.execution, mode=run.request.mode, max_deleted_share=0.2
                )
                self._deadly.at("uncommitted")
        except psycopg.Error as error:
            if error.sqlstate == TOO_MANY_DELETES:
                queue_dead_letters(self.connection, self.contract, run.execution)
                self.connection.commit()
            if error.sqlstate not in (TOO_MANY_DELETES, OVERTAKEN):
                raise
            run.failed = True
            return
        self.connection.commit()
        execution = executions.get(self.connection, run.execution)
        landing = Landing(Path(execution.landing))
        state = landing.load_state()
        records = sum(len(json.loads(landing.read_page(page.number))) for page in state.pages) if state else 0
        self.executed += 1
        self.read += records
        self._watch(Published(row, run, staged, records, execution.settled))

"""What only Airflow's own timeouts tell: supervisors, the scheduler and the DAG processor killed under running tasks.

    python -m tests.chaos.deaths

Each run must have its row in `operations.pipeline_runs` closed, as it ended and with a reason, and each that failed a
message. Prints a table, exits 1 where something is not as it should be. Takes some five minutes; works on the stack of
the end-to-end tests, whose lock it holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from include.database import migrate
from include.local.stack import Stack
from include.operations.pipeline_runs import UNKNOWN_AFTER
from tests.e2e.airflow_api import AirflowApi
from tests.e2e.conftest import BUNDLES, ROOT
from tests.e2e.running import SIZES, DataDatabase, Source, until

TASK = "products.extract"
SILENT = f"{TASK}: it was killed, or marked as failed by hand"
UNSEEN = f"{SILENT}; no callback had come when this was found"
ENVIRONMENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",  # 300
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",  # 10
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",  # 300
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLES),
}
"""Waits that a deployment has longer, as the comments say."""


@dataclass
class Death:
    """A run, what its row must say in the end, and when (Unix time) what was done to it was done."""

    what: str
    dag_id: str
    run_id: str
    status: str
    error: str | None
    died: float = 0.0
    found: dict[str, Any] | None = None

    def wrong(self) -> bool:
        """Whether the row is missing, open or says something else."""
        return self.found is None or (self.found["status"], self.found["error_message"]) != (self.status, self.error)


class Deaths:
    """The scenarios, one after the other."""

    def __init__(self, stack: Stack, source: Source, data: DataDatabase) -> None:
        self.stack, self.source, self.data = stack, source, data
        self.api = AirflowApi(stack)
        for dag_id in ("no_tries_left", "one_try_left", "short_runs"):
            self.api.parsed(dag_id)

    def all(self) -> list[Death]:
        return [*self.supervisor(), *self.scheduler(), *self.dag_processor(), *self.lost_callbacks()]

    def supervisor(self) -> list[Death]:
        """A supervisor killed: Airflow misses the task's heartbeat."""
        death = self.begun("supervisor killed", "no_tries_left", "failed", SILENT)
        _, process = self.api.process(death.run_id, TASK, death.dag_id)
        supervisor = process.parent()
        assert supervisor is not None
        death.died = time.time()
        supervisor.kill()
        return [self.closed(death)]

    def scheduler(self) -> list[Death]:
        """The scheduler killed, and back: what ran is begun again."""
        deaths = [
            self.begun("scheduler killed, no try left", "no_tries_left", "success", None),
            self.begun("scheduler killed, a try left", "one_try_left", "success", None),
        ]
        self.kill("airflow_scheduler", *deaths)
        self.source.clear_faults()
        self.stack.up_airflow()
        return [self.closed(death) for death in deaths]

    def dag_processor(self) -> list[Death]:
        """The DAG processor down while a run ends: the callback waits for it."""
        death = self.begun("DAG processor down", "no_tries_left", "failed", SILENT)
        self.kill("airflow_dag_processor")
        self.end_unseen(death)
        self.stack.up_airflow()
        return [self.closed(death)]

    def lost_callbacks(self) -> list[Death]:
        """Callbacks that never come: the next run of the pipeline closes what is its own, housekeeping the rest."""
        swept = self.begun("callback lost, next run", "no_tries_left", "failed", UNSEEN)
        kept = self.begun("callback lost, housekeeping", "one_try_left", "failed", UNSEEN)
        self.api.kill(kept.run_id, TASK, kept.dag_id)
        until(lambda: self.api.tasks(kept.run_id, "try_number", kept.dag_id)[TASK] == 2, "it is tried again")
        self.running(kept)
        unknown = Death(
            "unknown to Airflow, a day old",
            "no_tries_left",
            "of another Airflow",
            "failed",
            f"Airflow does not know this run, which was begun {UNKNOWN_AFTER.days * 24} hours ago",
        )
        self.kill("airflow_dag_processor")
        for death in (swept, kept):
            self.end_unseen(death)
        self.api.metadata.execute("delete from callback")
        self.stack.up_airflow()
        self.source.clear_faults()
        next_run = Death("the next run", "no_tries_left", self.trigger("no_tries_left"), "success", None, time.time())
        found = [self.closed(swept), self.closed(next_run)]

        self.data.execute(
            "insert into operations.pipeline_runs (pipeline, run_id, started_at) "
            f"values ('{unknown.dag_id}', '{unknown.run_id}', now() - interval '{UNKNOWN_AFTER.days} days')"
        )
        unknown.died = time.time()
        self.api.unpause("housekeeping")
        self.api.trigger("housekeeping")
        return [*found, self.closed(kept), self.closed(unknown)]

    def left(self) -> list[str]:
        """The runs that are open, or of which nobody was told, a minute and a half from now; of `send_alerts` none."""
        query = """
          select run_id
            from operations.pipeline_runs
           where (ended_at is null or not told) and pipeline <> 'send_alerts'
        """
        try:
            until(lambda: not self.data.column(query), "all is told", 90)
        except AssertionError:
            return self.data.column(query)
        return []

    def begun(self, what: str, dag_id: str, status: str, error: str | None) -> Death:
        """A run whose extract waits for the source."""
        self.source.clear_faults()
        self.source.fault("products", "slow", times=None, seconds=60)
        death = Death(what, dag_id, self.trigger(dag_id), status, error)
        self.running(death)
        return death

    def trigger(self, dag_id: str) -> str:
        return self.api.trigger(dag_id, entities=["products"])

    def running(self, death: Death) -> None:
        """Waits until the run's extract runs in a process of its own."""

        def runs() -> bool:
            try:
                self.api.process(death.run_id, TASK, death.dag_id)
            except ValueError:
                return False
            return True

        until(runs, f"{death.what}: {TASK} runs")
        time.sleep(0.5)  # so that it dies in its work

    def kill(self, service: str, *deaths: Death) -> None:
        """kill -9 to one of Airflow's own processes."""
        for death in deaths:
            death.died = time.time()
        psutil.Process(self.stack.services()[service].pid).kill()

    def end_unseen(self, death: Death) -> None:
        """Kills the run's extract while nobody can be told of its end."""
        death.died = time.time()
        self.api.kill(death.run_id, TASK, death.dag_id)
        assert self.api.ended(death.run_id, dag_id=death.dag_id) == "failed"
        (status,) = self.data.column("select status from operations.pipeline_runs where run_id = %s", death.run_id)
        assert status == "running"

    def closed(self, death: Death) -> Death:
        """With the run's row, once it is closed; without it after two minutes."""
        query = "select * from operations.pipeline_runs where pipeline = %s and run_id = %s and ended_at is not null"
        try:
            (death.found,) = until(lambda: self.data.rows(query, death.dag_id, death.run_id), "it is closed", 120)
        except AssertionError:
            death.found = None
        print(line(death), flush=True)
        return death


def line(death: Death) -> str:
    """A row of the table."""
    if death.found is None:
        return f"{death.what:32} WRONG    not closed, expected {death.status}: {death.error or ''}"
    seconds = death.found["ended_at"].timestamp() - death.died
    verdict = "WRONG   " if death.wrong() else "ok      "
    return f"{death.what:32} {verdict} {death.found['status']:8} {seconds:6.1f} s  {death.found['error_message'] or ''}"


@contextmanager
def deaths() -> Iterator[Deaths]:
    """Everything that the scenarios need, on the end-to-end tests' stack; ended at the end."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack, source = Stack(ROOT, durable=False), Source(ROOT / "logs" / "demo_api.log")
        stack.down()
        (ROOT / "logs").mkdir(exist_ok=True)
        try:
            source.up()
            os.environ.update(ENVIRONMENT, AIRFLOW_CONN_SOURCE_API=source.connection())
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            stack.up(("postgres",))
            migrate.upgrade_all(stack.dsn())
            stack.prepare_metadata()
            data = DataDatabase(stack.dsn())
            data.empty()
            yield Deaths(stack, source, data)
        finally:
            stack.down()
            source.down()


def main() -> int:
    """Runs the scenarios; gives the exit code."""
    began = time.monotonic()
    with deaths() as scenarios:
        found = scenarios.all()
        records = scenarios.data.column(
            "select distinct records_processed from operations.pipeline_runs where status = 'success' "
            "and pipeline in ('no_tries_left', 'one_try_left')"
        )
        scenarios.api.trigger("send_alerts")
        left = scenarios.left()
        messages = scenarios.data.column("select run_id from operations.messages where kind = 'failure'")
    wrong = [death for death in found if death.wrong()]
    untold = {death.run_id for death in found if death.status == "failed"} - set(messages)
    print(
        f"{len(found)} deaths, {len(wrong)} rows wrong, {len(left)} open or untold, {len(untold)} failures without a "
        f"message, {time.monotonic() - began:.0f} s; records of the runs that succeeded: {records}"
    )
    # None of one that went on when the other, begun later, had published: its own snapshot was older then.
    published = {0, SIZES["products"]} >= set(records) >= {SIZES["products"]}
    return int(bool(wrong or left or untold or not published))


if __name__ == "__main__":
    sys.exit(main())

"""Runs that die under a real scheduler: each is closed in `operations.pipeline_runs`, soon, with a reason, and told."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from include.local.stack import Stack
from tests.e2e.airflow_api import AirflowApi
from tests.e2e.running import SIZES, DataDatabase, Source, until
from tests.slack_server import check

TASK = "products.extract"
SILENT = f"{TASK}: it was killed, or marked as failed by hand"
DAGS = ("no_tries_left", "one_try_left", "short_tasks", "short_runs", "failing_checks")
SOON = 75.0
"""Seconds from a death to the end that its run's row says; mostly Airflow's own.

A callback that comes while its file is being parsed waits until that is parsed again, half a minute later: here two
runs of one file end within a second.
"""


@dataclass
class Death:
    """A run of the test's, and when (Unix time) what was done to it was done."""

    what: str
    dag_id: str
    run_id: str
    died: float = 0.0


@pytest.fixture(scope="module")
def api(stack: Stack) -> AirflowApi:
    """Airflow, up, with the DAGs that die known."""
    api = AirflowApi(stack)
    for dag_id in DAGS:
        api.parsed(dag_id)
    return api


def test_every_run_that_dies_is_closed_soon_with_a_reason_and_can_be_cleared(
    source: Source, data: DataDatabase, api: AirflowApi
):
    source.fault("products", "slow", times=None, seconds=60)
    killed, marked, task_timeout, run_timeout = deaths = [
        Death("killed, no try left", "no_tries_left", ""),
        Death("marked as failed by hand", "no_tries_left", ""),
        Death("execution timeout of a task", "short_tasks", ""),
        Death("timeout of the run", "short_runs", ""),
    ]
    checks = Death("a check fails", "failing_checks", api.trigger("failing_checks"))
    for death in deaths:
        death.run_id = api.trigger(death.dag_id, entities=["products"])

    waits_for_the_source(api, killed)
    killed.died = time.time()
    assert api.kill(killed.run_id, TASK, killed.dag_id) == 1
    waits_for_the_source(api, marked)
    marked.died = time.time()
    api.mark(marked.run_id, "failed", marked.dag_id)
    retried = Death("killed, a try left", "one_try_left", api.trigger("one_try_left", entities=["products"]))
    waits_for_the_source(api, retried)
    source.clear_faults()
    retried.died = time.time()
    assert api.kill(retried.run_id, TASK, retried.dag_id) == 1

    for death in (task_timeout, run_timeout):
        assert api.ended(death.run_id, dag_id=death.dag_id) == "failed"
    task_timeout.died = task_died(api, task_timeout)
    run_timeout.died = run_died(api, run_timeout)
    closed = {death.what: row(data, death) for death in [*deaths, retried]}
    assert {what: (found["status"], found["records_processed"]) for what, found in closed.items()} == {
        "killed, no try left": ("failed", 0),
        "marked as failed by hand": ("failed", 0),
        "execution timeout of a task": ("failed", 0),
        "timeout of the run": ("failed", 0),
        "killed, a try left": ("success", SIZES["products"]),
    }
    assert {what: found["error_message"] for what, found in closed.items()} == {
        "killed, no try left": SILENT,
        "marked as failed by hand": SILENT,
        "execution timeout of a task": f"{TASK}: it took longer than its limit of 0:00:03",
        "timeout of the run": "timed out: it did not end within 0:00:08",
        "killed, a try left": None,
    }

    # a cleared run is opened again, also where `start` is not cleared with it, and closed again
    api.clear(killed.run_id, dag_id=killed.dag_id, only_failed=True)
    api.clear(marked.run_id, TASK, dag_id=marked.dag_id, downstream=True)
    again = [
        Death("killed, cleared (only failed)", killed.dag_id, killed.run_id, time.time()),
        Death("marked, cleared (with start)", marked.dag_id, marked.run_id, time.time()),
    ]
    for death in again:
        assert api.ended(death.run_id, dag_id=death.dag_id) == "success"
        before, found = closed[killed.what if death.run_id == killed.run_id else marked.what], row(data, death)
        assert (found["status"], found["error_message"]) == ("success", None)
        assert found["id"] == before["id"]
        assert found["started_at"] > before["ended_at"]
        closed[death.what] = found

    no_orders = row(data, checks)["error_message"]
    rows = data.column("select status from operations.pipeline_runs where pipeline = any(%s)", list(DAGS))
    assert sorted(rows) == ["failed", "failed", "failed", "success", "success", "success"]
    assert no_orders.startswith("orders: orders: 2 of ")
    few = "0 rows, expected at least 1"
    assert no_orders.endswith(f"critical: row_count_floor: {few}, row_count_floor of order_items: {few}")
    assert_told_once(source, data, no_orders)
    buttons = {
        name: api.links(death.run_id, task, death.dag_id)["Data Docs"]
        for name, death, task in (("met", retried, "products.gate"), ("failed", checks, "orders"))
    }
    pages = {
        row["run_id"]: f"/sluice/quality/{row['pipeline']}/{row['evaluation']}"
        for row in data.rows("select distinct run_id, pipeline, evaluation from operations.quality_results")
    }
    assert buttons == {"met": pages[retried.run_id], "failed": pages[checks.run_id]}
    table = [
        (death.what, found["status"], f"{found['ended_at'].timestamp() - death.died:.1f}", found["error_message"] or "")
        for death in [*deaths, retried, *again]
        for found in [closed[death.what]]
    ]
    print("\n" + "\n".join(f"{what:32} {status:8} {after:>6} s  {error}" for what, status, after, error in table))
    assert [line for line in table[: len(deaths)] if float(line[2]) > SOON] == []


def assert_told_once(source: Source, data: DataDatabase, no_orders: str) -> None:
    """Each failure is in Slack, posted at once by the runs' callbacks; the killed and the marked one are the same."""

    def told() -> list[dict[str, Any]]:
        return [one for one in source.ask("GET", "slack") if one["text"].split()[0] in DAGS]

    until(lambda: len(told()) >= 5, "all messages are sent", 90)
    messages = told()
    for message in messages:
        check(message)
    texts = sorted(message["text"].partition(" after ")[0] for message in messages)
    assert texts == [
        f"failing_checks failed: {no_orders}",
        "no_tries_left failed: products.extract: was killed, or marked as failed by hand",
        "no_tries_left has recovered",
        "short_runs failed: timed out: it did not end within 0:00:08",
        f"short_tasks failed: {TASK}: it took longer than its limit of 0:00:03",
    ]
    (of_checks,) = [json.dumps(one) for one in messages if one["text"].startswith("failing_checks")]
    assert "row_count_floor" in of_checks
    assert "/sluice/quality/failing_checks/" in of_checks
    sent = data.rows(
        """
        select kind, status, extract(epoch from sent_at - created_at)::float8 as seconds
          from operations.messages
         where pipeline = any(%s)
        """,
        list(DAGS),
    )
    assert sorted((one["kind"], one["status"]) for one in sent) == [
        ("failure", "folded"),
        *[("failure", "sent")] * 4,
        ("recovered", "sent"),
    ]
    assert [one for one in sent if one["status"] == "sent" and one["seconds"] > 10] == []


def waits_for_the_source(api: AirflowApi, death: Death) -> None:
    """Until the run's extract runs and has its own process."""

    def runs() -> bool:
        try:
            api.process(death.run_id, TASK, death.dag_id)
        except ValueError:
            return False
        return True

    until(runs, f"{death.what}: {TASK} runs")
    time.sleep(0.3)  # so that it dies in its work


def row(data: DataDatabase, death: Death) -> dict[str, Any]:
    """The run's row, once it is closed."""
    query = "select * from operations.pipeline_runs where pipeline = %s and run_id = %s and ended_at > to_timestamp(%s)"
    values = (death.dag_id, death.run_id, death.died)
    (found,) = until(lambda: data.rows(query, *values), f"{death.what}: it is closed", 2 * SOON)
    return dict(found)


def task_died(api: AirflowApi, death: Death) -> float:
    """When the run's extract ended, by Airflow."""
    return float(api.tasks(death.run_id, "extract(epoch from end_date)", death.dag_id)[TASK])


def run_died(api: AirflowApi, death: Death) -> float:
    """When the run ended, by Airflow."""
    query = "select extract(epoch from end_date) from dag_run where dag_id = %s and run_id = %s"
    (found,) = api.metadata.column(query, death.dag_id, death.run_id)
    return float(found)

"""`daily_sync` under a real scheduler: tasks killed half-way, tasks cleared after the run, two runs at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.local.stack import Stack
from tests.e2e.airflow_api import AirflowApi
from tests.e2e.running import NAMES, PAGES, DataDatabase, Runner, Source, differing, leaks, secrets, until


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[AirflowApi]:
    """Airflow, up, with `daily_sync` waiting to be triggered."""
    api = AirflowApi(stack)
    api.unpause()
    yield api
    api.pause()


@pytest.fixture(scope="module")
def undisturbed(stack: Stack, source: Source, runner: Runner, api: AirflowApi) -> dict[str, Any]:
    """What a run that nothing disturbs makes of the source."""
    source.reset()
    data = DataDatabase(stack.dsn())
    data.empty()
    run = runner.run()
    assert run.state == "success", run.log[-3000:]
    return data.contents()


def test_killed_tasks_are_retried_and_a_cleared_task_leaves_the_same_rows_or_says_what_to_clear(
    stack: Stack, source: Source, data: DataDatabase, api: AirflowApi, undisturbed: dict[str, Any]
):
    source.fault("customers", "slow", on_page=2, seconds=60)
    run_id = api.trigger()

    # stage, held at its first statement
    (products,) = until(lambda: staged(data, "products"), "extract has made products' staging table")
    with data.holding(f"lock table staging.{products} in access exclusive mode"):
        until(
            lambda: [query for query in data.waiting() if f'delete from "staging"."{products}"' in query], "stage waits"
        )
        killed = {"products.stage": api.kill(run_id, "products.stage")}

    # extract, while it waits for its second page
    until(lambda: source.requests().get("/customers") == 2, "the second page is asked for")
    until(lambda: landed(data, run_id), "the first page has landed")
    killed["customers.extract"] = api.kill(run_id, "customers.extract")

    # publish, with the orders written and their items not
    with data.holding("lock table app.order_items in exclusive mode"):
        # gate, held at its first expectation
        (orders,) = until(lambda: staged(data, "orders"), "extract has made orders' staging table")
        until(lambda: api.tasks(run_id).get("orders.stage") == "success", "orders are staged")
        with data.holding(f"lock table staging.{orders} in access exclusive mode"):
            until(lambda: [query for query in data.waiting() if f"{orders}" in query], "gate waits")
            killed["orders.gate"] = api.kill(run_id, "orders.gate")
        waits = "delete from app.order_items"
        until(lambda: [query for query in data.waiting() if waits in query], "publish has written the orders")
        assert data.column("select count(*) from app.orders") == [0]
        killed["orders.publish"] = api.kill(run_id, "orders.publish")

    assert api.ended(run_id) == "success"
    assert killed == {"products.stage": 1, "customers.extract": 1, "orders.gate": 1, "orders.publish": 1}
    tries = api.tasks(run_id, "try_number")
    assert {task: number for task, number in tries.items() if number != 1} == dict.fromkeys(killed, 2)
    requests = {f"/{entity}": pages for entity, pages in PAGES.items()}
    assert source.requests() == requests | {"/customers": PAGES["customers"] + 1}  # page 2 alone was asked for again
    assert differing(undisturbed, data.contents()) == []
    assert data.staging() == []
    published = data.log_of(run_id)
    assert {parts["inserted"] for parts in published.values()} == {len(undisturbed[entity]) for entity in NAMES}

    # what is published already stays as it is; extract alone fetches anew and publishes nothing
    before = data.untouched()
    source.advance()
    api.clear(run_id, "orders.stage", "orders.gate", "orders.publish", "customers.extract", "products.extract")
    assert api.ended(run_id) == "success"
    assert source.requests() == {"/customers": 6 + 1 + 6, "/products": 3 + 3, "/orders": 6}
    assert differing(before, data.untouched()) == []
    assert data.staging() == []

    # what follows it needs what the end of the run has dropped, and says so
    api.clear(run_id, "customers.stage", "products.publish")
    assert api.ended(run_id) == "failed"
    found = {task: state for task, state in api.tasks(run_id).items() if state != "success"}
    assert found == {"customers.stage": "failed", "products.publish": "failed"}
    assert differing(before, data.untouched()) == []
    logs = "".join(path.read_text() for path in (stack.root / "airflow/logs").rglob("*.log"))
    for entity in ("customers", "products"):
        assert f"clear {entity}.extract to begin anew" in logs
    assert data.pipeline_run(run_id)["status"] == "failed"

    # that task cleared with what follows, the entities are synced anew
    source.advance()
    api.clear(run_id, "customers.extract", "products.extract", downstream=True)
    assert api.ended(run_id) == "success"
    assert differing(undisturbed, data.contents()) == []
    logged = data.rows("select * from operations.sync_log where run_id = %s order by id", run_id)
    assert [row["unchanged"] > 0 for row in logged] == [False] * len(NAMES) + [True] * 2
    unchanged = {row["entity"]: row["unchanged"] for row in logged if row["unchanged"]}
    assert unchanged == {entity: published[entity]["inserted"] for entity in ("customers", "products")}
    assert data.pipeline_run(run_id)["status"] == "success"
    assert data.staging() == []
    assert leaks(stack, secrets(stack)) == []


def test_two_runs_at_once_leave_the_rows_of_one(
    source: Source, runner: Runner, data: DataDatabase, api: AirflowApi, undisturbed: dict[str, Any]
):
    with data.holding("select pg_advisory_xact_lock(hashtextextended('sluice.orders', 0))"):
        run_id = api.trigger(entities=["orders"])
        runner.begin(entities=["orders"])
        until(lambda: len(publishing(data)) == 2, "both wait to publish")
    other = runner.result()

    assert {api.ended(run_id), other.state} == {"success"}, other.log[-3000:]
    found = data.contents()
    for name in ("orders", "order_items"):
        assert found[name] == undisturbed[name]
    assert found["letters"] == [letter for letter in undisturbed["letters"] if letter["entity"] == "orders"]
    assert data.staging() == []
    rows = len(undisturbed["orders"])
    counts = [(row["inserted"], row["unchanged"]) for row in data.rows("select * from operations.sync_log order by id")]
    assert counts in ([(rows, 0)], [(rows, 0), (0, rows)])  # the second, or nothing where it was overtaken


def publishing(data: DataDatabase) -> list[str]:
    """The publish statements that wait for the lock of orders."""
    return [query for query in data.waiting() if "pg_advisory_xact_lock(hashtextextended('sluice.orders'" in query]


def staged(data: DataDatabase, entity: str) -> list[str]:
    """The entity's table of staged records, if there is one."""
    return [name for name in data.staging() if name.removeprefix(f"{entity}_").isalnum()]


def landed(data: DataDatabase, run_id: str) -> bool:
    """Whether a page of customers has landed."""
    query = "select landing from operations.executions where run_id = %s and entity = 'customers'"
    (landing,) = data.column(query, run_id)
    return Path(landing.removeprefix("file://"), "state.json").exists()

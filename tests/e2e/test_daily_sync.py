"""Whole runs of `daily_sync`, as `airflow dags test` runs it, against the demo API and a real PostgreSQL."""

from __future__ import annotations

import re
from typing import Any

import pytest

from include.local.stack import Stack
from tests.e2e.running import (
    NAMES,
    PAGES,
    TABLES,
    TOKEN,
    Database,
    DataDatabase,
    Run,
    Runner,
    Source,
    differing,
    leaks,
    secrets,
)

ROWS = {
    "customers": ("app.customers", "app.customers_history"),
    "products": ("app.products",),
    "orders": ("app.orders", "app.order_items"),
}


def expected(source: Source) -> dict[str, dict[str, int]]:
    """What the first run on empty tables must count, from what the source knows that it sends."""
    found = {}
    for entity, counts in source.expectations().items():
        inserted = counts["records"] - counts["quarantined"] - counts["duplicates"]
        found[entity] = {
            "inserted": inserted,
            "duplicate": counts["duplicates"],
            "quarantined": counts["quarantined"],
        }
    return found


def again(first: dict[str, dict[str, int]], **changed: dict[str, int]) -> dict[str, dict[str, int]]:
    """What a later run must count: all that was inserted is unchanged now, but for `changed`."""
    counts = {}
    for entity, parts in first.items():
        more = changed.get(entity, {})
        unchanged = parts["inserted"] - more.get("updated", 0) - more.get("deleted", 0)
        rest = {name: value for name, value in parts.items() if name != "inserted"}
        counts[entity] = {"unchanged": unchanged, **rest, **more}
    return counts


def states(stack: Stack, run: Run) -> dict[str, str]:
    """The state of each task of a run."""
    metadata = Database(stack.dsn("airflow_demo"))
    query = "select task_id, state from task_instance where run_id = %s and dag_id = 'daily_sync'"
    return {row["task_id"]: row["state"] for row in metadata.rows(query, run.run_id)}


def succeeded(run: Run, data: DataDatabase, records: int) -> None:
    """Asserts that the run and its row say so, and that nothing staged is left."""
    assert run.state == "success", run.log[-2000:]
    assert data.pipeline_run(run.run_id) == {
        "pipeline": "daily_sync",
        "status": "success",
        "records_processed": records,
        "error_message": None,
    }
    assert data.staging() == []


def failed(run: Run, data: DataDatabase, records: int = 0) -> str:
    """Asserts that the run and its row say so, and that nothing staged is left; gives the row's error."""
    assert run.state == "failed", run.log[-6000:]
    row = data.pipeline_run(run.run_id)
    error = row.pop("error_message")
    assert row == {"pipeline": "daily_sync", "status": "failed", "records_processed": records}
    assert data.staging() == []
    assert isinstance(error, str)
    return error


def of(entity: str, rows: dict[str, Any]) -> dict[str, Any]:
    """What of `DataDatabase.untouched` concerns an entity."""
    found = {name: rows[name] for name in ROWS[entity]}
    for name in ("operations.sync_log", "operations.dead_letters"):
        found[name] = [row for row in rows[name] if row["entity"] == entity]
    return found


def test_a_dry_run_leaves_nothing_the_first_run_counts_what_the_source_sends_the_second_changes_nothing(
    stack: Stack, source: Source, runner: Runner, data: DataDatabase
):
    metadata = Database(stack.dsn("airflow_demo"))
    events = metadata.column("select count(*) from asset_event")
    nothing = data.untouched()
    assert not any(nothing.values())

    dry = runner.run(dry_run=True)

    succeeded(dry, data, records=0)
    assert data.untouched() == nothing
    assert metadata.column("select count(*) from asset_event") == events
    assert source.requests() == {f"/{entity}": pages for entity, pages in PAGES.items()}
    assert states(stack, dry) == {
        "start": "success",
        "finish": "success",
        **{f"{entity}.{task}": "success" for entity in NAMES for task in ("extract", "stage", "gate")},
        **{f"{entity}.publish": "skipped" for entity in NAMES},
    }

    source.advance()
    counts, sent = expected(source), source.expectations()
    first = runner.run()

    succeeded(first, data, records=sum(each["records"] for each in sent.values()))
    assert data.log_of(first.run_id) == counts
    published = data.untouched()
    tables = {entity: len(published[f"app.{entity}"]) for entity in NAMES}
    assert tables == {entity: counts[entity]["inserted"] for entity in NAMES}
    letters = published["operations.dead_letters"]
    assert {letter["status"] for letter in letters} == {"pending"}
    by_entity = {entity: sum(letter["entity"] == entity for letter in letters) for entity in NAMES}
    assert by_entity == {entity: counts[entity]["quarantined"] for entity in NAMES}
    assert len(metadata.column("select id from asset_event")) == events[0] + len(NAMES)

    source.advance()
    second = runner.run()

    succeeded(second, data, records=sum(each["records"] for each in sent.values()))
    assert data.log_of(second.run_id) == again(counts)
    after = data.untouched()
    assert {name: after[f"app.{name}"] for name in TABLES} == {name: published[f"app.{name}"] for name in TABLES}
    assert {letter["attempts"] for letter in after["operations.dead_letters"]} == {2}
    assert len(after["operations.dead_letters"]) == len(letters)


def test_changes_arrive_a_removed_record_is_marked_and_returns(source: Source, runner: Runner, data: DataDatabase):
    counts = expected(source)
    succeeded(runner.run(), data, records=7200)
    before = data.contents()
    changes = source.advance(entity="customers", change=7, add=5, delete=3)["customers"]
    source.advance(entity="orders", change=4)

    run = runner.run()

    succeeded(run, data, records=7202)
    assert data.log_of(run.run_id) == again(
        counts, customers={"inserted": 5, "updated": 7, "deleted": 3}, orders={"updated": 4}
    )
    deleted = data.rows("select id::text, deleted_at from app.customers where deleted_at is not null order by 1")
    snapshot = data.column(
        "select fetched_at from operations.executions where run_id = %s and entity = 'customers'", run.run_id
    )
    assert deleted == [{"id": identity, "deleted_at": snapshot[0]} for identity in sorted(changes["deleted"])]
    history = data.column("select id::text from app.customers_history")
    assert sorted(set(history) - {str(row["id"]) for row in before["customers_history"]}) == sorted(changes["changed"])
    new = data.column(
        "select id::text from app.customers where not id = any(%s)", [r["id"] for r in before["customers"]]
    )
    assert sorted(new) == sorted(changes["added"])

    back = changes["deleted"][0]
    source.advance()
    source.ask("POST", "restore", {"entity": "customers", "id": back})
    run = runner.run(entities=["customers"])

    succeeded(run, data, records=3003)
    rest = {name: value for name, value in counts["customers"].items() if name != "inserted"}
    assert data.log_of(run.run_id) == {"customers": {"updated": 1, "unchanged": 2948 - 3 + 5, **rest}}
    left = data.column("select id::text from app.customers where deleted_at is not null order by 1")
    assert left == sorted(set(changes["deleted"]) - {back})


def test_a_snapshot_that_breaks_off_and_one_that_lost_half_publish_nothing_their_neighbour_is_published(
    source: Source, runner: Runner, data: DataDatabase
):
    counts = expected(source)
    succeeded(runner.run(), data, records=7200)
    before = data.untouched()
    source.advance(change=5)
    source.fault("customers", "truncate", on_page=3, times=None)
    source.fault("orders", "half", times=None)

    run = runner.run()

    error = failed(run, data, records=1200)
    assert data.log_of(run.run_id) == again({"products": counts["products"]}, products={"updated": 5})
    after = data.untouched()
    customers, orders = (differing(of(entity, before), of(entity, after)) for entity in ("customers", "orders"))
    assert customers == []
    assert [row for row in orders if not row.startswith("operations.dead_letters")] == []
    letters = [row for row in after["operations.dead_letters"] if row["entity"] == "orders"]
    assert len(letters) == counts["orders"]["quarantined"]
    assert {row["attempts"] for row in letters} == {1, 2}  # those of the half that came were rejected once more
    live = counts["orders"]["inserted"]
    lost = [
        line for line in run.log.splitlines() if f" of {live} live rows, more than the share of 0.2 that may go" in line
    ]
    assert lost, run.log[-3000:]
    assert "orders: the snapshot lacks " in lost[0]
    assert "run again with allow_deletes" in lost[0]
    assert "customers: http://127.0.0.1:" in run.log
    assert "broke off in the middle of its answer (6 tries in " in run.log
    assert error.startswith(("customers.extract: customers: http", "orders.publish: orders: the snapshot lacks"))
    assert source.requests()["/customers"] == PAGES["customers"] + 2 + 4 * 6  # pages 1 and 2 once, page 3 in every try
    assert run.seconds < 60

    source.clear_faults()
    source.advance()
    source.fault("orders", "half", times=None)
    run = runner.run(entities=["orders"], allow_deletes=True)
    succeeded(run, data, records=1500)
    (row,) = data.log_of(run.run_id).values()
    assert row["deleted"] > live * 0.4
    assert len(data.column("select id from app.orders where deleted_at is null")) == live - row["deleted"]


def test_a_foreign_link_an_empty_snapshot_and_links_that_go_round_publish_nothing(
    stack: Stack, source: Source, runner: Runner, data: DataDatabase
):
    succeeded(runner.run(), data, records=7200)
    before, asked = data.untouched(), source.requests()
    source.advance(change=5)
    source.fault("customers", "foreign_link", on_page=2)
    source.fault("products", "empty")
    source.fault("orders", "loop", on_page=2, times=None)

    run = runner.run()

    failed(run, data)
    assert differing(before, data.untouched()) == []
    assert {
        name: state for name, state in states(stack, run).items() if state not in ("success", "upstream_failed")
    } == {
        "customers.extract": "failed",
        "products.gate": "failed",
        "orders.extract": "failed",
    }
    assert source.requests() == {
        path: asked[path] + more for path, more in {"/customers": 2, "/products": 1, "/orders": 2}.items()
    }
    refused = r"leads to http://elsewhere\.invalid/customers\?\S+, another origin than that of the connection: refused"
    assert re.search(refused, run.log)
    assert "products: nothing is published" in run.log
    assert "0 rows, expected at least 1" in run.log
    assert "is the next link of page 2, and was fetched before: the pages go round" in run.log


def test_a_page_that_is_no_array_stops_its_entity_one_shown_once_during_maintenance_does_not(
    stack: Stack, source: Source, runner: Runner, data: DataDatabase
):
    counts = expected(source)
    source.fault("customers", "not_array")
    source.fault("products", "html", on_page=2)

    run = runner.run(entities=["customers", "products"])

    error = failed(run, data, records=1200)
    assert error.startswith("customers.extract: customers: http")
    assert "answered with page 1, which cannot be used" in error
    assert data.log_of(run.run_id) == {"products": counts["products"]}
    assert data.column("select count(*) from app.customers") == [0]
    assert source.requests() == {"/customers": 1, "/products": PAGES["products"] + 1}
    assert {name: state for name, state in states(stack, run).items() if name.startswith("orders.")} == {
        f"orders.{task}": "skipped" for task in ("extract", "stage", "gate", "publish")
    }


def test_an_api_that_dies_fails_the_run_soon_and_the_next_run_brings_everything(
    source: Source, runner: Runner, data: DataDatabase
):
    before = data.untouched()
    source.fault("customers", "die", on_page=3)

    run = runner.run(entities=["customers"])

    error = failed(run, data)
    assert error.startswith("customers.extract: customers: http")
    assert re.search(r'refused the connection \(6 tries in \d s\): check the host in connection "source_api"', error)
    assert differing(before, data.untouched()) == []
    assert run.seconds < 60

    source.up()
    counts = expected(source)
    run = runner.run()
    succeeded(run, data, records=7200)
    assert data.log_of(run.run_id) == counts


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        pytest.param(
            {"password": "wrong-token-that-nobody-may-read"},
            'answered 401 Unauthorized, saying \'{"error":"a bearer token is needed"}\': '
            'check the token in connection "source_api"',
            id="token",
        ),
        pytest.param(
            {"host": "source.invalid"},
            'could not be asked: its host is not known (6 tries in 0 s): check the host in connection "source_api"',
            id="host",
        ),
    ],
)
def test_a_wrong_connection_is_named_and_no_secret_is_written_anywhere(
    other: dict[str, str], reason: str, stack: Stack, source: Source, runner: Runner, data: DataDatabase
):
    before = data.untouched()

    run = runner.run(environ={"AIRFLOW_CONN_SOURCE_API": source.connection(**other)}, entities=["customers"])

    error = re.sub(r"tries in \d s", "tries in 0 s", failed(run, data))
    host = other.get("host", "127.0.0.1")
    assert error == f"customers.extract: customers: http://{host}:{source.port}/customers?limit=5000 {reason}"
    assert differing(before, data.untouched()) == []
    assert source.requests() == ({} if "host" in other else {"/customers": 1})
    assert leaks(stack, [*secrets(stack), *other.get("password", TOKEN).splitlines()]) == []

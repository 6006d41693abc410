"""The pipelines one after the other, as `make demo` runs them: the syncs, a replay, and housekeeping."""

from __future__ import annotations

import json

import psycopg
import pytest

from include.local import demo
from include.local.stack import Stack
from tests.e2e.running import NAMES, DataDatabase, Runner

LETTER = {"id": "late", "name": "Late  ", "price": "7.50", "updated_at": "2026-01-01T00:00:00Z"}


def test_the_demo_runs_a_pipeline_by_the_command_line(
    stack: Stack, data: DataDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="include.local.demo")
    assert demo.run(stack, "daily_sync", {"entities": ["products"]})
    said = "\n".join(caplog.messages)
    assert "s  products.stage [0]" in said
    assert "products: 1,200 read = " in said
    assert "daily_sync: success after" in said
    with psycopg.connect(stack.dsn()) as connection:
        shown = demo.report(connection, after=0)
    assert shown.splitlines()[2].startswith("products (snapshot)         1,200  ")
    assert "the 5 most frequent reasons" in shown


def test_a_delta_a_replay_and_housekeeping(stack: Stack, runner: Runner, data: DataDatabase) -> None:
    assert runner.run().state == "success"
    demo.change_source(stack)
    assert runner.run("delta_sync").state == "success"
    with psycopg.connect(stack.dsn()) as connection:
        published = connection.execute(
            "select entity, inserted, updated, deleted, watermark > since from operations.sync_log where mode = 'delta'"
        ).fetchall()
        assert sorted(published) == [
            (name, demo.CHANGES["add"], demo.CHANGES["change"], 0, True) for name in sorted(NAMES)
        ]

        connection.execute(
            """
            insert into operations.dead_letters
                   (pipeline, entity, record_key, stage, payload_raw, error, execution, fetched_at)
            values ('daily_sync', 'products', 'late', 'validate', %s, 'what a contract of yesterday said',
                    gen_random_uuid(), now())
            """,
            (json.dumps(LETTER).encode(),),
        )
        connection.commit()
        chosen = {"entities": ["products"], "error": "yesterday"}
        assert runner.run("replay_dead_letters", dry_run=True, **chosen).state == "success"
        assert runner.run("replay_dead_letters", action="discard", **chosen).state == "failed"  # without a reason
        letter = "select status, attempts from operations.dead_letters where record_key = 'late'"
        assert connection.execute(letter).fetchall() == [("pending", 1)]
        assert runner.run("replay_dead_letters", **chosen).state == "success"
        assert connection.execute(letter).fetchall() == [("replayed", 1)]
        row = connection.execute("select name, price from app.products where id = 'late'").fetchall()
        assert row == [("Late", 7.5)]
        again = runner.run("replay_dead_letters", **chosen)
        assert again.state == "success"
        assert "products: no pending letter is chosen" in again.log

        connection.execute("update operations.executions set started_at = now() - interval '15 days'")
        connection.commit()
        folders = [
            stack.root / "landing" / entity / str(execution)
            for entity, execution in connection.execute("select entity, execution from operations.executions")
        ]
        assert all(folder.is_dir() for folder in folders)
        assert runner.run("housekeeping", dry_run=True).state == "success"
        assert all(folder.is_dir() for folder in folders)
        assert runner.run("housekeeping").state == "success"
        assert connection.execute("select count(*) from operations.executions").fetchone() == (0,)
    assert not any(folder.exists() for folder in folders)
    assert data.staging() == []


def test_a_since_of_the_future_fails_at_once_and_says_what_to_do(
    stack: Stack, runner: Runner, data: DataDatabase
) -> None:
    run = runner.run("delta_sync", entities=["products"], since="2199-01-01T00:00:00Z")
    assert run.state == "failed"
    assert "products: asked for what changed since 2199-01-01" in run.log
    assert "Run again with another `since`" in run.log
    assert data.rows("select * from operations.sync_log") == []
    assert data.staging() == []


def test_a_warehouse_load_and_a_second_one_that_changes_nothing(runner: Runner, data: DataDatabase) -> None:
    data.empty_warehouse()
    assert runner.run().state == "success"

    run = runner.run("warehouse_load")

    assert run.state == "success", run.log[-6000:]
    revenue = data.column(
        """
        select sum(i.quantity * i.price - i.discount)
          from app.orders o
          join app.order_items i on i.order_id = o.id
         where o.deleted_at is null and o.status <> 'cancelled'
        """
    )
    for mart in ("fact_sales", "daily_sales", "sales_by_region", "sales_by_segment"):
        column = "net_amount" if mart == "fact_sales" else "total_revenue"
        assert data.column(f"select sum({column}) from warehouse.{mart}") == revenue, mart
    assert data.column("select count(*) from pg_class where relnamespace = 'warehouse_build'::regnamespace") == [0]
    (status,) = data.column("select status from operations.pipeline_runs where run_id = %s", run.run_id)
    assert status == "success"
    before = data.rows("select * from warehouse.fact_sales order by order_id, line_number")

    dry = runner.run("warehouse_load", full=True, dry_run=True)
    again = runner.run("warehouse_load")

    assert (dry.state, again.state) == ("success", "success")
    assert data.rows("select * from warehouse.fact_sales order by order_id, line_number") == before
    written = "select facts_inserted + facts_updated + facts_deleted from warehouse.load_log order by id"
    assert data.column(written) == [len(before), 0]


def test_a_gate_that_fails_publishes_nothing_and_says_what_is_wrong(runner: Runner, data: DataDatabase) -> None:
    assert runner.run().state == "success"
    assert runner.run("warehouse_load").state == "success"
    data.execute("update warehouse.daily_sales set total_revenue = total_revenue + 0.01")

    run = runner.run("warehouse_load")

    assert run.state == "failed"
    (error,) = data.column("select error_message from operations.pipeline_runs where run_id = %s", run.run_id)
    assert error.startswith("gate: nothing is published, 1 of 8 expectations failed; critical: wrong_totals")
    data.execute("update warehouse.daily_sales set total_revenue = total_revenue - 0.01")

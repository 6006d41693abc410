"""What housekeeping may delete, and what it must keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.contracts.products import PRODUCTS
from include.operations import housekeeping, pipeline_runs, sync_log
from tests.load.syncing import at, staged, synced
from tests.load.test_publish import product

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
DAY = timedelta(days=1)


def age(database: Database, table: str, column: str, hours: int) -> None:
    database.execute(f"update operations.{table} set {column} = now() - interval '{hours} hours'")  # type: ignore[arg-type]


def staging_tables(database: Database) -> int:
    row = database.execute("select count(*) from pg_tables where schemaname = 'staging'").fetchone()
    assert row is not None
    return int(row[0])


def test_old_executions_go_with_their_landing_and_leave_their_log(app_db: Database) -> None:
    old = staged(app_db, PRODUCTS, [[product(1)]], fetched_at=at(0))
    age(app_db, "executions", "started_at", 30)
    synced(app_db, PRODUCTS, [[product(1)]], fetched_at=at(10))
    [(execution, landing)] = housekeeping.old_executions(app_db, DAY)
    assert (execution, landing) == (old, f"memory://landing/products/{old}")
    removed: list[str] = []
    for _ in range(2):
        housekeeping.forget(app_db, execution, landing, removed.append)
    assert removed == [landing, landing]
    assert housekeeping.old_executions(app_db, DAY) == []
    assert staging_tables(app_db) == 0
    assert app_db.execute("select count(*) from operations.executions").fetchone() == (1,)
    assert app_db.execute("select count(*) from operations.sync_log").fetchone() == (1,)


def test_resolved_letters_go_and_pending_ones_stay(app_db: Database) -> None:
    for number in range(4):
        synced(app_db, PRODUCTS, [[product(9), product(number, price=-1)]], fetched_at=at(number))
    app_db.execute("update operations.dead_letters set queued_at = now() - interval '1 year'")
    app_db.execute(
        "update operations.dead_letters set resolved_at = now() - interval '2 days' where record_key in ('p0', 'p1')"
    )
    states = app_db.execute("select record_key, status from operations.dead_letters order by 1").fetchall()
    assert states == [("p0", "superseded"), ("p1", "superseded"), ("p2", "superseded"), ("p3", "pending")]
    assert housekeeping.resolved_letters(app_db, DAY) == 2
    assert housekeeping.delete_resolved_letters(app_db, DAY) == 2
    assert app_db.execute("select record_key from operations.dead_letters order by 1").fetchall() == [("p2",), ("p3",)]


def test_staging_of_a_run_that_goes_on_is_no_orphan(app_db: Database) -> None:
    execution = staged(app_db, PRODUCTS, [[product(1)]], fetched_at=at(0))
    [(pipeline, run_id)] = app_db.execute("select pipeline, run_id from operations.executions").fetchall()
    pipeline_runs.open_run(app_db, pipeline=pipeline, run_id=run_id)
    assert housekeeping.orphaned_staging(app_db, DAY) == []
    pipeline_runs.close_run(app_db, pipeline=pipeline, run_id=run_id, status="failed", error="killed")
    assert housekeeping.orphaned_staging(app_db, DAY) == []  # its teardown may still be at it
    age(app_db, "pipeline_runs", "ended_at", 2)
    assert housekeeping.orphaned_staging(app_db, DAY) == [execution]


def test_staging_of_a_run_that_died_or_of_nobody_is_an_orphan(app_db: Database) -> None:
    execution = staged(app_db, PRODUCTS, [[product(1)]], fetched_at=at(0))
    assert housekeeping.orphaned_staging(app_db, DAY) == []
    age(app_db, "executions", "started_at", 25)
    assert housekeeping.orphaned_staging(app_db, DAY) == [execution]
    app_db.execute("delete from operations.executions")
    assert housekeeping.orphaned_staging(app_db, DAY) == [execution]


def test_the_watermark_in_force_is_the_newest_rows(app_db: Database) -> None:
    assert sync_log.watermark(app_db, "products") is None
    synced(app_db, PRODUCTS, [[product(1, updated_at=at(-7).isoformat())]], fetched_at=at(0))
    assert sync_log.watermark(app_db, "products") == at(-7)
    app_db.execute("update operations.sync_log set watermark = 'infinity'")
    with pytest.raises(sync_log.WatermarkError, match=r"products: .* no time .*reset_watermark"):
        sync_log.watermark(app_db, "products")

"""One row a run, whatever became of it: opened once, closed once, opened again by whoever clears it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.operations import pipeline_runs
from include.operations.pipeline_runs import UNKNOWN_AFTER, Closed
from tests.load.syncing import at, synced
from tests.load.test_publish import order, product

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
PIPELINE, RUN = "daily_sync", "manual__1"
NAME = {"pipeline": PIPELINE, "run_id": RUN}
COLUMNS = "status, records_processed, error_message, ended_at is not null"


def row(database: Database, run_id: str = RUN) -> tuple[Any, ...] | None:
    """Status, records, error, and whether the run has an end."""
    query = f"select {COLUMNS} from operations.pipeline_runs where run_id = %s"
    return database.execute(query.encode(), (run_id,)).fetchone()


def version(database: Database) -> tuple[Any, ...]:
    """What changes whenever the row is written or locked, and when the run began."""
    found = database.execute("select xmin::text, xmax::text, started_at, ended_at from operations.pipeline_runs")
    (only,) = found.fetchall()
    return tuple(only)


def age(database: Database, interval: timedelta, run_id: str = RUN) -> None:
    database.execute(
        "update operations.pipeline_runs set started_at = started_at - %s where run_id = %s", (interval, run_id)
    )
    database.commit()


def reason(pipeline: str, run_id: str) -> str:
    return f"{pipeline} {run_id} was killed"


def test_a_run_is_open_until_it_is_closed_and_an_open_one_is_not_written_again(app_db: Database) -> None:
    pipeline_runs.ensure_open(app_db, **NAME)
    app_db.commit()
    assert row(app_db) == ("running", 0, None, False)
    before = version(app_db)
    pipeline_runs.ensure_open(app_db, **NAME)
    app_db.commit()
    assert version(app_db) == before
    assert pipeline_runs.close_run(app_db, **NAME, status="success", error="not for a success")
    assert row(app_db) == ("success", 0, None, True)


@pytest.mark.parametrize("opens", [pipeline_runs.open_run, pipeline_runs.ensure_open])
def test_a_cleared_run_begins_again_in_its_own_row(app_db: Database, opens: Callable[..., None]) -> None:
    pipeline_runs.open_run(app_db, **NAME)
    pipeline_runs.processed(app_db, **NAME, records=7)
    pipeline_runs.note_error(app_db, **NAME, error="extract: no answer")
    pipeline_runs.close_run(app_db, **NAME, status="failed")
    app_db.execute("update operations.pipeline_runs set told = true")
    app_db.commit()
    began = version(app_db)[2]
    opens(app_db, **NAME, dry_run=True)
    app_db.commit()
    assert row(app_db) == ("running", 7, None, False)
    assert version(app_db)[2] > began
    pipeline_runs.close_run(app_db, **NAME, status="success")
    assert row(app_db) == ("success", 7, None, True)
    assert app_db.execute("select dry_run, told from operations.pipeline_runs").fetchall() == [(True, False)]


def test_start_begins_an_open_run_anew(app_db: Database) -> None:
    pipeline_runs.note_error(app_db, **NAME, error="extract: of a run whose end nobody was told")
    app_db.commit()
    began = version(app_db)[2]
    pipeline_runs.open_run(app_db, **NAME)
    app_db.commit()
    assert row(app_db) == ("running", 0, None, False)
    assert version(app_db)[2] > began


def test_the_first_error_stays_and_one_that_comes_after_the_end_is_not_noted(app_db: Database) -> None:
    pipeline_runs.note_error(app_db, **NAME, error="extract: no answer")  # though nobody has opened the run
    pipeline_runs.note_error(app_db, **NAME, error="stage: nothing to do")
    assert row(app_db) == ("running", 0, "extract: no answer", False)
    pipeline_runs.close_run(app_db, **NAME, status="failed", error="extract: it was killed")
    assert row(app_db) == ("failed", 0, "extract: no answer", True)
    pipeline_runs.close_run(app_db, **NAME, status="success")
    pipeline_runs.note_error(app_db, **NAME, error="publish: late")
    assert row(app_db) == ("success", 0, None, True)


def test_closing_twice_is_closing_once(app_db: Database) -> None:
    pipeline_runs.open_run(app_db, **NAME)
    app_db.commit()
    assert pipeline_runs.close_run(app_db, **NAME, status="failed", error="extract: it was killed")
    app_db.commit()
    before = version(app_db)
    assert not pipeline_runs.close_run(app_db, **NAME, status="failed", error="another")
    app_db.commit()
    assert version(app_db)[2:] == before[2:]
    assert row(app_db) == ("failed", 0, "extract: it was killed", True)


def test_a_run_that_died_before_anybody_opened_it_has_its_row(app_db: Database) -> None:
    assert pipeline_runs.close_run(app_db, **NAME, status="failed", error="start: it was killed")
    assert row(app_db) == ("failed", 0, "start: it was killed", True)


def test_the_records_are_those_that_were_published_last_or_what_the_run_says(app_db: Database) -> None:
    synced(app_db, ORDERS, [[order(1), order(2)]], fetched_at=at(0))
    synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(0))
    synced(app_db, PRODUCTS, [[product(1), product(2), product(3)]], fetched_at=at(1))  # the run was cleared
    app_db.execute("update operations.executions set pipeline = %s, run_id = %s", (PIPELINE, RUN))
    synced(app_db, PRODUCTS, [[product(4)]], fetched_at=at(2))
    pipeline_runs.open_run(app_db, **NAME)
    pipeline_runs.processed(app_db, **NAME, records=99)
    pipeline_runs.close_run(app_db, **NAME, status="success")
    assert row(app_db) == ("success", 5, None, True)

    other = {"pipeline": "customer_enrichment", "run_id": "of its own"}
    pipeline_runs.open_run(app_db, **other)
    for _ in range(2):
        pipeline_runs.processed(app_db, **other, records=42)
    pipeline_runs.close_run(app_db, **other, status="success")
    assert row(app_db, "of its own") == ("success", 42, None, True)


def test_the_sweep_closes_what_has_ended_and_nothing_else(app_db: Database) -> None:
    told = {"a": "success", "b": "failed", "c": "running", "d": "queued", "e": None, "f": None, "g": "failed"}
    for run_id in told:
        pipeline_runs.open_run(app_db, pipeline=PIPELINE, run_id=run_id)
    pipeline_runs.note_error(app_db, pipeline=PIPELINE, run_id="g", error="extract: no answer")
    pipeline_runs.close_run(app_db, pipeline=PIPELINE, run_id="closed", status="failed", error="before")
    app_db.commit()
    age(app_db, UNKNOWN_AFTER, "f")
    asked: list[str] = []

    def state_of(pipeline: str, run_id: str) -> str | None:
        asked.append(run_id)
        return told[run_id]

    app_db.autocommit = True
    assert pipeline_runs.sweep(app_db, state_of, reason) == [
        Closed(PIPELINE, "a", "success"),
        Closed(PIPELINE, "b", "failed"),
        Closed(PIPELINE, "f", "failed"),
        Closed(PIPELINE, "g", "failed"),
    ]
    assert asked == list(told)
    assert {run_id: row(app_db, run_id) for run_id in [*told, "closed"]} == {
        "a": ("success", 0, None, True),
        "b": ("failed", 0, f"{PIPELINE} b was killed; no callback had come when this was found", True),
        "c": ("running", 0, None, False),
        "d": ("running", 0, None, False),
        "e": ("running", 0, None, False),
        "f": ("failed", 0, "Airflow does not know this run, which was begun 24 hours ago", True),
        "g": ("failed", 0, "extract: no answer", True),
        "closed": ("failed", 0, "before", True),
    }
    assert pipeline_runs.sweep(app_db, state_of, reason) == []


def test_a_sweep_keeps_to_one_pipeline_and_leaves_the_run_that_sweeps(app_db: Database) -> None:
    for pipeline, run_id in (("daily_sync", "old"), ("daily_sync", "new"), ("delta_sync", "old")):
        pipeline_runs.open_run(app_db, pipeline=pipeline, run_id=run_id)
    app_db.commit()
    app_db.autocommit = True

    closed = pipeline_runs.sweep(app_db, lambda *_: "success", reason, pipeline="daily_sync", but="new")
    assert closed == [Closed("daily_sync", "old", "success")]
    everywhere = pipeline_runs.sweep(app_db, lambda *_: "success", reason)
    assert everywhere == [Closed("daily_sync", "new", "success"), Closed("delta_sync", "old", "success")]


def test_a_run_that_is_closed_while_the_sweep_asks_is_not_closed_again(app_db: Database) -> None:
    pipeline_runs.open_run(app_db, **NAME)
    app_db.commit()
    app_db.autocommit = True

    def state_of(pipeline: str, run_id: str) -> str:
        pipeline_runs.close_run(app_db, pipeline=pipeline, run_id=run_id, status="failed", error="of the callback")
        return "failed"

    assert pipeline_runs.sweep(app_db, state_of, reason) == []
    assert row(app_db) == ("failed", 0, "of the callback", True)


def test_rows_of_old_runs_go_but_the_last_good_one_and_open_ones(app_db: Database) -> None:
    app_db.execute(
        """
        insert into operations.pipeline_runs (pipeline, run_id, status, started_at, ended_at)
        select pipeline, run_id, status, now() - days * interval '1 day',
               case when status <> 'running' then now() - days * interval '1 day' end
          from (
            values ('rare', 'good', 'success', 500),
                   ('rare', 'better', 'success', 400),
                   ('rare', 'failed', 'failed', 390),
                   ('rare', 'open', 'running', 380),
                   ('daily', 'old', 'success', 366),
                   ('daily', 'young', 'success', 364)
          ) as runs (pipeline, run_id, status, days)
        """
    )
    assert pipeline_runs.delete_older(app_db, timedelta(days=365)) == 3
    rows = app_db.execute("select run_id from operations.pipeline_runs order by id").fetchall()
    assert rows == [("better",), ("open",), ("young",)]

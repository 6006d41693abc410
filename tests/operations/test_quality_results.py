"""What evaluations leave in `operations.quality_results`, and what can be asked of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from include.operations import alerts, quality_results
from include.operations.quality_results import Evaluation
from include.quality.gate import CheckResult

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

MET = CheckResult("never_null", "id", "critical", True, 0, "0 of 10 rows", "never null")
WARNED = CheckResult("email_shape", "email", "warning", False, 2, "2 of 10 rows", "an address", ("7", "9"))
STOPPED = CheckResult("no_orphans", None, "critical", False, 1, "1 rows", "no rows", ("a,1",))


def evaluate(
    database: Database, number: int, *results: CheckResult, at: datetime | None = None, **of: str
) -> dict[str, Any]:
    """Records evaluation `number`, at that many minutes after noon unless `at` says otherwise."""
    named = {"pipeline": "daily_sync", "run_id": "r1", "task_id": "customers.gate", "suite": "customers"} | of
    quality_results.record(database, evaluation=UUID(int=number), results=results or (MET, WARNED, STOPPED), **named)
    at = at or NOON + timedelta(minutes=number)
    database.execute(
        "update operations.quality_results set checked_at = %s where evaluation = %s", (at, UUID(int=number))
    )
    return named


def rows(database: Database) -> list[Any]:
    return database.execute(
        """
        select evaluation, pipeline, run_id, task_id, suite, expectation, column_name, severity, success, expected,
               observed, unexpected, sample_keys
          from operations.quality_results
         order by id
        """
    ).fetchall()


def summary(number: int, **of: Any) -> Evaluation:
    """What evaluation `number` of MET, WARNED and STOPPED comes to."""
    whole = Evaluation(
        evaluation=UUID(int=number),
        run_id="r1",
        task_id="customers.gate",
        suite="customers",
        checked_at=NOON + timedelta(minutes=number),
        met=1,
        warnings=1,
        critical=1,
        failed=["no_orphans", "email_shape"],
    )
    return replace(whole, **of)


def test_an_evaluation_is_recorded_whole_and_again_in_its_own_place(app_db: Database) -> None:
    of = {"pipeline": "daily_sync", "run_id": "r1", "task_id": "customers.gate", "suite": "daily customers"}
    key = tuple(of.values())
    before = datetime.now(UTC) - timedelta(minutes=1)
    quality_results.record(app_db, evaluation=UUID(int=1), results=[MET, STOPPED], **of)
    quality_results.record(app_db, evaluation=UUID(int=2), results=[MET], **of)
    quality_results.record(app_db, evaluation=UUID(int=1), results=[MET, WARNED], **of)
    assert rows(app_db) == [
        (UUID(int=2), *key, "never_null", "id", "critical", True, "never null", "0 of 10 rows", 0, []),
        (UUID(int=1), *key, "never_null", "id", "critical", True, "never null", "0 of 10 rows", 0, []),
        (UUID(int=1), *key, "email_shape", "email", "warning", False, "an address", "2 of 10 rows", 2, ["7", "9"]),
    ]
    times = app_db.execute(
        "select count(distinct checked_at), min(checked_at) from operations.quality_results group by evaluation"
    ).fetchall()
    assert [count for count, _ in times] == [1, 1]
    assert all(at > before for _, at in times)


def test_the_newest_evaluations_come_first_in_numbers(app_db: Database) -> None:
    evaluate(app_db, 1)
    evaluate(app_db, 2, MET, run_id="r2", suite="orders")
    evaluate(app_db, 3, at=NOON + timedelta(minutes=2))  # the same microsecond
    evaluate(app_db, 4, at=NOON, task_id="other")
    evaluate(app_db, 5, pipeline="delta_sync")
    expected = [
        summary(2, run_id="r2", suite="orders", warnings=0, critical=0, failed=[]),
        summary(3, checked_at=NOON + timedelta(minutes=2)),
        summary(1),
        summary(4, checked_at=NOON, task_id="other"),
    ]
    assert quality_results.recent(app_db, "daily_sync", 100) == expected
    assert [quality_results.recent(app_db, "daily_sync", limit) for limit in (1, 2, 3)] == [
        expected[:1],
        expected[:2],
        expected[:3],
    ]
    assert quality_results.recent(app_db, "delta_sync", 100) == [summary(5)]
    assert quality_results.recent(app_db, "none", 100) == []


def test_the_newest_cost_the_same_however_many_came_before(app_db: Database) -> None:
    def fill(first: int, last: int) -> None:
        app_db.execute(
            """
            insert into operations.quality_results
              (evaluation, pipeline, run_id, task_id, suite, expectation, severity, success, expected, observed,
               unexpected, checked_at)
            select lpad(to_hex(n), 32, '0')::uuid, 'daily_sync', 'r' || n, 't', 's', 'e' || e, 'warning', e > 1, 'x',
                   'y', 0, timestamptz '2026-01-01Z' + n * interval '1 minute'
              from generate_series(%s::int, %s::int) n, generate_series(1, 20) e
            """,
            (first, last),
        )
        app_db.execute("analyze operations.quality_results")

    def blocks() -> int:
        """What PostgreSQL reads of its buffers for the newest 10."""
        app_db.commit()

        def hits() -> int:
            app_db.execute("select pg_stat_force_next_flush()")
            app_db.commit()
            row = app_db.execute(
                """
                select idx_blks_hit + idx_blks_read + heap_blks_hit + heap_blks_read
                  from pg_statio_all_tables where schemaname = 'operations' and relname = 'quality_results'
                """
            ).fetchone()
            assert row
            return int(row[0])

        before = hits()
        assert len(quality_results.recent(app_db, "daily_sync", 10)) == 10
        app_db.commit()
        return hits() - before

    fill(1, 50)
    few = blocks()
    fill(51, 5_000)
    assert 0 < blocks() < 2 * few + 100


def test_the_evaluation_to_look_at_is_the_one_that_says_most_since_the_run_began(app_db: Database) -> None:
    def found(run_id: str = "r1", task_id: str | None = None) -> int | None:
        evaluation = quality_results.to_look_at(app_db, "daily_sync", run_id, task_id)
        return None if evaluation is None else evaluation.int

    evaluate(app_db, 1, STOPPED, MET, task_id="orders.gate", suite="orders")
    evaluate(app_db, 2, MET, WARNED)
    evaluate(app_db, 3, MET)  # tried again
    evaluate(app_db, 4, WARNED, task_id="products.gate", suite="products")
    evaluate(app_db, 5, MET, run_id="r2")
    evaluate(app_db, 6, MET, run_id="r2", task_id="products.gate")
    evaluate(app_db, 7, pipeline="delta_sync")
    assert [found(), found(task_id="customers.gate"), found(task_id="choose")] == [1, 3, None]
    assert [found("r2"), found("r3")] == [6, None]

    app_db.execute(
        "insert into operations.pipeline_runs (pipeline, run_id, started_at) values ('daily_sync', 'r1', %s)",
        (NOON + timedelta(minutes=1.5),),
    )
    assert [found(), found(task_id="orders.gate")] == [4, None]
    name = {"pipeline": "daily_sync", "run_id": "r1", "task_id": "orders.gate", "map_index": -1}
    alerts.note(app_db, **name, try_number=1, error="GateError: 1 row")  # and was not cleared with the run
    assert [found(), found(task_id="orders.gate")] == [1, 1]
    alerts.begin_again(app_db, **name)
    assert [found(), found(task_id="orders.gate")] == [4, None]


def test_old_results_are_deleted_by_the_evaluation(app_db: Database) -> None:
    now = datetime.now(UTC)
    evaluate(app_db, 1, at=now - timedelta(days=31))
    evaluate(app_db, 2, MET, at=now - timedelta(days=29))
    assert quality_results.delete_older(app_db, timedelta(days=30)) == 3
    assert [row[0] for row in rows(app_db)] == [UUID(int=2)]
    assert quality_results.delete_older(app_db, timedelta(days=30)) == 0
    assert quality_results.delete_older(app_db, timedelta(0)) == 1

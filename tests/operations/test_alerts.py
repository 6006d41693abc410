"""What is told of failures, and when: one message for what is one thing, and nothing untold."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg.types.json import Jsonb

from include.operations import alerts
from include.operations.block_kit import problems
from include.operations.messages import Links

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
WINDOW = timedelta(minutes=60)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def links(task_id: str | None, map_index: int = -1) -> Links:
    run = "https://airflow.test/run"
    section = task_id.rpartition(".")[2] if task_id else None
    log = f"{run}/{task_id}" + (f"/{map_index}" if map_index >= 0 else "")
    return Links(log=log if task_id else None, run=run, data_docs=f"{run}/docs", section=section)


def begin(db: Database, pipeline: str, run_id: str) -> None:
    db.execute(
        """
        insert into operations.pipeline_runs (pipeline, run_id, started_at) values (%s, %s, clock_timestamp())
        on conflict (pipeline, run_id) do update set
          started_at = clock_timestamp(), ended_at = null, status = 'running', told = false
        """,
        (pipeline, run_id),
    )


def end(db: Database, pipeline: str, run_id: str, status: str) -> None:
    db.execute(
        """
        update operations.pipeline_runs set ended_at = clock_timestamp(), status = %s
         where pipeline = %s and run_id = %s
        """,
        (status, pipeline, run_id),
    )


def note(
    db: Database, pipeline: str, run_id: str, task_id: str, error: Any, map_index: int = -1, tries: int = 1
) -> None:
    alerts.note(
        db,
        pipeline=pipeline,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        try_number=tries,
        error=error,
    )


def tell_failed(db: Database, pipeline: str, run_id: str, states: dict[str, str | None]) -> int | None:
    return alerts.run_failed(
        db, pipeline=pipeline, run_id=run_id, states=states, links=links, owner="data", window=WINDOW
    )


def tell_succeeded(db: Database, pipeline: str, run_id: str) -> list[int]:
    return alerts.run_succeeded(db, pipeline=pipeline, run_id=run_id, links=links, owner="data", window=WINDOW)


def tell_late(db: Database, **limits: timedelta) -> list[int]:
    return alerts.late(db, limits=limits, links=links, owner="data", window=WINDOW)


def fail(db: Database, pipeline: str, run_id: str, error: Any = "ValueError: x", task_id: str = "load") -> int | None:
    begin(db, pipeline, run_id)
    note(db, pipeline, run_id, task_id, error)
    end(db, pipeline, run_id, "failed")
    return tell_failed(db, pipeline, run_id, {task_id: "failed", "next": "upstream_failed"})


def succeed(db: Database, pipeline: str, run_id: str) -> list[int]:
    begin(db, pipeline, run_id)
    end(db, pipeline, run_id, "success")
    return tell_succeeded(db, pipeline, run_id)


def check(db: Database, pipeline: str, run_id: str, severity: str = "warning", **more: Any) -> None:
    values = {
        "evaluation": uuid4(),
        "pipeline": pipeline,
        "run_id": run_id,
        "task_id": "customers.gate",
        "suite": "customers",
        "expectation": "email_is_unique",
        "column_name": "email",
        "severity": severity,
        "success": False,
        "expected": "none",
        "observed": "7 of 1,000 rows",
        "unexpected": 7,
    } | more
    names = ", ".join(values)
    db.execute(
        f"insert into operations.quality_results ({names}) values ({', '.join(['%s'] * len(values))})".encode(),
        list(values.values()),
    )


def execute(
    db: Database, pipeline: str, run_id: str, *, drift: list[dict[str, Any]] | None = None, read: int = 1000
) -> None:
    execution = uuid4()
    db.execute(
        """
        insert into operations.executions (execution, entity, mode, pipeline, run_id, landing, records_read, drift)
        values (%s, 'customers', 'delta', %s, %s, 'file:///x', %s, %s)
        """,
        (execution, pipeline, run_id, read, Jsonb(drift or [])),
    )
    for key in ("a", "b"):
        db.execute(
            """
            insert into operations.dead_letters
              (pipeline, entity, record_key, stage, payload_raw, error, execution, fetched_at)
            values (%s, 'customers', %s, 'stage', '', 'bad', %s, now())
            on conflict do nothing
            """,
            (pipeline, key, execution),
        )


def pass_time(db: Database, length: timedelta) -> None:
    """As if all that is there had been written that much earlier."""
    columns = {
        "messages": ("created_at", "window_ends_at", "run_started_at", "next_attempt_at", "sent_at"),
        "alerts": ("alerted_at",),
        "pipeline_runs": ("started_at", "ended_at"),
        "quality_results": ("checked_at",),
        "executions": ("started_at",),
    }
    for table, names in columns.items():
        sets = ", ".join(f"{name} = {name} - %(length)s" for name in names)
        db.execute(f"update operations.{table} set {sets}".encode(), {"length": length})


def told(db: Database) -> list[tuple[str, str, str, bool]]:
    """(kind, pipeline, status, whether its window is open), in order."""
    rows = db.execute("select kind, pipeline, status, window_ends_at is not null from operations.messages order by id")
    return [tuple(row) for row in rows.fetchall()]


def payload(db: Database, message: int | None) -> dict[str, Any]:
    row = db.execute("select payload from operations.messages where id = %s", (message,)).fetchone()
    assert row is not None
    assert problems(row[0]) == []
    return dict(row[0])


def texts(shown: dict[str, Any]) -> str:
    """All that a message shows, a line a text."""
    lines = []
    for block in shown["blocks"]:
        parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        lines += [part["text"] for part in parts if part]
    return "\n".join(lines)


def test_a_note_is_written_once_and_masked(app_db: Database) -> None:
    for error in (RuntimeError("cannot reach postgresql://u:p@h/d for jane@x.com\nDETAIL: row"), "another", None):
        note(app_db, "daily", "r1", "customers.stage", error, map_index=2)
    note(app_db, "daily", "r1", "load", None)
    note(app_db, "daily", "r1", "other", "requests.exceptions.ReadTimeout: slow")
    note(app_db, "daily", "r1", "key", KeyError("id"))
    rows = app_db.execute(
        "select task_id, map_index, try_number, error_class, error from operations.alerts order by id"
    )
    assert rows.fetchall() == [
        ("customers.stage", 2, 1, "RuntimeError", "RuntimeError: cannot reach postgresql://***@h/d for ***"),
        ("load", -1, 1, "killed", "was killed, or marked as failed by hand"),
        ("other", -1, 1, "ReadTimeout", "requests.exceptions.ReadTimeout: slow"),
        ("key", -1, 1, "KeyError", "KeyError: 'id'"),
    ]


def test_a_run_that_begins_anew_notes_anew(app_db: Database) -> None:
    note(app_db, "daily", "r1", "load", ValueError("old"))
    begin(app_db, "daily", "r1")
    note(app_db, "daily", "r1", "load", ValueError("new"))
    note(app_db, "daily", "r1", "load", ValueError("newer"))
    assert app_db.execute("select error from operations.alerts").fetchall() == [("ValueError: new",)]


def test_a_failed_run_makes_one_message_of_all_that_failed(app_db: Database) -> None:
    succeed(app_db, "daily", "r0")
    pass_time(app_db, 26 * HOUR)
    begin(app_db, "daily", "r1")
    execute(app_db, "daily", "r1")
    check(app_db, "daily", "r1", "critical", evaluation=(first := uuid4()), observed="9 of 1,000 rows")
    check(app_db, "daily", "r1", "critical", evaluation=first, expectation="evaluation", column_name=None)
    check(app_db, "daily", "r1", "critical", evaluation=(second := uuid4()))  # the next try
    check(app_db, "daily", "r1", evaluation=second, expectation="age_is_known", column_name="age")
    note(app_db, "daily", "r1", "customers.gate", "AirflowFailException: email_is_unique failed <!channel>")
    note(app_db, "daily", "r1", "orders.stage", ValueError("bad"), map_index=1)
    note(app_db, "daily", "r1", "orders.stage", ValueError("bad"), map_index=2)
    note(app_db, "daily", "r1", "finish", ValueError("cleared since, and then it went well"))
    end(app_db, "daily", "r1", "failed")
    states = {
        "customers.gate": "failed",
        "customers.publish": "upstream_failed",
        "orders.stage_0": "success",
        "orders.stage_1": "failed",
        "orders.stage_2": "failed",
        "orders.stage_3": "failed",
        "products.extract": "failed",
        "finish": "success",
    }
    message = tell_failed(app_db, "daily", "r1", states)
    assert tell_failed(app_db, "daily", "r1", states) is None
    assert told(app_db) == [("failure", "daily", "pending", True)]
    shown = payload(app_db, message)
    assert shown["text"] == (
        "daily failed: customers.gate: AirflowFailException: email_is_unique failed &lt;!channel&gt; (and 3 more tasks)"
    )
    row = app_db.execute("select ended_at from operations.pipeline_runs where run_id = 'r1'").fetchone()
    good = app_db.execute("select ended_at from operations.last_good_runs").fetchone()
    assert row is not None
    assert good is not None
    log = "https://airflow.test/run"
    assert texts(shown).splitlines() == [
        "daily failed",
        *("*Pipeline*", "daily"),
        *("*Run*", "r1"),
        *("*Tasks failed*", "customers.gate, orders.stage, products.extract"),
        *("*Failing since*", f"{row[0]:%Y-%m-%d %H:%M} UTC"),
        *("*Records read*", "customers: 1,000"),
        *("*Quarantined*", "customers: 2"),
        *("*Last good run*", f"{good[0]:%Y-%m-%d %H:%M} UTC, 1 d 2 h ago (r0)"),
        *("*Owner*", "data"),
        f"*customers.gate*: AirflowFailException: email_is_unique failed &lt;!channel&gt; (<{log}/customers.gate|log>)",
        f"*orders.stage* (2 instances): ValueError: bad (<{log}/orders.stage/1|log>)",
        f"*orders.stage*: was killed, or marked as failed by hand (<{log}/orders.stage/3|log>)",
        f"*products.extract*: was killed, or marked as failed by hand (<{log}/products.extract|log>)",
        "1 task did not start because of that",
        "*Expectations that failed*",
        "• `email_is_unique` of `email` (customers): 7 of 1,000 rows",
        "*Warnings*",
        "• `age_is_known` of `age` (customers): 7 of 1,000 rows",
        "*What to do*: the failed expectations say which rows; mend them where they come from, then clear the task.",
        f"<{log}|Run>",
        f"<{log}/docs|Data Docs>",
        "Runbook: `docs/runbook.md#gate`, `docs/runbook.md#stage`, `docs/runbook.md#extract`, "
        "`docs/runbook.md#failure`",
    ]


def test_a_run_in_which_no_task_failed_is_told_too(app_db: Database) -> None:
    for run_id, error in (("r1", None), ("r2", "timed out: jane@x.com")):
        begin(app_db, "daily", run_id)
        end(app_db, "daily", run_id, "failed")
        app_db.execute("update operations.pipeline_runs set error_message = %s where run_id = %s", (error, run_id))
        tell_failed(app_db, "daily", run_id, {"a": "skipped", "b": None})
    first, second = app_db.execute("select payload ->> 'text', status from operations.messages order by id").fetchall()
    assert first == ("daily failed: the run ran out of time, or somebody marked it as failed", "pending")
    assert second == ("daily failed: timed out: ***", "folded")


def test_a_run_without_a_row_or_states_is_told_too(app_db: Database) -> None:
    note(app_db, "daily", "r1", "start", OSError("no database"))
    shown = payload(app_db, tell_failed(app_db, "daily", "r1", {}))
    assert shown["text"] == "daily failed: start: OSError: no database"
    assert tell_failed(app_db, "daily", "r1", {}) is None


def test_the_same_failure_is_folded_and_told_when_the_window_ends(app_db: Database) -> None:
    first = fail(app_db, "daily", "r1", ValueError("record 17 of 2025-03-04"))
    assert first is not None
    pass_time(app_db, 20 * MINUTE)
    assert fail(app_db, "daily", "r2", ValueError("record 4711")) is None
    assert fail(app_db, "daily", "r3", ValueError("record 5")) is None
    assert fail(app_db, "delta", "r3", ValueError("record 5")) is not None
    assert fail(app_db, "daily", "r4", KeyError("record 5")) is not None  # another failure
    assert alerts.close_windows(app_db, window=WINDOW) == []
    pass_time(app_db, 50 * MINUTE)
    (again,) = alerts.close_windows(app_db, window=WINDOW)
    row = app_db.execute("select created_at from operations.messages where id = %s", (first,)).fetchone()
    assert row is not None
    since = f"{row[0].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    shown = payload(app_db, again)
    assert shown["text"] == (f"daily: the same 2 more times since {since}: daily failed: load: ValueError: record 5")
    assert texts(shown).splitlines()[:4] == [
        "daily: the same again",
        f"*daily*: the same 2 more times since {since}. The latest:",
        "*Pipeline*",
        "daily",
    ]
    assert fail(app_db, "daily", "r5", ValueError("again")) is None  # the message opened the next window
    assert told(app_db) == [
        ("failure", "daily", "pending", False),
        ("failure", "daily", "folded", False),
        ("failure", "daily", "folded", False),
        ("failure", "delta", "pending", True),
        ("failure", "daily", "pending", True),
        ("repeated", "daily", "pending", True),
        ("failure", "daily", "folded", False),
    ]


def test_a_window_that_counted_nothing_just_closes(app_db: Database) -> None:
    fail(app_db, "daily", "r1")
    pass_time(app_db, 61 * MINUTE)
    assert alerts.close_windows(app_db, window=WINDOW) == []
    assert told(app_db) == [("failure", "daily", "pending", False)]
    assert fail(app_db, "daily", "r2") is not None


def test_a_window_that_is_over_closes_before_the_same_is_told(app_db: Database) -> None:
    fail(app_db, "daily", "r1")
    fail(app_db, "daily", "r2")
    pass_time(app_db, 61 * MINUTE)
    assert fail(app_db, "daily", "r3") is None
    assert told(app_db)[2:] == [("repeated", "daily", "pending", True), ("failure", "daily", "folded", False)]


def test_other_expectations_are_another_failure(app_db: Database) -> None:
    messages = []
    for run_id, name in (("r1", "a"), ("r2", "b"), ("r3", "a")):
        begin(app_db, "daily", run_id)
        check(app_db, "daily", run_id, "critical", expectation=name)
        note(app_db, "daily", run_id, "customers.gate", f"GateError: {run_id}")
        end(app_db, "daily", run_id, "failed")
        messages.append(tell_failed(app_db, "daily", run_id, {"customers.gate": "failed"}))
    assert [message is not None for message in messages] == [True, True, False]


def test_a_run_that_was_cleared_and_fails_again_is_counted_anew(app_db: Database) -> None:
    fail(app_db, "daily", "r1")
    assert fail(app_db, "daily", "r1") is None  # all of it cleared
    note(app_db, "daily", "r1", "load", ValueError("x"), tries=3)  # the failed task alone: the run's start stays
    assert tell_failed(app_db, "daily", "r1", {"load": "failed"}) is None
    assert tell_failed(app_db, "daily", "r1", {"load": "failed"}) is None
    assert [row[2] for row in told(app_db)] == ["pending", "folded", "folded"]


def test_a_failed_task_that_was_not_cleared_with_another_is_told_with_what_it_said(app_db: Database) -> None:
    states: dict[str, str | None] = {"customers.gate": "failed", "products.extract": "failed"}
    begin(app_db, "daily", "r1")
    check(app_db, "daily", "r1", "critical")
    note(app_db, "daily", "r1", "customers.gate", "GateError: 7 rows")
    note(app_db, "daily", "r1", "products.extract", OSError("reset"))
    end(app_db, "daily", "r1", "failed")
    first = payload(app_db, tell_failed(app_db, "daily", "r1", states))

    def again(error: str | None) -> None:
        """The extract is cleared alone, and fails again."""
        begin(app_db, "daily", "r1")
        row = app_db.execute("select max(try_number) from operations.alerts").fetchone()
        assert row is not None
        name = {"pipeline": "daily", "run_id": "r1", "task_id": "products.extract", "map_index": -1}
        alerts.begin_again(app_db, **name)
        if error:
            note(app_db, "daily", "r1", "products.extract", error, tries=row[0] + 1)
        end(app_db, "daily", "r1", "failed")

    again("OSError: reset")
    assert tell_failed(app_db, "daily", "r1", states) is None  # the same: counted
    (folded,) = app_db.execute("select payload from operations.messages where status = 'folded'").fetchall()
    assert texts(folded[0]).splitlines()[-12:] == texts(first).splitlines()[-12:]
    assert [line for line in texts(first).splitlines() if "email_is_unique" in line] != []
    name = {"pipeline": "daily", "run_id": "r1"}
    assert alerts.first_error(app_db, **name, states=states) == "customers.gate: GateError: 7 rows"

    again(None)  # killed: what an earlier try of it said is not why
    killed = payload(app_db, tell_failed(app_db, "daily", "r1", states))
    assert [line.partition(" (<")[0] for line in texts(killed).splitlines() if line.startswith(("*cus", "*pro"))] == [
        "*customers.gate*: GateError: 7 rows",
        "*products.extract*: was killed, or marked as failed by hand",
    ]
    assert alerts.first_error(app_db, **name, states={"products.extract": "failed"}) is None
    assert alerts.first_error(app_db, **name, states={}) is None


def test_a_run_that_begins_again_before_it_is_told_is_told_when_it_ends(app_db: Database) -> None:
    begin(app_db, "daily", "r1")
    note(app_db, "daily", "r1", "load", ValueError("x"))
    end(app_db, "daily", "r1", "failed")
    assert alerts.untold(app_db) == [("daily", "r1", "failed")]
    begin(app_db, "daily", "r1")  # between the look and the message
    assert tell_failed(app_db, "daily", "r1", {"load": "running"}) is None
    assert tell_succeeded(app_db, "daily", "r1") == []
    end(app_db, "daily", "r1", "failed")
    assert alerts.untold(app_db) == [("daily", "r1", "failed")]
    assert tell_failed(app_db, "daily", "r1", {"load": "failed"}) is not None


def test_a_run_that_is_created_anew_under_its_name_says_what_is_wrong_now(app_db: Database) -> None:
    """Its tries are counted from one again."""
    name = {"pipeline": "daily", "run_id": "r1", "task_id": "load", "map_index": -1}
    for tries, error in ((4, "OldError: old"), (1, "NewError: new"), (1, "NewestError: newest")):
        begin(app_db, "daily", "r1")
        alerts.begin_again(app_db, **name)
        note(app_db, "daily", "r1", "load", error, tries=tries)
        end(app_db, "daily", "r1", "failed")
        message = tell_failed(app_db, "daily", "r1", {"load": "failed"})
        assert payload(app_db, message)["text"] == f"daily failed: load: {error}"


def test_runs_of_which_nobody_was_told_are_known_for_a_day(app_db: Database) -> None:
    for run_id, status in (("r1", "failed"), ("r2", "success")):
        begin(app_db, "daily", run_id)
        assert alerts.untold(app_db) == []
        end(app_db, "daily", run_id, status)  # and whoever should have told of it died
        assert alerts.untold(app_db) == [("daily", run_id, status)]
        if status == "failed":
            tell_failed(app_db, "daily", run_id, {})
        else:
            tell_succeeded(app_db, "daily", run_id)
        assert alerts.untold(app_db) == []
    assert [row[0] for row in told(app_db)] == ["failure", "recovered"]
    begin(app_db, "daily", "r3")
    end(app_db, "daily", "r3", "failed")
    pass_time(app_db, 23 * HOUR)
    assert alerts.untold(app_db) == [("daily", "r3", "failed")]
    pass_time(app_db, HOUR)
    assert alerts.untold(app_db) == []


def test_a_dry_run_ends_no_outage_and_is_no_good_run(app_db: Database) -> None:
    succeed(app_db, "daily", "r0")
    pass_time(app_db, 27 * HOUR)
    fail(app_db, "daily", "r1")
    begin(app_db, "daily", "dry")
    app_db.execute("update operations.pipeline_runs set dry_run = true where run_id = 'dry'")
    check(app_db, "daily", "dry")
    end(app_db, "daily", "dry", "success")
    tell_succeeded(app_db, "daily", "dry")
    assert [row[0] for row in told(app_db)] == ["failure", "warnings"]
    assert app_db.execute("select run_id from operations.last_good_runs").fetchall() == [("r0",)]
    assert len(tell_late(app_db, daily=26 * HOUR)) == 1
    assert len(succeed(app_db, "daily", "r2")) == 1

    begin(app_db, "delta", "dry")
    app_db.execute("update operations.pipeline_runs set dry_run = true where pipeline = 'delta'")
    end(app_db, "delta", "dry", "failed")  # nor begins one
    message = tell_failed(app_db, "delta", "dry", {})
    assert "*Run*\ndry (a dry run)" in texts(payload(app_db, message))
    assert succeed(app_db, "delta", "real") == []
    app_db.execute("update operations.messages set status = 'logged'")
    assert alerts.delete_older(app_db, -HOUR) > 0
    app_db.execute("delete from operations.pipeline_runs where run_id = 'real'")
    pass_time(app_db, 27 * HOUR)
    assert tell_late(app_db, delta=HOUR) == []  # nobody waits for what was only tried


def test_failures_of_dry_runs_and_of_others_are_not_counted_as_the_same(app_db: Database) -> None:
    def fail_dry(run_id: str) -> int | None:
        begin(app_db, "daily", run_id)
        app_db.execute("update operations.pipeline_runs set dry_run = true where run_id = %s", (run_id,))
        note(app_db, "daily", run_id, "load", "ValueError: x")
        end(app_db, "daily", run_id, "failed")
        return tell_failed(app_db, "daily", run_id, {"load": "failed"})

    assert fail_dry("dry 1") is not None
    assert fail(app_db, "daily", "real") is not None
    assert fail_dry("dry 2") is not None
    assert [row[2:] for row in told(app_db)] == [("pending", False), ("pending", True), ("pending", False)]
    assert "Failing since*\n" in texts(payload(app_db, 3))
    assert "runs" not in texts(payload(app_db, 3))
    (recovered,) = succeed(app_db, "daily", "good")
    assert payload(app_db, recovered)["text"].endswith("; 1 run failed")


def test_warnings_of_a_dry_run_hide_no_others(app_db: Database) -> None:
    for run_id, is_dry in (("dry", True), ("real", False), ("dry again", True)):
        begin(app_db, "daily", run_id)
        app_db.execute("update operations.pipeline_runs set dry_run = %s where run_id = %s", (is_dry, run_id))
        check(app_db, "daily", run_id)
        end(app_db, "daily", run_id, "success")
        assert len(tell_succeeded(app_db, "daily", run_id)) == 1
        assert tell_succeeded(app_db, "daily", run_id) == []
    assert [row[2:] for row in told(app_db)] == [("pending", False), ("pending", True), ("pending", False)]


def test_a_failure_that_is_told_after_a_later_success_begins_no_outage(app_db: Database) -> None:
    for run_id, status in (("r1", "failed"), ("r2", "success")):
        begin(app_db, "daily", run_id)
        end(app_db, "daily", run_id, status)
    assert alerts.untold(app_db, pipeline="daily", before="r2") == [("daily", "r1", "failed")]
    assert alerts.untold(app_db, pipeline="daily", before="r1") == []
    assert alerts.untold(app_db, pipeline="delta") == []
    app_db.execute("update operations.pipeline_runs set ended_at = clock_timestamp() where run_id = 'r1'")  # swept late
    assert tell_succeeded(app_db, "daily", "r2") == []
    late = tell_failed(app_db, "daily", "r1", {"load": "failed"})  # of which nobody had told
    assert "(r2)" in texts(payload(app_db, late))
    assert succeed(app_db, "daily", "r3") == []
    assert fail(app_db, "daily", "r4", None) is not None  # nor a window
    assert len(succeed(app_db, "daily", "r5")) == 1


def test_the_first_success_ends_the_outage_once(app_db: Database) -> None:
    succeed(app_db, "daily", "r0")
    fail(app_db, "daily", "r1")
    pass_time(app_db, 90 * MINUTE)
    fail(app_db, "daily", "r2", KeyError("k"))
    fail(app_db, "daily", "r3", KeyError("k"))
    fail(app_db, "delta", "r3")
    pass_time(app_db, 35 * MINUTE)
    (recovered,) = succeed(app_db, "daily", "r4")
    assert payload(app_db, recovered)["text"] == "daily has recovered after 2 h 5 min; 3 runs failed"
    assert tell_succeeded(app_db, "daily", "r4") == []
    assert succeed(app_db, "daily", "r5") == []
    pass_time(app_db, 61 * MINUTE)
    assert alerts.close_windows(app_db, window=WINDOW) == []
    assert fail(app_db, "daily", "r6", KeyError("k")) is not None
    (again,) = succeed(app_db, "daily", "r6")  # cleared
    assert payload(app_db, again)["text"] == "daily has recovered after 0 s; 1 run failed"


def test_a_success_from_before_a_failure_does_not_end_it(app_db: Database) -> None:
    begin(app_db, "daily", "r1")
    end(app_db, "daily", "r1", "success")
    fail(app_db, "daily", "r2")
    assert tell_succeeded(app_db, "daily", "r1") == []  # its callback came late
    assert len(succeed(app_db, "daily", "r3")) == 1


def test_warnings_are_told_once_a_window_and_need_no_recovery(app_db: Database) -> None:
    drift = {"field": "vip<b>", "kind": "new", "types": ["string"], "records": 5, "total": 9}

    def warn(run_id: str) -> list[int]:
        begin(app_db, "delta", run_id)
        execute(app_db, "delta", run_id, drift=[drift])
        check(app_db, "delta", run_id)
        end(app_db, "delta", run_id, "success")
        return tell_succeeded(app_db, "delta", run_id)

    (message,) = warn("r1")
    assert tell_succeeded(app_db, "delta", "r1") == []
    assert warn("r2") == []
    shown = payload(app_db, message)
    assert shown["text"] == ("delta warns: `email_is_unique` of `email` (customers): 7 of 1,000 rows (and 1 more)")
    assert texts(shown).splitlines() == [
        "delta: 2 warnings",
        *("*Pipeline*", "delta"),
        *("*Run*", "r1"),
        *("*Records read*", "customers: 1,000"),
        *("*Quarantined*", "customers: 2"),
        *("*Owner*", "data"),
        "*Warnings*",
        "• `email_is_unique` of `email` (customers): 7 of 1,000 rows",
        "• `schema drift` (customers): new field `vip&lt;b&gt;` (string) in 5 of 9 records: read it in the contract, "
        "or list it in its `ignored`",
        "*What to do*: nothing was stopped; look at the rows, and mend them where they come from.",
        "<https://airflow.test/run|Run>",
        "<https://airflow.test/run/docs|Data Docs>",
        "Runbook: `docs/runbook.md#warnings`",
    ]
    pass_time(app_db, 61 * MINUTE)
    assert succeed(app_db, "delta", "r3") == []
    assert len(alerts.close_windows(app_db, window=WINDOW)) == 1
    assert [row[0] for row in told(app_db)] == ["warnings", "warnings", "repeated"]


def test_what_was_told_long_ago_goes_but_for_what_waits_or_goes_on(app_db: Database) -> None:
    fail(app_db, "daily", "r1")
    fail(app_db, "daily", "r2")
    fail(app_db, "delta", "r1")
    pass_time(app_db, 61 * MINUTE)
    alerts.close_windows(app_db, window=WINDOW)
    succeed(app_db, "daily", "r3")
    app_db.execute("update operations.messages set status = 'logged' where status = 'pending' and pipeline = 'daily'")
    kinds = [("daily", "failure"), ("daily", "failure"), ("daily", "repeated"), ("daily", "recovered")]
    remaining = "select pipeline, kind from operations.messages order by pipeline, id"
    assert app_db.execute(remaining).fetchall() == [*kinds, ("delta", "failure")]

    assert alerts.delete_older(app_db, HOUR / 2) == 2
    assert app_db.execute(remaining).fetchall() == [*kinds[2:], ("delta", "failure")]

    pass_time(app_db, HOUR)
    assert alerts.delete_older(app_db, HOUR / 2) == 2
    app_db.execute("update operations.messages set status = 'refused'")  # the outage goes on
    assert alerts.delete_older(app_db, HOUR / 2) == 0
    assert app_db.execute(remaining).fetchall() == [("delta", "failure")]
    assert app_db.execute("select count(*) from operations.alerts").fetchone() == (0,)

    app_db.execute(
        """
        insert into operations.messages (kind, pipeline, fingerprint, payload, status, window_ends_at, created_at)
        select 'warnings', 'daily', fingerprint, '{}', status, window_ends_at, now() - interval '1 day'
          from (
            values ('waits', 'pending', null),
                   ('still counts', 'logged', now() + interval '1 hour'),
                   ('is over', 'logged', null)
          ) as old (fingerprint, status, window_ends_at)
        """
    )
    assert alerts.delete_older(app_db, HOUR) == 1
    assert app_db.execute(
        "select fingerprint from operations.messages where kind = 'warnings' order by id"
    ).fetchall() == [
        ("waits",),
        ("still counts",),
    ]


def test_lateness_is_told_once_a_day_and_ends_with_a_success(app_db: Database) -> None:
    succeed(app_db, "daily", "r1")
    begin(app_db, "young", "r1")
    limits = {"daily": 26 * HOUR, "young": 26 * HOUR, "never_ran": HOUR}
    pass_time(app_db, 25 * HOUR)
    assert tell_late(app_db, **limits) == []
    succeed(app_db, "young", "r2")
    pass_time(app_db, 2 * HOUR)
    (message,) = tell_late(app_db, **limits)
    assert payload(app_db, message)["text"] == (
        "daily is late: its last good run ended 1 d 3 h ago, 1 d 2 h are allowed"
    )
    for _ in range(3):
        pass_time(app_db, 10 * MINUTE)
        assert tell_late(app_db, daily=26 * HOUR) == []
    pass_time(app_db, 24 * HOUR)
    (still,) = tell_late(app_db, daily=26 * HOUR)
    assert payload(app_db, still)["text"].startswith("daily: still late, as told at ")
    assert [row[0::2] for row in told(app_db)] == [
        *(("late", "pending"), ("late", "folded")),
        *(("repeated", "pending"), ("late", "folded")),  # it is late still
    ]
    pass_time(app_db, 2 * HOUR)
    assert tell_late(app_db, daily=26 * HOUR) == []
    (recovered,) = succeed(app_db, "daily", "r3")
    assert payload(app_db, recovered)["text"] == "daily has recovered after 1 d 2 h; 0 runs failed, it was late"
    assert tell_late(app_db, daily=26 * HOUR) == []


def test_a_pipeline_that_never_succeeded_is_late_from_its_first_run(app_db: Database) -> None:
    begin(app_db, "daily", "r1")
    assert tell_late(app_db, daily=HOUR) == []
    pass_time(app_db, 2 * HOUR)
    (message,) = tell_late(app_db, daily=HOUR)
    assert payload(app_db, message)["text"] == (
        "daily is late: it has never had a good run, and its first was more than 1 h ago"
    )


@pytest.mark.parametrize("same_run", [True, False])
def test_two_processes_at_once_make_one_message(app_database: str, same_run: bool) -> None:
    runs = ["r1", "r1"] if same_run else ["r1", "r2"]
    with psycopg.connect(app_database) as first, psycopg.connect(app_database) as second:
        for run_id in set(runs):
            begin(first, "daily", run_id)
            note(first, "daily", run_id, "load", ValueError("x"))
            end(first, "daily", run_id, "failed")
        first.commit()
        ids: list[int | None] = [tell_failed(first, "daily", runs[0], {"load": "failed"})]
        other = threading.Thread(target=lambda: ids.append(tell_failed(second, "daily", runs[1], {"load": "failed"})))
        other.start()
        other.join(0.2)
        assert other.is_alive()  # it waits
        first.commit()
        other.join(10)
        second.commit()
        assert ids[1] is None
        assert [row[2] for row in told(first)] == (["pending"] if same_run else ["pending", "folded"])


def test_who_waits_too_long_for_another_gives_up(app_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "LOCK_SECONDS", 1)
    with psycopg.connect(app_database) as holder, psycopg.connect(app_database) as callback:
        alerts.lock_messages(holder)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            fail(callback, "daily", "r1")
        callback.rollback()
        holder.commit()
        assert fail(callback, "daily", "r1") is not None


class Alerting(RuleBasedStateMachine):
    """Random failures, successes, clears, repeated callbacks and passing time, and what must hold then."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        self.numbers = itertools.count()
        self.failed: Counter[tuple[str, str]] = Counter()
        self.last: dict[str, tuple[str, Callable[[], object]]] = {}
        self.out: set[str] = set()
        self.recovered: Counter[str] = Counter()

    @initialize()
    def nothing(self) -> None:
        assert told(self.db) == []

    @rule(pipeline=st.sampled_from("ab"), error=st.sampled_from([ValueError("x"), KeyError("y")]), clear=st.booleans())
    def fails(self, pipeline: str, error: Exception, clear: bool) -> None:
        run_id = self.last[pipeline][0] if clear and pipeline in self.last else f"r{next(self.numbers)}"
        fail(self.db, pipeline, run_id, error)
        self.failed[pipeline, run_id] += 1
        self.out.add(pipeline)
        again = lambda: tell_failed(self.db, pipeline, run_id, {"load": "failed", "next": "upstream_failed"})  # noqa: E731
        self.last[pipeline] = run_id, again

    @rule(pipeline=st.sampled_from("ab"), clear=st.booleans())
    def succeeds(self, pipeline: str, clear: bool) -> None:
        run_id = self.last[pipeline][0] if clear and pipeline in self.last else f"r{next(self.numbers)}"
        succeed(self.db, pipeline, run_id)
        self.recovered[pipeline] += pipeline in self.out
        self.out.discard(pipeline)
        self.last[pipeline] = run_id, lambda: tell_succeeded(self.db, pipeline, run_id)

    @rule(pipeline=st.sampled_from("ab"))
    def is_called_twice(self, pipeline: str) -> None:
        if pipeline in self.last:
            assert not self.last[pipeline][1]()

    @rule(minutes=st.integers(1, 90))
    def time_passes(self, minutes: int) -> None:
        pass_time(self.db, minutes * MINUTE)

    @rule()
    def sender_looks(self) -> None:
        alerts.close_windows(self.db, window=WINDOW)

    @invariant()
    def every_failed_run_is_told_or_counted_once(self) -> None:
        rows = self.db.execute("select pipeline, run_id from operations.messages where kind = 'failure'").fetchall()
        assert Counter((pipeline, run_id) for pipeline, run_id in rows) == self.failed
        untold = self.db.execute(
            """
            select f.id
              from operations.messages f
              join operations.messages h on h.id = f.folded_into
             where h.window_ends_at is null and f.recovered_by is null
               and not exists (
                 select
                   from operations.messages r
                  where r.kind = 'repeated' and r.fingerprint = h.fingerprint and r.id > h.id
                    and r.payload ->> 'text' ~ format(
                      ': the same %s more times? since',
                      (select count(*) from operations.messages c where c.folded_into = h.id)
                    )
               )
            """
        )
        assert untold.fetchall() == []

    @invariant()
    def never_twice_within_a_window(self) -> None:
        twice = self.db.execute(
            """
            select a.id, b.id
              from operations.messages a
              join operations.messages b on b.fingerprint = a.fingerprint and b.id > a.id
             where a.status <> 'folded' and b.status <> 'folded' and a.kind <> 'recovered'
               and b.created_at < a.created_at + %s
               and not exists (
                 select
                   from operations.messages r
                  where r.kind = 'recovered' and r.pipeline = a.pipeline and r.id between a.id and b.id
               )
            """,
            (WINDOW,),
        )
        assert twice.fetchall() == []

    @invariant()
    def an_outage_ends_once(self) -> None:
        rows = self.db.execute("select pipeline from operations.messages where kind = 'recovered'").fetchall()
        assert Counter(pipeline for (pipeline,) in rows) == +self.recovered

    def teardown(self) -> None:
        for _ in range(2):  # what was folded is told, and nothing after that
            pass_time(self.db, 61 * MINUTE)
            alerts.close_windows(self.db, window=WINDOW)
        self.every_failed_run_is_told_or_counted_once()
        assert not any(is_open for *_, is_open in told(self.db))
        self.db.rollback()


def test_whatever_happens_all_is_told_once(app_db: Database) -> None:
    run_state_machine_as_test(
        lambda: Alerting(app_db),
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

"""From a failure to one message, to a counter, to a recovery: through Airflow, into a Slack webhook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.local.stack import Stack
from tests.e2e.running import DataDatabase, Runner, Source, leaks, secrets
from tests.slack_server import check

STRICT = {"AIRFLOW_VAR_MAX_QUARANTINED_SHARE": "0"}
"""No record may be rejected, and the demo's source always sends some that are."""


def told(source: Source) -> list[dict[str, Any]]:
    """What Slack was sent, each of a form that Slack takes."""
    messages: list[dict[str, Any]] = source.ask("GET", "slack")
    for message in messages:
        check(message)
    return messages


def messages(data: DataDatabase) -> list[tuple[str, str]]:
    return [
        (row["kind"], row["status"]) for row in data.rows("select kind, status from operations.messages order by id")
    ]


def test_one_message_a_failed_run_a_counter_for_the_next_and_one_when_it_is_over(
    stack: Stack, source: Source, data: DataDatabase, runner: Runner
) -> None:
    chosen = {"entities": ["customers", "products"]}

    failed = runner.run(environ=STRICT, **chosen)

    assert failed.state == "failed"
    (message,) = told(source)
    text = json.dumps(message, ensure_ascii=False)
    for part in (
        "daily_sync failed",
        "customers.gate",
        "products.gate",
        "quarantined_share",
        failed.run_id.split("+")[0],
        "/sluice/quality/daily_sync/",
        "data-engineering",
        "runbook",
    ):
        assert part in text, part
    assert "@" not in text.replace("@example", ""), "no e-mail address leaves the house"
    rows = data.rows("select task_id, try_number, error_class from operations.alerts order by task_id")
    assert [(row["task_id"], row["error_class"]) for row in rows] == [
        ("customers.gate", "AirflowFailException"),
        ("products.gate", "AirflowFailException"),
    ]

    again = runner.run(environ=STRICT, **chosen)

    assert again.state == "failed"
    assert told(source) == [message]
    assert messages(data) == [("failure", "sent"), ("failure", "folded")]

    good = runner.run(**chosen)

    assert good.state == "success"
    *_, recovered = told(source)
    assert recovered["text"].startswith("daily_sync has recovered after ")
    assert recovered["text"].endswith("; 2 runs failed")
    assert {kind for kind, _ in messages(data)} >= {"failure", "recovered"}
    assert data.pipeline_run(failed.run_id)["status"] == "failed"
    assert data.pipeline_run(good.run_id)["status"] == "success"
    assert leaks(stack, [*secrets(stack), source.slack_token]) == []


def test_slack_being_down_changes_nothing_but_when_the_message_comes(
    source: Source, data: DataDatabase, runner: Runner
) -> None:
    source.fault("slack", "503", times=1)

    failed = runner.run(environ=STRICT, entities=["products"])

    assert failed.state == "failed"
    assert told(source) == []
    assert messages(data) == [("failure", "pending")]
    assert data.pipeline_run(failed.run_id)["error_message"].startswith("products.gate: products: nothing is published")

    data.execute("update operations.messages set next_attempt_at = now()")
    sent = runner.run("send_alerts")

    assert sent.state == "success"
    assert messages(data) == [("failure", "sent")]
    (message,) = told(source)
    assert "products.gate" in json.dumps(message)


def test_without_a_connection_alerts_go_to_the_log_which_says_so(
    source: Source, data: DataDatabase, runner: Runner
) -> None:

    failed = runner.run(environ=STRICT | {"AIRFLOW_CONN_SLACK_ALERTS": ""}, entities=["products"])

    assert failed.state == "failed"
    assert told(source) == []
    assert messages(data) == [("failure", "logged")]
    assert failed.log.count('there is no connection "slack_alerts": alerts go to this log') == 1
    assert "alert: daily_sync failed" in failed.log


def test_what_slack_refuses_is_not_sent_again_and_seen_until_the_webhook_is_mended(
    source: Source, data: DataDatabase, runner: Runner
) -> None:
    gone = {"AIRFLOW_CONN_SLACK_ALERTS": source.slack_connection(path="/slack/nowhere")}

    failed = runner.run(environ=STRICT | gone, entities=["products"])

    assert failed.state == "failed"
    assert messages(data) == [("failure", "refused")]
    (error,) = data.column("select error from operations.messages")
    assert "404" in error
    assert runner.run("send_alerts", environ=gone).state == "failed"
    assert told(source) == []

    assert runner.run("send_alerts").state == "failed"  # the webhook is mended, which this failure shows
    assert runner.run("send_alerts").state == "success"
    assert [message["text"].partition(" after ")[0] for message in told(source)] == [
        "send_alerts failed: send: Slack answers 404; 0 messages wait",
        "send_alerts has recovered",
    ]
    assert messages(data) == [
        ("failure", "refused"),
        ("failure", "refused"),
        ("failure", "sent"),
        ("recovered", "sent"),
    ]


def test_a_page_that_cannot_be_written_is_a_warning_and_the_sync_goes_on(
    source: Source, data: DataDatabase, runner: Runner, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    elsewhere = {"AIRFLOW_VAR_DATA_DOCS_URI": (tmp_path / "file" / "docs").as_uri()}

    run = runner.run(environ=elsewhere, entities=["products"])

    assert run.state == "success"
    rows = data.rows("select severity, observed from operations.quality_results where expectation = 'data_docs_page'")
    assert [row["severity"] for row in rows] == ["warning"]
    assert str(tmp_path / "file") in rows[0]["observed"]
    (message,) = told(source)
    assert "data_docs_page" in json.dumps(message)


def test_the_quality_checks_warn_of_what_sources_have_and_fail_on_what_no_run_may_leave(
    source: Source, data: DataDatabase, runner: Runner, stack: Stack
) -> None:
    data.empty_warehouse()
    for dag_id in ("daily_sync", "customer_enrichment", "warehouse_load"):
        assert runner.run(dag_id).state == "success"

    run = runner.run("quality_checks")

    assert run.state == "success", run.log[-6000:]
    unmet = data.rows(
        "select expectation, severity from operations.quality_results where not success and run_id = %s", run.run_id
    )
    assert {row["severity"] for row in unmet} <= {"warning"}
    suites = data.column(
        "select distinct suite from operations.quality_results where run_id = %s order by 1", run.run_id
    )
    assert suites == sorted(["customers", "orders", "products", "reconciliation", "syncs", "warehouse"])
    pages = data.column(
        "select distinct evaluation::text from operations.quality_results where run_id = %s", run.run_id
    )
    folder = stack.root / "data_docs" / "quality_checks"
    assert [page for page in pages if not (folder / f"{page}.html").is_file()] == []
    index = (folder / "index.html").read_text()
    assert [page for page in pages if page not in index] == []

    # each suite is evaluated although another fails, and only what is critical fails the run
    (fact,) = data.column("select order_id from warehouse.fact_sales order by 1 limit 1")
    data.execute(f"update warehouse.fact_sales set net_amount = net_amount + 0.01 where order_id = '{fact}'")
    broken = runner.run("quality_checks")
    data.execute(f"update warehouse.fact_sales set net_amount = net_amount - 0.01 where order_id = '{fact}'")

    assert broken.state == "failed"
    evaluated = data.column(
        "select distinct suite from operations.quality_results where run_id = %s order by 1", broken.run_id
    )
    assert evaluated == suites
    critical = (
        "select suite from operations.quality_results where run_id = %s and not success and severity = 'critical'"
    )
    assert set(data.column(critical, broken.run_id)) == {"reconciliation", "warehouse"}
    keys = data.column(
        "select unnest(sample_keys) from operations.quality_results where run_id = %s and not success",
        broken.run_id,
    )
    assert any(fact in key for key in keys)


@pytest.fixture(autouse=True)
def _no_faults(source: Source) -> Any:
    yield
    source.clear_faults()

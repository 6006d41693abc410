"""### Every suite over what is published, once a day

Checks the schema `app` of `app_db` and `warehouse` of `warehouse_db` with Great Expectations, a task a suite: each
entity (keys, ranges, e-mail addresses, orphans), *syncs* (freshness; volume against the same weekday's history),
*warehouse* (dimensions with their versions, facts, marts), *reconciliation* (app against fact, exactly).

**Each task** writes what was expected and seen into `operations.quality_results`, with at most ten keys of rows that do
not meet it, and a page of Data Docs: the button *Data Docs* in its tab *Details* leads to it, the DAG's tab *Quality*
to all of them. All suites are evaluated, whichever fails.

**When it fails** something critical does not hold: the log, the page and the message in Slack name it. Nothing is
changed by a check, and no sync waits for one. Warnings (addresses that customers share, orders without a customer) fail
nothing: they come in one message a run.

- a suite that *cannot be checked* names the table or column that is missing: are the migrations applied?
- *reconciliation* says that a load was published meanwhile: clear it.

**Safe to re-run**, to clear at any task, and beside everything else: it reads only. It works by now, not by data
interval.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from include.quality.suites import names
from sluice.defaults import DAG_ARGS
from sluice.operators.quality import QualityOperator

with DAG(
    dag_id="quality_checks",
    schedule="0 4 * * *",
    dagrun_timeout=timedelta(hours=6),
    tags=["quality", "app", "warehouse"],
    description="Every suite over app and warehouse, with its pages",
    doc_md=__doc__,
    **DAG_ARGS,
):
    for suite in names():
        QualityOperator(suite=suite)

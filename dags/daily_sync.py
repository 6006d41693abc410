"""### Every entity, whole, once a day

Fetches customers, products and orders from the connection `source_api`, page by page, and publishes them in the schema
`app` of `app_db`.

**Each entity**: *extract* lands the pages as received; *stage* cleans, validates and copies them into staging tables
of their own; *gate* checks these with Great Expectations; *publish* moves them in one transaction: newest wins, rows
that the snapshot no longer has are marked deleted, rejected records go to `operations.dead_letters`, the accounting
to `operations.sync_log`. Readers see all of it or none.

**When it fails** the entity that failed is as it was before; the others are published. Read the failed task's log: it
names the record, the expectation or the URL, and what to do.

- *gate* failed: the source sent too many bad records or too few rows. Look at `operations.dead_letters`; mend the
  source, or run again with `allow_quarantined`.
- *publish* says that too many rows are gone: if the source is right, run again with `allow_deletes`.
- anything else: clear the failed task; it goes on where it was.

**Safe to re-run**, to clear at any task, and beside other syncs: a second run changes nothing and says `unchanged`.
It works by the source's state now, not by data interval: clearing an old run brings today's data.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from sluice.defaults import DAG_ARGS, TEMPLATE_SEARCHPATH
from sluice.sync import PARAMS, SQL_MACROS, sync_entities

with DAG(
    dag_id="daily_sync",
    schedule="0 2 * * *",
    dagrun_timeout=timedelta(hours=6),
    params=PARAMS["snapshot"],
    template_searchpath=TEMPLATE_SEARCHPATH,
    user_defined_macros=SQL_MACROS,
    tags=["sync", "app"],
    description="Every customer, product and order, whole, from the source API into Postgres",
    doc_md=__doc__,
    **DAG_ARGS,
):
    sync_entities(mode="snapshot")

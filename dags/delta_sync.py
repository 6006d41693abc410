"""### What changed, every fifteen minutes

Asks the connection `source_api` for what changed in customers, products and orders since the watermark in
`operations.sync_log`, less a lookback of fifteen minutes, and publishes it in the schema `app` of `app_db`. What is
asked for twice is unchanged, not doubled; an answer that is empty changes nothing. It never deletes: only `daily_sync`
knows what is gone.

**Each entity** goes the way of `daily_sync`: *extract*, *stage*, *gate*, *publish*. The watermark is the newest
`updated_at` that the source has sent, by the source's clock, and moves in the transaction that publishes the rows.

**When it fails** the entity's watermark stays, and the next run asks again: nothing is lost by waiting. Read the failed
task's log.

- *extract* says that `since` lies ahead of the source's clock: somebody changed `operations.sync_log`, or the source's
  clock was set back. Run again with `reset_watermark`, and `since` if you know from when.
- *publish* says which run holds the entity: let that one end; the retry goes on.
- to read a window again, run it with `since`; the watermark does not move back by it.

**Safe to re-run**, to clear at any task, and beside `daily_sync`: the two never publish an entity at the same time, and
the newer version wins whichever comes last. It works by the watermark, not by data interval.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from sluice.defaults import DAG_ARGS, TEMPLATE_SEARCHPATH
from sluice.sync import PARAMS, SQL_MACROS, sync_entities

with DAG(
    dag_id="delta_sync",
    schedule="*/15 * * * *",
    dagrun_timeout=timedelta(hours=2),
    params=PARAMS["delta"],
    template_searchpath=TEMPLATE_SEARCHPATH,
    user_defined_macros=SQL_MACROS,
    tags=["sync", "app"],
    description="What changed in customers, products and orders since the watermark",
    doc_md=__doc__,
    **DAG_ARGS,
):
    sync_entities(mode="delta")

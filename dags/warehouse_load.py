"""### The star schema and its marts, once a day

Brings what changed in `app` into the schema `warehouse` of `warehouse_db`: dimensions (customers with their versions),
`fact_sales` (one row an order item), and the marts `daily_sales`, `sales_by_region`, `sales_by_segment`.

**Each run**: *replicate* copies what changed, as it is at one moment, into `raw`; *begin* says what is affected;
*dimensions*, *facts* and *marts* build beside the tables that people read; *gate* compares what readers would see with
`raw`, to the cent; *publish* merges all of it in one transaction. Readers see all of it or none.

**When it fails** the warehouse is as it was. Read the failed task's log: it names the task to clear.

- *gate* failed: the log names views in `warehouse_build` that hold a row for all that is wrong; they are gone when the
  run ends. A run with `full` builds everything anew.
- *replicate* says who holds an entity: let that sync end; the retry goes on.

**Safe to re-run**, to clear at any task: the same rows come out, whatever was loaded before, and a second run changes
nothing. It works by now, not by data interval: lifecycle stages are told as of the time for which the run was made, or
the param `as_of`. `first_day` and `last_day` build the sales of these days anew. Days are those of the Variable
`business_timezone` (UTC), holidays those of `holiday_country` (US).
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain, setup, teardown

from sluice.defaults import DAG_ARGS
from sluice.operators.warehouse import MACROS, BuildOperator, LoadGateOperator, PublishLoadOperator
from sluice.sync import start
from sluice.warehouse import PARAMS, PUBLISH, begin, finish, replicate

with DAG(
    dag_id="warehouse_load",
    schedule="0 3 * * *",
    dagrun_timeout=timedelta(hours=6),
    params=PARAMS,
    user_defined_macros=MACROS,
    tags=["warehouse"],
    description="Dimensions, sales and marts, from what changed in app",
    doc_md=__doc__,
    **DAG_ARGS,
):
    opened, closed = setup(start)(), teardown(finish)()
    chain(
        opened,
        replicate(),
        begin(),
        BuildOperator(task_id="dimensions", step="dimensions"),
        BuildOperator(task_id="facts", step="facts"),
        BuildOperator(task_id="marts", step="marts"),
        LoadGateOperator(task_id="gate"),
        PublishLoadOperator(task_id=PUBLISH),
        closed,
    )
    opened >> closed

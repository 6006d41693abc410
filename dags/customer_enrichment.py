"""### Where customers are, their lifecycle stage, what they have spent

Derives from `app.customers` and `app.orders`, and writes into `app.customers`: `latitude` and `longitude` by address;
`lifecycle_stage` by the days since sign-up (new under 7, active under 30, engaged under 90, else dormant);
`lifetime_value` and `total_orders` from orders that are neither deleted nor cancelled.

**Each run**: *geocode* asks for the addresses that `operations.geocodes` lacks: the cities of GeoNames on this machine,
or the Nominatim server of the connection `geocoder` if there is one, once a second unless its extra has
`requests_per_second`. *enrich* writes the rows that change, in one transaction under the lock that publish takes. It
runs when customers or orders were published, and once a day, for stages change by themselves.

**When it fails** customers are as they were, and the next run makes up for it. *enrich* says which run holds customers:
let that one end; the retry goes on. A geocoder that is down or a wrong connection fails no task: the log of *geocode*
counts and explains it, `latitude` stays null, and the next run asks again; `quality_checks` fails where no customer has
one. What was not found is asked for again after 30 days.

**Safe to re-run**, to clear at any task, and beside syncs: a second run changes nothing. It works by today's rows and
answers; lifecycle stages are told as of the time for which the run was made (`run_after`) or the param `as_of`.
Clearing last month's run tells last month's stages, until the next run.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, setup, teardown

from sluice.assets import ENTITIES
from sluice.defaults import DAG_ARGS, TEMPLATE_SEARCHPATH
from sluice.enrichment import ENRICH, PARAMS, finish, geocode, run_time
from sluice.operators.enrich import MACROS, EnrichOperator
from sluice.sync import start

with DAG(
    dag_id="customer_enrichment",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("30 2 * * *", timezone="UTC"),
        assets=ENTITIES["customers"] | ENTITIES["orders"],
    ),
    dagrun_timeout=timedelta(hours=6),
    params=PARAMS,
    template_searchpath=TEMPLATE_SEARCHPATH,
    user_defined_macros=MACROS | {"run_time": run_time},
    tags=["enrichment", "app"],
    description="Location, lifecycle stage and lifetime value of customers, from addresses and orders",
    doc_md=__doc__,
    **DAG_ARGS,
):
    opened, closed = setup(start)(), teardown(finish)()
    enrich = EnrichOperator(task_id=ENRICH, geocode_task_id="geocode")
    opened >> geocode() >> enrich >> closed
    opened >> closed

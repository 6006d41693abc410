"""### Rejected records, once more

Takes pending letters of `operations.dead_letters` through today's contract, cleaning, gate and publish, as if the
source had just sent them; or discards them for a reason. The params choose by entity, id, error (a regular expression)
and age; all that are given must hold.

**Each letter** competes with the time at which it was fetched: it never beats a newer row. What is published is marked
`replayed`, what a newer row has overtaken `superseded`; what fails again stays pending, with the new error. The
watermark does not move, nothing is deleted.

**When it fails** nothing is published and every letter is as it was. Read the failed task's log. A dry run says how
many letters are chosen and how many would be rejected again.

**Safe to re-run**: a letter that was replayed is not pending any more, so that a second run chooses nothing. It works
by the letters that are pending now, not by data interval.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from sluice.defaults import DAG_ARGS, TEMPLATE_SEARCHPATH
from sluice.sync import PARAMS, SQL_MACROS, sync_entities

with DAG(
    dag_id="replay_dead_letters",
    schedule=None,
    dagrun_timeout=timedelta(hours=6),
    params=PARAMS["replay"],
    template_searchpath=TEMPLATE_SEARCHPATH,
    user_defined_macros=SQL_MACROS,
    tags=["dead-letters", "app"],
    description="Dead letters through today's code, or discarded for a reason",
    doc_md=__doc__,
    **DAG_ARGS,
):
    sync_entities(mode="replay")

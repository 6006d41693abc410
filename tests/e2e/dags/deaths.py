"""DAGs for tests of what dies: `daily_sync` of products alone, with limits so short that a test can wait for them.

And one whose checks fail where there are no orders.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, setup, teardown

from include.contracts.products import PRODUCTS
from sluice.defaults import DAG_ARGS, DEFAULT_ARGS, TEMPLATE_SEARCHPATH
from sluice.operators.quality import QualityOperator
from sluice.sync import PARAMS, SQL_MACROS, finish, start, sync_entity


def short_lived(dag_id: str, *, dagrun_timeout: timedelta = timedelta(hours=1), **default_args: Any) -> DAG:
    shared = {"max_active_runs": 8, "default_args": {**DEFAULT_ARGS, "retries": 0, **default_args}}
    with DAG(
        dag_id=dag_id,
        schedule=None,
        is_paused_upon_creation=False,
        dagrun_timeout=dagrun_timeout,
        params=PARAMS["snapshot"],
        template_searchpath=TEMPLATE_SEARCHPATH,
        user_defined_macros=SQL_MACROS,
        **{**DAG_ARGS, **shared},
    ) as dag:
        opened, closed = setup(start)(), teardown(finish)()
        opened >> sync_entity(PRODUCTS, mode="snapshot") >> closed
        opened >> closed
    return dag


no_tries_left = short_lived("no_tries_left")
one_try_left = short_lived("one_try_left", retries=1)
short_tasks = short_lived("short_tasks", execution_timeout=timedelta(seconds=3))
short_runs = short_lived("short_runs", dagrun_timeout=timedelta(seconds=8))

with DAG(dag_id="failing_checks", schedule=None, is_paused_upon_creation=False, **DAG_ARGS) as failing_checks:
    QualityOperator(suite="orders")

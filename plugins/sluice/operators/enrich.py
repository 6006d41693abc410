"""Enrich: one transaction that writes what is derived of customers, where it has changed."""

from __future__ import annotations

from typing import Any

import psycopg
from airflow.providers.common.sql.hooks.handlers import fetch_one_handler
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import Asset, Context
from airflow.sdk.exceptions import AirflowSkipException

from include.contracts.customers import CUSTOMERS
from include.load.publish import LOCK_SECONDS, holder
from include.transform.enrichment import GEOCODERS
from sluice.connections import UTC_SESSION, app_db

ENRICHED = Asset(name="app.customers.enriched", uri="x-sluice://app_db/app/customers/enriched", group="app")
"""Not the asset of customers itself: enrichment waits for that one, and would set itself off for ever."""

MACROS = {"geocoders": GEOCODERS}

TEMPLATE = """
{{%- set as_of = run_time(params, dag_run).isoformat() -%}}
{{%- set geocoder = ti.xcom_pull(task_ids='{geocode}')['geocoder'] -%}}
{{%- set parts = geocoders[geocoder].reads -%}}
{{%- set needs = geocoders[geocoder].needs -%}}
{{%- set dry_run = params.dry_run -%}}
{{%- set lock_seconds = {lock_seconds} -%}}
{{%- include 'enrichment/enrich.sql' -%}}
"""


class EnrichOperator(SQLExecuteQueryOperator):
    """Runs `enrichment/enrich.sql` by the answers of the geocoder that the task `geocode_task_id` names.

    Returns the counts. A dry run logs them and skips, so that nobody takes customers for enriched. The DAG's macros are
    `MACROS` and `run_time(params, dag_run)`, the time at which lifecycle stages are told.
    """

    def __init__(self, *, geocode_task_id: str, **kwargs: Any) -> None:
        super().__init__(
            conn_id="app_db",
            sql=TEMPLATE.format(geocode=geocode_task_id, lock_seconds=LOCK_SECONDS),
            split_statements=True,
            hook_params={"log_sql": False, "options": UTC_SESSION},
            outlets=[ENRICHED],
            **kwargs,
        )

    def execute(self, context: Context) -> dict[str, int]:
        try:
            # Not the provider's execute: it would write all of the statement into the log.
            result: Any = self.get_db_hook().run(self.sql, handler=fetch_one_handler, split_statements=True)
        except psycopg.errors.LockNotAvailable as error:
            with app_db() as connection:
                who = holder(connection, CUSTOMERS)
            raise TimeoutError(f"customers: waited {LOCK_SECONDS} s to enrich them; {who}") from error
        counts: dict[str, int] = result[0]
        dry_run = context["params"]["dry_run"]
        self.log.info(
            "%s live customers, of whom %s %s: %s in location, %s in lifecycle stage, %s in orders or lifetime value",
            *(f"{counts['customers']:,}", f"{counts['changed']:,}", "would change" if dry_run else "changed"),
            *(f"{counts[part]:,}" for part in ("moved", "restaged", "revalued")),
        )
        self.log.info(
            "%s have no address, %s one that is not found or not asked for yet",
            f"{counts['without_address']:,}",
            f"{counts['without_location']:,}",
        )
        if counts["without_lifetime_value"]:
            self.log.warning(
                "%s customers have a lifetime value beyond numeric(18,4), stored as null: look at their orders",
                f"{counts['without_lifetime_value']:,}",
            )
        if dry_run:
            raise AirflowSkipException(f"dry run: {counts['changed']:,} customers would change, nothing is written")
        return counts

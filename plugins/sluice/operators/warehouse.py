"""The steps of a load of the warehouse: its SQL, its gate, its publish."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import psycopg
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from include.load.publish import LOCK_SECONDS
from include.quality import gate
from include.warehouse import checks, load
from include.warehouse.load import Step
from sluice.assets import SALES
from sluice.connections import UTC_SESSION, warehouse_db, warehouse_db_url
from sluice.operators.evaluate import EvaluateOperator
from sluice.operators.publish import last_row, skip_in_a_dry_run
from sluice.warehouse import BEGIN

MACROS = {"load_step": lambda step, drawn: load.render(step, UUID(drawn))}
"""What the DAG's templates need: `load_step(step, id of the load)` is the SQL of a step."""

COUNTS = ("facts_inserted", "facts_updated", "facts_deleted", "orders_affected", "customers_affected")


class BuildOperator(SQLExecuteQueryOperator):
    """Does a step of the load that the task `begin` began, in one transaction; safe to repeat.

    What it refuses fails at once, naming the task to clear. Returns the last statement's row, if it gives one.
    """

    def __init__(self, *, step: Step, **kwargs: Any) -> None:
        super().__init__(
            conn_id="warehouse_db",
            sql=f"{{{{ load_step('{step}', ti.xcom_pull(task_ids='{BEGIN}')) }}}}",
            split_statements=True,
            hook_params={"log_sql": False, "enable_log_db_messages": True, "options": UTC_SESSION},
            **kwargs,
        )

    def execute(self, context: Context) -> dict[str, Any] | None:
        try:
            # Not the provider's execute: it would write all of the statement into the log.
            return cast(
                "dict[str, Any] | None",
                self.get_db_hook().run(self.sql, handler=last_row, split_statements=True),
            )
        except psycopg.errors.LockNotAvailable as error:
            raise TimeoutError(f"waited {LOCK_SECONDS} s for another load or replication") from error
        except psycopg.Error as error:
            message = error.diag.message_primary or str(error)
            if error.sqlstate == load.ALREADY_LOADED:
                self.log.info("%s", message)
                return None
            if error.sqlstate in (load.OVERTAKEN, load.RAW_MOVED, load.OUT_OF_ORDER):
                raise AirflowFailException(message) from error
            raise


class LoadGateOperator(EvaluateOperator):
    """Checks what readers would see of the load against raw; nothing is published past a failure.

    Returns how many expectations were met. What is wrong can be read, row by row, in the views that it names.
    """

    def execute(self, context: Context) -> int:
        drawn = UUID(context["ti"].xcom_pull(task_ids=BEGIN))
        with warehouse_db() as connection:
            load.run(connection, "checks", drawn)
        result = self.evaluate(context, "load", lambda: gate.evaluate(warehouse_db_url(), checks.declared(drawn)))
        if result.critical:
            raise AirflowFailException(f"nothing is published, {result.summary()}")
        return len(result.results)


class PublishLoadOperator(BuildOperator):
    """Merges the load into the tables that people read, in one transaction; returns what it changed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(step="publish", outlets=[SALES], pre_execute=skip_in_a_dry_run, **kwargs)

    def execute(self, context: Context) -> dict[str, int]:
        row = super().execute(context)
        if row is None:
            with warehouse_db() as connection:
                row = load.publish(connection, UUID(context["ti"].xcom_pull(task_ids=BEGIN)))
        self.log.info("%s", ", ".join(f"{row[name]:,} {name.replace('_', ' ')}" for name in COUNTS))
        return {name: row[name] for name in COUNTS}

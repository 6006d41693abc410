"""Gate: Great Expectations on what an execution staged; nothing is published past a critical failure."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from airflow.sdk import Context, Variable
from airflow.sdk.exceptions import AirflowFailException
from psycopg import Connection

from include.contracts import BY_NAME
from include.load import staging
from include.load.publish import queue_dead_letters
from include.operations import executions, sync_log
from include.operations.executions import Execution
from include.quality import gate
from include.transform.drift import Drift, drift
from sluice.connections import app_db, app_db_url
from sluice.operators.evaluate import EvaluateOperator

DRIFT_SHOWN = 20


class GateOperator(EvaluateOperator):
    """Checks the staging tables of the execution that `extract` drew.

    A critical failure queues the dead letters, publishes nothing and fails at once, naming the expectations: a retry
    would check the same rows. A warning passes, and is told when the run ends. Returns how many expectations were met
    and warned about.
    """

    def __init__(self, *, entity: str, extract_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = BY_NAME[entity]
        self.extract_task_id = extract_task_id

    def execute(self, context: Context) -> dict[str, int]:
        name = self.contract.name
        drawn = UUID(context["ti"].xcom_pull(task_ids=self.extract_task_id, key="execution"))
        with app_db() as connection:
            execution = executions.get(connection, drawn)
            if sync_log.published(connection, drawn) is not None:
                self.log.info("%s: execution %s is published already, nothing to check", name, drawn)
                return {"met": 0, "warnings": 0, "drift": 0}
            if not staging.exists(connection, self.contract, drawn):
                raise AirflowFailException(
                    f"{name}: what execution {drawn} staged is gone: clear {self.extract_task_id} to begin anew"
                )
            drifted = self._drift(connection, execution)
        share = float(Variable.get("max_quarantined_share", default="0.05"))
        result = self.evaluate(
            context, name, lambda: gate.run(app_db_url(), self.contract, execution, max_quarantined_share=share)
        )
        told = [found.text for found in drifted[:DRIFT_SHOWN]]
        if len(drifted) > DRIFT_SHOWN:
            told.append(f"and {len(drifted) - DRIFT_SHOWN} more: see `drift` in operations.sync_log")
        for text in told:
            self.log.warning("%s: schema drift: %s", name, text)
        stops = [result.summary()] if result.critical else []
        if drifted and self.contract.on_drift == "fail":
            stops += [f"schema drift: {text}" for text in told]
        if stops:
            if not context["params"]["dry_run"]:
                with app_db() as connection:
                    queue_dead_letters(connection, self.contract, drawn)
            raise AirflowFailException(f"{name}: nothing is published, {'; '.join(stops)}")
        met = sum(check.success for check in result.results)
        return {"met": met, "warnings": len(result.warnings), "drift": len(drifted)}

    def _drift(self, connection: Connection[Any], execution: Execution) -> list[Drift]:
        """How the fields of the source's records have drifted; noted with the execution. A replay asks no source."""
        if execution.mode == "replay":
            return []
        seen = staging.fields(connection, self.contract, execution.execution)
        found = drift(self.contract, seen, sync_log.fields(connection, self.contract.name))
        executions.note_fields(connection, execution.execution, seen, [one.to_dict() for one in found])
        return found

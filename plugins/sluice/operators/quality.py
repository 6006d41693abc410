"""Quality: a named suite over what is published; only what is critical fails the task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from include.quality import suites
from include.quality.gate import GateError, GateResult
from sluice.connections import app_db_url, warehouse_db_url
from sluice.defaults import LATE_AFTER
from sluice.operators.evaluate import EvaluateOperator


class QualityOperator(EvaluateOperator):
    """Evaluates a suite of `include/quality/suites.py`; returns how many expectations were met and warned about.

    A critical failure fails at once, naming the expectations: a retry would look at the same rows. An evaluation that
    itself fails is tried again.
    """

    def __init__(self, *, suite: str, **kwargs: Any) -> None:
        super().__init__(task_id=suite, **kwargs)
        self.suite = suite

    def execute(self, context: Context) -> dict[str, int]:
        result = self.evaluate(context, self.suite, self._evaluated)
        if result.critical:
            raise AirflowFailException(f"{self.suite}: {result.summary()}")
        return {"met": sum(check.success for check in result.results), "warnings": len(result.warnings)}

    def _evaluated(self) -> GateResult:
        try:
            app = app_db_url()
            warehouse = warehouse_db_url() if self.suite in suites.ON_WAREHOUSE else app
        except AirflowNotFoundException as error:
            raise GateError(f"{self.suite}: cannot be checked: {error}") from error
        return suites.evaluate(self.suite, app_url=app, warehouse_url=warehouse, late_after=LATE_AFTER)

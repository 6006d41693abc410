"""Evaluate: Great Expectations on tables; its results into `operations.quality_results`, and a page to look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from airflow.sdk import BaseOperator, Context

from include.masking import sentence
from include.operations import quality_results
from include.quality import data_docs
from include.quality.data_docs import DataDocsError
from include.quality.gate import CheckResult, GateError, GateResult
from sluice.connections import app_db
from sluice.data_docs import DataDocsLink, folder, path


class EvaluateOperator(BaseOperator):
    """What the gates and the quality checks have in common: a suite is evaluated, recorded and shown.

    An evaluation that itself fails is recorded too, and raises; a page that cannot be written is a warning and fails
    nothing.
    """

    operator_extra_links = (DataDocsLink(),)
    page = ""
    """The path of the evaluation's page in Airflow's UI, once there is one."""

    def evaluate(self, context: Context, suite: str, evaluated: Callable[[], GateResult]) -> GateResult:
        """Evaluates, records and shows; `suite` is what people know it by. Raises what `evaluated` raises."""
        evaluation = _id(context["ti"])
        try:
            result = evaluated()
        except GateError as error:
            self._record(context, evaluation, suite, GateResult((_failed("evaluation", "critical", error),)))
            raise
        for check in result.results:
            say = self.log.info if check.success else self.log.warning
            said = "met   " if check.success else check.severity
            say("%s %s: %s %s: %s", suite, said, check.name, check.column or "", check.observed)
        self._record(context, evaluation, suite, result)
        return result

    def _record(self, context: Context, evaluation: UUID, suite: str, result: GateResult) -> None:
        ti = context["ti"]
        of: dict[str, Any] = {
            "evaluation": evaluation,
            "pipeline": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
        }
        with app_db() as connection:
            quality_results.record(connection, **of, suite=suite, results=result.results)
        try:
            self._show(of, suite, result)
        except DataDocsError as error:
            self.log.warning("%s: %s", suite, error)
            told = (*result.results, _failed("data_docs_page", "warning", error))
            with app_db() as connection:
                quality_results.record(connection, **of, suite=suite, results=told)
        else:
            self.page = path(ti.dag_id, evaluation)

    def _show(self, of: dict[str, Any], suite: str, result: GateResult) -> None:
        pages = folder()
        data_docs.write_page(pages, **of, suite=suite, result=result)
        with app_db() as connection:
            data_docs.write_index(pages, connection, of["pipeline"])


def _id(ti: Any) -> UUID:
    """The same for one try of a task, whoever asks."""
    place = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{ti.try_number}"
    return uuid5(NAMESPACE_URL, f"x-sluice://evaluation/{place}")


def _failed(name: str, severity: Literal["critical", "warning"], error: Exception) -> CheckResult:
    return CheckResult(
        name=name,
        column=None,
        severity=severity,
        success=False,
        unexpected=0,
        observed=sentence(error),
        expected="no error",
    )

"""The gate: evaluates expectations on tables in Postgres with Great Expectations, and says what failed.

Counts leave it, never values: a sample of failing rows would print e-mail addresses into logs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg import errors
from sqlalchemy import URL, make_url

from include.contracts.contract import Contract
from include.operations.executions import Execution
from include.quality.expectations import Suite, declared

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.datasource.fluent.sql_datasource import SQLDatasource

RESULT_FORMAT: dict[str, Any] = {"result_format": "BASIC", "partial_unexpected_count": 0}
"""Counts without a sample: the queries for the failing values run with LIMIT 0."""


class GateError(Exception):
    """The evaluation itself failed: nothing is known of the data, and nothing may be published."""


@dataclass(frozen=True)
class CheckResult:
    """One expectation's result. `unexpected` counts rows; of a number of rows, by how many it is off.

    `column` is `table.column` for a child's, None for what concerns no single column. `observed` holds no values.
    """

    name: str
    column: str | None
    severity: Literal["critical", "warning"]
    success: bool
    unexpected: int
    observed: str

    def __str__(self) -> str:
        return f"{self.name}{f' of {self.column}' if self.column else ''}: {self.observed}"


@dataclass(frozen=True)
class GateResult:
    """All results, a suite after the other."""

    results: tuple[CheckResult, ...]

    @property
    def critical(self) -> tuple[CheckResult, ...]:
        """The failed ones that stop the entity."""
        return tuple(result for result in self.results if not result.success and result.severity == "critical")

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """The failed ones that alert and pass."""
        return tuple(result for result in self.results if not result.success and result.severity == "warning")

    def summary(self) -> str:
        """One line: how many expectations were evaluated, and those that failed, with their counts."""
        failed = len(self.critical) + len(self.warnings)
        if not failed:
            return f"all {len(self.results)} expectations are met"
        parts = [f"{failed} of {len(self.results)} expectations failed"]
        parts += [f"critical: {', '.join(map(str, self.critical))}"] if self.critical else []
        parts += [f"warning: {', '.join(map(str, self.warnings))}"] if self.warnings else []
        return "; ".join(parts)


def run(url: str | URL, contract: Contract, execution: Execution, *, max_quarantined_share: float) -> GateResult:
    """Checks what an execution has staged in the database at `url`.

    `max_quarantined_share` is the share (0 to 1) of the records read that may be rejected.

    Raises GateError where not all expectations could be evaluated.
    """
    try:
        suites = declared(contract, execution, max_quarantined_share=max_quarantined_share)
    except ValueError as error:  # pydantic's ValidationError of an expectation is one too
        raise GateError(f"{contract.name}: the expectations cannot be declared: {error}") from error
    return evaluate(url, suites)


def evaluate(url: str | URL, suites: Iterable[Suite]) -> GateResult:
    """Evaluates suites on the database at `url`; reads only.

    Raises GateError, naming relation, expectation and cause, where there is nothing to evaluate, a relation or column
    is missing, a query fails, or fewer expectations were evaluated than declared.
    """
    suites = list(suites)
    if not suites:
        raise GateError("no expectations are declared: a gate that checks nothing lets everything pass")
    with _source(url) as source:
        return GateResult(tuple(result for suite in suites for result in _evaluate(source, suite)))


def _evaluate(source: SQLDatasource, suite: Suite) -> list[CheckResult]:
    from great_expectations import ExpectationSuite

    if not suite.expectations:
        raise GateError(f"{suite.relation}: no expectations are declared for it")
    expected = ExpectationSuite(name=suite.relation)
    for expectation in suite.expectations:
        expected.add_expectation(expectation)
    try:
        found = _batch(source, suite.relation).validate(expected, result_format=RESULT_FORMAT).results
    except Exception as error:  # whatever it is, the data has not been checked
        raise GateError(f"{suite.relation}: cannot be checked: {_cause(str(error))}") from error
    failed = {_named(result): cause for result in found if (cause := _failure(result)) is not None}
    if failed:
        said = "; ".join(f"{name}: {cause}" for name, cause in failed.items())
        raise GateError(f"{suite.relation}: expectations could not be evaluated: {said}")
    if len(found) != len(suite.expectations):
        raise GateError(
            f"{suite.relation}: {len(suite.expectations)} expectations are declared, {len(found)} were evaluated; "
            "two that say the same count as one"
        )
    return [_check_result(result) for result in found]


def _batch(source: SQLDatasource, relation: str) -> Batch:
    if relation.startswith("("):
        query = source.add_query_asset(relation, query=relation[1:-1])
        return query.add_batch_definition_whole_table(relation).get_batch()
    schema, table = relation.split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a generic source takes the schema nowhere else
        asset = source.add_table_asset(relation, table_name=table, schema_name=schema)
    return asset.add_batch_definition_whole_table(relation).get_batch()


def _check_result(result: ExpectationValidationResult) -> CheckResult:
    config = result.expectation_config
    assert config is not None  # noqa: S101 - of a result that was evaluated
    found, bounds = result.result, config.kwargs
    if "unexpected_count" in found:
        unexpected = found["unexpected_count"] or 0  # a sum over no rows is null
        observed = f"{unexpected:,} of {found['element_count']:,} rows"
    elif config.type == "unexpected_rows_expectation":
        unexpected = found["observed_value"]
        observed = f"{unexpected:,} rows"
    else:
        rows = found["observed_value"]
        least = bounds.get("min_value", bounds.get("value"))
        most = bounds.get("max_value", bounds.get("value"))
        unexpected = max(0, 0 if least is None else least - rows, 0 if most is None else rows - most)
        wanted = [f"{word} {limit:,}" for word, limit in (("at least", least), ("at most", most)) if limit is not None]
        observed = f"{rows:,} rows, expected {f'{least:,}' if least == most else ' and '.join(wanted)}"
    return CheckResult(
        name=_meta(result).get("name", config.type),
        column=_meta(result).get("column"),
        severity="critical" if config.severity == "critical" else "warning",
        success=result.success is True,
        unexpected=unexpected,
        observed=observed,
    )


def _meta(result: ExpectationValidationResult) -> dict[str, Any]:
    return (result.expectation_config.meta if result.expectation_config else None) or {}


def _named(result: ExpectationValidationResult) -> str:
    meta, config = _meta(result), result.expectation_config
    name = meta.get("name") or (config.type if config else "an expectation")
    return f"{name} of {meta['column']}" if "column" in meta else str(name)


def _failure(result: ExpectationValidationResult) -> str | None:
    """Why an expectation was not evaluated; None if it was. What raised is told flat, or by each metric it needs."""
    info = result.exception_info or {}
    raised = [info] if "raised_exception" in info else list(info.values())
    for one in raised:
        if one["raised_exception"]:
            return _cause(str(one["exception_message"]))
    found = result.result
    counted = found and (not found.get("element_count") or found["unexpected_count"] is not None)
    return None if counted and result.success is not None else "it has no result"


def _cause(message: str) -> str:
    """A message's first line; of what Postgres says of a value that it cannot compute with, the kind alone."""
    first = next((line for line in message.splitlines() if line.strip()), "no reason given").strip()
    raised = re.search(r"\(psycopg\.errors\.(\w+)\)", first)
    if raised and issubclass(getattr(errors, raised[1]), errors.DataError):
        return f"Postgres cannot compute it: {raised[1]}"
    return first


@contextmanager
def _source(url: str | URL) -> Iterator[SQLDatasource]:
    """The database as a data source of a context in memory that writes no files and reports to nobody."""
    import great_expectations
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    target = make_url(url).set(drivername="postgresql+psycopg")
    context = great_expectations.get_context(mode="ephemeral", project_config=config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends its Postgres source, which refuses a URL without a host
            source = context.data_sources.add_sql("gate", connection_string=target.render_as_string(False))
    except Exception as error:
        raise GateError(f"{target.render_as_string()}: {_cause(str(error))}") from error
    try:
        yield source
    finally:
        source.get_engine().dispose()
        source.get_execution_engine().engine.dispose()

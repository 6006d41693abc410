"""The gate: evaluates expectations on tables in Postgres with Great Expectations, and says what failed.

Counts and keys leave it, never values: Great Expectations' own samples would print e-mail addresses into logs.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier
from psycopg.sql import Literal as Quoted
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from include.contracts.contract import Contract
from include.masking import mask_personal_data
from include.operations.executions import Execution
from include.quality.expectations import Suite, declared, escaped_colons

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.datasource.fluent.sql_datasource import SQLDatasource

logger = logging.getLogger(__name__)

RESULT_FORMAT: dict[str, Any] = {"result_format": "BASIC", "partial_unexpected_count": 0}
"""Counts without a sample: the queries for the failing values run with LIMIT 0."""
SAMPLED = 10


class GateError(Exception):
    """The evaluation itself failed: nothing is known of the data, and nothing may be published."""


@dataclass(frozen=True)
class CheckResult:
    """One expectation's result. `unexpected` counts rows; of a number of rows, by how many it is off.

    `column` is `table.column` for a child's, None for what concerns no single column. `expected` says in a few words
    what was. `observed` holds no values. `sample_keys` are keys of rows that fail, at most ten, the parts of each
    joined by `,`, in their order; e-mail addresses and phone numbers in them are masked.
    """

    name: str
    column: str | None
    severity: Literal["critical", "warning"]
    success: bool
    unexpected: int
    observed: str
    expected: str
    sample_keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}{f' of {self.column}' if self.column else ''}: {self.observed}"


@dataclass(frozen=True)
class GateResult:
    """All results, a suite after the other, and what Great Expectations says of each suite: counts, no values."""

    results: tuple[CheckResult, ...]
    validations: tuple[ExpectationSuiteValidationResult, ...] = field(default=(), compare=False, repr=False)

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
        _fetch_no_rows(source, suites)
        evaluated = [_evaluate(source, suite) for suite in suites]
    return GateResult(
        tuple(result for results, _ in evaluated for result in results),
        tuple(validation for _, validation in evaluated),
    )


def _fetch_no_rows(source: SQLDatasource, suites: Iterable[Suite]) -> None:
    """Great Expectations learns a query's columns by running it, and would fetch all its rows: here it gets none."""
    queries = {suite.relation[1:-1].strip() for suite in suites if suite.relation.startswith("(")}

    def without_rows(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        if statement.strip() in queries:
            statement = f"select * from (\n{statement}\n) as columns_only limit 0"  # noqa: S608 - a suite's
        return statement, parameters

    event.listen(source.get_execution_engine().engine, "before_cursor_execute", without_rows, retval=True)


def _evaluate(source: SQLDatasource, suite: Suite) -> tuple[list[CheckResult], ExpectationSuiteValidationResult]:
    from great_expectations import ExpectationSuite

    title = suite.title or suite.relation
    if not suite.expectations:
        raise GateError(f"{title}: no expectations are declared for it")
    try:
        expected = ExpectationSuite(name=title)
        for expectation in suite.expectations:
            expected.add_expectation(expectation)
        validation = _batch(source, suite.relation).validate(expected, result_format=RESULT_FORMAT)
    except Exception as error:  # whatever it is, the data has not been checked
        raise GateError(f"{title}: cannot be checked: {cause(str(error))}") from error
    found = validation.results
    failed = {_named(result): why for result in found if (why := _failure(result)) is not None}
    if failed:
        said = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise GateError(f"{title}: expectations could not be evaluated: {said}")
    if len(found) != len(suite.expectations):
        raise GateError(
            f"{title}: {len(suite.expectations)} expectations are declared, {len(found)} were evaluated; "
            "two that say the same count as one"
        )
    observed = _observed(source, suite)
    return [_check_result(source, suite, result, observed) for result in found], validation


def _observed(source: SQLDatasource, suite: Suite) -> dict[str, str]:
    """What the columns say in words that hold what was observed, of a relation of one row."""
    columns = [meta["observed"] for one in suite.expectations if "observed" in (meta := one.meta or {})]
    rows = _texts(source, suite, columns, SQL("true"), "what was observed") if columns else []
    return dict(zip(columns, rows[0], strict=True)) if rows else {}


def _batch(source: SQLDatasource, relation: str) -> Batch:
    if relation.startswith("("):
        # It compiles a query twice, which would double a percent sign, too: there must be none.
        query = source.add_query_asset(relation, query=escaped_colons(relation[1:-1], times=2))
        return query.get_batch(query.build_batch_request())
    schema, table = relation.split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a generic source takes the schema nowhere else
        asset = source.add_table_asset(relation, table_name=table, schema_name=schema)
    return asset.get_batch(asset.build_batch_request())


def _check_result(
    source: SQLDatasource, suite: Suite, result: ExpectationValidationResult, told: Mapping[str, str]
) -> CheckResult:
    config = result.expectation_config
    assert config is not None  # noqa: S101 - of a result that was evaluated
    found, meta = result.result, _meta(result)
    if "unexpected_count" in found:
        unexpected = found["unexpected_count"] or 0  # a sum over no rows is null
        observed = f"{unexpected:,} of {found['element_count']:,} rows"
    elif config.type == "unexpected_rows_expectation":
        unexpected = found["observed_value"]
        observed = f"{unexpected:,} rows"
    else:
        rows = found["observed_value"]
        least, most = _bounds(config.kwargs)
        unexpected = max(0, 0 if least is None else least - rows, 0 if most is None else rows - most)
        wanted = [f"{word} {limit:,}" for word, limit in (("at least", least), ("at most", most)) if limit is not None]
        observed = f"{rows:,} rows, expected {f'{least:,}' if least == most else ' and '.join(wanted)}"
    name = meta.get("name", config.type)
    success = result.success is True
    observed = told.get(meta.get("observed", ""), observed)
    failing = None if success or not suite.key else _failing(config.type, config.kwargs, meta)
    keys = [] if failing is None else _texts(source, suite, suite.key, failing, f"rows that fail {name}")
    return CheckResult(
        name=name,
        column=meta.get("column"),
        severity="critical" if config.severity == "critical" else "warning",
        success=success,
        unexpected=unexpected,
        observed=observed,
        expected=meta.get("expected") or _expected(config.type, config.kwargs) or name,
        sample_keys=tuple(map(",".join, keys)),
    )


def _bounds(kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    return tuple(kwargs.get(name, kwargs.get("value")) for name in ("min_value", "max_value"))


def _expected(kind: str, kwargs: Mapping[str, Any]) -> str:
    """What an expectation of this kind says, in a few words; nothing for a query."""
    least, most = _bounds(kwargs)
    match kind:
        case "expect_column_values_to_not_be_null":
            return "never null" if kwargs.get("mostly", 1) == 1 else "a value in some row"
        case "expect_column_values_to_be_between":
            return _range(least, most)
        case "expect_column_value_lengths_to_be_between":
            return f"{_range(least, most)} characters"
        case "expect_column_values_to_be_in_set":
            return f"one of {', '.join(map(str, kwargs['value_set']))}"
        case "expect_table_row_count_to_be_between" | "expect_table_row_count_to_equal":
            if most == 0:
                return "no rows"
            return f"{_range(least, most)} row{'' if most == 1 or (most is None and least == 1) else 's'}"
    return ""


def _range(least: Any, most: Any) -> str:
    # Great Expectations makes floats of whole numbers.
    least, most = (int(bound) if isinstance(bound, float) and bound.is_integer() else bound for bound in (least, most))
    if least == most:
        return f"exactly {least:,}"
    if least is None:
        return f"at most {most:,}"
    return f"at least {least:,}" if most is None else f"{least:,} to {most:,}"


def _failing(kind: str, kwargs: Mapping[str, Any], meta: Mapping[str, Any]) -> Composable | None:
    """The predicate of the rows that fail; None where a number of rows is missing, which has no keys."""
    if "failing" in meta:
        return SQL(meta["failing"])
    least, most = _bounds(kwargs)
    if kind.startswith("expect_table_row_count"):
        return None if most is None else SQL("true")
    column = Identifier(kwargs["column"])
    if kind == "expect_column_values_to_not_be_null":
        return SQL("{} is null").format(column)
    if kind == "expect_column_values_to_be_in_set":
        return SQL("{} not in ({})").format(column, SQL(", ").join(map(Quoted, kwargs["value_set"])))
    value = SQL("char_length({})" if "lengths" in kind else "{}").format(column)
    limits = [(SQL("<"), least), (SQL(">"), most)]
    return SQL(" or ").join(SQL("{} {} {}").format(value, sign, Quoted(v)) for sign, v in limits if v is not None)


def _texts(
    source: SQLDatasource, suite: Suite, columns: Iterable[str], where: Composable, name: str
) -> list[list[str]]:
    """The columns of the first rows that meet `where`, as text; no rows, and a warning, if it fails."""
    named = [Identifier(column) for column in columns]
    query = SQL("select {} from {} as staged where ({}\n) order by {} limit {}").format(
        SQL(", ").join(SQL("{}::text").format(column) for column in named),
        SQL(suite.relation),  # a name or a query of our own
        where,
        SQL(", ").join(SQL("staged.{}").format(column) for column in named),
        SQL(str(SAMPLED)),
    )
    try:
        connection = source.get_engine().raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            rows = cursor.fetchall()
        finally:
            connection.close()  # back to the pool, rolled back
    except (errors.Error, SQLAlchemyError) as error:
        logger.warning("%s: nothing is shown of %s: %s", suite.title or suite.relation, name, type(error).__name__)
        return []
    return [["null" if part is None else mask_personal_data(part) for part in row] for row in rows]


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
            return cause(str(one["exception_message"]))
    found = result.result
    counted = found and (not found.get("element_count") or found["unexpected_count"] is not None)
    return None if counted and result.success is not None else "it has no result"


def cause(message: str) -> str:
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
        raise GateError(f"{target.render_as_string()}: {cause(str(error))}") from error
    try:
        yield source
    finally:
        source.get_engine().dispose()
        source.get_execution_engine().engine.dispose()

"""What the gate expects of one execution's staging tables, derived from the contract.

Great Expectations takes seconds to import, so it is imported where expectations are made, never with this module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from include.contracts.contract import Check, Contract
from include.contracts.fields import FieldSpec
from include.database.entities import StagingNames
from include.operations.executions import Execution

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it logs some 200 lines while it is imported

BLOCKS_FROM = 200
"""Records read from which too large a share of rejected ones stops the entity: below, a handful would."""
KEY_SHARE = 0.05
FEW_SHARED_KEYS = 10


@dataclass(frozen=True)
class Suite:
    """Expectations about the rows of one relation: `schema.table`, or a SELECT in parentheses.

    `key` names the columns of which a failing row's key is shown; without one no keys are. `title` is the relation as
    people know it. An expectation's `meta` may give the `name` and the `column` under which its result is reported,
    what is `expected` in a few words, the predicate of the `failing` rows (of which the row may be called `staged`)
    where it does not follow from the expectation, and a column that holds what was `observed`, of a single row.
    """

    relation: str
    expectations: tuple[Expectation, ...]
    key: tuple[str, ...] = ()
    title: str = ""


def declared(contract: Contract, execution: Execution, *, max_quarantined_share: float) -> list[Suite]:
    """All that must hold before the execution is published, a suite a relation.

    `max_quarantined_share` is the share (0 to 1) of the records read that may be rejected; exactly that share passes.
    More is critical from 200 records on, unless the execution has `allow_quarantined`; otherwise it is a warning.

    Raises ValueError for a share outside 0 to 1, and for an execution whose pages have not all landed.
    """
    gx = great_expectations()
    if not 0 <= max_quarantined_share <= 1:
        raise ValueError(f"the share that may be quarantined must lie within 0 and 1, not {max_quarantined_share}")
    read = execution.records_read
    if read is None:
        raise ValueError(
            f"{contract.name}: execution {execution.execution} has not landed, how many records it read is unknown: "
            f"clear {execution.first_task} to begin anew"
        )
    names = StagingNames(contract, execution.execution)
    records, rejected = f"staging.{names.records}", f"staging.{names.rejected}"

    expectations = list(field_rules(contract.fields, never_null=contract.key))
    if contract.version is not None:
        expectations.append(gx.ExpectColumnValuesToNotBeNull(column="updated_at", meta={"column": "updated_at"}))
    # A tombstone need hold no more than its key.
    living = f"(select * from {records} where not is_deleted)" if contract.deleted else records  # noqa: S608 - our own
    expectations.extend(_check(check, living) for check in contract.checks)
    if execution.mode == "snapshot":
        expectations.append(row_count_floor(contract.minimum_rows))
    title = f"staged {contract.name}"
    suites = [Suite(living, tuple(expectations), contract.key, title)]

    for children in contract.children.values():
        rules = tuple(field_rules(children.fields, never_null=children.key, table=children.table))
        place = ("page", "position", *children.key)  # a child is staged without its parent's key
        suites.append(Suite(f"staging.{names.children(children)}", rules, place, f"staged {children.table}"))

    ceiling = gx.ExpectTableRowCountToBeBetween(
        max_value=int(Decimal(str(max_quarantined_share)) * read),
        severity="warning" if read < BLOCKS_FROM or execution.allow_quarantined else "critical",
        meta={"name": "quarantined_share"},
    )
    suites.append(Suite(rejected, (ceiling,), title=f"rejected {contract.name}"))

    complete = gx.ExpectTableRowCountToEqual(value=read, meta={"name": "completeness"})
    suites += _key(contract, living, read)
    everything = f"(select page from {records} union all select page from {rejected})"  # noqa: S608 - names of our own
    return [*suites, Suite(everything, (complete,), title=f"staged and rejected {contract.name}")]


def _key(contract: Contract, records: str, read: int) -> Iterator[Suite]:
    """That the key tells records apart: records of one key and version that differ are different records.

    A few are records that were changed while they were read; more than KEY_SHARE would be merged, and lost.
    """
    if not contract.content:
        return
    gx = great_expectations()
    key = ", ".join(contract.key)
    differing = f"""(
      select {key}
        from {records} as r
       where ({key}) in (select {key} from {records} as s group by {key} having count(*) > 1)
       group by {key}{", updated_at" if contract.version else ""}
      having count(distinct row({", ".join(contract.content)})) > 1
    )"""  # noqa: S608 - names of our own
    most = max(FEW_SHARED_KEYS, int(KEY_SHARE * read))
    unique = gx.ExpectTableRowCountToBeBetween(max_value=most, meta={"name": "key_tells_records_apart", "column": key})
    yield Suite(differing, (unique,), contract.key, f"staged {contract.name} that share a key")


def field_rules(specs: Iterable[FieldSpec], never_null: tuple[str, ...], table: str = "") -> Iterator[Expectation]:
    """What the record model says of its columns; null meets a range, a length or a choice, as in a CHECK."""
    gx = great_expectations()
    for spec in specs:
        meta = {"column": f"{table}.{spec.name}" if table else spec.name}
        if not spec.nullable or spec.name in never_null:
            yield gx.ExpectColumnValuesToNotBeNull(column=spec.name, meta=meta)
        if spec.minimum is not None or spec.maximum is not None:
            yield gx.ExpectColumnValuesToBeBetween(
                column=spec.name, min_value=spec.minimum, max_value=spec.maximum, meta=meta
            )
        if spec.min_length is not None or spec.max_length is not None:
            yield gx.ExpectColumnValueLengthsToBeBetween(
                column=spec.name, min_value=spec.min_length, max_value=spec.max_length, meta=meta
            )
        if spec.choices:
            yield gx.ExpectColumnValuesToBeInSet(column=spec.name, value_set=list(spec.choices), meta=meta)


def _check(check: Check, records: str) -> Expectation:
    """A contract's own check. A row for which the predicate is unknown (null) does not meet it.

    The predicate may call the row `staged`, to tell its columns from those of a subquery.
    """
    gx = great_expectations()
    predicate = escaped_colons(check.predicate).replace("{", "{{").replace("}", "}}")
    # Great Expectations gives {batch} an alias only in a query without JOIN, and prints a complaint about one without
    # {batch}: it stands in a comment, and the table's name in its place.
    query = f"select 1 from {records} as staged /* {{batch}} */ where (\n{predicate}\n) is not true"  # noqa: S608 - the contract's own SQL
    made: Expectation = gx.UnexpectedRowsExpectation(
        unexpected_rows_query=query,
        severity=check.severity,
        meta={"name": check.name, "failing": f"(\n{check.predicate}\n) is not true"},
    )
    return made


def escaped_colons(query: str, times: int = 1) -> str:
    """SQL that SQLAlchemy may read so many times without taking a `:word` for a parameter."""
    return re.sub(r"(?<![:\w\\]):(?=\w)", lambda _: "\\" * times + ":", query)


def no_rows(
    name: str,
    failing: str,
    *,
    key: tuple[str, ...],
    title: str,
    expected: str,
    column: str | None = None,
    severity: Literal["critical", "warning"] = "critical",
) -> Suite:
    """That a query of failing rows, which has the columns of `key`, gives none; one scan, unlike a custom query's."""
    expectation = great_expectations().ExpectTableRowCountToEqual(
        value=0, severity=severity, meta={"name": name, "expected": expected} | ({"column": column} if column else {})
    )
    return Suite(f"({failing})", (expectation,), key, title)


def unique(table: str, key: tuple[str, ...], *, name: str, column: str) -> Suite:
    """That no two rows of `schema.table` share the columns of `key`; reported as `name` of `column`."""
    columns = ", ".join(key)
    return no_rows(
        name,
        f"select {columns} from {table} group by {columns} having count(*) > 1",  # noqa: S608 - names of our own
        key=key,
        title=f"{table}, {columns}",
        expected="unique",
        column=column,
    )


def row_count_floor(rows: int, column: str | None = None) -> Expectation:
    """That the relation has at least so many rows; `column` is the table where it is not the entity's own."""
    meta = {"name": "row_count_floor"} | ({"column": column} if column else {})
    made: Expectation = great_expectations().ExpectTableRowCountToBeBetween(min_value=rows, meta=meta)
    return made


def not_all_null(name: str, *, column: str, is_of_the_source: bool = True) -> Expectation:
    """That a column has a value in some row; reported of `column`. Of the source's, a contract may say otherwise."""
    expected = "a value in some row"
    if is_of_the_source:
        expected += ", or its name in the contract's may_be_all_null"
    made: Expectation = great_expectations().ExpectColumnValuesToNotBeNull(
        column=name,
        mostly=1e-12,  # one value among as many rows as a table holds
        meta={"name": "not_all_null", "column": column, "expected": expected},
    )
    return made


def holds(
    name: str,
    flag: str,
    *,
    expected: str,
    column: str | None = None,
    observed: str | None = None,
    severity: Literal["critical", "warning"] = "critical",
) -> Expectation:
    """That a column of the relation, which is null where a condition does not hold, never is.

    Conditions of one relation are counted in one scan, together with the rules of its other columns.
    """
    told = {"name": name, "expected": expected, "column": column, "observed": observed}
    made: Expectation = great_expectations().ExpectColumnValuesToNotBeNull(
        column=flag, severity=severity, meta={key: text for key, text in told.items() if text is not None}
    )
    return made


def great_expectations() -> Any:
    """The module of its expectations; of Any, since it does not say in a way that mypy takes what it exports."""
    return import_module("great_expectations.expectations")

"""What is expected of `app`: of each entity's published tables, by its contract, and of the syncs that fill them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from include.contracts.contract import Children, Contract
from include.contracts.fields import FieldSpec
from include.quality.expectations import (
    Suite,
    field_rules,
    great_expectations,
    holds,
    no_rows,
    not_all_null,
    row_count_floor,
    unique,
)
from include.quality.gate import GateError

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

WEEKS = 4
"""Weeks of history that a weekday needs before a volume is compared with it."""
HISTORY = timedelta(weeks=26)
UNUSUAL = 3.5
"""The modified z-score beyond which a value is an outlier: Iglewicz and Hoaglin, How to Detect and Handle Outliers,
1993, section 3. Where more than half of the values are the same, the mean absolute deviation takes the median's place.
"""
LEAST_CHANGE = 0.01
"""A smaller change of a volume is usual, however little it varied before."""


def entity(contract: Contract, known: Iterable[str]) -> list[Suite]:
    """What is expected of an entity's published tables; `known` names the contracts that there are.

    Raises GateError where a check reads the table of a contract that is not there.
    """
    gx = great_expectations()
    table, key = contract.table, contract.key
    for check in contract.published_checks:
        if missing := sorted({*check.reads} - {*known}):
            raise GateError(
                f"{contract.name}: the published check {check.name!r} reads app.{missing[0]}, of which there is no "
                "contract: declare it, or take the check away"
            )
    columns = (*contract.fields, *contract.enriched)
    rules = [*field_rules(columns, never_null=key), *_never_all_null(contract, columns)]
    if contract.version is not None:
        rules.append(gx.ExpectColumnValuesToNotBeNull(column="updated_at", meta={"column": "updated_at"}))
    floor = row_count_floor(max(1, contract.minimum_rows))
    suites = [
        Suite(f"(select * from {table} where deleted_at is null)", (*rules, floor), key, f"{table}, living"),  # noqa: S608 - our own
        _unique(table, key),
        no_rows(
            "bookkeeping",
            f"""
            select {", ".join(key)}
              from {table}
             where fetched_at > now() + interval '1 day' or deleted_at < fetched_at or absent_since < fetched_at
            """,  # noqa: S608 - names of our own
            key=key,
            title=f"{table}, bookkeeping",
            expected="fetched in the past, deleted and absent since a later fetch",
        ),
    ]
    suites += [suite for children in contract.children.values() for suite in _children(contract, children)]
    suites += [
        no_rows(
            check.name,
            check.failing,
            key=key,
            title=f"{table}, {check.name}",
            expected=check.expected,
            column=check.column,
            severity=check.severity,
        )
        for check in contract.published_checks
    ]
    return suites


def _never_all_null(contract: Contract, specs: Iterable[FieldSpec], table: str = "") -> Iterator[Expectation]:
    """Of each column that may be null: that it is not always null, which no rule would notice."""
    for spec in specs:
        column = f"{table}{spec.name}"
        if spec.nullable and column not in contract.may_be_all_null:
            yield not_all_null(spec.name, column=column)


def _children(contract: Contract, children: Children) -> Iterator[Suite]:
    gx = great_expectations()
    table, key = f"app.{children.table}", (*children.parent, *children.key)
    rules = [
        *(
            gx.ExpectColumnValuesToNotBeNull(column=name, meta={"column": f"{children.table}.{name}"})
            for name in children.parent
        ),
        *field_rules(children.fields, never_null=children.key, table=children.table),
        *_never_all_null(contract, children.fields, f"{children.table}."),
    ]
    if children.minimum_rows:
        rules.append(row_count_floor(children.minimum_rows, children.table))
    yield Suite(table, tuple(rules), key, table)
    yield _unique(table, key)
    same = " and ".join(f"p.{own} = c.{name}" for name, own in zip(children.parent, contract.key, strict=True))
    yield no_rows(
        "parent_exists",
        f"select * from {table} as c where not exists (select from {contract.table} as p where {same})",  # noqa: S608 - our own
        key=key,
        title=f"{table} without {contract.table}",
        expected=f"a row of {contract.table}",
        column=f"{children.table}.{children.parent[0]}",
    )


def _unique(table: str, key: tuple[str, ...]) -> Suite:
    column = ", ".join(f"{table.removeprefix('app.')}.{name}" if len(key) > 1 else name for name in key)
    return unique(table, key, name="key_unique", column=column)


def syncs(contracts: Iterable[Contract], late_after: Mapping[str, timedelta]) -> list[Suite]:
    """That every entity was synced lately, in its usual volume, and that pipelines succeeded lately.

    `late_after` says for each pipeline how old its last success may be. Weekdays are those of UTC.
    """
    known = {contract.name: contract for contract in contracts}
    limits = {name: contract.fresh_within for name, contract in known.items()}
    suites = []
    if limits:
        flags = [
            expectation
            for name, limit in limits.items()
            for expectation in (
                holds(
                    f"{name}_synced_lately",
                    f"{name}_fresh",
                    observed=f"{name}_synced",
                    expected=f"synced within {_hours(limit)}",
                    severity="critical" if known[name].files is None else "warning",  # no new file is nothing to sync
                ),
                holds(
                    f"{name}_usual_volume",
                    f"{name}_usual",
                    observed=f"{name}_volume",
                    expected=f"a modified z-score within {UNUSUAL}, or less than {LEAST_CHANGE:.0%} from the median",
                    severity="warning",
                ),
            )
        ]
        suites.append(Suite(f"({_sync_row(limits)})", tuple(flags), title="operations.sync_log"))
    if late_after:
        succeeded = [
            holds(
                f"{pipeline}_succeeded_lately",
                f"fresh_{number}",
                observed=f"succeeded_{number}",
                expected=f"succeeded within {_hours(limit)}",
                severity="warning",
            )
            for number, (pipeline, limit) in enumerate(late_after.items())
        ]
        suites.append(Suite(f"({_run_row(late_after)})", tuple(succeeded), title="operations.last_good_runs"))
    return suites


def _hours(limit: timedelta) -> str:
    return f"{limit / timedelta(hours=1):g} hours"


def _sync_row(limits: Mapping[str, timedelta]) -> str:
    """A query of one row: of each entity whether it is fresh and its volume usual, and both in words."""
    listed = ", ".join(f"('{name}', {limit.total_seconds()})" for name, limit in limits.items())
    columns = ", ".join(
        f"""
        bool_or(fresh) filter (where entity = '{name}') as {name}_fresh,
        max(synced) filter (where entity = '{name}') as {name}_synced,
        bool_or(usual) filter (where entity = '{name}') as {name}_usual,
        max(volume) filter (where entity = '{name}') as {name}_volume"""
        for name in limits
    )
    return f"""
      select {columns} from (
      with entities (entity, seconds) as (values {listed}),
      days as (
        -- the last snapshot of each day
        select distinct on (entity, day) entity, day, records_read
          from (
            select entity, (synced_at at time zone 'UTC')::date as day, records_read, id
              from operations.sync_log
             where mode = 'snapshot'
          ) as snapshots
         order by entity, day, id desc
      ),
      newest as (select distinct on (entity) entity, day, records_read from days order by entity, day desc),
      history as (
        select n.entity, n.day, n.records_read as newest, d.records_read
          from newest n
          join days d
            on d.entity = n.entity
           and d.day < n.day
           and d.day >= n.day - {HISTORY.days}
           and extract(isodow from d.day) = extract(isodow from n.day)
      ),
      medians as (
        select entity, count(*) as weeks, percentile_cont(0.5) within group (order by records_read) as median
          from history
         group by entity
      ),
      deviations as (
        select
          entity,
          percentile_cont(0.5) within group (order by abs(h.records_read - m.median)) as mad,
          avg(abs(h.records_read - m.median)) as mean
        from history h
        join medians m using (entity)
        group by entity
      ),
      scored as (
        select
          e.entity,
          e.seconds,
          n.day,
          n.records_read,
          coalesce(m.weeks, 0) as weeks,
          m.median,
          case
            when m.weeks < {WEEKS} or m.weeks is null then null
            when abs(n.records_read - m.median) < {LEAST_CHANGE} * m.median or n.records_read = m.median then 0
            when d.mad > 0 then 0.6745 * (n.records_read - m.median) / d.mad
            when d.mean > 0 then (n.records_read - m.median) / (1.253314 * d.mean)
            else 'Infinity'::float8 * sign(n.records_read - m.median)
          end as score,
          -- a replay asks no source
          (
            select max(synced_at) from operations.sync_log s where s.entity = e.entity and s.mode <> 'replay'
          ) as synced_at
        from entities e
        left join newest n using (entity)
        left join medians m using (entity)
        left join deviations d using (entity)
      ),
      said as (
        select
          entity,
          case when synced_at >= now() - make_interval(secs => seconds) then true end as fresh,
          coalesce(
            'synced at ' || to_char(synced_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC', 'never synced'
          ) as synced,
          case when score is null or abs(score) <= {UNUSUAL} then true end as usual,
          case
            when day is null then 'no snapshot yet'
            when score is null then records_read || ' records, with ' || weeks || ' of {WEEKS} weeks of history'
            else records_read || ' records, the median of ' || weeks || ' weeks is ' || median || ', z-score '
                 || round(score::numeric, 1)
          end as volume
        from scored
      )
      select * from said
      ) as said
    """  # noqa: S608 - names of contracts and numbers


def _run_row(late_after: Mapping[str, timedelta]) -> str:
    """A query of one row: of each pipeline whether it succeeded lately, and when that was in words.

    One that never ran is not late, one that never succeeded counts from its first run: as the alerts take it.
    """
    quoted = [pipeline.replace("'", "''") for pipeline in late_after]
    seconds = [limit.total_seconds() for limit in late_after.values()]
    listed = ", ".join(f"({number}, '{quoted[number]}', {seconds[number]})" for number in range(len(quoted)))
    columns = ", ".join(
        f"""
        bool_or(true) filter (where number = {number} and since <= make_interval(secs => seconds)) as fresh_{number},
        max(told) filter (where number = {number}) as succeeded_{number}"""
        for number in range(len(late_after))
    )
    return f"""
      select {columns} from (
        select
          number,
          seconds,
          coalesce(clock_timestamp() - coalesce(ended_at, first_started_at), interval '0') as since,
          case
            when first_started_at is null then 'never ran'
            when ended_at is null then 'never succeeded'
            else 'ended at ' || to_char(ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC'
          end as told
        from (values {listed}) as limits (number, pipeline, seconds)
        left join operations.last_good_runs using (pipeline)
      ) as runs
    """  # noqa: S608 - names of pipelines and numbers

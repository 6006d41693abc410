"""The gate on real staging tables: what is broken in them, and nothing else, is what it reports."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from sqlalchemy import URL, make_url

from include.contracts.contract import Check, Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.database.entities import StagingNames
from include.load import staging
from include.operations import executions
from include.operations.executions import Execution, Run
from include.quality import gate
from include.quality.expectations import Suite, declared
from include.quality.gate import CheckResult, GateError, GateResult

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
LENGTH = "expect_column_value_lengths_to_be_between"
CHOICE = "expect_column_values_to_be_in_set"

ROWS = {
    # every bound is met exactly by some row, and so are nulls where they may stand
    "customers": """
        insert into {} (page, position, id, name, email, age, tags, segment, signup_date, updated_at)
        select 1, i, lpad(to_hex(i), 32, '0')::uuid, repeat('n', 1 + mod(i, 2) * 99),
               repeat('e', 241 + mod(i, 2)) || '@example.org',
               (array[0, 150, null])[1 + mod(i, 3)], '{{}}', (array['smb', 'consumer', null])[1 + mod(i, 3)],
               now(), now()
          from generate_series(1, %s) i""",
    "orders": """
        insert into {} (page, position, id, customer_id, status, total, created_at, updated_at)
        select 1, i, repeat('o', 1 + mod(i, 2) * 199), null, 'paid', 10, now(), now()
          from generate_series(1, %s) i""",
    "products": """
        insert into {} (page, position, id, name, price, updated_at)
        select 1, i, 'p' || i, 'Spade', 0, now()
          from generate_series(1, %s) i""",
}
REJECTED = """
    insert into {} (page, position, record_key, key_readable, stage, error, payload_raw, landing_ref)
    select 2, i, 'k' || i, true, 'validate', 'age: -1', '\\x00', 'here'
      from generate_series(1, %s) i"""
ITEMS = """
    insert into {} (page, position, line_number, product_id, quantity, price, discount)
    select page, position, 1, case when position > 1 then 'p' end, 1, 0, 0
      from {}"""


@pytest.fixture
def connection(app_database: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(app_database, autocommit=True) as opened:
        yield opened


def stage(
    connection: Connection[Any],
    contract: Contract,
    *,
    valid: int = 3,
    rejected: int = 0,
    read: int | None = None,
    mode: Literal["snapshot", "delta"] = "snapshot",
    allow_quarantined: bool = False,
) -> Execution:
    """An execution that has staged so many rows, all of them good; `read` is the sum unless it is said."""
    drawn = executions.begin(
        connection,
        Run(contract.name, "daily_sync", "manual"),
        mode=mode,
        landing_uri="file:///landing",
        options={"allow_quarantined": allow_quarantined},
    )
    staging.create(connection, contract, drawn.execution, datetime(2026, 1, 15, 8, tzinfo=UTC))
    names = StagingNames(contract, drawn.execution)
    records = f"staging.{names.records}"
    connection.execute(ROWS[contract.name].format(records), (valid,))
    connection.execute(REJECTED.format(f"staging.{names.rejected}"), (rejected,))
    for children in contract.children.values():
        connection.execute(ITEMS.format(f"staging.{names.children(children)}", records))
    landed_at = datetime(2024, 5, 1, tzinfo=UTC)
    count = valid + rejected if read is None else read
    executions.landed(connection, drawn.execution, fetched_at=landed_at, records_read=count)
    return executions.get(connection, drawn.execution)


def records_of(contract: Contract, execution: Execution) -> str:
    return f"staging.{StagingNames(contract, execution.execution).records}"


def loosen(connection: Connection[Any], table: str) -> None:
    """Drops the table's CHECK and NOT NULL constraints: the gate must see what they would have refused."""
    checks = connection.execute(
        "select conname from pg_constraint where conrelid = %s::regclass and contype = 'c'", (table,)
    ).fetchall()
    columns = connection.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and attnotnull", (table,)
    ).fetchall()
    assert columns
    for (name,) in checks:
        connection.execute(f'alter table {table} drop constraint "{name}"')
    for (name,) in columns:
        connection.execute(f"alter table {table} alter column {name} drop not null")


def customer_ids(*numbers: int) -> tuple[str, ...]:
    return tuple(str(UUID(int=number)) for number in numbers)


def run(url: str | URL, contract: Contract, execution: Execution, share: float = 0.05) -> GateResult:
    return gate.run(url, contract, execution, max_quarantined_share=share)


def test_every_rule_of_the_record_model_is_evaluated(app_database: str, connection: Connection[Any]) -> None:
    result = run(app_database, CUSTOMERS, stage(connection, CUSTOMERS))

    of_rows = "0 of 3 rows"
    assert [(r.name, r.column, r.observed) for r in result.results] == [
        (NOT_NULL, "id", of_rows),
        (NOT_NULL, "name", of_rows),
        (LENGTH, "name", of_rows),
        (NOT_NULL, "email", of_rows),
        (LENGTH, "email", of_rows),
        (BETWEEN, "age", of_rows),
        (NOT_NULL, "tags", of_rows),
        (CHOICE, "segment", of_rows),
        (NOT_NULL, "signup_date", of_rows),
        (NOT_NULL, "updated_at", of_rows),
        ("row_count_floor", None, "3 rows, expected at least 1"),
        ("quarantined_share", None, "0 rows, expected at most 0"),
        ("key_tells_records_apart", "id", "0 rows, expected at most 10"),
        ("completeness", None, "3 rows, expected 3"),
    ]
    assert all(r.success and r.unexpected == 0 and r.sample_keys == () for r in result.results)
    assert [r.expected for r in result.results] == [
        *("never null", "never null", "1 to 100 characters", "never null", "at most 254 characters", "0 to 150"),
        *("never null", "one of enterprise, smb, consumer", "never null", "never null", "at least 1 row", "no rows"),
        *("at most 10 rows", "exactly 3 rows"),
    ]
    assert [(v.suite_name, len(v.results)) for v in result.validations] == [
        ("staged customers", 11),
        ("rejected customers", 1),
        ("staged customers that share a key", 1),
        ("staged and rejected customers", 1),
    ]
    assert result.summary() == "all 14 expectations are met"


def test_rules_of_children_are_evaluated_on_their_own_table(app_database: str, connection: Connection[Any]) -> None:
    result = run(app_database, ORDERS, stage(connection, ORDERS))

    assert [(r.name, r.column) for r in result.results if (r.column or "").startswith("order_items.")] == [
        (NOT_NULL, "order_items.line_number"),
        (BETWEEN, "order_items.line_number"),
        (LENGTH, "order_items.product_id"),
        (NOT_NULL, "order_items.quantity"),
        (BETWEEN, "order_items.quantity"),
        (NOT_NULL, "order_items.price"),
        (BETWEEN, "order_items.price"),
        (NOT_NULL, "order_items.discount"),
        (BETWEEN, "order_items.discount"),
    ]
    assert (result.critical, result.warnings) == ((), ())


STATUSES = "one of pending, paid, shipped, delivered, cancelled, refunded"
BROKEN = [
    (CUSTOMERS, "id", "null", NOT_NULL, "never null"),
    (CUSTOMERS, "name", "null", NOT_NULL, "never null"),
    (CUSTOMERS, "name", "''", LENGTH, "1 to 100 characters"),
    (CUSTOMERS, "name", "repeat('ä', 101)", LENGTH, "1 to 100 characters"),
    (CUSTOMERS, "email", "null", NOT_NULL, "never null"),
    (CUSTOMERS, "email", "repeat('e', 255)", LENGTH, "at most 254 characters"),
    (CUSTOMERS, "age", "-1", BETWEEN, "0 to 150"),
    (CUSTOMERS, "age", "151", BETWEEN, "0 to 150"),
    (CUSTOMERS, "tags", "null", NOT_NULL, "never null"),
    (CUSTOMERS, "segment", "'SMB'", CHOICE, "one of enterprise, smb, consumer"),
    (CUSTOMERS, "signup_date", "null", NOT_NULL, "never null"),
    (CUSTOMERS, "updated_at", "null", NOT_NULL, "never null"),
    (PRODUCTS, "id", "null", NOT_NULL, "never null"),
    (PRODUCTS, "id", "''", LENGTH, "1 to 200 characters"),
    (PRODUCTS, "name", "null", NOT_NULL, "never null"),
    (PRODUCTS, "name", "''", LENGTH, "1 to 200 characters"),
    (PRODUCTS, "price", "-0.0001", BETWEEN, "at least 0"),
    (PRODUCTS, "updated_at", "null", NOT_NULL, "never null"),
    (ORDERS, "id", "null", NOT_NULL, "never null"),
    (ORDERS, "id", "''", LENGTH, "1 to 200 characters"),
    (ORDERS, "status", "null", NOT_NULL, "never null"),
    (ORDERS, "status", "'lost'", CHOICE, STATUSES),
    (ORDERS, "total", "null", NOT_NULL, "never null"),
    (ORDERS, "created_at", "null", NOT_NULL, "never null"),
    (ORDERS, "updated_at", "null", NOT_NULL, "never null"),
    (ORDERS, "order_items.line_number", "null", NOT_NULL, "never null"),
    (ORDERS, "order_items.line_number", "0", BETWEEN, "at least 1"),
    (ORDERS, "order_items.product_id", "''", LENGTH, "1 to 200 characters"),
    (ORDERS, "order_items.quantity", "null", NOT_NULL, "never null"),
    (ORDERS, "order_items.quantity", "0", BETWEEN, "at least 1"),
    (ORDERS, "order_items.price", "null", NOT_NULL, "never null"),
    (ORDERS, "order_items.price", "-1", BETWEEN, "at least 0"),
    (ORDERS, "order_items.discount", "null", NOT_NULL, "never null"),
    (ORDERS, "order_items.discount", "-1", BETWEEN, "at least 0"),
]
"""Contract, column, the value that breaks its expectation, the expectation's name, and what it expects."""
ELSEWHERE = {"row_count_floor", "quarantined_share", "key_tells_records_apart", "completeness"}
"""Expectations of numbers of rows, each broken in a test of its own."""


@pytest.mark.parametrize("contract", [CUSTOMERS, PRODUCTS, ORDERS], ids=lambda contract: contract.name)
def test_every_expectation_is_broken_by_a_test(
    app_database: str, connection: Connection[Any], contract: Contract
) -> None:
    result = run(app_database, contract, stage(connection, contract))
    broken = {(name, column) for of, column, _, name, _ in BROKEN if of is contract}
    assert {(r.name, r.column) for r in result.results if r.name not in ELSEWHERE} == broken
    assert {r.name for r in result.results} >= ELSEWHERE


@pytest.mark.parametrize(("contract", "column", "value", "name", "expected"), BROKEN)
def test_one_broken_value_fails_exactly_its_expectation(
    app_database: str,
    connection: Connection[Any],
    contract: Contract,
    column: str,
    value: str,
    name: str,
    expected: str,
) -> None:
    execution = stage(connection, contract)
    table = records_of(contract, execution)
    if "." in column:
        table = f"staging.{StagingNames(contract, execution.execution).children(contract.children['items'])}"
    loosen(connection, table)
    connection.execute(f"update {table} set {column.split('.')[-1]} = {value} where position = 2")

    result = run(app_database, contract, execution)

    key = {"customers": str(UUID(int=2)), "products": "p2", "orders": "o"}[contract.name]
    if "." in column:
        key = "1,2,1"  # page, position, line number
    if column.split(".")[-1] in ("id", "line_number"):
        key = key.removesuffix(key.split(",")[-1]) + value.strip("'")
    broken = CheckResult(name, column, "critical", False, 1, "1 of 3 rows", expected, (key,))
    assert [r for r in result.results if not r.success] == [broken]
    assert (result.critical, result.warnings) == ((broken,), ())
    assert result.summary() == (
        f"1 of {len(result.results)} expectations failed; critical: {name} of {column}: 1 of 3 rows"
    )


def test_a_column_without_any_value_is_blocked(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, CUSTOMERS)
    table = records_of(CUSTOMERS, execution)
    loosen(connection, table)
    connection.execute(f"update {table} set email = null")

    result = run(app_database, CUSTOMERS, execution)

    assert result.critical == (
        CheckResult(NOT_NULL, "email", "critical", False, 3, "3 of 3 rows", "never null", customer_ids(1, 2, 3)),
    )


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_a_contracts_check_fails_with_its_own_severity(
    app_database: str, connection: Connection[Any], severity: Literal["critical", "warning"]
) -> None:
    contract = replace(CUSTOMERS, checks=(Check("adult", "age >= 18", severity=severity),))
    execution = stage(connection, contract)

    result = run(app_database, contract, execution)

    # ages are 150, null and 0: a null is not known to be 18
    failed = (CheckResult("adult", None, severity, False, 2, "2 rows", "adult", customer_ids(2, 3)),)
    assert (result.critical, result.warnings) == ((failed, ()) if severity == "critical" else ((), failed))
    assert result.summary() == f"1 of 15 expectations failed; {severity}: adult: 2 rows"


@pytest.mark.parametrize(
    "predicate",
    [
        "email like '%@%'",
        "name ~ '^n{1,100}$'",
        "name <> ' :word' and updated_at::date <= current_date",
        "tags = '{}'::text[] -- a comment at its end",
        "not exists (select from app.orders o join app.order_items on order_id = o.id where o.customer_id = staged.id)",
    ],
)
def test_a_predicate_is_sql_as_it_stands(app_database: str, connection: Connection[Any], predicate: str) -> None:
    contract = replace(CUSTOMERS, checks=(Check("met", predicate), Check("not met", f"not (\n{predicate}\n)")))
    execution = stage(connection, contract)

    result = run(app_database, contract, execution)

    assert result.critical == (
        CheckResult("not met", None, "critical", False, 3, "3 rows", "not met", customer_ids(1, 2, 3)),
    )


def test_an_empty_snapshot_is_blocked(app_database: str, connection: Connection[Any]) -> None:
    result = run(app_database, CUSTOMERS, stage(connection, CUSTOMERS, valid=0))

    floor = CheckResult("row_count_floor", None, "critical", False, 1, "0 rows, expected at least 1", "at least 1 row")
    assert [r for r in result.results if not r.success] == [floor]


def test_the_floor_is_the_contracts(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, PRODUCTS, valid=3)

    assert run(app_database, replace(PRODUCTS, minimum_rows=3), execution).critical == ()
    assert run(app_database, replace(PRODUCTS, minimum_rows=5), execution).critical == (
        CheckResult("row_count_floor", None, "critical", False, 2, "3 rows, expected at least 5", "at least 5 rows"),
    )


def test_an_empty_delta_passes(app_database: str, connection: Connection[Any]) -> None:
    result = run(app_database, CUSTOMERS, stage(connection, CUSTOMERS, valid=0, mode="delta"))

    assert "row_count_floor" not in {r.name for r in result.results}
    assert result.summary() == "all 13 expectations are met"


@pytest.mark.parametrize(
    ("read", "rejected", "share", "allow", "failed"),
    [
        (200, 10, 0.05, False, None),  # exactly the share
        (200, 11, 0.05, False, "critical"),
        (200, 11, 0.05, True, "warning"),
        (199, 10, 0.05, False, "warning"),
        (199, 9, 0.05, False, None),
        (200, 58, 0.29, False, None),  # as floats 0.29 * 200 is less than 58
        (200, 1, 0, False, "critical"),
        (200, 199, 1, False, None),
    ],
)
def test_the_share_quarantined_has_a_ceiling(
    app_database: str,
    connection: Connection[Any],
    read: int,
    rejected: int,
    share: float,
    allow: bool,
    failed: str | None,
) -> None:
    execution = stage(connection, PRODUCTS, valid=read - rejected, rejected=rejected, allow_quarantined=allow)

    result = run(app_database, PRODUCTS, execution, share)

    names = {
        "critical": [r.name for r in result.critical],
        "warning": [r.name for r in result.warnings],
    }
    expected: dict[str, list[str]] = {"critical": [], "warning": []}
    if failed:
        expected[failed] = ["quarantined_share"]
    assert names == expected


@pytest.mark.parametrize(("shared", "passes"), [(21, True), (23, False)])
def test_a_key_that_does_not_tell_records_apart_is_blocked(
    app_database: str, connection: Connection[Any], shared: int, passes: bool
) -> None:
    execution = stage(connection, PRODUCTS, valid=100)
    table = records_of(PRODUCTS, execution)
    connection.execute(
        f"update {table} set id = 'p' || (position / 2), name = name || position where position <= {shared}"
    )

    result = run(app_database, PRODUCTS, execution)

    keys = tuple(sorted(f"p{number}" for number in range(1, 12)))[:10]
    observed = "11 rows, expected at most 10"
    failed = CheckResult("key_tells_records_apart", "id", "critical", False, 1, observed, "at most 10 rows", keys)
    assert result.critical == (() if passes else (failed,))


def test_a_record_that_came_twice_or_in_two_versions_shares_no_key(
    app_database: str, connection: Connection[Any]
) -> None:
    execution = stage(connection, PRODUCTS, valid=100)
    table = records_of(PRODUCTS, execution)
    connection.execute(f"update {table} set id = 'p' || (position / 2)")
    connection.execute(
        f"update {table} set name = name || position, updated_at = now() + position * interval '1s' where position > 50"
    )

    assert run(app_database, PRODUCTS, execution).critical == ()


@pytest.mark.parametrize(("read", "off"), [(6, 1), (4, 1), (12, 7)])
def test_every_record_read_must_be_staged_or_rejected(
    app_database: str, connection: Connection[Any], read: int, off: int
) -> None:
    execution = stage(connection, PRODUCTS, valid=4, rejected=1, read=read, allow_quarantined=True)

    result = run(app_database, PRODUCTS, execution, share=1)

    lost = CheckResult("completeness", None, "critical", False, off, f"5 rows, expected {read}", f"exactly {read} rows")
    assert [r for r in result.results if not r.success] == [lost]


def test_at_most_ten_keys_are_shown_the_first_ones(app_database: str, connection: Connection[Any]) -> None:
    contract = replace(CUSTOMERS, checks=(Check("early", "staged.position < 3"),))

    result = run(app_database, contract, stage(connection, contract, valid=50))

    assert [(r.unexpected, r.sample_keys) for r in result.critical] == [(48, customer_ids(*range(3, 13)))]


def test_addresses_in_keys_are_masked(app_database: str, connection: Connection[Any]) -> None:
    contract = replace(PRODUCTS, checks=(Check("no address", "id not like '%@%'"),))
    execution = stage(connection, contract, valid=2)
    records = records_of(contract, execution)
    for key, masked in (("shop/jane.doe@example.org", "shop/***"), ("tel +1 650-253-0000 @", "tel *** @")):
        connection.execute(f"update {records} set id = %s where id like '%%@%%' or id = 'p2'", (key,))
        assert [r.sample_keys for r in run(app_database, contract, execution).critical] == [(masked,)]


def test_a_result_stands_without_its_keys(
    app_database: str, connection: Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    execution = stage(connection, PRODUCTS)
    records = declared(PRODUCTS, execution, max_quarantined_share=0)[0]
    loosen(connection, records_of(PRODUCTS, execution))
    connection.execute(f"update {records_of(PRODUCTS, execution)} set price = -1 where position = 1")

    result = gate.evaluate(app_database, [replace(records, key=("no_such_column",))])

    assert [(r.name, r.unexpected, r.sample_keys) for r in result.critical] == [(BETWEEN, 1, ())]
    assert caplog.messages == [f"staged products: nothing is shown of rows that fail {BETWEEN}: UndefinedColumn"]


def test_a_missing_table_is_an_error(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, ORDERS)
    items = StagingNames(ORDERS, execution.execution).children(ORDERS.children["items"])
    connection.execute(f"drop table staging.{items}")

    with pytest.raises(GateError, match=f'relation "staging.{items}" does not exist'):
        run(app_database, ORDERS, execution)


def test_a_renamed_column_is_an_error(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, CUSTOMERS)
    connection.execute(f"alter table {records_of(CUSTOMERS, execution)} rename column segment to sector")

    with pytest.raises(GateError, match=f'{CHOICE} of segment: .*"segment" in BatchData does not exist'):
        run(app_database, CUSTOMERS, execution)


@pytest.mark.parametrize(
    ("predicate", "cause"),
    [
        ("emial is not null", r'misspelt: \(psycopg.errors.UndefinedColumn\) column "emial" does not exist$'),
        ("email is is", r"misspelt: \(psycopg.errors.SyntaxError\) syntax error"),
        ("email::int > 3", r"misspelt: Postgres cannot compute it: InvalidTextRepresentation$"),
    ],
)
def test_a_query_that_fails_is_an_error_that_shows_no_value(
    app_database: str, connection: Connection[Any], predicate: str, cause: str
) -> None:
    contract = replace(CUSTOMERS, checks=(Check("misspelt", predicate, severity="warning"),))

    with pytest.raises(GateError, match=cause) as raised:
        run(app_database, contract, stage(connection, contract))
    assert "example.org" not in str(raised.value)


def test_fewer_evaluated_than_declared_is_an_error(app_database: str, connection: Connection[Any]) -> None:
    contract = replace(CUSTOMERS, checks=(Check("one", "age > -1"), Check("the same", "age > -1")))

    with pytest.raises(GateError, match="13 expectations are declared, 12 were evaluated"):
        run(app_database, contract, stage(connection, contract))


def test_nothing_to_evaluate_is_an_error(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, PRODUCTS)

    with pytest.raises(GateError, match="no expectations are declared"):
        gate.evaluate(app_database, [])
    with pytest.raises(GateError, match="no expectations are declared for it"):
        gate.evaluate(app_database, [Suite(records_of(PRODUCTS, execution), ())])


def test_what_cannot_be_declared_is_an_error(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, PRODUCTS)

    with pytest.raises(GateError, match="must lie within 0 and 1, not 5"):
        run(app_database, PRODUCTS, execution, share=5)
    with pytest.raises(GateError, match="has not landed"):
        run(app_database, PRODUCTS, replace(execution, records_read=None))


def test_suites_can_be_evaluated_again(app_database: str, connection: Connection[Any]) -> None:
    suites = declared(ORDERS, stage(connection, ORDERS), max_quarantined_share=0.05)

    assert gate.evaluate(app_database, suites) == gate.evaluate(app_database, suites)


def test_no_value_and_no_progress_bar_is_printed(
    app_database: str,
    connection: Connection[Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    contract = replace(CUSTOMERS, checks=(Check("no address", "email not like '%@%'"),))
    execution = stage(connection, contract)
    loosen(connection, records_of(contract, execution))
    connection.execute(f"update {records_of(contract, execution)} set email = repeat('e', 300) || '@example.org'")

    with caplog.at_level(logging.INFO):
        result = run(app_database, contract, execution)

    assert [(r.name, r.observed) for r in result.critical] == [(LENGTH, "3 of 3 rows"), ("no address", "3 rows")]
    assert "example.org" not in repr(result)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_a_password_is_not_shown() -> None:
    with pytest.raises(GateError, match="Connection refused") as raised:
        gate.evaluate("postgresql://loader:pa%24%24word@127.0.0.1:1/nowhere", [Suite("staging.none", ())])

    chain: BaseException | None = raised.value
    while chain is not None:
        assert "word" not in str(chain)
        chain = chain.__cause__ or chain.__context__


def test_no_connection_is_left_open(app_database: str, connection: Connection[Any]) -> None:
    execution = stage(connection, PRODUCTS)
    url = make_url(app_database).update_query_dict({"application_name": "the gate under test"})

    result = run(url, PRODUCTS, execution)

    assert result.critical == ()
    ended = time.monotonic() + 3  # a backend ends a moment after its client has gone
    while (left := open_connections(connection)) and time.monotonic() < ended:
        time.sleep(0.05)
    assert left == 0


def open_connections(connection: Connection[Any]) -> int:
    row = connection.execute(
        "select count(*) from pg_stat_activity where application_name = 'the gate under test'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_importing_the_gate_does_not_import_great_expectations() -> None:
    program = "import sys, include.quality.gate; sys.exit('great_expectations' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

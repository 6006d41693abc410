"""What the suites of `app` say of addresses, volumes, empty tables and contracts, beyond what the mutations show."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from include.contracts.contract import ContractError, PublishedCheck
from include.contracts.customers import CUSTOMERS
from include.contracts.files import Files
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.quality import app_suites, gate, suites
from include.quality.expectations import Suite
from include.quality.gate import CheckResult, GateError, GateResult
from include.transform.cleaners import clean_email

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
ACCEPTED = [
    "a@b.co",
    "jane.doe+tag@example.com",
    "o'hara_{x}|y~z!#$%&*=?^`/-@sub.example.co.uk",
    "x" * 64 + "@example.com",
    "a@" + "l" * 63 + ".example.com",
    "a@b--c.example.com",
    "1@2.example",
    "ann@bücher.example",
    "ann@xn--bcher-kva.example",
    "δοκιμή@παράδειγμα.δοκιμή",
    "用户@例子.广告",
    "संपर्क@डाटामेल.भारत",
    "😀@example.com",
    "Jane.DOE@Example.COM",
]
REFUSED = [
    "",
    "example.com",
    "@example.com",
    "a@",
    "a@@example.com",
    "a@b@example.com",
    "a@example",
    ".a@example.com",
    "a.@example.com",
    "a..b@example.com",
    "x" * 65 + "@example.com",
    "a@.example.com",
    "a@example.com.",
    "a@example..com",
    "a@-b.example.com",
    "a@b-.example.com",
    "a@" + "l" * 64 + ".example.com",
    "a@under_score.example.com",
    "a b@example.com",
    "a@exa mple.com",
    " a@example.com",
    "a@example.com ",
    "a@example.com\n",
    "a\u00a0b@example.com",
    "a@exa\u3000mple.com",
    "a@exam\u2009ple.com",
    '"a"@example.com',
    "a,b@example.com",
    "a@[127.0.0.1]",
    "a<b>@example.com",
]


def insert_customers(connection: Database, emails: Sequence[str], **columns: str) -> None:
    names, values = ("".join(f", {text}" for text in texts) for texts in (columns.keys(), columns.values()))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"""
            insert into app.customers
              (id, name, email, tags, segment, age, signup_date, updated_at, fetched_at, change_seq {names})
            values (%s, 'Jane Doe', %s, '{{}}', 'smb', 30, now(), now(), now(), 1 {values})
            """,
            [(UUID(int=number), email) for number, email in enumerate(emails)],
        )
    connection.commit()


def evaluated(url: str, name: str, **limits: timedelta) -> GateResult:
    return suites.evaluate(name, app_url=url, warehouse_url=url, late_after=limits)


def of(result: GateResult, name: str) -> CheckResult:
    (found,) = [one for one in result.results if one.name == name]
    return found


def addresses(url: str) -> CheckResult:
    return of(evaluated(url, "customers"), "valid_email")


def test_addresses_that_a_record_may_have_are_valid(app_database: str, app_db: Database) -> None:
    cleaned = [clean_email(address) for address in ACCEPTED]
    insert_customers(app_db, [*ACCEPTED, *cleaned])

    assert addresses(app_database).unexpected == 0


def test_other_addresses_are_not(app_database: str, app_db: Database) -> None:
    for address in REFUSED:
        # A record's is trimmed; more than 64 characters before the @-sign only a strict validation refuses.
        if address.strip() == address and len(address) < 70:
            with pytest.raises(ValueError, match="expected an email address"):
                clean_email(address)
    insert_customers(app_db, REFUSED)

    result = addresses(app_database)
    assert (result.severity, result.unexpected) == ("critical", len(REFUSED))
    assert result.sample_keys == tuple(str(UUID(int=number)) for number in range(10))


def test_a_deleted_customers_address_concerns_nobody(app_database: str, app_db: Database) -> None:
    insert_customers(app_db, ["", "a@example.com", "A@example.com"], deleted_at="now() + interval '1 day'")

    assert {one.name for one in evaluated(app_database, "customers").results if not one.success} == {"row_count_floor"}


@pytest.mark.parametrize("name", ["customers", "products", "orders"])
def test_an_empty_table_is_blocked(app_database: str, name: str) -> None:
    tables = [None, "order_items"] if name == "orders" else [None]
    assert [(one.name, one.column, one.observed) for one in evaluated(app_database, name).critical] == [
        ("row_count_floor", table, "0 rows, expected at least 1") for table in tables
    ]


def test_a_contract_may_do_without_children(app_database: str) -> None:
    childless = replace(ORDERS, children={"items": replace(ORDERS.children["items"], minimum_rows=0)})
    result = gate.evaluate(app_database, app_suites.entity(childless, ["orders", "customers"]))
    assert [one.column for one in result.results if one.name == "row_count_floor"] == [None]


def test_empty_dimensions_facts_and_marts_are_blocked(postgres: Any, app_database: str) -> None:
    from include.database import migrate

    migrate.upgrade(app_database, "warehouse")

    result = evaluated(app_database, "warehouse")

    dimensions = ["dim_customer", "dim_product", "dim_location", "dim_date"]
    assert [(one.name, one.column) for one in result.critical] == [
        ("row_count_floor", table)
        for table in ["fact_sales", *dimensions, "daily_sales", "sales_by_region", "sales_by_segment"]
    ]
    with pytest.raises(GateError, match="nothing has been loaded into the warehouse yet: run warehouse_load"):
        evaluated(app_database, "reconciliation")


def test_a_column_without_a_value_is_blocked_unless_the_contract_lets_it_be(
    app_database: str, app_db: Database
) -> None:
    insert_customers(app_db, ["a@example.com"])
    app_db.execute("update app.customers set age = null, segment = null")
    app_db.commit()
    others = ("phone", "street", "city", "state", "country", "zip_code", *(one.name for one in CUSTOMERS.enrichment))
    lenient = replace(CUSTOMERS, may_be_all_null=("age", *others))

    assert {(one.name, one.column) for one in evaluated(app_database, "customers").critical} == {
        ("not_all_null", column) for column in ("age", *others, "segment")
    }
    assert [
        (one.name, one.column)
        for one in gate.evaluate(app_database, app_suites.entity(lenient, ["customers"])).critical
    ] == [("not_all_null", "segment")]
    with pytest.raises(ContractError, match="may_be_all_null names 'agee', which is no field"):
        replace(CUSTOMERS, may_be_all_null=("agee",))
    assert replace(ORDERS, may_be_all_null=("order_items.product_id",)).may_be_all_null


def test_the_floor_is_the_contracts(app_database: str, app_db: Database) -> None:
    insert_customers(app_db, ["a@example.com", "b@example.com"])
    app_db.execute(
        """
        update app.customers
           set (phone, street, city, state, country, zip_code) = ('1', '1', '1', '1', 'US', '1'),
               (latitude, longitude, lifecycle_stage, lifetime_value, total_orders, enriched_at) = (
                 1, 1, 'new', 1, 1, now()
               )
        """
    )
    app_db.commit()

    result = gate.evaluate(app_database, app_suites.entity(replace(CUSTOMERS, minimum_rows=3), ["customers"]))

    assert [(one.name, one.unexpected) for one in result.critical] == [("row_count_floor", 1)]


def test_orders_without_a_customer_and_of_deleted_ones_are_no_orphans(app_database: str, app_db: Database) -> None:
    insert_customers(app_db, ["a@example.com"], deleted_at="now() + interval '1 day'")
    app_db.execute(
        """
        insert into app.orders
          (id, customer_id, status, total, created_at, updated_at, fetched_at, deleted_at, change_seq)
        values ('nobody', null, 'paid', 1, now(), now(), now(), null, 1),
               ('deleted customer', %(known)s, 'paid', 1, now(), now(), now(), null, 2),
               ('deleted order', %(unknown)s, 'paid', 1, now(), now(), now(), now() + interval '1 day', 3),
               ('orphan', %(unknown)s, 'paid', 1, now(), now(), now(), null, 4)
        """,
        {"known": UUID(int=0), "unknown": UUID(int=1)},
    )
    app_db.commit()

    assert evaluated(app_database, "orders").warnings == (
        CheckResult(
            "customer_exists",
            "customer_id",
            "warning",
            False,
            1,
            "1 rows, expected 0",
            "a customer that has come, or none",
            ("orphan",),
        ),
    )


def snapshots(connection: Database, *read: int, mode: str = "snapshot") -> None:
    """Snapshots of products, the newest first, a week between them."""
    for week, records in enumerate(read):
        connection.execute(
            """
            insert into operations.sync_log (
              execution, entity, mode, run_id, fetched_at, records_read, inserted, updated, unchanged, stale, duplicate,
              quarantined, deleted, regressed, unreadable_keys, started_at, synced_at
            )
            values (gen_random_uuid(), 'products', %(mode)s, 'r', now(), %(read)s, %(read)s, 0, 0, 0, 0, 0, 0, 0,
                    '{}', now(), now() - make_interval(weeks => %(week)s))
            """,
            {"read": records, "week": week, "mode": mode},
        )
    connection.commit()


@pytest.mark.parametrize(
    ("read", "success", "observed"),
    [
        ((), True, "no snapshot yet"),
        ((1, 1000, 1000, 1000), True, "1 records, with 3 of 4 weeks of history"),
        # median 100, deviations 2, 1, 0, 1, 2: their median is 1
        ((105, 98, 99, 100, 101, 102), True, "105 records, the median of 5 weeks is 100, z-score 3.4"),
        ((106, 98, 99, 100, 101, 102), False, "106 records, the median of 5 weeks is 100, z-score 4.0"),
        ((94, 98, 99, 100, 101, 102), False, "94 records, the median of 5 weeks is 100, z-score -4.0"),
        # more than half are the same: the mean deviation is 10 / 5
        ((108, 100, 100, 100, 100, 110), True, "108 records, the median of 5 weeks is 100, z-score 3.2"),
        ((109, 100, 100, 100, 100, 110), False, "109 records, the median of 5 weeks is 100, z-score 3.6"),
        # all are the same: under a hundredth is nothing
        ((1009, 1000, 1000, 1000, 1000), True, "1009 records, the median of 4 weeks is 1000, z-score 0.0"),
        ((1010, 1000, 1000, 1000, 1000), False, "1010 records, the median of 4 weeks is 1000, z-score Infinity"),
        ((0, 1000, 1000, 1000, 1000), False, "0 records, the median of 4 weeks is 1000, z-score -Infinity"),
        ((0, 0, 0, 0, 0), True, "0 records, the median of 4 weeks is 0, z-score 0.0"),
    ],
)
def test_a_volume_is_compared_with_its_weekdays(
    app_database: str, app_db: Database, read: tuple[int, ...], success: bool, observed: str
) -> None:
    snapshots(app_db, *read)

    result = of(evaluated(app_database, "syncs"), "products_usual_volume")

    assert (result.severity, result.success, result.observed) == ("warning", success, observed)


def test_other_weekdays_and_deltas_are_no_history(app_database: str, app_db: Database) -> None:
    snapshots(app_db, 5, 1000, 1000, 1000, 1000)
    app_db.execute(
        "update operations.sync_log set synced_at = synced_at - interval '1 day' "
        "where synced_at < now() - interval '1 day'"
    )
    snapshots(app_db, 5, 900, 900, 900, 900)
    app_db.execute("update operations.sync_log set mode = 'delta' where records_read = 900")
    app_db.commit()

    result = of(evaluated(app_database, "syncs"), "products_usual_volume")

    assert (result.success, result.observed) == (True, "5 records, with 0 of 4 weeks of history")


def test_a_replay_makes_nothing_fresh_and_files_that_do_not_come_are_a_warning(
    app_database: str, app_db: Database
) -> None:
    snapshots(app_db, 1000)
    app_db.execute("update operations.sync_log set synced_at = now() - interval '3 days'")
    snapshots(app_db, 0, mode="replay")
    of_files = replace(PRODUCTS, endpoint=None, files=Files("file:///products", "csv", "snapshot"), delta="never")
    found = [
        of(gate.evaluate(app_database, app_suites.syncs([contract], {})), "products_synced_lately")
        for contract in (PRODUCTS, of_files)
    ]
    assert [(one.severity, one.success) for one in found] == [("critical", False), ("warning", False)]


def test_what_never_came_is_late_but_not_what_was_never_asked_for(app_database: str, app_db: Database) -> None:
    app_db.execute(
        """
        insert into operations.pipeline_runs (pipeline, run_id, status, started_at)
        values ('delta_sync', 'r1', 'running', now() - interval '3 hours'),
               ('housekeeping', 'r1', 'running', now() - interval '1 hour')
        """
    )
    app_db.commit()
    limit = timedelta(hours=2)

    result = evaluated(app_database, "syncs", daily_sync=limit, delta_sync=limit, housekeeping=limit)

    assert [(one.name, one.observed, one.expected) for one in result.critical] == [
        (f"{name}_synced_lately", "never synced", "synced within 26 hours")
        for name in ("customers", "orders", "products")
    ]
    assert [(one.name, one.observed, one.expected) for one in result.warnings] == [
        ("delta_sync_succeeded_lately", "never succeeded", "succeeded within 2 hours")
    ]
    assert [one.observed for one in result.results[-3:]] == ["never ran", "never succeeded", "never succeeded"]


def test_a_check_that_reads_the_table_of_a_missing_contract_is_an_error() -> None:
    with pytest.raises(
        GateError, match=r"orders: the published check 'customer_exists' reads app\.customers, of which"
    ):
        app_suites.entity(ORDERS, ["orders", "products"])


def test_a_check_of_a_wrong_severity_or_with_a_percent_sign_is_refused() -> None:
    with pytest.raises(ContractError, match="check 'even': a percent sign is doubled"):
        replace(
            PRODUCTS, published_checks=(PublishedCheck("even", "select id from app.products where 1 % 2 = 1", "even"),)
        )
    with pytest.raises(ContractError, match="severity is critical or warning"):
        replace(PRODUCTS, published_checks=(PublishedCheck("x", "select 1", "x", severity="grave"),))  # type: ignore[arg-type]


def test_a_published_check_is_sql_as_it_stands(app_database: str, app_db: Database) -> None:
    app_db.execute(
        "insert into app.products (id, name, price, updated_at, fetched_at, change_seq) "
        "values ('p1', '{1} :of 14:30', 1, now(), now(), 1)"
    )
    app_db.commit()
    failing = """
        select * -- a comment's quote
          from app.products
         where name = '{1} :of 14:30' and name ~ '^.{1,20}:of' and updated_at::date <= current_date and id >= 'p'
    """
    contract = replace(PRODUCTS, published_checks=(PublishedCheck("braces", failing, "none"),))

    result = of(gate.evaluate(app_database, app_suites.entity(contract, ["products"])), "braces")

    assert (result.unexpected, result.sample_keys) == (1, ("p1",))


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("alter table app.customers rename to gone", "app.customers, living: .*relation .*customers.* does not exist"),
        (
            "alter table app.customers rename segment to sector",
            'living: .*of segment: .*"segment" in BatchData does not',
        ),
        ("alter table app.customers rename deleted_at to gone", 'column "deleted_at" does not exist'),
    ],
)
def test_a_missing_table_or_column_is_an_error(app_database: str, app_db: Database, statement: str, error: str) -> None:
    insert_customers(app_db, ["secret@example.org"])
    app_db.execute(statement.encode())
    app_db.commit()

    with pytest.raises(GateError, match=error) as raised:
        evaluated(app_database, "customers")
    assert "secret" not in str(raised.value)


def test_a_query_that_fails_on_a_value_shows_none(app_database: str, app_db: Database) -> None:
    insert_customers(app_db, ["secret@example.org"])
    check = PublishedCheck("numbers", "select id from app.customers where email::integer > 3", "numbers")
    contract = replace(CUSTOMERS, published_checks=(check,))

    with pytest.raises(GateError) as raised:
        gate.evaluate(app_database, app_suites.entity(contract, ["customers"]))
    assert str(raised.value) == (
        "app.customers, numbers: expectations could not be evaluated: "
        "numbers: Postgres cannot compute it: InvalidTextRepresentation"
    )


def test_a_suite_without_expectations_is_an_error(app_database: str) -> None:
    with pytest.raises(GateError, match="a gate that checks nothing lets everything pass"):
        gate.evaluate(app_database, app_suites.syncs([], {}))
    with pytest.raises(GateError, match=r"app\.customers: no expectations are declared for it"):
        gate.evaluate(app_database, [Suite("app.customers", ())])


def test_an_unknown_suite_and_a_server_that_is_not_there_are_errors() -> None:
    nowhere = "postgresql://loader:pa%24%24word@127.0.0.1:1/nowhere"
    with pytest.raises(GateError, match="there is no suite 'sales' to declare: there are customers, orders, products"):
        suites.evaluate("sales", app_url=nowhere, warehouse_url=nowhere)
    for name in ("customers", "reconciliation"):
        with pytest.raises(GateError, match="Connection refused") as raised:
            suites.evaluate(name, app_url=nowhere, warehouse_url=nowhere)
        assert "word" not in str(raised.value)


def test_names_are_known_without_great_expectations() -> None:
    program = (
        "import sys; from include.quality import suites; "
        "assert suites.names() == ('customers', 'orders', 'products', 'syncs', 'warehouse', 'reconciliation'); "
        "sys.exit('great_expectations' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

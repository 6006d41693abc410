"""Every expectation of every suite: good rows meet it, and the smallest change that breaks it breaks nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, event

from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.local.postgres import PostgresServer
from include.quality import suites
from include.quality.gate import CheckResult, GateResult
from tests.load.syncing import at, synced
from tests.warehouse.building import customer, customer_id, order, product, warehouse

pytestmark = pytest.mark.database

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
LENGTH = "expect_column_value_lengths_to_be_between"
CHOICE = "expect_column_values_to_be_in_set"
LATE_AFTER = {"daily_sync": timedelta(hours=26), "customer's own": timedelta(hours=2)}
Expected = tuple[str, str | None]
"""Name and column of an expectation."""
Mutation = tuple[str, str | tuple[str, ...], set[Expected]]
"""The statements that break it, the keys that are shown then or a query for one, and what necessarily fails as well."""
ONE, TWO = customer_id(1), customer_id(2)


@pytest.fixture(scope="module")
def good(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database whose app and warehouse hold a few dozen good rows; nobody is connected to it."""
    with warehouse(postgres, "suites") as made:
        everybody = [customer(n, age=30 + n, country=["US", "DE"][n % 2]) for n in range(1, 9)]
        synced(made.app, CUSTOMERS, [everybody], fetched_at=at(10))
        later = [customer(1, 40, city="Ogdenville"), customer(1, 80, city="Shelbyville")]
        for minutes, record in zip((41, 81), later, strict=True):
            synced(made.app, CUSTOMERS, [[record]], mode="delta", since=at(0), fetched_at=at(minutes))
        synced(made.app, PRODUCTS, [[product(n, price="3.3333") for n in range(1, 4)]], fetched_at=at(10))
        orders = [order(n, n % 8 + 1 if n else None, n % 3 + 1, created=60 * 24 * (n % 5)) for n in range(20)]
        orders.append(order(0, 1, 0, id="empty"))
        synced(made.app, ORDERS, [orders], fetched_at=at(10))
        made.app.execute(
            """
            update app.customers
               set phone = '+14155552671', street = '1 Road', state = 'CA', zip_code = '1', latitude = 52.5,
                   longitude = 13.4, lifecycle_stage = 'new', lifetime_value = 1, total_orders = 1, enriched_at = now()
            """
        )
        made.app.execute("update app.products set category = 'toys', brand = 'Acme', sku = 'A-1'")
        made.app.commit()
        made.load()
        made.app.execute("update operations.sync_log set synced_at = now() - interval '1 hour'")
        made.app.execute("delete from operations.sync_log where mode <> 'snapshot'")
        # Snapshots of five weeks before, of as many records as varies a little; orders have no history.
        made.app.execute(
            """
            insert into operations.sync_log (
              execution, entity, mode, run_id, fetched_at, records_read, inserted, updated, unchanged, stale, duplicate,
              quarantined, deleted, regressed, unreadable_keys, started_at, synced_at
            )
            select gen_random_uuid(), l.entity, l.mode, l.run_id, l.fetched_at, v.read, v.read, 0, 0, 0, 0, 0, 0, 0,
                   '{}', l.started_at, l.synced_at - make_interval(weeks => week)
              from operations.sync_log l
             cross join generate_series(1, 5) week
             cross join lateral (select l.records_read + week % 3 - 1 as read) v
             where l.entity <> 'orders'
            """
        )
        made.app.execute(
            """
            insert into operations.pipeline_runs (pipeline, run_id, ended_at, status)
            values ('daily_sync', 'one', now() - interval '3 hours', 'success'),
                   ('customer''s own', 'one', now() - interval '1 hour', 'success')
            """
        )
        made.app.commit()
        for connection in (made.app, made.source, made.db):
            connection.close()
        yield "suites"


@contextmanager
def changed(postgres: PostgresServer, good: str, *statements: str) -> Iterator[str]:
    """The URL of a copy of the good database with the changes; a trigger that Postgres has of its own is off."""
    name = sql.Identifier("mutated")
    with psycopg.connect(postgres.dsn(), autocommit=True) as server:
        server.execute(sql.SQL("create database {} template {} strategy file_copy").format(name, sql.Identifier(good)))
    url = postgres.dsn("mutated")
    try:
        with psycopg.connect(url) as connection:
            connection.execute("set session_replication_role = replica")  # no foreign keys
            for statement in statements:
                loosen(connection, statement)
                assert connection.execute(statement.encode()).rowcount != 0, statement
        yield url
    finally:
        with psycopg.connect(postgres.dsn(), autocommit=True) as server:
            server.execute(sql.SQL("drop database {} with (force)").format(name))


def loosen(connection: psycopg.Connection[Any], statement: str) -> None:
    """Drops what would refuse the statement: keys, CHECK and NOT NULL constraints of its table."""
    table = next(word for word in statement.split() if "." in word)
    for (name,) in connection.execute(
        "select conname from pg_constraint where conrelid = %s::regclass and contype <> 'n' order by contype", (table,)
    ).fetchall():
        connection.execute(f'alter table {table} drop constraint if exists "{name}" cascade')
    for (name,) in connection.execute(
        """
        select attname from pg_attribute
         where attrelid = %s::regclass and attnum > 0 and attnotnull and attgenerated = '' and attidentity = ''
        """,
        (table,),
    ).fetchall():
        connection.execute(f"alter table {table} alter column {name} drop not null")


def evaluated(url: str, name: str) -> GateResult:
    return suites.evaluate(name, app_url=url, warehouse_url=url, late_after=LATE_AFTER)


def told(results: tuple[CheckResult, ...]) -> set[tuple[str, str | None]]:
    return {(one.name, one.column) for one in results if not one.success}


def customers(column: str, value: str) -> str:
    return f"update app.customers set {column} = {value} where id = '{ONE}'"


def items(change: str) -> str:
    return f"update app.order_items set {change} where order_id = 'o5' and line_number = 2"


def orders(change: str) -> str:
    return f"update app.orders set {change} where id = 'o5'"


def fact(change: str) -> str:
    return f"update warehouse.fact_sales set {change} where order_id = 'o5' and line_number = 2"


def twice(table: str, where: str) -> str:
    """A row once more; of a table with generated columns its others."""
    return f"insert into {table} select * from {table} where {where}"


ALL_DELETED = "update app.{} set deleted_at = fetched_at + interval '1 day'"

ORDER_KEYS = tuple(sorted(["empty", *(f"o{n}" for n in range(20))]))[:10]
ITEM_KEYS = tuple(sorted(f"o{n},{line}" for n in range(20) for line in range(1, n % 3 + 2)))[:10]

# A fact's orders and revenue are in every mart as well.
MARTS: set[Expected] = {
    ("daily_sales", "daily_sales.date"),
    ("customer_totals", "customer_totals.customer_key"),
    ("sales_by_region", "sales_by_region.country"),
    ("sales_by_segment", "sales_by_segment.segment"),
}
REGION: set[Expected] = {
    ("sales_by_region", "sales_by_region.country"),
    ("customer_count", "sales_by_region.customer_count"),
}
SEGMENT: set[Expected] = {
    ("sales_by_segment", "sales_by_segment.segment"),
    ("customer_count", "sales_by_segment.customer_count"),
}
AVERAGE: Expected = ("average_order_value", "daily_sales.average_order_value")
BUYERS: Expected = ("unique_customers", "daily_sales.unique_customers")
O5 = ("o5,2",)
DAY = ("2026-03-01",)
MIDDLE = f"customer_id = '{ONE}' and valid_from > '0001-01-02' and not is_current"
SECOND = f"customer_id = '{TWO}'"
COUNTS: set[Expected] = {("customer_count", f"sales_by_{name}.customer_count") for name in ("region", "segment")}
KEY_OF_MIDDLE = f"select customer_key from warehouse.dim_customer where {MIDDLE}"
KEY_OF_LAST = f"select customer_key from warehouse.dim_customer where customer_id = '{ONE}' and is_current"
KEY_OF_SECOND = f"select customer_key from warehouse.dim_customer where {SECOND}"


def dim_customer(change: str, where: str) -> str:
    return f"update warehouse.dim_customer set {change} where {where}"


# Nobody bought anything, and nobody is there: all that sums up facts and customers is without rows.
EMPTY = "; ".join(
    f"delete from warehouse.{table} d where true{' and customer_key <> -1' if table == 'dim_customer' else ''}"
    for table in ("fact_sales", "daily_sales", "customer_totals", "sales_by_region", "sales_by_segment", "dim_customer")
)
EMPTIED: set[Expected] = {
    ("row_count_floor", table)
    for table in ("fact_sales", "daily_sales", "sales_by_region", "sales_by_segment", "dim_customer")
}

WAREHOUSE: dict[Expected, Mutation] = {
    # an order that is null has no first line
    (NOT_NULL, "fact_sales.order_id"): (
        fact("order_id = null"),
        ("null,2",),
        {("order_counted_once", "fact_sales.order_count")},
    ),
    (NOT_NULL, "fact_sales.line_number"): (fact("line_number = null"), ("o5,null",), set()),
    (BETWEEN, "fact_sales.quantity"): (
        fact("quantity = 0, total_amount = 0, net_amount = -discount_amount"),
        O5,
        MARTS,
    ),
    (BETWEEN, "fact_sales.unit_price"): (
        fact("unit_price = -1, total_amount = -quantity, net_amount = -quantity - discount_amount"),
        O5,
        MARTS,
    ),
    (BETWEEN, "fact_sales.discount_amount"): (fact("discount_amount = -1, net_amount = total_amount + 1"), O5, MARTS),
    ("total_amount", "fact_sales.total_amount"): (
        fact("total_amount = total_amount + 1, discount_amount = discount_amount + 1"),
        O5,
        set(),
    ),
    ("net_amount", "fact_sales.net_amount"): (fact("discount_amount = discount_amount + 1"), O5, set()),
    ("business_day", "fact_sales.date_key"): (
        fact("order_created_at = order_created_at + interval '12 hours'"),
        O5,
        set(),
    ),
    # facts of no day are in no day's sales
    ("date_exists", "fact_sales.date_key"): (
        "delete from warehouse.dim_date where date_key = 20260302",
        ("o1,1", "o1,2", "o11,1", "o11,2", "o11,3", "o16,1", "o16,2", "o6,1"),
        {("daily_sales", "daily_sales.date"), BUYERS},
    ),
    # facts of nobody are in nobody's totals, and the region and the segment miss them
    ("customer_exists", "fact_sales.customer_key"): (
        fact("customer_key = 4711"),
        O5,
        MARTS - {("daily_sales", "daily_sales.date")},
    ),
    ("product_exists", "fact_sales.product_key"): (fact("product_key = 4711"), O5, set()),
    ("location_exists", "fact_sales.location_key"): (fact("location_key = 4711"), O5, set()),
    ("version_of_its_time", "fact_sales.customer_key"): (
        # the chain stays one, but an order's customer lived elsewhere when it was made
        dim_customer("valid_to = '2026-03-03 00:00:00+00'", MIDDLE)
        + "; "
        + dim_customer("valid_from = '2026-03-03 00:00:00+00'", f"customer_id = '{ONE}' and is_current"),
        ("o16,1", "o16,2"),
        set(),
    ),
    ("location_of_customer", "fact_sales.location_key"): (fact("location_key = -1"), O5, set()),
    ("unique", "fact_sales.order_id, fact_sales.line_number"): (fact("line_number = 3"), ("o5,3",), set()),
    ("order_counted_once", "fact_sales.order_count"): (
        "update warehouse.fact_sales set order_count = line_number - 1 where order_id = 'o5' and line_number in (1, 2)",
        ("o5",),
        set(),
    ),
    ("row_count_floor", "fact_sales"): (
        # nothing in the marts is the fact's then, and nobody is behind the sales of unknown customers
        "delete from warehouse.fact_sales f",
        (),
        {*MARTS, *COUNTS, BUYERS},
    ),
    (NOT_NULL, "dim_customer.customer_key"): (dim_customer("customer_key = null", MIDDLE), ("null",), set()),
    (NOT_NULL, "dim_customer.customer_id"): (
        "insert into warehouse.dim_customer (customer_key, location_key, valid_from, valid_to, is_inferred) "
        "values (4711, -1, '0001-01-01 00:00:00+00', '9999-12-31 00:00:00+00', true)",
        ("4711",),
        set(),
    ),
    ("version_validity", "dim_customer.valid_to"): (
        "insert into warehouse.dim_customer "
        "(customer_key, customer_id, location_key, valid_from, valid_to, is_inferred) "
        f"select 4711, customer_id, location_key, valid_to, valid_to, false from warehouse.dim_customer where {MIDDLE}",
        ("4711",),
        set(),
    ),
    ("first_version", "dim_customer.valid_from"): (
        dim_customer("valid_from = '2026-01-01 00:00:00+00'", SECOND),
        KEY_OF_SECOND,
        set(),
    ),
    ("chain_of_versions", "dim_customer.valid_from"): (
        dim_customer("valid_to = valid_to - interval '1 second'", MIDDLE),
        KEY_OF_LAST,
        set(),
    ),
    # who has no current version is counted in no region, and none of their revenue
    ("one_current_version", "dim_customer.is_current"): (
        dim_customer("valid_to = '9999-01-01 00:00:00+00'", SECOND),
        KEY_OF_SECOND,
        REGION | SEGMENT,
    ),
    ("location_exists", "dim_customer.location_key"): (
        dim_customer("location_key = 4711", MIDDLE),
        KEY_OF_MIDDLE,
        set(),
    ),
    **{
        ("not_all_null", f"dim_{name}.{column}"): (
            f"update warehouse.dim_{name} set {column} = null",
            f"select {name}_key from warehouse.dim_{name} where {name}_key <> -1 order by 1 limit 10",
            besides if column in ("segment", "country") else set(),
        )
        for name, columns, besides in (
            ("customer", "name email segment signup_date lifecycle_stage", SEGMENT),
            ("product", "name category brand sku", set()),
            ("location", "country state city zip_code", REGION),
        )
        for column in columns.split()
    },
    ("row_count_floor", "dim_location"): (
        "delete from warehouse.dim_location d where location_key <> -1",
        (),
        {
            ("location_exists", "dim_customer.location_key"),
            ("location_exists", "fact_sales.location_key"),
            *REGION,
        },
    ),
    # everything that is joined to customers misses them
    ("row_count_floor", "dim_customer"): (
        "delete from warehouse.dim_customer d where customer_key <> -1",
        (),
        MARTS - {("daily_sales", "daily_sales.date"), ("customer_totals", "customer_totals.customer_key")}
        | {BUYERS, ("customer_exists", "fact_sales.customer_key")}
        | {("customer_count", f"sales_by_{name}.customer_count") for name in ("region", "segment")},
    ),
    ("unique", "dim_customer.customer_key"): (
        dim_customer(
            f"customer_key = (select customer_key from warehouse.dim_customer where {MIDDLE})",
            f"customer_id = '{ONE}' and valid_from < '0001-01-02'",
        ),
        KEY_OF_MIDDLE,
        set(),
    ),
    (NOT_NULL, "dim_product.product_key"): (
        "insert into warehouse.dim_product (product_id, is_inferred) values ('p9', false)",
        ("null",),
        set(),
    ),
    (NOT_NULL, "dim_product.product_id"): (
        "insert into warehouse.dim_product (product_key, is_inferred) values (4711, false)",
        ("4711",),
        {("unique", "dim_product.product_id")},  # that of the unknown member is null too
    ),
    ("row_count_floor", "dim_product"): (
        "delete from warehouse.dim_product d where product_key <> -1; update warehouse.fact_sales set product_key = -1",
        (),
        set(),
    ),
    # a member twice doubles its facts where they are joined to it, but not their sums
    ("unique", "dim_product.product_key"): (
        "insert into warehouse.dim_product (product_key, product_id, is_inferred) "
        "select product_key, 'p9', false from warehouse.dim_product where product_id = 'p1'",
        "select product_key from warehouse.dim_product where product_id = 'p1'",
        set(),
    ),
    ("unique", "dim_product.product_id"): (
        "insert into warehouse.dim_product (product_key, product_id, is_inferred) values (4711, 'p1', false)",
        ("p1",),
        set(),
    ),
    ("unique", "dim_location.location_key"): (
        "insert into warehouse.dim_location (location_key, natural_key) values (4711, gen_random_uuid()), "
        "(4711, gen_random_uuid())",
        ("4711",),
        set(),
    ),
    ("unique", "dim_location.natural_key"): (
        f"insert into warehouse.dim_location (location_key, natural_key) values (4711, '{ONE}'), (4712, '{ONE}')",
        (ONE,),
        set(),
    ),
    ("date_key", "dim_date.date_key"): (
        "update warehouse.dim_date set date = date + 100000 where date_key = 20150101",
        ("20150101",),
        set(),
    ),
    # without days there is none of the fact's, nor of the daily sales beside it
    ("row_count_floor", "dim_date"): (
        "delete from warehouse.dim_date d",
        (),
        {("daily_sales", "daily_sales.date"), BUYERS, ("date_exists", "fact_sales.date_key")},
    ),
    ("unique", "dim_date.date"): (
        "insert into warehouse.dim_date select * from warehouse.dim_date where date_key = 20150101",
        ("2015-01-01",),
        set(),
    ),
    # facts that point at the unknown member find none
    ("unknown_member", "dim_customer.customer_key"): (
        "delete from warehouse.dim_customer d where customer_key = -1",
        (),
        {("customer_exists", "fact_sales.customer_key")},
    ),
    ("unknown_member", "dim_product.product_key"): (
        "delete from warehouse.dim_product d where product_key = -1",
        (),
        set(),
    ),
    ("unknown_member", "dim_location.location_key"): (
        "delete from warehouse.dim_location d where location_key = -1",
        (),
        {("location_exists", "fact_sales.location_key")},
    ),
    ("daily_sales", "daily_sales.date"): (
        "update warehouse.daily_sales set total_revenue = total_revenue + 0.0001, "
        "average_order_value = round((total_revenue + 0.0001) / order_count, 4) where date = '2026-03-01'",
        DAY,
        set(),
    ),
    AVERAGE: (
        "update warehouse.daily_sales set average_order_value = average_order_value + 0.0001 where date = '2026-03-01'",
        DAY,
        set(),
    ),
    BUYERS: (
        "update warehouse.daily_sales set unique_customers = unique_customers + 1 where date = '2026-03-01'",
        DAY,
        set(),
    ),
    # without the fact there is no day beside the mart's
    ("row_count_floor", "daily_sales"): (
        "delete from warehouse.daily_sales d; delete from warehouse.fact_sales f",
        (),
        MARTS - {("daily_sales", "daily_sales.date")} | COUNTS | {("row_count_floor", "fact_sales")},
    ),
    ("customer_totals", "customer_totals.customer_key"): (
        "update warehouse.customer_totals set order_count = order_count + 1 where customer_key = -1",
        ("-1",),
        set(),
    ),
    ("sales_by_region", "sales_by_region.country"): (
        "update warehouse.sales_by_region set total_revenue = total_revenue + 1 where country = 'US'",
        ("US",),
        set(),
    ),
    ("customer_count", "sales_by_region.customer_count"): (
        "update warehouse.sales_by_region set customer_count = 0 where country = 'US'",
        ("US",),
        set(),
    ),
    ("sales_by_segment", "sales_by_segment.segment"): (
        "update warehouse.sales_by_segment set avg_order_value = 0 where segment = 'smb'",
        ("smb",),
        set(),
    ),
    ("customer_count", "sales_by_segment.customer_count"): (
        "update warehouse.sales_by_segment set customer_count = 0 where segment = 'smb'",
        ("smb",),
        set(),
    ),
    ("row_count_floor", "sales_by_region"): (EMPTY, (), EMPTIED),
    ("row_count_floor", "sales_by_segment"): (EMPTY, (), EMPTIED),
}

MUTATIONS: dict[str, dict[Expected, Mutation]] = {
    "customers": {
        (NOT_NULL, "id"): (customers("id", "null"), ("null",), set()),
        (NOT_NULL, "name"): (customers("name", "null"), (ONE,), set()),
        (LENGTH, "name"): (customers("name", "''"), (ONE,), set()),
        (NOT_NULL, "email"): (customers("email", "null"), (ONE,), set()),
        (LENGTH, "email"): (
            customers("email", "'a@' || repeat('bcd.', 65) || 'example.com'"),
            (ONE,),
            set(),
        ),
        (BETWEEN, "age"): (customers("age", "151"), (ONE,), set()),
        (BETWEEN, "latitude"): (customers("latitude", "90.1"), (ONE,), set()),
        (BETWEEN, "longitude"): (customers("longitude", "-180.1"), (ONE,), set()),
        (CHOICE, "lifecycle_stage"): (customers("lifecycle_stage", "'New'"), (ONE,), set()),
        (BETWEEN, "total_orders"): (customers("total_orders", "-1"), (ONE,), set()),
        (NOT_NULL, "tags"): (customers("tags", "null"), (ONE,), set()),
        (CHOICE, "segment"): (customers("segment", "'SMB'"), (ONE,), set()),
        (NOT_NULL, "signup_date"): (customers("signup_date", "null"), (ONE,), set()),
        (NOT_NULL, "updated_at"): (customers("updated_at", "null"), (ONE,), set()),
        **{
            ("not_all_null", column): (
                f"update app.customers set {column} = null",
                tuple(customer_id(number) for number in range(1, 9)),
                set(),
            )
            for column in (
                *("age", "segment", "phone", "street", "city", "state", "country", "zip_code"),
                *("latitude", "longitude", "lifecycle_stage", "lifetime_value", "total_orders", "enriched_at"),
            )
        },
        ("row_count_floor", None): (ALL_DELETED.format("customers"), (), set()),
        ("key_unique", "id"): (customers("id", f"'{TWO}'"), (TWO,), set()),
        ("bookkeeping", None): (customers("absent_since", "fetched_at - interval '1 second'"), (ONE,), set()),
        ("valid_email", "email"): (customers("email", "'jane..doe@example.com'"), (ONE,), set()),
        ("no_duplicate_email", "email"): (customers("email", "'C2@example.com'"), (ONE, TWO), set()),
    },
    "products": {
        (NOT_NULL, "id"): ("update app.products set id = null where id = 'p1'", ("null",), set()),
        (LENGTH, "id"): ("update app.products set id = '' where id = 'p1'", ("",), set()),
        (NOT_NULL, "name"): ("update app.products set name = null where id = 'p1'", ("p1",), set()),
        (LENGTH, "name"): ("update app.products set name = '' where id = 'p1'", ("p1",), set()),
        (BETWEEN, "price"): ("update app.products set price = -0.0001 where id = 'p1'", ("p1",), set()),
        (NOT_NULL, "updated_at"): ("update app.products set updated_at = null where id = 'p1'", ("p1",), set()),
        **{
            ("not_all_null", column): (f"update app.products set {column} = null", ("p1", "p2", "p3"), set())
            for column in ("category", "brand", "sku", "price")
        },
        ("row_count_floor", None): (ALL_DELETED.format("products"), (), set()),
        ("key_unique", "id"): (twice("app.products", "id = 'p1'"), ("p1",), set()),
        ("bookkeeping", None): (
            "update app.products set fetched_at = now() + interval '2 days' where id = 'p1'", ("p1",), set()),
    },
    "orders": {
        (NOT_NULL, "id"): ("update app.orders set id = null where id = 'none' or id = 'empty'", ("null",), set()),
        (LENGTH, "id"): ("update app.orders set id = '' where id = 'empty'", ("",), set()),
        (CHOICE, "status"): (orders("status = 'lost'"), ("o5",), set()),
        (NOT_NULL, "status"): (orders("status = null"), ("o5",), set()),
        (NOT_NULL, "total"): (orders("total = null"), ("o5",), set()),
        (NOT_NULL, "created_at"): (orders("created_at = null"), ("o5",), set()),
        (NOT_NULL, "updated_at"): (orders("updated_at = null"), ("o5",), set()),
        ("row_count_floor", None): (ALL_DELETED.format("orders"), (), set()),
        ("key_unique", "id"): (twice("app.orders", "id = 'o5'"), ("o5",), set()),
        ("bookkeeping", None): (orders("deleted_at = fetched_at - interval '1 second'"), ("o5",), set()),
        ("not_all_null", "customer_id"): ("update app.orders set customer_id = null", ORDER_KEYS, set()),
        ("row_count_floor", "order_items"): ("delete from app.order_items i", (), set()),
        (NOT_NULL, "order_items.order_id"): (
            items("order_id = null"), ("null,2",), {("parent_exists", "order_items.order_id")}),  # null is no order
        (NOT_NULL, "order_items.line_number"): (items("line_number = null"), ("o5,null",), set()),
        (BETWEEN, "order_items.line_number"): (items("line_number = 0"), ("o5,0",), set()),
        (LENGTH, "order_items.product_id"): (items("product_id = ''"), ("o5,2",), set()),
        ("not_all_null", "order_items.product_id"): (
            "update app.order_items set product_id = null",
            ITEM_KEYS,
            set(),
        ),
        (NOT_NULL, "order_items.quantity"): (items("quantity = null"), ("o5,2",), set()),
        (BETWEEN, "order_items.quantity"): (items("quantity = 0"), ("o5,2",), set()),
        (NOT_NULL, "order_items.price"): (items("price = null"), ("o5,2",), set()),
        (BETWEEN, "order_items.price"): (items("price = -1"), ("o5,2",), set()),
        (NOT_NULL, "order_items.discount"): (items("discount = null"), ("o5,2",), set()),
        (BETWEEN, "order_items.discount"): (items("discount = -1"), ("o5,2",), set()),
        ("key_unique", "order_items.order_id, order_items.line_number"): (items("line_number = 1"), ("o5,1",), set()),
        ("parent_exists", "order_items.order_id"): (items("order_id = 'gone'"), ("gone,2",), set()),
        ("customer_exists", "customer_id"): (orders("customer_id = gen_random_uuid()"), ("o5",), set()),
    },
    "syncs": {
        **{
            (f"{name}_synced_lately", None): (
                "update operations.sync_log set synced_at = synced_at - interval '25 hours 30 minutes' "
                f"where entity = '{name}'",
                (),
                set(),
            )
            for name in ("customers", "orders", "products")
        },
        **{
            (f"{name}_usual_volume", None): (
                # some three deviations more would still be usual
                f"update operations.sync_log set records_read = {read}, inserted = {read}, updated = 0, unchanged = 0 "
                f"where entity = '{name}' and synced_at > now() - interval '1 day'",
                (),
                set(),
            )
            for name, read in (("customers", 2), ("products", 15))
        },
        # five weeks of the same number: whatever is more than a hundredth off is unusual
        ("orders_usual_volume", None): (
            """
            insert into operations.sync_log (
              execution, entity, mode, run_id, fetched_at, records_read, inserted, updated, unchanged, stale, duplicate,
              quarantined, deleted, regressed, unreadable_keys, started_at, synced_at
            )
            select gen_random_uuid(), entity, mode, run_id, fetched_at, 100, 100, 0, 0, 0, 0, 0, 0, 0, '{}',
                   started_at, synced_at - make_interval(weeks => week)
              from operations.sync_log
             cross join generate_series(1, 5) week
             where entity = 'orders'
            """,
            (),
            set(),
        ),
        ("daily_sync_succeeded_lately", None): (
            "update operations.pipeline_runs set ended_at = ended_at - interval '1 day' where pipeline = 'daily_sync'",
            (),
            set(),
        ),
        ("customer's own_succeeded_lately", None): (
            "update operations.pipeline_runs set status = 'failed', started_at = now() - interval '3 hours' "
            "where pipeline = 'customer''s own'",
            (),
            set(),
        ),
    },
    "warehouse": WAREHOUSE,
    "reconciliation": {
        ("orders_of_a_day", "fact_sales.order_count"): (fact("order_count = 1"), ("2026-03-01",), set()),
        ("items_of_a_day", "fact_sales.line_number"): (
            "insert into warehouse.fact_sales (order_id, line_number, date_key, customer_key, product_key, "
            "location_key, quantity, unit_price, total_amount, discount_amount, net_amount, order_created_at, "
            "order_count) "
            "values ('o5', 9, 20260301, -1, -1, -1, 1, 0, 0, 0, 0, now(), 0)",
            ("2026-03-01",),
            set(),
        ),
        ("net_revenue_of_a_day", "fact_sales.net_amount"): (
            fact("net_amount = net_amount - 0.0001"),
            ("2026-03-01",),
            set(),
        ),
        ("customers_of_a_day", "fact_sales.customer_key"): (fact("customer_key = -1"), ("2026-03-01",), set()),
        ("products_of_a_day", "fact_sales.product_key"): (fact("product_key = -1"), ("2026-03-01",), set()),
        # without facts and without sales there is no day to compare
        ("sales_compared", None): (
            "delete from warehouse.fact_sales f; update app.orders set status = 'cancelled'", (), set()),
        ("number_of_customers", "dim_customer.customer_id"): (
            f"delete from warehouse.dim_customer where is_current and customer_id = '{TWO}'", (), set()),
        ("number_of_products", "dim_product.product_id"): (
            "update warehouse.dim_product set is_inferred = true where product_id = 'p1'", (), set()),
    },
}  # fmt: skip


def cases(name: str) -> list[Any]:
    return [
        pytest.param(name, broken, *of, id=f"{name}: {broken[0]} {broken[1] or ''}")
        for broken, of in MUTATIONS[name].items()
    ]


@pytest.mark.parametrize("name", suites.names())
def test_good_rows_meet_every_expectation(postgres: PostgresServer, good: str, name: str) -> None:
    result = evaluated(postgres.dsn(good), name)

    assert result.summary() == f"all {len(result.results)} expectations are met"
    assert all(one.expected and one.sample_keys == () for one in result.results)
    assert {(one.name, one.column) for one in result.results} == set(MUTATIONS[name]), "each has a mutation below"
    assert len(result.results) == len(MUTATIONS[name])
    assert all(validation.suite_name and validation.success for validation in result.validations)


MANY_BROKEN = (
    "update app.customers set email = '@'",
    "update app.products set price = -1, fetched_at = now() + interval '2 days'",
    "update app.orders set customer_id = gen_random_uuid()",
    "update app.order_items set order_id = 'gone ' || order_id",
    "update warehouse.fact_sales set order_count = 2, net_amount = 0, customer_key = 4711",
)


@pytest.mark.parametrize("broken", [(), MANY_BROKEN], ids=["good", "broken"])
@pytest.mark.parametrize("name", suites.names())
def test_no_rows_are_fetched_but_counts(
    postgres: PostgresServer, good: str, name: str, broken: tuple[str, ...]
) -> None:
    fetched: list[tuple[int, str]] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        fetched.append((cursor.rowcount, statement))

    with changed(postgres, good, *broken) as url:
        event.listen(Engine, "after_cursor_execute", note)
        try:
            assert (evaluated(url, name).critical == ()) == (not broken or name == "syncs")
        finally:
            event.remove(Engine, "after_cursor_execute", note)
    assert len(fetched) > 2
    assert [statement for rows, statement in fetched if rows > 1 and "pg_catalog" not in statement] == []


@pytest.mark.parametrize(
    ("name", "broken", "statement", "keys", "besides"), [case for name in MUTATIONS for case in cases(name)]
)
def test_the_smallest_change_breaks_its_expectation(
    postgres: PostgresServer,
    good: str,
    name: str,
    broken: tuple[str, str | None],
    statement: str,
    keys: str | tuple[str, ...],
    besides: set[tuple[str, str | None]],
) -> None:
    if isinstance(keys, str):
        with psycopg.connect(postgres.dsn(good)) as connection:
            keys = tuple(str(key) for (key,) in connection.execute(keys.encode()))
    with changed(postgres, good, *statement.split("; ")) as url:
        result = evaluated(url, name)

    assert told(result.results) == {broken, *besides}
    (failed,) = [one for one in result.results if not one.success and (one.name, one.column) == broken]
    assert failed.sample_keys == keys
    assert failed.unexpected >= max(1, len(keys))

"""App and warehouse compared while app moves on: exact, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.local.postgres import PostgresServer
from include.quality import gate, reconciliation, suites
from include.quality.gate import GateError, GateResult
from include.warehouse import load
from tests.load.syncing import at, synced
from tests.warehouse.building import Warehouse, customer, customer_id, order, product, warehouse

pytestmark = pytest.mark.database

LEFT = "select count(*) from pg_class where relnamespace = 'warehouse_build'::regnamespace and relkind = 'r'"


@pytest.fixture
def built(postgres: PostgresServer) -> Iterator[Warehouse]:
    """A warehouse whose days are those of New York: an order of half past midnight in UTC is of the day before."""
    with warehouse(postgres, "reconciled") as made:
        synced(made.app, CUSTOMERS, [[customer(n) for n in range(1, 6)]], fetched_at=at(10))
        synced(made.app, PRODUCTS, [[product(1), product(2)]], fetched_at=at(10))
        orders = [order(n, n % 5 + 1, 2, created=60 * 12.5 * n, version=0) for n in range(20)]
        orders += [order(20, 1, status="cancelled"), order(21, 1, 0), order(22, 9, created=3)]
        synced(made.app, ORDERS, [orders], fetched_at=at(10))
        made.load(business_timezone="America/New_York")
        made.app.commit()
        yield made


def reconciled(made: Warehouse) -> GateResult:
    made.app.commit()
    made.db.commit()
    return suites.evaluate("reconciliation", app_url=made.url, warehouse_url=made.url)


def left(made: Warehouse) -> int:
    row = made.db.execute(LEFT).fetchone()
    made.db.commit()
    assert row is not None
    return int(row[0])


def test_app_may_move_on(built: Warehouse) -> None:
    assert reconciled(built).critical == ()

    changes = [
        order(1, 2, 1, created=60 * 12.5, version=20),  # an item fewer
        order(2, 3, 2, created=60 * 24 * 3, version=20),  # another day
        order(3, 4, 2, version=20, status="cancelled"),
        order(20, 1, 2, version=20, status="paid"),
        order(30, 5, 2, version=20),
    ]
    synced(built.app, ORDERS, [changes], mode="delta", since=at(0), fetched_at=at(30))
    # the one whom only an order named has come
    people = [customer(1, 20, city="Ogdenville"), customer(7, 20), customer(9, 20)]
    synced(built.app, CUSTOMERS, [people], mode="delta", since=at(0), fetched_at=at(30))
    synced(
        built.app,
        PRODUCTS,
        [[product(2, 20, name="New"), product(3, 20)]],
        mode="delta",
        since=at(0),
        fetched_at=at(30),
    )

    result = reconciled(built)
    assert result.summary() == "all 8 expectations are met"
    assert [one.observed for one in result.results[-3:-1]] == [
        "4 in app, 4 in the warehouse",
        "1 in app, 1 in the warehouse",
    ]
    assert left(built) == 0


def test_every_order_may_have_changed_since_the_load(built: Warehouse) -> None:
    built.app.execute("update app.orders set change_seq = change_seq + 1000000")

    assert reconciled(built).summary() == "all 8 expectations are met"


def test_a_schema_that_is_missing_is_an_error(built: Warehouse) -> None:
    built.db.execute("drop schema warehouse_build cascade")
    with pytest.raises(GateError, match=r"reconciliation: cannot be prepared: .*warehouse_build"):
        reconciled(built)


def test_what_is_lost_or_left_over_is_told_by_its_day(built: Warehouse) -> None:
    built.db.execute("delete from warehouse.fact_sales where order_id = 'o4'")
    built.db.execute(f"delete from warehouse.dim_customer where customer_id = '{customer_id(5)}'")

    result = reconciled(built)

    days = ("2026-03-03",)
    assert [(one.name, one.unexpected, one.sample_keys) for one in result.critical] == [
        ("orders_of_a_day", 1, days),
        ("items_of_a_day", 1, days),
        ("customers_of_a_day", 1, days),
        ("products_of_a_day", 1, days),
        ("net_revenue_of_a_day", 1, days),
        ("number_of_customers", 1, ()),
    ]
    assert result.critical[-1].observed == "5 in app, 4 in the warehouse"


def test_a_change_without_a_new_number_is_seen(built: Warehouse) -> None:
    built.app.execute(
        "update app.order_items set discount = discount + 0.0001 where order_id = 'o4' and line_number = 1"
    )

    assert [one.name for one in reconciled(built).critical] == ["net_revenue_of_a_day"]


def test_a_load_published_meanwhile_is_an_error(built: Warehouse) -> None:
    comparison = reconciliation.prepared(built.app, built.db)
    gate.evaluate(built.url, comparison.__enter__())
    built.load(200)

    with pytest.raises(GateError, match="a load was published while the two were compared: run it again"):
        comparison.__exit__(None, None, None)
    assert left(built) == 0


def test_its_tables_are_not_taken_for_abandoned_ones_and_dropped_whatever_happens(built: Warehouse) -> None:
    comparison = reconciliation.prepared(built.app, built.db)
    comparison.__enter__()
    assert left(built) == 6
    load.drop_abandoned(built.db, older_than=timedelta(hours=1))
    built.db.commit()
    assert left(built) == 6

    failed = KeyError("whatever")
    assert not comparison.__exit__(KeyError, failed, None)
    assert left(built) == 0


def test_a_table_that_is_missing_is_an_error(built: Warehouse) -> None:
    built.app.execute("alter table app.order_items rename column discount to rebate")

    with pytest.raises(GateError, match=r"reconciliation: cannot be prepared: .*i\.discount does not exist"):
        reconciled(built)
    assert left(built) == 0

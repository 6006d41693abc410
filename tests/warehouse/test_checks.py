"""The gate before a publish: it passes what is right, and names what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.local.postgres import PostgresServer
from include.quality.gate import evaluate
from include.warehouse import checks, load
from tests.load.syncing import at, synced
from tests.warehouse.building import Warehouse, customer, order, product, warehouse

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def built(postgres: PostgresServer) -> Iterator[Warehouse]:
    """A warehouse with a load published; the next one has changes of half of its orders."""
    with warehouse(postgres, "checks") as made:
        everybody = [customer(1), customer(2, country="DE", segment="consumer"), customer(3)]
        synced(made.app, CUSTOMERS, [everybody], fetched_at=at(10))
        synced(made.app, PRODUCTS, [[product(1), product(2)]], fetched_at=at(10))
        synced(made.app, ORDERS, [[order(n, n % 3 + 1, 2, created=60 * 24 * n) for n in range(10)]], fetched_at=at(10))
        made.load()
        synced(
            made.app,
            ORDERS,
            [[order(n, n % 3 + 1, 2, created=60 * 24 * n, version=1) for n in range(0, 10, 2)]],
            mode="delta",
            since=at(0),
            fetched_at=at(11),
        )
        synced(made.app, CUSTOMERS, [[customer(1, 5, city="Ogdenville")]], mode="delta", since=at(0), fetched_at=at(11))
        made.replicate()
        yield made


def test_what_is_right_passes_the_gate(built: Warehouse) -> None:
    drawn = built.built(200)
    result = evaluate(built.url, checks.declared(drawn))
    assert [(one.name, one.success) for one in result.results] == [(name, True) for name in checks.WRONG]
    assert result.summary() == f"all {len(checks.WRONG)} expectations are met"


def spoilt_fact(clause: str) -> Callable[[str], str]:
    return lambda load_hex: (
        f"update warehouse_build.fact_sales_{load_hex} set {clause} where order_id = 'o2' and line_number = 1"
    )


def spoilt(table: str, clause: str) -> Callable[[str], str]:
    return lambda load_hex: f"update warehouse_build.{table}_{load_hex} set {clause}"


FACTS = {"wrong_facts"}
REVENUE = {"wrong_daily_sales"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            lambda made: f"delete from warehouse_build.fact_sales_{made} where order_id = 'o2' and line_number = 2",
            FACTS | REVENUE,
        ),
        (spoilt_fact("net_amount = net_amount - 0.01"), FACTS | REVENUE),
        (spoilt_fact("customer_key = 4711"), FACTS | {"wrong_fact_keys"}),
        (spoilt_fact("product_key = -1"), FACTS),
        (spoilt_fact("product_key = 4711"), FACTS | {"wrong_fact_keys"}),
        (spoilt_fact("location_key = 4711"), {"wrong_fact_keys"}),
        (spoilt_fact("date_key = 20140101"), FACTS | REVENUE | {"wrong_fact_keys"}),
        (spoilt("dim_customer", "name = 'Somebody else'"), {"wrong_customers"}),
        (spoilt("dim_customer", "valid_to = valid_to - interval '1 day', is_current = false where is_current"),
         {"wrong_customers"}),
        (spoilt("daily_sales", "unique_customers = 0"), {"wrong_daily_sales"}),
        (spoilt("daily_sales", "average_order_value = 0"), {"wrong_daily_sales"}),
        (spoilt("sales_by_region", "customer_count = customer_count + 1"), {"wrong_sales_by_region"}),
        (spoilt("sales_by_segment", "order_count = order_count + 1"), {"wrong_sales_by_segment", "wrong_totals"}),
    ],
    ids=["a fact lost", "a cent off", "an unresolved customer", "another product", "an unresolved product",
         "an unresolved place", "an unresolved day", "another name", "a hole", "a day's buyers", "a day's average",
         "a region's customers", "a segment's orders"],
)  # fmt: skip
def test_what_is_wrong_is_named(built: Warehouse, statement: Any, expected: set[str]) -> None:
    drawn = built.built(300)
    built.db.execute(statement(drawn.hex))
    load.run(built.db, "checks", drawn)
    assert set(built.wrong(drawn)) == expected


def test_the_gate_fails_for_a_lost_fact(built: Warehouse) -> None:
    drawn = built.built(400)
    built.db.execute(f"delete from warehouse_build.fact_sales_{drawn.hex} where order_id = 'o2' and line_number = 2")
    load.run(built.db, "checks", drawn)
    built.db.commit()
    result = evaluate(built.url, checks.declared(drawn))
    assert {one.name for one in result.critical} == FACTS | REVENUE
    assert "wrong_facts: 1 rows, expected 0" in result.summary()


def test_marts_that_do_not_add_up_any_more_are_seen_whatever_the_load_affects(built: Warehouse) -> None:
    for change, back in (("+ 0.01", "- 0.01"), ("- 1", "+ 1")):
        update = "update warehouse.daily_sales set total_revenue = total_revenue {} where date = '2026-03-02'"
        assert built.db.execute(update.format(change)).rowcount == 1
        built.db.commit()
        drawn = built.built(500)
        assert built.wrong(drawn) == ["wrong_totals"]
        load.drop(built.db, drawn)
        built.db.execute(update.format(back))
        built.db.commit()

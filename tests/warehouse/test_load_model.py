"""Any sequence of changes and loads leaves what one load of the same raw into an empty warehouse gives.

And that is what a few lines of Python, written from the rules row by row, make of raw. SLUICE_WAREHOUSE_EXAMPLES says
how many sequences are tried.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.contracts.contract import Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.local.postgres import PostgresServer
from include.warehouse import load
from tests.load.syncing import at, synced
from tests.warehouse.building import STEPS, Content, Warehouse, customer, order, product, warehouse

pytestmark = pytest.mark.database

EXAMPLES = int(os.environ.get("SLUICE_WAREHOUSE_EXAMPLES", "15"))
DAY = 24 * 60
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
OPEN_END = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Sync:
    """An execution that brings records; a snapshot deletes what it lacks."""

    contract: Contract
    mode: str
    records: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Load:
    """A load as of some days after the epoch; `dies_after` says where it is abandoned, None that it is published."""

    day: int
    timezone: str
    days: tuple[int, int] | None
    full: bool
    replicated: bool
    repeated: str | None
    dies_after: str | None


minutes = st.sampled_from([-3 * DAY, -2 * DAY + 700, -60, 0, 700, 725, DAY, 5 * DAY])
customers = st.builds(
    lambda number, version, country, city, name, segment: customer(
        number, version, country=country, city=city, full_name=name, segment=segment
    ),
    st.integers(1, 3),
    minutes,
    st.sampled_from(["US", "DE", None]),
    st.sampled_from(["Springfield", "", None]),
    st.sampled_from(["Ann", "Bob"]),
    st.sampled_from(["smb", "consumer", None]),
)
products = st.builds(
    lambda number, version, category: product(number, version, category=category),
    st.integers(1, 2),
    minutes,
    st.sampled_from(["Things", None]),
)


def ordered(
    number: int, buyer: int | None, created: int, version: int, status: str, lines: list[tuple[int, int, str | None]]
) -> dict[str, Any]:
    items = [
        {"line_number": line, "product_id": sold, "quantity": 1 + line, "price": "3.3333", "discount": discount}
        for line, discount, sold in lines
    ]
    return order(number, buyer, created=created, version=version, status=status, items=items)


orders = st.builds(
    ordered,
    st.integers(1, 4),
    st.sampled_from([1, 2, 3, 9, None]),
    st.one_of(minutes, st.sampled_from([-30 * 365 * DAY])),
    minutes,
    st.sampled_from(["paid", "paid", "refunded", "cancelled"]),
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from([0, 50]), st.sampled_from(["p1", "p2", "p9", None])),
        max_size=3,
        unique_by=lambda line: line[0],
    ),
)
modes = st.sampled_from(["delta", "delta", "snapshot"])
syncs = st.one_of(
    st.builds(Sync, st.just(CUSTOMERS), modes, st.lists(customers, min_size=1, max_size=5).map(tuple)),
    st.builds(Sync, st.just(ORDERS), modes, st.lists(orders, min_size=1, max_size=5).map(tuple)),
    st.builds(Sync, st.just(PRODUCTS), modes, st.lists(products, max_size=2).map(tuple)),
)
loads = st.builds(
    Load,
    day=st.integers(-2, 100),
    timezone=st.sampled_from(["UTC", "UTC", "UTC", "Pacific/Auckland"]),
    days=st.one_of(st.none(), st.none(), st.tuples(st.integers(-4, 1), st.integers(1, 5))),
    full=st.sampled_from([False, False, False, False, True]),
    replicated=st.sampled_from([True, True, False]),
    repeated=st.sampled_from([None, None, *STEPS]),
    dies_after=st.sampled_from([None] * 12 + ["begin", *STEPS, "publish"]),
)
begun = st.tuples(
    st.builds(Sync, st.just(CUSTOMERS), st.just("snapshot"), st.lists(customers, min_size=2, max_size=6).map(tuple)),
    st.builds(Sync, st.just(ORDERS), st.just("snapshot"), st.lists(orders, min_size=3, max_size=8).map(tuple)),
    loads,
).map(list)
rounds = st.tuples(st.lists(syncs, max_size=2), loads).map(lambda one: [*one[0], one[1]])
sequences = st.tuples(begun, st.lists(rounds, min_size=1, max_size=3), st.lists(syncs, max_size=2)).map(
    lambda parts: [*parts[0], *(event for one in parts[1] for event in one), *parts[2]]
)


@pytest.fixture(scope="module")
def built(postgres: PostgresServer) -> Iterator[Warehouse]:
    with warehouse(postgres, "load_model") as made:
        yield made


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here: ask for it when it is needed
)
@given(sequences, st.integers(-2, 100))
def test_any_sequence_of_loads_gives_what_one_load_gives(
    built: Warehouse, happened: list[Sync | Load], last_day: int
) -> None:
    built.reset()
    for number, event in enumerate(happened):
        if isinstance(event, Sync):
            sync(built, event, number)
        else:
            attempt(built, event, number)
    built.load(last_day * DAY)
    found = built.content()
    built.empty()
    built.load_raw(last_day * DAY)
    expected = built.content()
    assert found == expected
    assert {
        name: found[name]
        for name in ("dim_customer", "fact_sales", "daily_sales", "sales_by_region", "sales_by_segment")
    } == (by_the_rules(built, at(last_day * DAY), "UTC"))


def sync(built: Warehouse, event: Sync, number: int) -> None:
    fetched_at = at(10 * DAY + number)
    since = at(-1000 * DAY) if event.mode == "delta" else None
    synced(
        built.app,
        event.contract,
        [list(event.records)],
        mode=event.mode,  # type: ignore[arg-type]  # as hypothesis draws it
        fetched_at=fetched_at,
        since=since,
        allow_deletes=True,
    )


def attempt(built: Warehouse, event: Load, number: int) -> None:
    """A load that may repeat a step, and may die after any: within its transaction, and leaving its tables."""
    known = built.db.execute("select count(*) from raw.positions").fetchone()
    built.db.commit()
    if event.replicated or known == (0,):
        built.replicate()
    days = None if event.days is None else (at(event.days[0] * DAY).date(), at(event.days[1] * DAY).date())
    drawn = load.begin(
        built.db,
        run_id=f"run-{number}",
        as_of=at(event.day * DAY),
        business_timezone=event.timezone,
        days=days,
        full=event.full,
    )
    if event.dies_after == "begin":
        return
    for step in STEPS:
        load.run(built.db, step, drawn)
        if event.repeated == step:
            load.run(built.db, step, drawn)
        if event.dies_after == step:
            return
    if event.dies_after == "publish":
        built.db.execute(load.render("publish", drawn).encode())
        built.db.rollback()
    else:
        load.publish(built.db, drawn)
        load.drop(built.db, drawn)


Rows = list[dict[str, Any]]


def by_the_rules(built: Warehouse, as_of: datetime, timezone: str) -> Content:
    """Facts, customers and marts from raw, as nobody would compute them in SQL."""

    def rows(table: str) -> Rows:
        with built.db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(f"select * from raw.{table}").fetchall()

    def day(time: datetime) -> date:
        return time.astimezone(ZoneInfo(timezone)).date()

    def stage(time: datetime, signup: datetime) -> str:
        days = (day(time) - day(signup)).days
        return "new" if days < 7 else "active" if days < 30 else "engaged" if days < 90 else "dormant"

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[part] or None for part in ("country", "state", "city", "zip_code"))

    current = {row["id"]: row for row in rows("customers")}
    chains: dict[Any, list[list[Any]]] = {}
    for customer_id, row in current.items():
        earlier = [
            one
            for one in rows("customers_history")
            if one["id"] == customer_id and one["updated_at"] < row["updated_at"]
        ]
        chain: list[list[Any]] = []  # [from, to, content]
        for version in [*sorted(earlier, key=lambda one: one["updated_at"]), row]:
            content = (version["name"], version["email"], version["segment"], place(version))
            if chain and chain[-1][2] == content:
                continue
            if chain:
                chain[-1][1] = version["updated_at"]
            chain.append([version["updated_at"] if chain else BEGINNING, OPEN_END, content])
        chains[customer_id] = chain

    sales = {row["id"]: row for row in rows("orders") if row["deleted_at"] is None and row["status"] != "cancelled"}
    items = [item for item in rows("order_items") if item["order_id"] in sales]
    for item in items:
        buyer = sales[item["order_id"]]["customer_id"]
        if buyer is not None and buyer not in chains:
            chains[buyer] = [[BEGINNING, OPEN_END, (None, None, None, (None,) * 4)]]

    dim_customer: list[tuple[Any, ...]] = [(None,) * 6 + (BEGINNING, OPEN_END, True, False) + (None,) * 5]
    for customer_id, chain in chains.items():
        row = current.get(customer_id, {})
        signup = row.get("signup_date")
        for valid_from, valid_to, (name, email, segment, where) in chain:
            is_current = valid_to == OPEN_END
            shown = None if signup is None else stage(as_of if is_current else valid_to, signup)
            dim_customer.append(
                (
                    str(customer_id),
                    name,
                    email,
                    segment,
                    signup,
                    shown,
                    valid_from,
                    valid_to,
                    is_current,
                    not row,
                    row.get("deleted_at"),
                    *where,
                )
            )

    facts = []
    revenue_by_day: dict[date, Decimal] = defaultdict(Decimal)
    orders_by_day: dict[date, set[str]] = defaultdict(set)
    buyers_by_day: dict[date, set[Any]] = defaultdict(set)
    revenue: dict[Any, Decimal] = defaultdict(Decimal)
    ordered: dict[Any, set[str]] = defaultdict(set)
    for item in items:
        sale = sales[item["order_id"]]
        buyer, created = sale["customer_id"], sale["created_at"]
        chain = chains.get(buyer, [[BEGINNING, OPEN_END, (None, None, None, (None,) * 4)]])
        (version,) = [one for one in chain if one[0] <= created < one[1]]
        total = item["quantity"] * item["price"]
        net = total - item["discount"]
        sold_on = day(created)
        first = item["line_number"] == min(one["line_number"] for one in items if one["order_id"] == sale["id"])
        facts.append(
            (
                sale["id"],
                item["line_number"],
                int(sold_on.strftime("%Y%m%d")),
                buyer and str(buyer),
                version[0],
                item["product_id"],
                version[2][3],
                item["quantity"],
                item["price"],
                total,
                item["discount"],
                net,
                created,
                int(first),
            )
        )
        revenue_by_day[sold_on] += net
        orders_by_day[sold_on].add(sale["id"])
        buyers_by_day[sold_on] |= {buyer} - {None}
        revenue[buyer] += net
        ordered[buyer].add(sale["id"])

    def average(amount: Decimal, count: int) -> Decimal:
        return (amount / count).quantize(Decimal("0.0001"), ROUND_HALF_UP)

    regions: dict[str, list[Any]] = defaultdict(lambda: [0, Decimal(0)])
    segments: dict[str, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    for buyer in {*chains, None}:
        row = current.get(buyer, {})
        counted = int(bool(row) and row["deleted_at"] is None)
        if counted or ordered[buyer]:
            region, segment = regions[row.get("country") or "unknown"], segments[row.get("segment") or "unknown"]
            region[0] += counted
            region[1] += revenue[buyer]
            segment[0] += counted
            segment[1] += len(ordered[buyer])
            segment[2] += revenue[buyer]
    places = {
        (country, state, city, zip_code): key
        for country, state, city, zip_code, key in built.db.execute(
            "select country, state, city, zip_code, natural_key::text from warehouse.dim_location"
        ).fetchall()
    }
    built.db.commit()
    made: Content = {
        "dim_customer": dim_customer,
        "fact_sales": [(*fact[:6], places[fact[6]], *fact[7:]) for fact in facts],
        "daily_sales": [
            (
                sold_on,
                len(orders_by_day[sold_on]),
                amount,
                average(amount, len(orders_by_day[sold_on])),
                len(buyers_by_day[sold_on]),
            )
            for sold_on, amount in revenue_by_day.items()
        ],
        "sales_by_region": [(country, *values) for country, values in regions.items()],
        "sales_by_segment": [
            (segment, *values, average(values[2], values[1]) if values[1] else None)
            for segment, values in segments.items()
        ],
    }
    return {
        name: sorted(found, key=lambda row: [(value is None, str(value)) for value in row])
        for name, found in made.items()
    }

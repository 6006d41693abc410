"""Loads: what they refuse, what they leave alone, what readers see meanwhile, and what the tables themselves refuse."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors

from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.local.postgres import PostgresServer
from include.warehouse import calendar, load
from tests.load.syncing import at, synced
from tests.warehouse.building import Database, Warehouse, customer, customer_id, order, product, warehouse

pytestmark = pytest.mark.database

DAY = 24 * 60
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
OPEN_END = datetime(9999, 12, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[Warehouse]:
    with warehouse(postgres, "load") as made:
        yield made


@pytest.fixture
def built(shared: Warehouse) -> Warehouse:
    """An empty warehouse."""
    shared.reset()
    load.drop_abandoned(shared.db, older_than=timedelta(0))
    shared.db.commit()
    return shared


def changed(built: Warehouse, minute: float, **records: list[dict[str, Any]]) -> None:
    """A delta of each entity that is named, fetched so many minutes after the tests' epoch."""
    for contract in (CUSTOMERS, PRODUCTS, ORDERS):
        if contract.name in records:
            pages = [records[contract.name]]
            synced(built.app, contract, pages, mode="delta", since=at(-10 * DAY), fetched_at=at(minute))


def facts(built: Warehouse) -> dict[tuple[str, int], tuple[Any, ...]]:
    """(customer's id, version's beginning, product's id, net amount) by order and line."""
    rows = built.db.execute(
        """
        select f.order_id, f.line_number, c.customer_id::text, c.valid_from, p.product_id, f.net_amount
          from warehouse.fact_sales f
          join warehouse.dim_customer c using (customer_key)
          join warehouse.dim_product p using (product_key)
        """
    ).fetchall()
    built.db.commit()
    return {(row[0], row[1]): row[2:] for row in rows}


def test_an_order_belongs_to_the_version_that_was_valid_when_it_was_made(built: Warehouse) -> None:
    changed(built, 100, customers=[customer(1, version=0, segment="smb")])
    changed(built, 101, customers=[customer(1, version=50, segment="consumer")])
    changed(
        built, 101, orders=[order(1, 1, 1, created=49), order(2, 1, 1, created=50), order(3, 1, 1, created=-9 * DAY)]
    )
    built.load()
    mine = customer_id(1)
    assert {key[0]: row[:2] for key, row in facts(built).items()} == {
        "o1": (mine, BEGINNING),
        "o2": (mine, at(50)),
        "o3": (mine, BEGINNING),
    }


def test_a_late_version_repoints_the_facts_that_it_concerns_and_no_other(built: Warehouse) -> None:
    changed(built, 100, customers=[customer(1, version=0), customer(2, version=0)])
    changed(built, 101, customers=[customer(1, version=60, city="Shelbyville")])
    changed(
        built,
        101,
        orders=[order(number, 1, 1, created=10 * number) for number in range(1, 9)],
    )
    built.load()
    keys = "select valid_from, customer_key from warehouse.dim_customer where customer_id is not null"
    before = dict(built.db.execute(keys + f" and customer_id = '{customer_id(1)}'").fetchall())
    changed(built, 102, customers=[customer(1, version=30, city="Ogdenville")])
    row = built.load(101)
    after = dict(built.db.execute(keys + f" and customer_id = '{customer_id(1)}'").fetchall())
    assert set(after) - set(before) == {at(30)}
    assert {time: after[time] for time in before} == before
    assert (row["facts_inserted"], row["facts_updated"], row["facts_deleted"]) == (0, 3, 0)  # made at 30, 40 and 50
    assert [found[1] for _, found in sorted(facts(built).items())] == [BEGINNING] * 2 + [at(30)] * 3 + [at(60)] * 3


def test_a_member_that_has_not_come_is_inferred_filled_in_place_and_removed(built: Warehouse) -> None:
    changed(built, 100, orders=[order(1, 1, 1), order(2, 2, 2), order(3, None, 1)])
    built.load()
    keys = "select customer_key, is_inferred, name from warehouse.dim_customer where customer_id = %s"
    first = built.db.execute(keys, (customer_id(1),)).fetchone()
    assert first is not None
    assert first[1:] == (True, None)
    assert facts(built)["o3", 1][:2] == (None, BEGINNING)
    changed(built, 101, customers=[customer(1)], products=[product(1)], orders=[order(2, 1, 1, version=5)])
    built.load(101)
    assert built.db.execute(keys, (customer_id(1),)).fetchone() == (first[0], False, "Customer 1")
    assert built.db.execute(keys, (customer_id(2),)).fetchone() is None
    assert built.db.execute("select product_id, is_inferred from warehouse.dim_product order by 1").fetchall() == [
        ("p1", False),
        (None, False),
    ]
    regions = built.db.execute("select * from warehouse.sales_by_region order by 1").fetchall()
    assert regions == [("US", 1, Decimal("6.6664")), ("unknown", 0, Decimal("3.3332"))]


def test_a_deleted_customer_keeps_its_revenue_and_is_not_counted(built: Warehouse) -> None:
    synced(built.app, CUSTOMERS, [[customer(1), customer(2)]], fetched_at=at(100))
    changed(built, 100, orders=[order(1, 1, 1), order(2, 2, 1)])
    built.load()
    synced(built.app, CUSTOMERS, [[customer(2)]], fetched_at=at(101), allow_deletes=True)
    built.load(101)
    assert built.db.execute("select * from warehouse.sales_by_region").fetchall() == [("US", 1, Decimal("6.6664"))]
    assert built.db.execute("select * from warehouse.sales_by_segment").fetchall() == [
        ("smb", 1, 2, Decimal("6.6664"), Decimal("3.3332"))
    ]
    deleted = built.db.execute(
        "select customer_id::text, deleted_at from warehouse.dim_customer where deleted_at is not null"
    )
    assert deleted.fetchall() == [(customer_id(1), at(101))]


def test_lines_that_leave_and_orders_that_are_cancelled_or_deleted_leave_the_facts(built: Warehouse) -> None:
    synced(built.app, ORDERS, [[order(number, 1, 3) for number in (1, 2, 3, 4)]], fetched_at=at(100))
    built.load()
    assert len(facts(built)) == 12
    pages = [[order(1, 1, 1, version=1), order(2, 1, 3, version=1, status="cancelled"), order(3, 1, 3)]]
    synced(built.app, ORDERS, pages, fetched_at=at(101), allow_deletes=True)
    row = built.load()
    assert sorted(facts(built)) == [("o1", 1), ("o3", 1), ("o3", 2), ("o3", 3)]
    assert (row["facts_inserted"], row["facts_updated"], row["facts_deleted"]) == (0, 0, 8)


def test_a_load_of_nothing_writes_nothing(built: Warehouse) -> None:
    changed(built, 100, customers=[customer(1)], orders=[order(1, 1)])
    built.load()
    versions = "select xmin::text, ctid::text from warehouse.{} order by 2"
    tables = (
        "dim_date",
        "dim_customer",
        "fact_sales",
        "daily_sales",
        "customer_totals",
        "sales_by_region",
        "sales_by_segment",
    )
    before = [built.db.execute(versions.format(name)).fetchall() for name in tables]
    built.load(101)
    assert [built.db.execute(versions.format(name)).fetchall() for name in tables] == before
    built.load(102, full=True)
    assert [built.db.execute(versions.format(name)).fetchall() for name in tables] == before


def test_an_interval_mends_what_a_hand_has_spoilt(built: Warehouse) -> None:
    changed(built, 100, customers=[customer(1)], orders=[order(1, 1, created=0), order(2, 1, created=3 * DAY)])
    built.load()
    expected = built.content()
    built.db.execute("delete from warehouse.fact_sales where order_id = 'o2' and line_number = 1")
    built.db.execute("update warehouse.fact_sales set net_amount = 0 where order_id = 'o2'")
    built.db.execute("delete from warehouse.daily_sales where date = '2026-03-04'")
    built.db.commit()
    day = date(2026, 3, 4)
    row = built.load(days=(day, day))
    assert row["orders_affected"] == 1
    assert built.content() == expected


def test_the_calendar_grows_and_shrinks_with_the_facts(built: Warehouse) -> None:
    long_ago = -40 * 365 * DAY
    changed(built, 100, orders=[order(1, 1, created=long_ago)])
    built.load()
    days = "select count(*), min(date), max(date) from warehouse.dim_date"
    assert built.db.execute(days).fetchone() == (7670 + 365, date(1986, 1, 1), date(2035, 12, 31))
    changed(built, 101, orders=[order(1, 1, created=0, version=1)])
    built.load()
    assert built.db.execute(days).fetchone() == (7670, date(2015, 1, 1), date(2035, 12, 31))


def test_the_calendar_knows_weeks_and_holidays() -> None:
    rows = {row[1]: row for row in calendar.rows([2026], "US")}
    assert len(rows) == 365
    assert rows[date(2026, 7, 3)] == (20260703, date(2026, 7, 3), 2026, 3, 7, 5, False, True)  # observed on Friday
    assert rows[date(2026, 7, 5)] == (20260705, date(2026, 7, 5), 2026, 3, 7, 7, True, False)
    bavaria = {row[1] for row in calendar.rows([2026], "DE-BY") if row[7]}
    assert date(2026, 1, 6) in bavaria
    assert date(2026, 1, 6) not in {row[1] for row in calendar.rows([2026], "DE") if row[7]}
    with pytest.raises(ValueError, match="holiday_country 'XX'"):
        list(calendar.rows([2026], "XX"))


def refused(built: Warehouse, drawn: UUID, step: load.Step) -> str | None:
    with pytest.raises(psycopg.Error) as error:
        load.run(built.db, step, drawn)
    return error.value.sqlstate


def test_steps_refuse_what_they_cannot_do_right(built: Warehouse) -> None:
    with pytest.raises(load.LoadError, match="run replicate first"):
        load.begin(built.db, run_id="r", as_of=at(0))
    changed(built, 100, orders=[order(1, 1)])
    built.replicate()
    drawn = load.begin(built.db, run_id="r", as_of=at(0))
    assert refused(built, drawn, "facts") == load.OUT_OF_ORDER
    assert refused(built, drawn, "publish") == load.OUT_OF_ORDER
    load.run(built.db, "dimensions", drawn)
    load.run(built.db, "facts", drawn)
    load.run(built.db, "marts", drawn)
    load.run(built.db, "dimensions", drawn)
    assert refused(built, drawn, "marts") == load.OUT_OF_ORDER  # what was built of the members before is gone
    changed(built, 101, orders=[order(2, 1)])
    built.replicate()
    assert refused(built, drawn, "facts") == load.RAW_MOVED
    first, second = built.built(), built.built(200)
    row = load.publish(built.db, first)
    assert load.publish(built.db, first) == row
    assert refused(built, first, "publish") == load.ALREADY_LOADED
    assert refused(built, first, "dimensions") == load.ALREADY_LOADED
    assert refused(built, second, "publish") == load.OVERTAKEN
    emptied = built.built(300)
    built.db.execute(f"truncate warehouse_build.load_{emptied.hex}")  # as a crash does with all unlogged tables
    built.db.commit()
    assert refused(built, emptied, "publish") == load.OUT_OF_ORDER


def test_raw_may_run_ahead_of_a_publish(built: Warehouse) -> None:
    changed(built, 100, orders=[order(1, 1, 1)])
    built.replicate()
    drawn = built.built()
    changed(built, 101, orders=[order(2, 1, 1)])
    built.replicate()
    load.publish(built.db, drawn)
    assert sorted(facts(built)) == [("o1", 1)]
    built.load_raw(101)
    assert sorted(facts(built)) == [("o1", 1), ("o2", 1)]


def test_begin_says_what_no_load_can_have(built: Warehouse) -> None:
    built.replicate()
    with pytest.raises(ValueError, match="time zone"):
        load.begin(built.db, run_id="r", as_of=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(ValueError, match="business_timezone 'Mars/Olympus'"):
        load.begin(built.db, run_id="r", as_of=at(0), business_timezone="Mars/Olympus")
    with pytest.raises(ValueError, match="before it begins"):
        load.begin(built.db, run_id="r", as_of=at(0), days=(date(2026, 1, 2), date(2026, 1, 1)))
    with pytest.raises(ValueError, match="holiday_country"):
        load.begin(built.db, run_id="r", as_of=at(0), holiday_country="XX")
    assert relations(built) == 0


def relations(built: Warehouse) -> int:
    row = built.db.execute(
        "select count(*) from pg_class where relnamespace = 'warehouse_build'::regnamespace"
    ).fetchone()
    built.db.commit()
    assert row is not None
    return int(row[0])


def test_what_loads_have_built_is_dropped(built: Warehouse) -> None:
    built.replicate()
    drawn = built.built()
    assert relations(built) > 20
    load.drop(built.db, drawn)
    assert relations(built) == 0
    dead = built.built(1)
    again = built.built(1)  # of the same run
    assert load.drop_abandoned(built.db, older_than=timedelta(hours=1)) == []
    assert load.drop_abandoned(built.db, older_than=timedelta(0)) == [again]
    assert dead != again
    assert relations(built) == 0


WHOLE = """
    select (select sum(net_amount) from warehouse.fact_sales),
           (select sum(total_revenue) from warehouse.daily_sales),
           (select sum(total_revenue) from warehouse.sales_by_region),
           (select sum(total_revenue) from warehouse.sales_by_segment),
           (select sum(total_revenue) from warehouse.customer_totals),
           (select count(*) from warehouse.fact_sales),
           (select count(*)
              from warehouse.fact_sales f
              join warehouse.dim_customer c on c.customer_key = f.customer_key and c.location_key = f.location_key
              join warehouse.dim_product using (product_key)
              join warehouse.dim_date using (date_key)),
           (select coalesce(max(id), 0) from warehouse.load_log)
"""


def test_readers_see_whole_states_and_never_wait(built: Warehouse) -> None:
    """Statement by statement, in one snapshot, while loads publish."""
    stop = threading.Event()
    seen: list[tuple[Any, ...]] = []
    waited: list[Exception] = []

    def read() -> None:
        with psycopg.connect(built.url) as connection:
            connection.execute("set lock_timeout = '200ms'")
            connection.commit()
            while not stop.is_set() and not waited:
                try:
                    with connection.transaction():
                        connection.execute("set transaction isolation level repeatable read, read only")
                        seen.extend(connection.execute(WHOLE).fetchall())
                except psycopg.Error as error:
                    waited.append(error)

    rng = random.Random(5)  # noqa: S311 - nothing secret
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(6):
            everybody = [customer(n, version=number, city=rng.choice("ABC")) for n in range(1, 40)]
            changed(
                built,
                100 + number,
                customers=rng.sample(everybody, 20),
                orders=[
                    order(n, rng.randint(1, 40), rng.randint(0, 4), created=rng.randint(-900, 900), version=number)
                    for n in rng.sample(range(200), 120)
                ],
            )
            built.load(100 + number)
    finally:
        stop.set()
        reader.join()
    assert waited == []
    assert len({row[-1] for row in seen}) > 3  # of loads
    for facts_sum, daily, region, segment, totals, count, resolved, _ in seen:
        assert facts_sum == daily == region == segment == totals
        assert count == resolved


Version = tuple[datetime, datetime]


def insert(database: Database, versions: list[Version], owner: UUID) -> None:
    for valid_from, valid_to in versions:
        database.execute(
            """
            insert into warehouse.dim_customer (customer_key, customer_id, location_key, valid_from, valid_to,
                                                is_inferred)
            values (nextval('warehouse.customer_key'), %s, -1, %s, %s, false)
            """,
            (owner, valid_from, valid_to),
        )


@pytest.mark.parametrize(
    ("versions", "constraint"),
    [
        ([(BEGINNING, at(9)), (at(5), OPEN_END)], "fk_dim_customer_next"),
        ([(BEGINNING, at(5)), (at(9), OPEN_END)], "fk_dim_customer_next"),
        ([(BEGINNING, OPEN_END), (at(5), OPEN_END)], "uq_dim_customer_customer_id_valid_to"),
        ([(BEGINNING, OPEN_END), (BEGINNING, at(5))], "uq_dim_customer_customer_id_valid_from"),
        ([(BEGINNING, at(5))], "fk_dim_customer_next"),
        ([(at(5), OPEN_END)], "fk_dim_customer_previous"),
        ([(BEGINNING, OPEN_END), (at(5), at(9))], "fk_dim_customer_next"),
        ([(BEGINNING, BEGINNING)], "ck_dim_customer_validity"),
    ],
    ids=["overlap", "hole", "two currents", "two firsts", "no current", "no first", "one within another", "empty"],
)
def test_the_table_refuses_versions_that_do_not_follow_one_another(
    built: Warehouse, versions: list[Version], constraint: str
) -> None:
    with pytest.raises(errors.IntegrityError) as refused, built.db.transaction():
        insert(built.db, versions, uuid4())
    assert refused.value.diag.constraint_name == constraint


def test_a_version_in_the_middle_cannot_be_deleted(built: Warehouse) -> None:
    owner = uuid4()
    insert(built.db, [(BEGINNING, at(1)), (at(1), at(2)), (at(2), OPEN_END)], owner)
    built.db.commit()
    with pytest.raises(errors.ForeignKeyViolation), built.db.transaction():
        built.db.execute(
            "delete from warehouse.dim_customer where customer_id = %s and valid_from = %s", (owner, at(1))
        )


def test_the_table_takes_what_tiles_all_time_and_nothing_else(built: Warehouse) -> None:
    """Random sets of versions between five points of time, against the definition."""
    rng = random.Random(11)  # noqa: S311 - nothing secret
    points = [BEGINNING, at(1), at(2), at(3), OPEN_END]
    taken = 0
    for _ in range(400):
        versions = [tuple(sorted(rng.sample(points, 2))) for _ in range(rng.randint(1, 4))]
        in_order = sorted(versions)
        tiles = (
            in_order[0][0] == BEGINNING
            and in_order[-1][1] == OPEN_END
            and all(one[1] == following[0] for one, following in pairwise(in_order))
        )
        try:
            with built.db.transaction():
                insert(built.db, versions, uuid4())  # type: ignore[arg-type]  # tuples of two
            accepted = True
        except errors.IntegrityError:
            accepted = False
        assert accepted == tiles, versions
        taken += accepted
    assert taken > 10

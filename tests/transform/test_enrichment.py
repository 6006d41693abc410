"""What is derived of customers: the stage's borders, the orders that count; and only rows that change are written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from include.contracts.customers import CUSTOMERS
from include.database.metadata import app_metadata
from include.load.publish import holder
from include.operations import geocodes
from include.transform.enrichment import enrich
from include.transform.geocoding import Address, Location

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)  # the day on which Europe's clocks go forward
DERIVED = "latitude, longitude, lifecycle_stage, lifetime_value, total_orders"
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu")
PARIS = Location(48.85341, 2.3488)


@pytest.fixture
def database(app_database: str) -> Iterator[Database]:
    with psycopg.connect(app_database, autocommit=True) as connection:
        yield connection


class Gazette:
    """The gazetteer's name and habits, with one city."""

    name = "gazetteer"
    reads: tuple[str, ...] = ("city", "state", "country")
    needs: tuple[str, ...] = ("city",)

    def locate(self, address: Address) -> Location | None:
        return PARIS if address.city == "Paris" else None


def customer(database: Database, number: int, **fields: Any) -> UUID:
    """A customer who signed up a day before, unless `fields` say otherwise."""
    row = {
        "id": UUID(int=number),
        "name": f"Customer {number}",
        "email": "a@b.org",
        "tags": [],
        "signup_date": NOON - timedelta(days=1),
        "updated_at": NOON,
        "fetched_at": NOON,
        "change_seq": 0,
    } | fields
    columns = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    database.execute(f"insert into app.customers ({columns}) values ({values})".encode(), row)
    return UUID(int=number)


def order(database: Database, key: str, customer: UUID | None, total: str, status: str = "paid", **fields: Any) -> None:
    database.execute(
        """
        insert into app.orders (
          id, customer_id, status, total, created_at, updated_at, fetched_at, change_seq, deleted_at
        )
        values (%s, %s, %s, %s, %s, %s, %s, 0, %s)
        """,
        (key, customer, status, total, NOON, NOON, NOON, fields.get("deleted_at")),
    )


def derived(database: Database, columns: str = DERIVED) -> list[tuple[Any, ...]]:
    return database.execute(f"select {columns} from app.customers order by id".encode()).fetchall()


def counted(database: Database, as_of: datetime = NOON, **options: Any) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: count for name, count in enrich(database, as_of, "gazetteer", **options).items() if count}


def stage(elapsed: timedelta) -> str:
    days = elapsed / timedelta(days=1)
    return "new" if days < 7 else "active" if days < 30 else "engaged" if days < 90 else "dormant"


INSTANT = timedelta(microseconds=1)
BORDERS = [timedelta(days=days) + step for days in (7, 30, 90) for step in (-INSTANT, timedelta(0), INSTANT)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.timedeltas(timedelta(days=-400), timedelta(days=400)), max_size=10),
    as_of=st.datetimes(
        datetime(2020, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(2030, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=5, minutes=45))]),
    ),
    zone=st.sampled_from(ZONES),
)
@example(ages=[], as_of=NOON, zone="Europe/Berlin")
def test_the_stage_is_told_by_the_days_since_sign_up(
    database: Database, ages: list[timedelta], as_of: datetime, zone: str
) -> None:
    database.execute("delete from app.customers")
    database.execute("select set_config('timezone', %s, false)", (zone,))
    ages = [*BORDERS, timedelta(days=-1), *ages]
    for number, age in enumerate(ages):
        customer(database, number, signup_date=as_of - age)
    enrich(database, as_of, "gazetteer")
    assert derived(database, "lifecycle_stage") == [(stage(age),) for age in ages]
    assert [told for (told,) in derived(database, "lifecycle_stage")][:10] == [
        *("new", "active", "active"),
        *("active", "engaged", "engaged"),
        *("engaged", "dormant", "dormant"),
        "new",
    ]


def populated(database: Database) -> None:
    """Customers and orders of every kind."""
    first = customer(database, 1, city="Paris", country="FR")
    second = customer(database, 2, city=" paris\t", country="FR", signup_date=NOON - timedelta(days=30))
    customer(database, 3, city="Atlantis", country="FR")
    customer(database, 4, street="1 Road", country="FR")
    gone = customer(database, 5, city="Paris", country="FR", deleted_at=NOON)
    absurd = customer(database, 6)
    for status, total in (("paid", "10.0001"), ("refunded", "-25.5"), ("pending", "0"), ("cancelled", "1000")):
        order(database, status, first, total, status)
    order(database, "deleted", first, "500", deleted_at=NOON)
    order(database, "a", second, "0.1")
    order(database, "b", second, "0.2", "delivered")
    order(database, "orphan", UUID(int=99), "7")
    order(database, "nobody's", None, "7")
    order(database, "of one gone", gone, "7")
    order(database, "absurd", absurd, "99999999999999.9999")
    order(database, "more absurd", absurd, "99999999999999.9999")
    geocodes.fill(database, Gazette(), lambda line: None)


EXPECTED = [
    (*PARIS, "new", Decimal("-15.4999"), 3),
    (*PARIS, "engaged", Decimal("0.3000"), 2),
    (None, None, "new", Decimal("0.0000"), 0),
    (None, None, "new", Decimal("0.0000"), 0),
    (None, None, None, None, None),
    (None, None, "new", None, 2),
]
COUNTS = {
    "customers": 5,
    "changed": 5,
    "moved": 2,
    "restaged": 5,
    "revalued": 5,
    "without_address": 2,
    "without_location": 1,
    "without_lifetime_value": 1,
}
UNCHANGED = {name: COUNTS[name] for name in COUNTS if name == "customers" or name.startswith("without")}


@pytest.mark.parametrize("zone", ZONES)
def test_whole_rows_in_any_time_zone(database: Database, zone: str) -> None:
    database.execute("select set_config('timezone', %s, false)", (zone,))
    populated(database)
    assert counted(database) == COUNTS
    assert derived(database) == EXPECTED
    assert derived(database, "enriched_at") == [(NOON,), (NOON,), (NOON,), (NOON,), (None,), (NOON,)]


def test_only_rows_that_change_are_written_with_a_new_change_seq(database: Database) -> None:
    populated(database)
    every = ", ".join(column.name for column in app_metadata().tables["app.customers"].columns)
    before = derived(database, every)
    assert counted(database, dry_run=True) == COUNTS
    assert derived(database, every) == before

    counted(database)
    earlier = [seq for (seq,) in derived(database, "change_seq")]
    assert sorted(earlier) == [0, 1, 2, 3, 4, 5]
    first = derived(database, f"xmin::text, {every}")
    assert counted(database, NOON + timedelta(days=1)) == UNCHANGED
    assert derived(database, f"xmin::text, {every}") == first

    order(database, "new", UUID(int=3), "12.5")
    database.execute("update app.customers set city = 'Lyon' where id = %s", (UUID(int=1),))
    later = NOON + timedelta(days=6)
    assert counted(database, later) == UNCHANGED | {
        "changed": 4,
        "moved": 1,
        "restaged": 4,
        "revalued": 1,
        "without_location": 2,
    }
    assert derived(database) == [
        (None, None, "active", Decimal("-15.4999"), 3),
        EXPECTED[1],
        (None, None, "active", Decimal("12.5000"), 1),
        (None, None, "active", Decimal("0.0000"), 0),
        EXPECTED[4],
        (None, None, "active", None, 2),
    ]
    seqs = [seq for (seq,) in derived(database, "change_seq")]
    assert (seqs[1], seqs[4]) == (earlier[1], 0)
    assert {seqs[0], seqs[2], seqs[3], seqs[5]} == {6, 7, 8, 9}
    assert derived(database, "enriched_at") == [(later,), (NOON,), (later,), (later,), (None,), (later,)]
    assert derived(database, "updated_at, fetched_at") == [(NOON, NOON)] * 6
    assert database.execute("select count(*) from app.customers_history").fetchone() == (0,)


def test_it_waits_for_a_publish_of_customers_but_not_for_ever(app_database: str, database: Database) -> None:
    populated(database)
    with psycopg.connect(app_database) as publishing:
        publishing.execute("select pg_advisory_xact_lock(hashtextextended('sluice.customers', 0))")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            enrich(database, NOON, "gazetteer", lock_seconds=1)
    assert derived(database) == [(None,) * 5] * 6
    with database.transaction():
        database.execute("set local application_name = 'sluice customer_enrichment'")
        database.execute("select pg_advisory_xact_lock(hashtextextended('sluice.customers', 0))")
        assert holder(database, CUSTOMERS).startswith("session 'sluice customer_enrichment' holds it since")
    assert counted(database) == COUNTS


def test_nobody_is_enriched_where_nobody_is(database: Database) -> None:
    assert counted(database) == {}
    with pytest.raises(KeyError):
        enrich(database, NOON, "'; drop table app.customers; --")

"""No load reads the wall clock or the session's time zone: all that it gives follows from raw and what it is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.local.postgres import PostgresServer
from include.sql import SQL
from tests.load.syncing import at, synced
from tests.warehouse.building import Content, customer, order, warehouse

pytestmark = pytest.mark.database

DAY = 24 * 60
BUSINESS = "Australia/Lord_Howe"
TIMEZONES = ("UTC", "America/St_Johns", "Pacific/Kiritimati")


def loaded(postgres: PostgresServer, session: str, name: str) -> Content:
    """Two loads, some weeks apart, by a session of that time zone; what they say is read in UTC."""
    with warehouse(postgres, name, options=f"-c timezone={session}") as made:
        assert made.db.execute("show timezone").fetchone() == (session,)
        made.db.commit()
        people = [customer(n, version=n, signup_date=at(-7 * DAY + 97 * n).isoformat()) for n in range(1, 30)]
        sold = [order(n, n % 30, created=n * 53 - DAY) for n in range(120)]
        synced(made.app, CUSTOMERS, [people], fetched_at=at(100))
        synced(made.app, ORDERS, [sold], fetched_at=at(100))
        made.load(0, business_timezone=BUSINESS)
        moved = [customer(n, version=700 + 60 * n, city="Ogdenville") for n in range(1, 12)]
        synced(made.app, CUSTOMERS, [moved], mode="delta", since=at(-DAY), fetched_at=at(3 * DAY))
        made.load(23 * DAY + 1, business_timezone=BUSINESS, days=(date(2026, 3, 1), date(2026, 3, 2)))
        made.db.execute("set timezone to 'UTC'")
        return made.content()


def test_the_sessions_time_zone_changes_nothing(postgres: PostgresServer) -> None:
    found = [loaded(postgres, session, f"clock_{number}") for number, session in enumerate(TIMEZONES)]
    assert len(found[0]["fact_sales"]) == 240
    assert {row[5] for row in found[0]["dim_customer"] if row[8]} == {"active", "engaged", None}
    assert found[0] == found[1] == found[2]


def test_a_day_is_the_businesss(postgres: PostgresServer) -> None:
    with warehouse(postgres, "clock_days") as made:
        synced(made.app, ORDERS, [[order(1, 1, created=11 * 60)]], fetched_at=at(100))  # 23:00 UTC
        made.load()
        days = "select date from warehouse.daily_sales"
        assert made.db.execute(days).fetchall() == [(date(2026, 3, 1),)]
        made.load(business_timezone="Asia/Tokyo")
        assert made.db.execute(days).fetchall() == [(date(2026, 3, 2),)]
        made.load()
        assert made.db.execute(days).fetchall() == [(date(2026, 3, 1),)]


@pytest.mark.parametrize("file", [*SQL.glob("warehouse/*.sql"), *SQL.glob("marts/*.sql")], ids=lambda file: file.stem)
def test_no_statement_asks_the_clock(file: Path) -> None:
    text = (
        file.read_text().lower().replace("begun_at timestamptz not null default now()", "")
    )  # says which build is old
    words = ("now()", "current_date", "current_time", "localtime", "clock_timestamp", "statement_timestamp", "'today'")
    assert [word for word in words if word in text] == []

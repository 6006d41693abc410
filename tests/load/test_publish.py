"""What publish refuses, warns about and leaves alone; the rules for rows are in `test_publish_model.py`."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.extract.execution import Request, asked_since
from include.load import staging
from include.load.publish import ACCOUNTING, ALREADY_PUBLISHED, OVERTAKEN, TOO_MANY_DELETES, publish, queue_dead_letters
from include.operations import sync_log
from tests.load.syncing import at, counts, staged, synced

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]


def product(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "name": f"Product {number}", "price": 5, "updated_at": at(-60).isoformat(), **changes}


def order(number: int, *lines: int, **changes: Any) -> dict[str, Any]:
    items = [{"line_number": line, "product_id": "p1", "quantity": 1, "price": "1.50"} for line in lines]
    return {
        "id": f"o{number}",
        "status": "paid",
        "total": "3.00",
        "created_at": at(-90).isoformat(),
        "updated_at": at(-60).isoformat(),
        "items": items,
        **changes,
    }


def live(database: Database, table: str = "app.products") -> set[str]:
    statement = sql.SQL("select id::text from {} where deleted_at is null").format(sql.Identifier(*table.split(".")))
    return {key for (key,) in database.execute(statement)}


def contents(database: Database) -> dict[str, list[Any]]:
    """Every row of every table that a sync writes, without the columns that count writes."""
    tables = ("app.customers", "app.customers_history", "app.products", "app.orders", "app.order_items")
    rows = {}
    for table in tables:
        statement = sql.SQL("select to_jsonb(t) - 'synced_at' - 'change_seq' from {} t order by 1")
        rows[table] = database.execute(statement.format(sql.Identifier(*table.split(".")))).fetchall()
    return rows


def test_a_second_run_changes_nothing_and_says_so(app_db: Database) -> None:
    pages = [[order(1, 1, 2), order(2, 1)], [order(3)]]
    assert counts(synced(app_db, ORDERS, pages, fetched_at=at(0))) == {"inserted": 3}
    written = app_db.execute("select id, xmin::text, change_seq from app.orders order by id").fetchall()
    assert counts(synced(app_db, ORDERS, pages, fetched_at=at(10))) == {"unchanged": 3}
    assert app_db.execute("select id, xmin::text, change_seq from app.orders order by id").fetchall() == written


def test_a_changed_item_at_an_equal_version_updates_the_order(app_db: Database) -> None:
    synced(app_db, ORDERS, [[order(1, 1, 2), order(2, 1)]], fetched_at=at(0))
    assert counts(synced(app_db, ORDERS, [[order(1, 1, 3), order(2, 1)]], fetched_at=at(10))) == {
        "updated": 1,
        "unchanged": 1,
    }
    lines = app_db.execute("select order_id, line_number from app.order_items order by 1, 2").fetchall()
    assert lines == [("o1", 1), ("o1", 3), ("o2", 1)]


def test_what_the_source_no_longer_has_is_deleted_softly_and_returns(app_db: Database) -> None:
    everything = [product(number) for number in range(20)]
    synced(app_db, PRODUCTS, [everything], fetched_at=at(0))
    assert counts(synced(app_db, PRODUCTS, [everything[1:]], fetched_at=at(10))) == {"unchanged": 19, "deleted": 1}
    row = app_db.execute("select deleted_at, change_seq from app.products where id = 'p0'").fetchone()
    assert row is not None
    assert row[0] == at(10)
    assert row[1] == app_db.execute("select max(change_seq) from app.products").fetchone()[0]  # type: ignore[index]
    assert counts(synced(app_db, PRODUCTS, [everything], fetched_at=at(20))) == {"updated": 1, "unchanged": 19}
    assert live(app_db) == {f"p{number}" for number in range(20)}


@pytest.mark.parametrize("mode", ["snapshot", "delta"])
def test_a_record_fetched_no_later_than_the_deleting_snapshot_leaves_it_deleted(app_db: Database, mode: Any) -> None:
    synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(0))
    synced(app_db, PRODUCTS, [[product(2)]], fetched_at=at(10))
    newer = product(1, updated_at=at(-1).isoformat())
    row = synced(app_db, PRODUCTS, [[newer, product(2)]], fetched_at=at(10), mode=mode)
    assert counts(row) == {"stale": 1, "unchanged": 1}
    assert live(app_db) == {"p2"}


def test_a_snapshot_that_lost_too_much_is_stopped(app_db: Database) -> None:
    everything = [product(number) for number in range(20)]
    synced(app_db, PRODUCTS, [everything], fetched_at=at(0))
    before = contents(app_db)
    with pytest.raises(psycopg.Error, match=r"lacks 5 of 20 live rows.*allow_deletes") as refused:
        synced(app_db, PRODUCTS, [[product(30), *everything[5:]]], fetched_at=at(10))
    assert refused.value.sqlstate == TOO_MANY_DELETES
    assert contents(app_db) == before
    assert counts(synced(app_db, PRODUCTS, [everything[4:]], fetched_at=at(20))) == {"unchanged": 16, "deleted": 4}
    allowed = synced(app_db, PRODUCTS, [everything[10:]], fetched_at=at(30), allow_deletes=True)
    assert counts(allowed) == {"unchanged": 10, "deleted": 6}


def test_a_small_table_may_lose_everything(app_db: Database) -> None:
    synced(app_db, PRODUCTS, [[product(number) for number in range(9)]], fetched_at=at(0))
    assert counts(synced(app_db, PRODUCTS, [[product(50)]], fetched_at=at(10))) == {"inserted": 1, "deleted": 9}


def test_a_quarantined_record_is_not_deleted(app_db: Database) -> None:
    synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(0))
    row = synced(app_db, PRODUCTS, [[product(1), product(2, price=-1)]], fetched_at=at(10))
    assert counts(row) == {"unchanged": 1, "quarantined": 1}
    assert live(app_db) == {"p1", "p2"}


def test_a_row_of_a_later_fetch_is_not_deleted(app_db: Database) -> None:
    synced(app_db, PRODUCTS, [[product(1)]], fetched_at=at(0))
    synced(app_db, PRODUCTS, [[product(2)]], fetched_at=at(10), mode="delta", since=at(-30))
    assert counts(synced(app_db, PRODUCTS, [[product(1)]], fetched_at=at(5))) == {"unchanged": 1}
    assert live(app_db) == {"p1", "p2"}


def test_a_key_that_cannot_be_read_may_be_any_row(app_db: Database) -> None:
    synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(0))
    broken = product(2, id=None)
    first = synced(app_db, PRODUCTS, [[product(1), broken]], fetched_at=at(10))
    assert (counts(first), first["unreadable_new"]) == ({"unchanged": 1, "quarantined": 1}, 1)
    second = synced(app_db, PRODUCTS, [[product(1), broken]], fetched_at=at(20))
    assert (counts(second), second["unreadable_new"]) == ({"unchanged": 1, "quarantined": 1, "deleted": 1}, 0)


def test_an_execution_that_a_later_snapshot_has_overtaken_publishes_nothing(app_db: Database) -> None:
    synced(app_db, PRODUCTS, [[product(1)]], fetched_at=at(10))
    before = contents(app_db)
    with pytest.raises(psycopg.Error, match=r"run run-\d+ has published a snapshot that began later") as refused:
        synced(app_db, PRODUCTS, [[product(1, name="Late", updated_at=at(0).isoformat())]], fetched_at=at(5))
    assert refused.value.sqlstate == OVERTAKEN
    assert contents(app_db) == before


def test_an_execution_is_published_once(app_db: Database) -> None:
    execution = staged(app_db, PRODUCTS, [[product(1), product(2, price=-1)]], fetched_at=at(0))
    publish(app_db, PRODUCTS, execution, mode="snapshot", max_deleted_share=0.2)
    app_db.commit()
    with pytest.raises(psycopg.Error) as refused:
        publish(app_db, PRODUCTS, execution, mode="snapshot", max_deleted_share=0.2)
    assert refused.value.sqlstate == ALREADY_PUBLISHED
    app_db.rollback()
    assert app_db.execute("select count(*) from operations.sync_log").fetchone() == (1,)
    assert app_db.execute("select attempts from operations.dead_letters").fetchall() == [(1,)]


def test_records_that_are_missing_from_staging_stop_the_run(app_db: Database) -> None:
    with pytest.raises(
        psycopg.Error, match=r"3 records were read, but 2 inserted .* clear|Clear products\.extract"
    ) as refused:
        synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(0), read=3)
    assert refused.value.sqlstate == ACCOUNTING
    assert contents(app_db)["app.products"] == []
    assert app_db.execute("select count(*) from operations.sync_log").fetchone() == (0,)


def test_a_source_that_was_restored_is_counted_and_mended_by_trust_source(app_db: Database) -> None:
    newer = product(1, name="Newer", updated_at=at(-5).isoformat())
    older = product(1, name="Older", updated_at=at(-50).isoformat())
    synced(app_db, PRODUCTS, [[newer]], fetched_at=at(0))
    row = synced(app_db, PRODUCTS, [[older]], fetched_at=at(10))
    assert (counts(row), row["regressed"]) == ({"stale": 1}, 1)
    assert counts(synced(app_db, PRODUCTS, [[older]], fetched_at=at(20), trust_source=True)) == {"updated": 1}
    assert app_db.execute("select name, updated_at from app.products").fetchall() == [("Older", at(-50))]


def test_a_letter_is_one_a_record_and_is_superseded_when_the_record_is_mended(app_db: Database) -> None:
    def letters() -> list[Any]:
        return app_db.execute(
            "select record_key, error, attempts, status, payload ->> 'price' from operations.dead_letters order by id"
        ).fetchall()

    refused = "price: Input should be greater than or equal to 0"
    for minutes, price in ((0, -1), (10, -2)):
        synced(app_db, PRODUCTS, [[product(1, price=price), product(2)]], fetched_at=at(minutes))
    assert letters() == [("p1", refused, 2, "pending", "-2")]
    mended = synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(20))
    assert (counts(mended), mended["letters_superseded"]) == ({"inserted": 1, "unchanged": 1}, 1)
    assert letters() == [("p1", refused, 2, "superseded", "-2")]
    synced(app_db, PRODUCTS, [[product(1, price=-3, updated_at=at(1).isoformat()), product(2)]], fetched_at=at(30))
    assert letters()[1:] == [("p1", refused, 1, "pending", "-3")]


def test_letters_that_a_stopped_entity_queued_count_an_execution_once(app_db: Database) -> None:
    execution = staged(app_db, PRODUCTS, [[product(1, price=-1)]], fetched_at=at(0))
    for _ in range(3):
        queue_dead_letters(app_db, PRODUCTS, execution)
    publish(app_db, PRODUCTS, execution, mode="snapshot", max_deleted_share=0.2)
    assert app_db.execute("select attempts, status from operations.dead_letters").fetchall() == [(1, "pending")]


def test_enrichment_columns_are_left_alone(app_db: Database) -> None:
    customer = {
        "id": "00000000-0000-0000-0000-000000000001",
        "full_name": "Ada Byron",
        "email_address": "ada@example.com",
        "signup_date": "2025-01-01",
        "updated_at": at(-60).isoformat(),
    }
    synced(app_db, CUSTOMERS, [[customer]], fetched_at=at(0))
    app_db.execute("update app.customers set latitude = 1.5, lifecycle_stage = 'new', total_orders = 7")
    synced(app_db, CUSTOMERS, [[customer | {"city": "London", "updated_at": at(-1).isoformat()}]], fetched_at=at(10))
    row = app_db.execute("select city, latitude, lifecycle_stage, total_orders from app.customers").fetchone()
    assert row == ("London", 1.5, "new", 7)
    history = app_db.execute("select city, updated_at, fetched_at from app.customers_history").fetchall()
    assert history == [(None, at(-60), at(0))]


def test_two_publishes_at_once_leave_the_same_rows_as_one_after_the_other(app_database: str, app_db: Database) -> None:
    older = [product(number, name="Old") for number in range(200)]
    newer = [product(number, name="New", updated_at=at(-1).isoformat()) for number in range(100, 300)]
    executions_ = [
        staged(app_db, PRODUCTS, [older], fetched_at=at(0)),
        staged(app_db, PRODUCTS, [newer], fetched_at=at(0)),
    ]
    started = threading.Barrier(2)
    errors: list[BaseException] = []

    def run(execution: Any) -> None:
        try:
            with psycopg.connect(app_database) as connection:
                started.wait()
                publish(connection, PRODUCTS, execution, mode="snapshot", max_deleted_share=0.2)
        except BaseException as error:  # shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(execution,)) for execution in executions_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    names = app_db.execute("select name, count(*) from app.products group by name order by name").fetchall()
    assert names == [("New", 200), ("Old", 100)]
    logged = app_db.execute(
        "select sum(inserted), sum(updated + stale), sum(records_read) from operations.sync_log"
    ).fetchone()
    assert logged == (300, 100, 400)


def test_publish_waits_for_whoever_holds_the_entity(app_database: str, app_db: Database) -> None:
    execution = staged(app_db, PRODUCTS, [[product(1)]], fetched_at=at(0))
    with psycopg.connect(app_database) as holder:
        holder.execute("select pg_advisory_xact_lock(hashtextextended('sluice.products', 0))")
        thread = threading.Thread(
            target=publish, args=(app_db, PRODUCTS, execution), kwargs={"mode": "snapshot", "max_deleted_share": 0.2}
        )
        thread.start()
        time.sleep(0.5)
        assert holder.execute("select count(*) from app.products").fetchone() == (0,)
        assert thread.is_alive()
    thread.join(10)
    app_db.commit()
    assert live(app_db) == {"p1"}


def test_readers_see_all_of_a_publish_or_none(app_database: str, app_db: Database) -> None:
    synced(app_db, ORDERS, [[order(number, 1) for number in range(500)]], fetched_at=at(0))
    changed = [order(number, 1, 2, total="9.00", updated_at=at(-1).isoformat()) for number in range(500)]
    execution = staged(app_db, ORDERS, [changed], fetched_at=at(10))
    seen: set[Any] = set()
    done, has_read = threading.Event(), threading.Event()

    def read() -> None:
        with psycopg.connect(app_database, autocommit=True) as reader:
            while not done.is_set():
                seen.add(
                    reader.execute(
                        "select (select sum(total) from app.orders), (select count(*) from app.order_items)"
                    ).fetchone()
                )
                has_read.set()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert has_read.wait(30)
        publish(app_db, ORDERS, execution, mode="snapshot", max_deleted_share=0.2)
        app_db.commit()
        for _ in range(2):  # what is being read may have begun before the commit
            has_read.clear()
            assert has_read.wait(30)
    finally:
        done.set()
        thread.join()
    assert seen == {(1500, 500), (4500, 1000)}


def test_staging_that_is_gone_is_told_apart_from_staging_that_is_there(app_db: Database) -> None:
    execution = staged(app_db, ORDERS, [[order(1, 1)]], fetched_at=at(0))
    assert staging.exists(app_db, ORDERS, execution)
    assert len(staging.drop(app_db, execution)) == 4
    assert not staging.exists(app_db, ORDERS, execution)
    assert sync_log.published(app_db, execution) is None


@pytest.mark.parametrize(
    ("pages", "until", "watermark"),
    [
        ([[]], at(-600), at(-600)),
        ([[product(1, updated_at=at(-700).isoformat())]], at(-600), at(-600)),
        ([[product(1, updated_at=at(-700).isoformat())]], at(5), at(0)),
        ([[product(1, updated_at=at(-700).isoformat())]], None, at(-700)),
        ([[]], None, None),
    ],
)
def test_a_first_load_by_windows_moves_the_watermark_to_where_it_has_come(
    app_db: Database, pages: list[list[Any]], until: datetime | None, watermark: datetime | None
) -> None:
    since = PRODUCTS.initial_watermark
    row = synced(app_db, PRODUCTS, pages, mode="delta", fetched_at=at(0), since=since, until=until)
    assert row["watermark"] == watermark
    expected = since if watermark is None else watermark - PRODUCTS.lookback
    assert asked_since(app_db, PRODUCTS, Request(mode="delta")) == expected
    later = expected + timedelta(days=1)
    row = synced(app_db, PRODUCTS, [[]], mode="delta", fetched_at=at(1), since=later, until=at(-100))
    assert row["watermark"] == watermark, "a fetch that left a gap behind it does not move it"

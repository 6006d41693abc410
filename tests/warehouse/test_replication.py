"""Replication between real servers: `raw` equals `app` after any publishes, kills, restores and differences."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import MetaData, create_engine, make_url

from include.contracts.contract import Contract
from include.contracts.customers import CUSTOMERS
from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.database.raw import REPLICATED, raw_tables
from include.load.publish import OVERTAKEN
from include.local.postgres import PostgresServer, binaries
from include.warehouse import replication
from include.warehouse.replication import Replicated, ReplicationError, replicate
from tests.load.syncing import at, synced
from tests.memory import temporary_folder

pytestmark = pytest.mark.database
Database = psycopg.Connection[Any]
RAW = {table.name: table for table in raw_tables(MetaData())}
COPIED = [name for name in RAW if name != "positions"]
BY_NAME = {contract.name: contract for contract in REPLICATED}


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    """A second server: the wheel's, so that the two differ by their major version where SLUICE_POSTGRES_BIN says so."""
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLUICE_POSTGRES_BIN", raising=False)
        server = PostgresServer(Path(folder) / "postgres", bin_dir=binaries(), fsync=False)
        server.start()
        yield server
        server.stop()


def make_raw(dsn: str) -> None:
    """Makes the empty tables of `raw`."""
    engine = create_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("create schema raw")
        RAW["positions"].metadata.create_all(connection)
    engine.dispose()


@pytest.fixture(scope="module")
def warehouse_template(other_server: PostgresServer) -> str:
    """A database of the second server with the empty tables of `raw`."""
    with psycopg.connect(other_server.dsn(), autocommit=True) as connection:
        connection.execute("create database raw_template")
    make_raw(other_server.dsn("raw_template"))
    return "raw_template"


@pytest.fixture
def warehouse_dsn(other_server: PostgresServer, warehouse_template: str) -> str:
    """The URI of a warehouse on the second server, emptied."""
    dsn = other_server.dsn(warehouse_template)
    with psycopg.connect(dsn) as connection:
        for name in RAW:
            connection.execute(f"drop trigger if exists spoil on raw.{name}")
            connection.execute(f"truncate raw.{name}")
    return dsn


@pytest.fixture
def warehouse_db(warehouse_dsn: str) -> Iterator[Database]:
    with psycopg.connect(warehouse_dsn) as connection:
        yield connection


def customer(number: int, version: float, name: str = "Ann Lee", city: str = "Bonn") -> dict[str, Any]:
    return {
        "id": str(UUID(int=number)),
        "full_name": name,
        "email_address": f"c{number}@example.com",
        "tags": ["a", "ü"] if number % 2 else [],
        "city": city,
        "signup_date": "2025-01-01T00:00:00Z",
        "updated_at": at(version).isoformat(),
    }


def product(number: int, version: float, name: str = "Lamp") -> dict[str, Any]:
    return {"id": f"p{number}", "name": name, "price": "12.3400", "updated_at": at(version).isoformat()}


def order(number: int, version: float, lines: int = 2, status: str = "paid") -> dict[str, Any]:
    return {
        "id": f"o{number}",
        "customer_id": str(UUID(int=number)) if number % 3 else None,
        "status": status,
        "total": f"{number}.5",
        "created_at": "2026-02-03T04:05:06.789Z",
        "updated_at": at(version).isoformat(),
        "items": [
            {"line_number": line, "product_id": f"p{line}", "quantity": line, "price": "0.0001", "discount": None}
            for line in range(1, lines + 1)
        ],
    }


def fill(app: Database, version: float = 0, count: int = 5, fetched: float | None = None) -> None:
    """Publishes `count` customers, products and orders of that version (minutes)."""
    fetched_at = at(version + 1 if fetched is None else fetched)
    for contract, record in ((CUSTOMERS, customer), (PRODUCTS, product), (ORDERS, order)):
        synced(app, contract, [[record(number, version) for number in range(count)]], fetched_at=fetched_at)


def content(database: Database, schema: str) -> dict[str, list[Any]]:
    """Every table's rows, as Postgres writes them, by all columns that are replicated."""
    found = {}
    for name in COPIED:
        columns = ", ".join(RAW[name].columns.keys())
        rows = database.execute(f"select r::text from (select {columns} from {schema}.{name}) r order by 1").fetchall()
        found[name] = [row for (row,) in rows]
    database.commit()
    return found


def positions(database: Database) -> list[Any]:
    rows = database.execute("select entity, change_seq, generation from raw.positions order by 1").fetchall()
    database.commit()
    return rows


def newest(app: Database) -> list[Any]:
    """Each entity's highest change_seq in `app`."""
    rows = app.execute(
        """
        select 'customers', max(change_seq)
          from (select change_seq from app.customers union all select change_seq from app.customers_history) c
        union all select 'orders', max(change_seq) from app.orders
        union all select 'products', max(change_seq) from app.products
        """
    ).fetchall()
    app.commit()
    return rows


def copied(result: Replicated) -> dict[str, int]:
    """The tables of which rows were copied."""
    return {name: count for entity in result.entities for name, count in entity.rows.items() if count}


def quiet(line: str) -> None:
    """Reports to nobody."""


@pytest.mark.parametrize("layout", ["one database", "one server", "two servers"])
def test_the_first_is_whole_and_later_ones_bring_what_changed(
    postgres: PostgresServer, app_database: str, warehouse_dsn: str, layout: str
) -> None:
    where = warehouse_dsn
    if layout == "one database":
        where = app_database
        make_raw(where)
    elif layout == "one server":
        where = postgres.dsn(f"warehouse_{time.monotonic_ns()}")
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(f"create database {make_url(where).database}")
        make_raw(where)
    with (
        psycopg.connect(app_database, options="-c timezone=Asia/Tokyo", client_encoding="latin1") as app,
        psycopg.connect(where, options="-c timezone=America/New_York") as warehouse,
        psycopg.connect(app_database) as source,
    ):
        fill(source)
        synced(source, CUSTOMERS, [[customer(1, 5, "Łukasz Żak", "Łódź")]], fetched_at=at(6), mode="delta", since=at(0))
        lines: list[str] = []
        first = replicate(app, warehouse, report=lines.append)
        assert copied(first) == {"customers": 5, "customers_history": 1, "orders": 5, "order_items": 10, "products": 5}
        assert [entity.whole for entity in first.entities] == [True, True, True]
        assert [line.split(" in ")[0] for line in lines] == ["customers: 6 rows", "orders: 15 rows", "products: 5 rows"]
        assert positions(warehouse) == [(name, seq, 1) for name, seq in newest(source)]

        assert copied(replicate(app, warehouse, report=quiet)) == {}

        synced(source, CUSTOMERS, [[customer(1, 2, "Too Late")]], fetched_at=at(7), mode="delta", since=at(0))
        synced(source, ORDERS, [[order(2, 8, lines=1), order(3, 8, lines=0)]], fetched_at=at(9), mode="delta")
        second = replicate(app, warehouse, report=quiet)
        assert copied(second) == {"customers": 1, "customers_history": 2, "orders": 2, "order_items": 1}
        assert [entity.whole for entity in second.entities] == [False, False, False]
        assert positions(warehouse) == [(name, seq, 1) for name, seq in newest(source)]
        with psycopg.connect(where) as reader:
            assert content(reader, "raw") == content(source, "app")

        full = replicate(app, warehouse, full=True, report=quiet)
        assert copied(full) == {"customers": 5, "customers_history": 2, "orders": 5, "order_items": 7, "products": 5}
        assert positions(warehouse) == [(name, seq, 2) for name, seq in newest(source)]
        with psycopg.connect(where) as reader:
            assert content(reader, "raw") == content(source, "app")


def test_an_empty_source_is_replicated_too(app_db: Database, warehouse_db: Database) -> None:
    assert replicate(app_db, warehouse_db, report=quiet).rows == 0
    assert positions(warehouse_db) == [("customers", 0, 1), ("orders", 0, 1), ("products", 0, 1)]
    fill(app_db, count=2)
    again = replicate(app_db, warehouse_db, report=quiet)
    assert copied(again) == {"customers": 2, "orders": 2, "order_items": 4, "products": 2}
    assert not any(entity.whole for entity in again.entities)


@dataclass(frozen=True)
class Publish:
    """An execution of an entity; times are minutes. Records are (key, version, variant)."""

    entity: str
    mode: str
    fetched_at: int
    trust_source: bool
    records: tuple[tuple[int, int, int], ...]

    def pages(self) -> list[list[dict[str, Any]]]:
        make: dict[str, Callable[[int, int, int], dict[str, Any]]] = {
            "customers": lambda key, version, variant: customer(key, version, city=f"City {variant}"),
            "orders": lambda key, version, variant: order(key, version, lines=variant),
            "products": lambda key, version, variant: product(key, version, name=f"Lamp {variant}"),
        }
        return [[make[self.entity](*record) for record in self.records]]


publishes = st.builds(
    Publish,
    entity=st.sampled_from(["customers", "customers", "orders", "orders", "products"]),
    mode=st.sampled_from(["snapshot", "delta", "delta"]),
    fetched_at=st.integers(5, 12).map(lambda number: number * 10),
    trust_source=st.booleans(),
    records=st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 5).map(lambda number: number * 10), st.integers(0, 2)), max_size=3
    ).map(tuple),
)
steps = st.lists(
    st.tuples(st.one_of(publishes, publishes, publishes, st.just("renumber")), st.booleans()), min_size=2, max_size=10
)


@pytest.fixture(scope="module")
def played_db(postgres: PostgresServer) -> Iterator[Database]:
    """A migrated `app` that many examples share."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("create database played template migrated")
    with psycopg.connect(postgres.dsn("played")) as connection:
        yield connection


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_any_publishes_with_replications_between_leave_raw_equal_to_app(
    played_db: Database, warehouse_db: Database, played: list[tuple[Publish | str, bool]]
) -> None:
    tables = ", ".join(f"app.{name}" for name in COPIED)
    played_db.execute(f"truncate {tables}, operations.dead_letters, operations.sync_log")
    played_db.commit()
    warehouse_db.execute(f"truncate {', '.join(f'raw.{name}' for name in RAW)}")
    warehouse_db.commit()
    replicate(played_db, warehouse_db, report=quiet)
    for step, then_replicate in [*played, ("renumber", True)]:
        if isinstance(step, Publish):
            published(played_db, step)
        else:  # what enrichment does: a new number without a new version
            played_db.execute("update app.customers set change_seq = nextval('app.change_seq') where city = 'City 1'")
            played_db.commit()
        if then_replicate:
            replicate(played_db, warehouse_db, report=quiet)
            assert content(warehouse_db, "raw") == content(played_db, "app")
            assert positions(warehouse_db) == [(name, seq or 0, 1) for name, seq in newest(played_db)]
    assert replicate(played_db, warehouse_db, report=quiet).rows == 0


def published(app: Database, step: Publish) -> None:
    contract = BY_NAME[step.entity]
    arguments: dict[str, Any] = {
        "fetched_at": at(step.fetched_at),
        "mode": step.mode,
        "trust_source": step.trust_source and step.mode == "snapshot",
        "allow_deletes": True,
    }
    try:
        synced(app, contract, step.pages(), **arguments)
    except psycopg.Error as error:
        if error.sqlstate != OVERTAKEN:
            raise


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Starts the work; what it gives or raises is in the list when the thread has ended."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_publish_that_is_half_way_is_waited_for(app_database: str, warehouse_db: Database) -> None:
    with psycopg.connect(app_database) as app, psycopg.connect(app_database) as writer:
        fill(app)
        replicate(app, warehouse_db, report=quiet)
        writer.execute("select pg_advisory_xact_lock(hashtextextended('sluice.orders', 0))")
        writer.execute("update app.orders set status = 'shipped', change_seq = nextval('app.change_seq')")
        thread, outcome = in_thread(lambda: replicate(app, warehouse_db, report=quiet))
        with psycopg.connect(app_database, autocommit=True) as watcher:
            waiting = "select from pg_locks where locktype = 'advisory' and not granted"
            until(lambda: watcher.execute(waiting).fetchone() is not None or bool(outcome))
        writer.commit()
        thread.join()
        assert copied(outcome[0]) == {"orders": 5, "order_items": 10}
        assert content(warehouse_db, "raw") == content(app, "app")


def test_locks_are_held_for_the_snapshot_alone(app_database: str, warehouse_db: Database) -> None:
    with psycopg.connect(app_database) as app, psycopg.connect(app_database) as writer:
        fill(app)
        before = content(app, "app")
        replicate(app, warehouse_db, report=quiet)
        fill(app, version=10, count=6)
        between = content(app, "app")
        assert before != between

        def publish_meanwhile(line: str) -> None:
            if line.startswith("customers"):
                fill(writer, version=20, count=7)

        replicate(app, warehouse_db, report=publish_meanwhile)
        assert content(warehouse_db, "raw") == between
        after = replicate(app, warehouse_db, report=quiet)
        assert not any(entity.whole for entity in after.entities)
        assert content(warehouse_db, "raw") == content(app, "app") != between


def test_nothing_is_lost_while_others_publish(app_database: str, warehouse_db: Database) -> None:
    stop = threading.Event()

    def publishing(contract: Contract, record: Callable[[int, float], dict[str, Any]]) -> int:
        with psycopg.connect(app_database) as connection:
            version = 0
            while not stop.is_set():
                version += 1
                page = [record(number, version) for number in range(version % 7, 12)]
                synced(connection, contract, [page], fetched_at=at(version), mode="delta")
            return version

    with psycopg.connect(app_database) as app:
        threads = [
            in_thread(lambda: publishing(CUSTOMERS, customer)),
            in_thread(lambda: publishing(ORDERS, order)),
        ]
        try:
            deadline = time.monotonic() + 2.5
            results = []
            while time.monotonic() < deadline:
                results.append(replicate(app, warehouse_db, report=quiet))
        finally:
            stop.set()
            for thread, _ in threads:
                thread.join()
        rounds = [outcome[0] for _, outcome in threads]
        assert all(isinstance(count, int) and count > 3 for count in rounds), rounds
        results.append(replicate(app, warehouse_db, report=quiet))
        assert len(results) > 3
        # What a position had passed over would show as a difference, and be mended by a whole one.
        assert not any(entity.whole for result in results[1:] for entity in result.entities)
        assert content(warehouse_db, "raw") == content(app, "app")


@pytest.mark.parametrize("victim", ["app_db", "warehouse_db"])
@pytest.mark.parametrize("first", [True, False])
def test_a_connection_that_breaks_half_way_leaves_raw_as_it_was(
    postgres: PostgresServer,
    other_server: PostgresServer,
    app_database: str,
    warehouse_dsn: str,
    victim: str,
    first: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replication, "REPORT_EVERY", -1.0)
    monkeypatch.setattr(replication, "ROWS_AT_ONCE", 1)
    with (
        psycopg.connect(app_database) as source,
        closing(psycopg.connect(app_database)) as app,
        closing(psycopg.connect(warehouse_dsn)) as warehouse,
        psycopg.connect(warehouse_dsn) as reader,
    ):
        fill(source)
        if not first:
            replicate(app, warehouse, report=quiet)
            fill(source, version=10, count=6)
        before = content(reader, "raw"), positions(reader)
        server, connection = (postgres, app) if victim == "app_db" else (other_server, warehouse)
        seen: list[str] = []

        def kill(line: str) -> None:
            seen.append(line)
            if line.startswith("order_items: 2"):
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute("select pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))

        with pytest.raises(ReplicationError, match=f"the connection {victim} broke, nothing was committed: run it"):
            replicate(app, warehouse, report=kill)
        assert any(line.startswith("order_items: 2") for line in seen)
        assert (content(reader, "raw"), positions(reader)) == before
    with psycopg.connect(app_database) as app, psycopg.connect(warehouse_dsn) as warehouse:
        again = replicate(app, warehouse, report=quiet)
        assert [entity.whole for entity in again.entities] == [first] * 3
        assert content(warehouse, "raw") == content(app, "app")


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_source_that_was_restored_is_replicated_anew(
    postgres: PostgresServer, app_database: str, warehouse_db: Database, overtaken: bool
) -> None:
    backup = f"backup_{time.monotonic_ns()}"
    with psycopg.connect(app_database) as app:
        fill(app)
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"create database {backup} template {make_url(app_database).database}")
    with psycopg.connect(app_database) as app:
        for version in (10, 20, 30):
            fill(app, version)
        replicate(app, warehouse_db, report=quiet)
        position = positions(warehouse_db)
    lines: list[str] = []
    with psycopg.connect(postgres.dsn(backup)) as app:
        if overtaken:
            app.execute("select setval('app.change_seq', 1000)")  # as after many publishes
            for contract, record in ((CUSTOMERS, customer), (PRODUCTS, product), (ORDERS, order)):
                synced(app, contract, [[record(0, 10)]], fetched_at=at(11), mode="delta")
            assert all(now > then for (_, now), (_, then, _) in zip(newest(app), position, strict=True))
        result = replicate(app, warehouse_db, report=lines.append)
        assert content(warehouse_db, "raw") == content(app, "app")
        assert positions(warehouse_db) == [(name, seq, 2) for name, seq in newest(app)]
    assert [entity.whole for entity in result.entities] == [True, True, True]
    warnings = [line for line in lines if "WARNING" in line]
    assert [line.split(":")[0] for line in warnings] == ["customers", "orders", "products"]
    assert all("replicated anew" in line for line in warnings)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ("new.quantity := new.quantity + 1; return new", "order_items: app_db has 1[02] rows with checksum"),
        ("return null", "order_items: app_db "),
    ],
)
def test_a_difference_is_told_and_nothing_is_committed(
    app_db: Database, warehouse_db: Database, spoiled: str, told: str, full: bool
) -> None:
    fill(app_db)
    replicate(app_db, warehouse_db, report=quiet)
    before = content(warehouse_db, "raw"), positions(warehouse_db)
    fill(app_db, version=10, count=6)
    warehouse_db.execute(
        f"create or replace function raw.spoil() returns trigger language plpgsql as $$ begin {spoiled}; end $$"
    )
    warehouse_db.execute(
        """
        create trigger spoil before insert on raw.order_items for each row when (new.order_id = 'o2')
        execute function raw.spoil()
        """
    )
    warehouse_db.commit()
    with pytest.raises(ReplicationError, match=told):
        replicate(app_db, warehouse_db, full=full, report=quiet)
    assert (content(warehouse_db, "raw"), positions(warehouse_db)) == before
    warehouse_db.execute("drop trigger spoil on raw.order_items")
    warehouse_db.commit()
    replicate(app_db, warehouse_db, report=quiet)
    assert content(warehouse_db, "raw") == content(app_db, "app")


@pytest.mark.parametrize("entity", ["customers", "products"])
def test_a_lock_that_is_not_to_be_had_names_its_holder(
    app_db: Database, app_database: str, warehouse_db: Database, entity: str
) -> None:
    fill(app_db)
    with psycopg.connect(app_database, application_name="somebody") as other:
        other.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"sluice.{entity}",))
        told = f"{entity} is being published for over 1 s: session 'somebody' holds it since"
        with pytest.raises(ReplicationError, match=told):
            replicate(app_db, warehouse_db, report=quiet, lock_seconds=1)
        held = other.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone()
        assert held == (1,)
    replicate(app_db, warehouse_db, report=quiet, lock_seconds=1)
    assert content(warehouse_db, "raw") == content(app_db, "app")


def test_two_replications_do_not_run_at_once(app_database: str, warehouse_dsn: str, warehouse_db: Database) -> None:
    def meanwhile(line: str) -> None:
        with (
            psycopg.connect(app_database) as app,
            psycopg.connect(warehouse_dsn) as warehouse,
            pytest.raises(ReplicationError, match=r"raw is in use for over 1 s.* by session"),
        ):
            replicate(app, warehouse, report=quiet, lock_seconds=1)

    with psycopg.connect(app_database) as app:
        fill(app)
        lines: list[str] = []
        replicate(app, warehouse_db, report=lambda line: lines.append(line) or (None if lines[1:] else meanwhile(line)))
        assert len(lines) == 3
        assert content(warehouse_db, "raw") == content(app, "app")


def test_who_reads_raw_for_long_is_named(app_db: Database, warehouse_dsn: str, warehouse_db: Database) -> None:
    fill(app_db)
    replicate(app_db, warehouse_db, report=quiet)
    with psycopg.connect(warehouse_dsn, application_name="a reader") as reader:
        reader.execute("select * from raw.orders")
        with pytest.raises(ReplicationError, match=r"raw is in use for over 1 s.* by session 'a reader' since"):
            replicate(app_db, warehouse_db, full=True, report=quiet, lock_seconds=1)
        assert replicate(app_db, warehouse_db, report=quiet, lock_seconds=1).rows == 0
    assert content(warehouse_db, "raw") == content(app_db, "app")


def test_a_connection_in_a_transaction_is_refused(app_db: Database, warehouse_db: Database) -> None:
    app_db.execute("select 1")
    with pytest.raises(ReplicationError, match="app_db must be open, and in no transaction"):
        replicate(app_db, warehouse_db, report=quiet)
    app_db.rollback()
    warehouse_db.close()
    with pytest.raises(ReplicationError, match="warehouse_db must be open, and in no transaction"):
        replicate(app_db, warehouse_db, report=quiet)


def test_memory_does_not_grow_with_the_rows(app_db: Database, warehouse_db: Database) -> None:
    megabytes = 120
    app_db.execute(
        sql.SQL(
            """
            insert into app.products (id, name, category, updated_at, fetched_at, change_seq)
            select n::text, 'Lamp', repeat(md5(n::text), 128), now(), now(), nextval('app.change_seq')
              from generate_series(1, {} * 256) n
            """
        ).format(megabytes)
    )
    app_db.commit()
    process = psutil.Process()
    before = process.memory_info().rss
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak.append(process.memory_info().rss)

    thread, _ = in_thread(watch)
    try:
        result = replicate(app_db, warehouse_db, report=quiet)
    finally:
        done.set()
        thread.join()
    assert copied(result) == {"products": megabytes * 256}
    grown = (max(peak) - before) / 2**20
    assert grown < 25, f"{grown:.0f} MB more for {megabytes} MB of rows"

"""Staging: what is loaded, what Postgres refuses, and that a batch can run again."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.database.entities import StagingNames
from include.load import staging
from include.operations import executions
from include.transform.validation import PageValidator
from tests.load.syncing import at, staged
from tests.load.test_publish import order, product

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]


def rows(database: Database, table: str, columns: str) -> list[Any]:
    statement = sql.SQL("select {} from {} order by page, position").format(
        sql.SQL(", ").join(map(sql.Identifier, columns.split(", "))), sql.Identifier("staging", table)
    )
    return database.execute(statement).fetchall()


def test_rows_keep_their_place_and_children_that_of_their_parent(app_db: Database) -> None:
    execution = staged(app_db, ORDERS, [[order(1, 1, 2), order(1, 3)], [order(2)]], fetched_at=at(0))
    names = StagingNames(ORDERS, execution)
    assert rows(app_db, names.records, "page, position, id") == [(0, 0, "o1"), (0, 1, "o1"), (1, 0, "o2")]
    items = rows(app_db, names.children(ORDERS.children["items"]), "page, position, line_number")
    assert sorted(items) == [(0, 0, 1), (0, 0, 2), (0, 1, 3)]


def test_a_rejected_record_keeps_its_bytes_its_reason_and_where_it_lay(app_db: Database) -> None:
    body = b'[ {"id": "p1", "name": "One", "updated_at": "2026-01-01"},\n {"id":"p2",  "name": "",\t"price": 1.23456} ]'
    execution = staged(app_db, PRODUCTS, [body], fetched_at=at(0))
    rejected = StagingNames(PRODUCTS, execution).rejected
    columns = "record_key, key_readable, record_version, stage, error, payload, payload_raw, landing_ref"
    assert rows(app_db, rejected, columns) == [
        (
            "p2",
            True,
            None,
            "validate",
            "name: String should have at least 1 character; price: Decimal input should have no more than 4 decimal "
            "places; updated_at: Field required",
            {"id": "p2", "name": "", "price": 1.23456},
            b'{"id":"p2",  "name": "",\t"price": 1.23456}',
            f"memory://landing/products/{execution}#page=0&position=1",
        )
    ]


@pytest.mark.parametrize(
    "payload",
    [
        rb'{"id": "p1", "name": "a\u0000b", "updated_at": "2026-01-01"}',
        rb'{"id": "p1", "name": "\ud800", "updated_at": "2026-01-01"}',
        b'{"id": "p1", "name": "x", "price": NaN, "updated_at": "2026-01-01"}',
        b'{"id": "p1", "name": "x", "price": 1e400000, "updated_at": "2026-01-01"}',
    ],
)
def test_what_jsonb_cannot_hold_keeps_its_bytes(app_db: Database, payload: bytes) -> None:
    execution = staged(app_db, PRODUCTS, [b"[" + payload + b', {"id": "p2"}]'], fetched_at=at(0))
    found = rows(app_db, StagingNames(PRODUCTS, execution).rejected, "record_key, payload, payload_raw")
    assert found == [("p1", None, payload), ("p2", {"id": "p2"}, b'{"id": "p2"}')]


def test_records_that_postgres_refuses_are_found_among_their_neighbours(app_db: Database) -> None:
    records = [order(number, 1, 2) for number in range(100)]
    run = executions.Run("orders", "test", "refused")
    drawn = executions.begin(app_db, run, mode="snapshot", landing_uri="memory://landing")
    staging.create(app_db, ORDERS, drawn.execution, at(0))
    names = StagingNames(ORDERS, drawn.execution)
    for table, condition in (
        (names.records, "id not in ('o7', 'o8', 'o99')"),
        (names.children(ORDERS.children["items"]), "not (position = 50 and line_number = 2)"),
    ):
        app_db.execute(
            sql.SQL("alter table {} add constraint picky check ({})").format(
                sql.Identifier("staging", table), sql.SQL(condition)
            )
        )
    body = json.dumps(records).encode()
    counted = staging.stage_batch(
        app_db, PageValidator(ORDERS, at(0)), drawn.execution, [(1, 100)], lambda _: body, drawn.landing, print
    )
    assert (counted.records, counted.valid, counted.rejected) == (100, 96, 4)
    refused = rows(app_db, names.rejected, "record_key, stage, error")
    assert [key for key, _, _ in refused] == ["o7", "o8", "o50", "o99"]
    assert {stage for _, stage, _ in refused} == {"load"}
    assert all("SQLSTATE 23514" in error and "picky" in error for _, _, error in refused)
    items = rows(app_db, names.children(ORDERS.children["items"]), "position")
    assert len(items) == 192


def test_a_batch_that_runs_again_leaves_the_same_rows(app_db: Database) -> None:
    pages = [json.dumps([order(page * 10 + n, 1) for n in range(3)] + [{}]).encode() for page in range(3)]
    run = executions.Run("orders", "test", "again")
    drawn = executions.begin(app_db, run, mode="snapshot", landing_uri="memory://landing")
    staging.create(app_db, ORDERS, drawn.execution, at(0))
    names = StagingNames(ORDERS, drawn.execution)
    seen = []
    for batch in ([(0, 4), (1, 4)], [(2, 4)], [(0, 4), (1, 4)]):
        validator = PageValidator(ORDERS, at(0))
        staging.stage_batch(app_db, validator, drawn.execution, batch, pages.__getitem__, drawn.landing, print)
        tables = (names.records, names.children(ORDERS.children["items"]), names.rejected)
        seen.append([sorted(rows(app_db, table, "page, position")) for table in tables])
    assert [len(table) for table in seen[2]] == [9, 9, 3]
    assert seen[2] == seen[1]


def test_a_page_that_is_not_what_landed_is_an_error(app_db: Database) -> None:
    run = executions.Run("products", "test", "torn")
    drawn = executions.begin(app_db, run, mode="snapshot", landing_uri="memory://landing")
    staging.create(app_db, PRODUCTS, drawn.execution, at(0))
    body = json.dumps([product(1)]).encode()
    stale = r"products: page 4 of memory://.* holds 1 records, 2 were counted.*first task"
    with pytest.raises(ValueError, match=stale):
        staging.stage_batch(
            app_db, PageValidator(PRODUCTS, at(0)), drawn.execution, [(4, 2)], lambda _: body, drawn.landing, print
        )


def failing(database: Database, table: str, times: int, sqlstate: str) -> None:
    """Makes inserts into a staging table fail so often, by a sequence, which no rollback turns back."""
    database.execute("create sequence failures")
    database.execute(
        sql.SQL(
            """
            create function fail() returns trigger language plpgsql as $$
            begin
              if nextval('failures') <= {times} then
                raise exception using errcode = {sqlstate}, message = 'not now';
              end if;
              return null;
            end
            $$
            """
        ).format(times=sql.Literal(times), sqlstate=sql.Literal(sqlstate))
    )
    database.execute(
        sql.SQL("create trigger failing after insert on {} for each statement execute function fail()").format(
            sql.Identifier("staging", table)
        )
    )


@pytest.mark.parametrize(("times", "staged_records"), [(2, 3), (3, None)])
def test_an_error_that_may_pass_is_tried_three_times_with_all_records(
    app_db: Database, monkeypatch: pytest.MonkeyPatch, times: int, staged_records: int | None
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    run = executions.Run("products", "test", "passing")
    drawn = executions.begin(app_db, run, mode="snapshot", landing_uri="memory://landing")
    staging.create(app_db, PRODUCTS, drawn.execution, at(0))
    failing(app_db, StagingNames(PRODUCTS, drawn.execution).records, times, "40001")
    body = json.dumps([product(number) for number in range(3)]).encode()

    def stage() -> staging.StagedBatch:
        validator = PageValidator(PRODUCTS, at(0))
        return staging.stage_batch(app_db, validator, drawn.execution, [(1, 3)], lambda _: body, "memory://", print)

    if staged_records is None:
        with pytest.raises(psycopg.errors.SerializationFailure, match="not now"):
            stage()
    else:
        assert (stage().valid, stage().rejected) == (staged_records, 0)
    assert waited == [2, 4]


def test_a_lost_connection_is_no_fault_of_the_records(app_database: str, app_db: Database) -> None:
    run = executions.Run("products", "test", "outage")
    drawn = executions.begin(app_db, run, mode="snapshot", landing_uri="memory://landing")
    staging.create(app_db, PRODUCTS, drawn.execution, at(0))
    app_db.commit()
    body = json.dumps([product(number) for number in range(3)]).encode()
    connection = psycopg.connect(app_database)

    def end_the_session(_: int) -> bytes:
        app_db.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
        return body

    with pytest.raises(psycopg.OperationalError):
        staging.stage_batch(
            connection, PageValidator(PRODUCTS, at(0)), drawn.execution, [(1, 3)], end_the_session, "memory://", print
        )
    names = StagingNames(PRODUCTS, drawn.execution)
    assert rows(app_db, names.records, "page") == rows(app_db, names.rejected, "page") == []

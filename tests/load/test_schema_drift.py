"""Schema drift in the database: what batches count, what publish keeps, and what the next execution is compared to."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest

from include.contracts.orders import ORDERS
from include.contracts.products import PRODUCTS
from include.load import staging
from include.load.publish import publish
from include.operations import executions, sync_log
from include.transform.drift import MOST_FIELDS, OTHERS, drift
from include.transform.validation import PageValidator
from tests.load.syncing import at, staged
from tests.load.test_publish import order, product

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
DRIFT = [{"field": "tier", "kind": "new", "types": ["string"], "records": 1, "total": 1}]


def stage(database: Database, execution: UUID, pages: dict[int, list[Any]]) -> None:
    """Stages pages of products as one batch."""
    staging.stage_batch(
        database,
        PageValidator(PRODUCTS, at(0)),
        execution,
        [(number, len(records)) for number, records in pages.items()],
        lambda number: json.dumps(pages[number]).encode(),
        "memory://landing",
        print,
    )


def begun(database: Database) -> UUID:
    """An execution of products with its staging tables."""
    run = executions.Run("products", "test", "drift")
    drawn = executions.begin(database, run, mode="snapshot", landing_uri="memory://landing")
    staging.create(database, PRODUCTS, drawn.execution, at(0))
    return drawn.execution


def published(database: Database, records: list[Any], *, minutes: int, mode: executions.Mode = "delta") -> None:
    """Stages and publishes products, with their fields as the gate notes them."""
    execution = staged(database, PRODUCTS, [records], fetched_at=at(minutes), mode=mode)
    executions.note_fields(database, execution, staging.fields(database, PRODUCTS, execution), DRIFT)
    publish(database, PRODUCTS, execution, mode=mode, max_deleted_share=1)
    staging.drop(database, execution)


def test_the_fields_of_batches_sum_up_and_a_batch_that_runs_again_counts_once(app_db: Database) -> None:
    execution = begun(app_db)
    first, second = {0: [product(1)], 1: [product(2, price=None), "none"]}, {2: [{"id": "p3"}]}
    for batch in (first, second, first):
        stage(app_db, execution, batch)
    assert staging.fields(app_db, PRODUCTS, execution) == {
        "*": {"object": 3},
        "id": {"string": 3},
        "name": {"string": 2},
        "price": {"number": 1, "null": 1},
        "updated_at": {"string": 2},
    }


def test_an_items_fields_are_counted_apart(app_db: Database) -> None:
    execution = staged(app_db, ORDERS, [[order(1, 1, 2)], [order(2)]], fetched_at=at(0))
    found = staging.fields(app_db, ORDERS, execution)
    names = ("*", "items", "items.*", "items.line_number")
    assert [found[name] for name in names] == [{"object": 2}, {"array": 2}, {"object": 2}, {"number": 2}]


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", "k" * 100_000, ""])
def test_no_name_of_a_field_costs_its_batch(app_db: Database, name: str) -> None:
    execution = staged(app_db, PRODUCTS, [[product(1) | {name: 1}]], fetched_at=at(0))
    (found,) = drift(PRODUCTS, staging.fields(app_db, PRODUCTS, execution), {})
    assert (found.kind, found.types, found.records, found.total) == ("new", ("number",), 1, 1)
    executions.note_fields(app_db, execution, {found.field: {"number": 1}}, [found.to_dict()])
    assert executions.get(app_db, execution).drift == [{**found.to_dict(), "types": ["number"]}]


def test_the_fields_of_all_batches_are_few_and_those_that_are_read_are_among_them(app_db: Database) -> None:
    execution = begun(app_db)
    for page in range(3):
        stage(app_db, execution, {page: [product(page) | {f"{page}-{key}": 1 for key in range(MOST_FIELDS)}]})
    found = staging.fields(app_db, PRODUCTS, execution)
    assert len(found) == len(product(1)) + len({"*", OTHERS}) + MOST_FIELDS
    assert found["id"] == {"string": 3}


def test_publish_keeps_the_fields_and_the_drift_that_the_gate_noted(app_db: Database) -> None:
    published(app_db, [product(1)], minutes=0, mode="snapshot")
    row = app_db.execute("select fields, drift from operations.sync_log").fetchone()
    assert row == (
        {
            "*": {"object": 1},
            "id": {"string": 1},
            "name": {"string": 1},
            "price": {"number": 1},
            "updated_at": {"string": 1},
        },
        DRIFT,
    )


def test_what_was_read_before_is_the_last_snapshot_and_the_deltas_since(app_db: Database) -> None:
    assert sync_log.fields(app_db, "products") == {}
    published(app_db, [product(1, price="1"), product(2, price="2")], minutes=0, mode="snapshot")
    published(app_db, [product(1), product(2)], minutes=1, mode="snapshot")
    published(app_db, [{"id": "p3"}], minutes=2)
    published(app_db, [product(1, price=None)], minutes=3)
    published(app_db, [], minutes=4)
    before = sync_log.fields(app_db, "products")
    assert (before["*"], before["id"], before["price"]) == ({"object": 4}, {"string": 4}, {"number": 2, "null": 1})
    (changed,) = drift(PRODUCTS, {"*": {"object": 1}, **{name: {"string": 1} for name in product(1)}}, before)
    assert (changed.field, changed.kind, changed.types) == ("price", "type", ("string",))

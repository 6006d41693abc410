"""Dead letters from rejection to replay, by the code that the tasks of `replay_dead_letters` run."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import psycopg
import pytest
from pydantic import Field

from include.contracts.contract import Contract
from include.contracts.products import PRODUCTS, ProductRecord
from include.contracts.record import Money
from include.extract.landing import Landing
from include.load import staging
from include.load.publish import publish, queue_dead_letters
from include.operations import dead_letters, executions
from include.operations.dead_letters import Choice
from include.operations.executions import Run
from include.transform.validation import PageValidator
from tests.load.syncing import at, counts, synced
from tests.load.test_publish import product

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]


class CheapRecord(ProductRecord):
    """Products as a contract of yesterday saw them: none above 10."""

    price: Annotated[Money, Field(ge=0, le=10)] | None = None


CHEAP = dataclasses.replace(PRODUCTS, record=CheapRecord)


def replay(
    database: Database, folder: Path, choice: Choice | None = None, contract: Contract = PRODUCTS
) -> dict[str, Any] | None:
    """Replays the chosen letters of products (all unless said); the row of `sync_log`, None if nothing is chosen."""
    run = Run("products", "replay_dead_letters", f"run-{len(list(folder.iterdir()))}")
    drawn = executions.begin(database, run, mode="replay", landing_uri=str(folder), options={"allow_quarantined": True})
    landing = Landing(Path(drawn.landing))
    state = dead_letters.land(database, contract, drawn, choice or Choice("products"), landing)
    executions.landed(database, drawn.execution, fetched_at=state.fetched_at, records_read=state.records)
    validator = PageValidator(contract, state.fetched_at)
    pages = [(page.number, page.records) for page in state.pages]
    staging.stage_batch(database, validator, drawn.execution, pages, landing.read_page, drawn.landing, print)
    row = publish(database, contract, drawn.execution, mode="replay", max_deleted_share=0.2) if pages else None
    staging.drop(database, drawn.execution)
    database.commit()
    return row


def letters(database: Database) -> list[Any]:
    return database.execute(
        "select record_key, status, attempts, error from operations.dead_letters order by id"
    ).fetchall()


def prices(database: Database) -> dict[str, int]:
    return {key: int(price) for key, price in database.execute("select id, price from app.products order by id")}


TOO_DEAR = "price: Input should be less than or equal to 10"


def test_a_letter_is_replayed_once_the_contract_takes_it(app_db: Database, tmp_path: Path) -> None:
    synced(app_db, CHEAP, [[product(1), product(2, price=50), product(3, price=60)]], fetched_at=at(0))
    watermark = app_db.execute("select watermark from operations.sync_log").fetchall()
    assert letters(app_db) == [("p2", "pending", 1, TOO_DEAR), ("p3", "pending", 1, TOO_DEAR)]
    row = replay(app_db, tmp_path)
    assert row is not None
    assert (counts(row), row["mode"]) == ({"inserted": 2}, "replay")
    assert prices(app_db) == {"p1": 5, "p2": 50, "p3": 60}
    assert [(key, status) for key, status, _, _ in letters(app_db)] == [("p2", "replayed"), ("p3", "replayed")]
    assert app_db.execute("select distinct fetched_at from app.products").fetchall() == [(at(0),)]
    assert app_db.execute("select distinct watermark from operations.sync_log").fetchall() == watermark
    assert replay(app_db, tmp_path) is None
    assert prices(app_db) == {"p1": 5, "p2": 50, "p3": 60}


def test_what_fails_again_keeps_its_letter_with_the_new_error(app_db: Database, tmp_path: Path) -> None:
    synced(app_db, CHEAP, [[product(1, price=-1), product(2, price=50)]], fetched_at=at(0))
    row = replay(app_db, tmp_path)
    assert row is not None
    assert counts(row) == {"inserted": 1, "quarantined": 1}
    negative = "price: Input should be greater than or equal to 0"
    assert letters(app_db) == [("p1", "pending", 2, negative), ("p2", "replayed", 1, TOO_DEAR)]
    first = app_db.execute(
        "select fetched_at, payload ->> 'price' from operations.dead_letters where id = 1"
    ).fetchone()
    assert first == (at(0), "-1")


def test_an_old_letter_never_beats_a_newer_row(app_db: Database, tmp_path: Path) -> None:
    synced(app_db, CHEAP, [[product(1, price=50, updated_at=at(-50).isoformat())]], fetched_at=at(0))
    app_db.execute("update operations.dead_letters set record_version = null")  # as if it could not be read
    app_db.execute(
        "insert into app.products (id, name, price, updated_at, fetched_at, change_seq)"
        " values ('p1', 'Newer', 7, %s, %s, 1)",
        (at(-10), at(-5)),
    )
    row = replay(app_db, tmp_path)
    assert row is not None
    assert counts(row) == {"stale": 1}
    assert prices(app_db) == {"p1": 7}
    assert [(status) for _, status, _, _ in letters(app_db)] == ["superseded"]


def test_a_letter_of_before_the_deletion_leaves_the_row_deleted(app_db: Database, tmp_path: Path) -> None:
    synced(app_db, PRODUCTS, [[product(1), product(2)]], fetched_at=at(0))
    synced(app_db, CHEAP, [[product(2), product(1, price=50, updated_at=at(1).isoformat())]], fetched_at=at(10))
    app_db.execute("update app.products set deleted_at = %s where id = 'p1'", (at(20),))
    row = replay(app_db, tmp_path)
    assert row is not None
    assert counts(row) == {"stale": 1}
    assert app_db.execute("select deleted_at from app.products where id = 'p1'").fetchone() == (at(20),)


def test_a_letter_that_changed_since_it_was_chosen_stays(app_db: Database, tmp_path: Path) -> None:
    synced(app_db, CHEAP, [[product(1, price=50)]], fetched_at=at(0))
    run = Run("products", "replay_dead_letters", "overtaken")
    drawn = executions.begin(app_db, run, mode="replay", landing_uri=str(tmp_path))
    landing = Landing(Path(drawn.landing))
    state = dead_letters.land(app_db, PRODUCTS, drawn, Choice("products"), landing)
    executions.landed(app_db, drawn.execution, fetched_at=state.fetched_at, records_read=state.records)
    staging.stage_batch(
        app_db, PageValidator(PRODUCTS, state.fetched_at), drawn.execution, [(1, 1)], landing.read_page, "", print
    )
    synced(app_db, CHEAP, [[product(1, price=70, updated_at=at(5).isoformat())]], fetched_at=at(10))
    publish(app_db, PRODUCTS, drawn.execution, mode="replay", max_deleted_share=0.2)
    assert prices(app_db) == {"p1": 50}
    pending = app_db.execute("select status, payload ->> 'price' from operations.dead_letters").fetchall()
    assert pending == [("pending", "70")]


def test_a_replay_that_is_stopped_leaves_every_letter_as_it_was(app_db: Database, tmp_path: Path) -> None:
    synced(app_db, CHEAP, [[product(1, price=-1)]], fetched_at=at(0))
    before = app_db.execute("select * from operations.dead_letters").fetchall()
    run = Run("products", "replay_dead_letters", "stopped")
    drawn = executions.begin(app_db, run, mode="replay", landing_uri=str(tmp_path))
    landing = Landing(Path(drawn.landing))
    state = dead_letters.land(app_db, PRODUCTS, drawn, Choice("products"), landing)
    executions.landed(app_db, drawn.execution, fetched_at=state.fetched_at, records_read=state.records)
    validator = PageValidator(PRODUCTS, state.fetched_at)
    counted = staging.stage_batch(app_db, validator, drawn.execution, [(1, 1)], landing.read_page, "", print)
    assert counted.rejected == 1
    queue_dead_letters(app_db, PRODUCTS, drawn.execution)
    assert app_db.execute("select * from operations.dead_letters").fetchall() == before


def test_letters_are_chosen_by_every_criterion_that_is_given(app_db: Database) -> None:
    synced(app_db, CHEAP, [[product(1, price=50), product(2, name=""), product(3, price=60)]], fetched_at=at(0))
    app_db.execute("update operations.dead_letters set queued_at = now() - interval '5 hours' where record_key = 'p3'")
    day = timedelta(days=1)
    for choice, chosen in (
        (Choice("products"), 3),
        (Choice("orders"), 0),
        (Choice("products", error="PRICE.*10"), 2),
        (Choice("products", error="price", older_than=timedelta(hours=4)), 1),
        (Choice("products", younger_than=timedelta(hours=4)), 2),
        (Choice("products", older_than=day), 0),
        (Choice("products", ids=[1, 99]), 1),
    ):
        assert dead_letters.count(app_db, choice) == chosen, choice


def test_letters_are_discarded_with_a_reason(app_db: Database) -> None:
    synced(app_db, CHEAP, [[product(1, price=50), product(2, name="")]], fetched_at=at(0))
    assert dead_letters.discard(app_db, Choice("products", error="name"), "test data") == 1
    resolved = app_db.execute(
        "select record_key, status, resolution, resolved_at is not null from operations.dead_letters order by id"
    ).fetchall()
    assert resolved == [("p1", "pending", None, False), ("p2", "discarded", "test data", True)]
    assert dead_letters.discard(app_db, Choice("products", error="name"), "again") == 0


def test_an_error_pattern_that_is_none_is_an_error(app_db: Database) -> None:
    with pytest.raises(psycopg.errors.InvalidRegularExpression):
        dead_letters.count(app_db, Choice("products", error="("))


def test_payloads_at_a_path_in_the_body_are_landed_at_that_path(app_db: Database, tmp_path: Path) -> None:
    nested = dataclasses.replace(CHEAP, endpoint=dataclasses.replace(CHEAP.endpoint, records="data.items"))
    synced(app_db, CHEAP, [[product(1, price=50)]], fetched_at=at(0))
    row = replay(app_db, tmp_path, contract=dataclasses.replace(nested, record=ProductRecord))
    assert row is not None
    assert counts(row) == {"inserted": 1}

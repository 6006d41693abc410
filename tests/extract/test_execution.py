"""What a delta asks from, what its watermark becomes, and what a retry goes on with: against the demo API."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from pydantic import create_model

from include.contracts.contract import Contract
from include.contracts.products import PRODUCTS
from include.contracts.record import Record
from include.extract.client import SourceClient, SourceError
from include.extract.execution import HttpSource, Request, SinceAheadError, extract
from include.extract.landing import Landing, batches
from include.extract.pagination import LinkHeader
from include.load import staging
from include.load.publish import publish
from include.local.demo_api.app import Settings
from include.local.demo_api.server import serving
from include.operations import executions, sync_log
from include.operations.executions import Run
from include.transform.validation import PageValidator
from tests.load.syncing import counts

pytestmark = pytest.mark.database

TOKEN = "token-of-the-demo"
EPOCH = datetime(2026, 1, 15, 8, tzinfo=UTC)
LOOKBACK = timedelta(minutes=15)
SMALL = dataclasses.replace(PRODUCTS, endpoint=dataclasses.replace(PRODUCTS.endpoint, page_size=10))


class Syncing:
    """A source, and runs that sync its products."""

    def __init__(self, base_url: str, database: str, folder: Path) -> None:
        self.url = base_url
        self.database = database
        self.folder = folder
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"
        self.runs = count()

    def control(self, path: str, **body: Any) -> Any:
        answer = self.session.post(f"{self.url}/_control/{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def extracted(self, contract: Contract, request: Request, run: Run | None = None) -> Any:
        run = run or Run(contract.name, "test", f"run-{next(self.runs)}")
        client = SourceClient(self.session, self.url, contract.name, sleep=lambda _: None)
        with psycopg.connect(self.database, autocommit=True) as connection:
            return extract(
                connection,
                HttpSource(client),
                contract,
                run,
                request,
                landing_uri=str(self.folder),
                open_landing=lambda uri: Landing(Path(uri)),
                report=lambda line: None,
            )

    def sync(self, mode: executions.Mode, contract: Contract = SMALL, **request: Any) -> dict[str, Any]:
        """Syncs and gives the row of `sync_log`; a second passes first: fetches of one second cannot be told apart."""
        self.control("advance", entity="products", seconds=1)
        execution, state = self.extracted(contract, Request(mode, **request))
        landed = {page.number: page.records for page in state.pages}
        with psycopg.connect(self.database) as connection:
            for batch in batches(state):
                staging.stage_batch(
                    connection,
                    PageValidator(contract, state.fetched_at),
                    execution.execution,
                    [(number, landed[number]) for number in batch.pages],
                    Landing(Path(execution.landing)).read_page,
                    execution.landing,
                    print,
                )
            return publish(connection, contract, execution.execution, mode=mode, max_deleted_share=0.2)


@pytest.fixture
def source(app_database: str, tmp_path: Path) -> Iterator[Syncing]:
    settings = Settings(token=TOKEN, customers=0, orders=0, products=60, dirty=0, clock="frozen")
    with serving(settings) as url:
        yield Syncing(url, app_database, tmp_path)


def test_a_first_delta_begins_where_the_contract_does_and_sets_the_watermark(source: Syncing) -> None:
    row = source.sync("delta")
    assert (row["since"], counts(row)) == (PRODUCTS.initial_watermark, {"inserted": 60})
    with psycopg.connect(source.database) as connection:
        newest = connection.execute("select max(updated_at) from app.products").fetchone()
    assert newest == (row["watermark"],)
    assert row["watermark"] < EPOCH


def test_a_delta_brings_what_changed_and_asks_the_lookback_twice(source: Syncing) -> None:
    first = source.sync("snapshot")
    source.control("advance", entity="products", seconds=60, change=7, add=3)
    second = source.sync("delta")
    assert second["since"] == first["watermark"] - LOOKBACK
    assert (second["inserted"], second["updated"]) == (3, 7)
    changed_at = EPOCH + timedelta(seconds=61)
    assert second["watermark"] == changed_at
    third = source.sync("delta")
    assert counts(third) == {"unchanged": 10}
    assert third["watermark"] == changed_at
    source.control("advance", entity="products", seconds=3600)
    empty = source.sync("delta")
    assert counts(empty) == {"unchanged": 10}
    source.control("advance", entity="products", seconds=60, change=1)
    source.sync("delta")
    source.control("advance", entity="products", seconds=3600)
    assert source.sync("delta")["records_read"] == 1


def test_an_empty_answer_leaves_the_watermark(source: Syncing) -> None:
    before = source.sync("snapshot")
    row = source.sync("delta", since=EPOCH - timedelta(seconds=1))
    assert (row["records_read"], row["watermark"]) == (0, before["watermark"])


def test_a_repair_of_a_later_window_does_not_move_the_watermark_and_one_of_an_earlier_does(source: Syncing) -> None:
    before = source.sync("snapshot")["watermark"]
    source.control("advance", entity="products", seconds=7200, change=5)
    late = source.sync("delta", since=EPOCH + timedelta(hours=1))
    assert (counts(late), late["watermark"]) == ({"updated": 5}, before)
    early = source.sync("delta", since=before - timedelta(days=1))
    assert early["watermark"] == EPOCH + timedelta(hours=2, seconds=1)


def test_a_since_ahead_of_the_sources_clock_is_refused(source: Syncing) -> None:
    source.sync("snapshot")
    with pytest.raises(SinceAheadError, match=r"products: asked .* since 2026-01-15 08:01:00.*reset_watermark"):
        source.sync("delta", since=EPOCH + timedelta(minutes=1))


def test_a_watermark_that_somebody_put_into_the_future_is_refused_until_it_is_reset(source: Syncing) -> None:
    source.sync("snapshot")
    with psycopg.connect(source.database) as connection:
        connection.execute("update operations.sync_log set watermark = '2099-01-01Z'")
    with pytest.raises(SinceAheadError, match="products"):
        source.sync("delta")
    row = source.sync("delta", options={"reset_watermark": True})
    assert (row["since"], counts(row)) == (PRODUCTS.initial_watermark, {"unchanged": 60})
    assert row["watermark"] < EPOCH
    assert source.sync("delta")["watermark"] == row["watermark"]


def test_a_watermark_that_is_no_time_is_refused_until_it_is_reset(source: Syncing) -> None:
    source.sync("snapshot")
    with psycopg.connect(source.database) as connection:
        connection.execute("update operations.sync_log set watermark = 'infinity'")
    with pytest.raises(sync_log.WatermarkError, match=r"no time.*reset_watermark"):
        source.sync("delta")
    row = source.sync("delta", options={"reset_watermark": True}, since=EPOCH - timedelta(days=30))
    assert row["since"] == EPOCH - timedelta(days=30)
    assert row["watermark"] < EPOCH


def test_a_reset_that_brings_nothing_leaves_the_watermark(source: Syncing) -> None:
    before = source.sync("snapshot")["watermark"]
    row = source.sync("delta", options={"reset_watermark": True}, since=EPOCH)
    assert (row["records_read"], row["watermark"]) == (0, before)


def test_a_source_that_ignores_what_is_asked_is_right_all_the_same(source: Syncing) -> None:
    deaf = dataclasses.replace(SMALL, endpoint=dataclasses.replace(SMALL.endpoint, changed_since="no_such_parameter"))
    source.sync("snapshot", deaf)
    source.control("advance", entity="products", seconds=60, change=4, add=1)
    assert counts(source.sync("delta", deaf)) == {"inserted": 1, "updated": 4, "unchanged": 56}


def test_records_without_a_version_are_compared_by_content(source: Syncing) -> None:
    unversioned = dataclasses.replace(SMALL, version=None, record=without_version(SMALL.record))
    with psycopg.connect(source.database) as connection:
        connection.execute("alter table app.products alter updated_at drop not null")
    assert counts(source.sync("snapshot", unversioned)) == {"inserted": 60}
    source.control("advance", entity="products", seconds=60, change=4)
    row = source.sync("delta", unversioned)
    assert row["updated"] + row["unchanged"] == row["records_read"] == 4  # a change may bring the same content
    assert row["updated"] >= 1
    there = {record["id"]: record["name"] for record in source.session.get(f"{source.url}/products").json()}
    with psycopg.connect(source.database) as connection:
        assert dict(connection.execute("select id, name from app.products").fetchall()) == there
    source.control("advance", entity="products", seconds=3600)
    assert source.sync("delta", unversioned)["updated"] == 0


def without_version(record: type[Record]) -> type[Record]:
    """The record model without its `updated_at`."""
    fields: Any = {name: (info.annotation, info) for name, info in record.model_fields.items() if name != "updated_at"}
    return create_model("UnversionedRecord", __base__=Record, **fields)


def test_a_fetch_that_was_cut_off_goes_on_and_one_that_is_complete_begins_anew(source: Syncing) -> None:
    run = Run("products", "test", "retried")
    source.control("faults", entity="products", kind="html", on_page=4, times=1)
    with pytest.raises(SourceError):
        source.extracted(SMALL, Request("snapshot"), run)
    execution, state = source.extracted(SMALL, Request("snapshot"), run)
    assert (len(state.pages), state.records) == (6, 60)
    asked = source.session.get(f"{source.url}/_control/requests").json()
    assert asked["/products"] == 7  # page 4 twice, the others once
    again, _ = source.extracted(SMALL, Request("snapshot"), run)
    assert again.execution != execution.execution
    with psycopg.connect(source.database) as connection:
        assert not staging.exists(connection, SMALL, execution.execution)
        assert staging.exists(connection, SMALL, again.execution)


def test_two_attempts_at_once_do_not_share_an_execution(source: Syncing) -> None:
    run = Run("products", "test", "twice")
    with psycopg.connect(source.database, autocommit=True) as other:
        drawn = executions.begin(other, run, mode="snapshot", landing_uri=str(source.folder))
        assert executions.hold(other, drawn.execution)
        execution, _ = source.extracted(SMALL, Request("snapshot"), run)
        assert execution.execution != drawn.execution
    with psycopg.connect(source.database, autocommit=True) as connection:
        connection.execute("delete from operations.executions where records_read is not null")
        assert executions.resumable(connection, run) == drawn


UNSTABLE = dataclasses.replace(SMALL, endpoint=dataclasses.replace(SMALL.endpoint, pagination=LinkHeader(stable=False)))


def test_pages_that_shift_are_read_until_two_readings_are_the_same(source: Syncing) -> None:
    row = source.sync("delta", UNSTABLE)
    assert (row["records_read"], counts(row)) == (120, {"inserted": 60, "duplicate": 60})
    assert row["watermark"] is not None


def test_pages_that_never_settle_leave_the_watermark(source: Syncing, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source.sync("delta", UNSTABLE)["watermark"]
    reading = PageValidator.identities

    def changing(self: PageValidator, text: str) -> set[Any]:
        found = reading(self, text)
        source.control("advance", entity="products", seconds=1, change=1)
        return found

    monkeypatch.setattr(PageValidator, "identities", changing)
    row = source.sync("delta", UNSTABLE)
    assert row["watermark"] == before
    assert row["records_read"] > 0
    monkeypatch.undo()
    assert source.sync("delta", UNSTABLE)["watermark"] > before

"""Fetches over the styles of pagination and asking, against a server that answers by script."""

import json
import logging
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from include.contracts.endpoint import Cursor, Endpoint, NextUrl, Offset, PageNumber, SinglePage, TimeFormat
from include.extract import fetch as fetching
from include.extract.client import SourceClient, SourceError
from include.extract.fetch import fetch, fetch_until_settled
from include.extract.landing import FetchState, Landing
from tests.extract.scripted_server import Reply, ScriptedServer

EXECUTION = UUID("11111111-2222-4333-8444-555555555555")
SINCE = datetime(2025, 3, 4, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def body(*ids: int, **more: Any) -> Reply:
    return Reply(json.dumps({"items": [{"id": number} for number in ids]} | more).encode())


def endpoint(pagination: Any, **more: Any) -> Endpoint:
    return Endpoint("/a", pagination=pagination, records="items", page_size=2, page_size_param="n", **more)


def ids(landing: Landing, state: FetchState) -> list[int]:
    pages = [json.loads(landing.read_page(page.number)) for page in state.pages]
    return [record["id"] for page in pages for record in page["items"]]


def test_a_next_url_in_the_body(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    server.on("/a?n=2", body(1, 2, next="/a?n=2&p=x"))
    server.on("/a?n=2&p=x", body(3, next=None))
    state = fetch(client, endpoint(NextUrl()), landing, execution=EXECUTION)
    assert ids(landing, state) == [1, 2, 3]


def test_a_post_search_by_cursor(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    asked = [
        '/a {"query": {"state": "open", "since": 1741071600}, "n": 2}',
        '/a {"query": {"state": "open", "since": 1741071600}, "n": 2, "cursor": "x"}',
    ]
    server.on(asked[0], body(1, 2, cursor="x"))
    server.on(asked[1], body(3, cursor=None))
    search = endpoint(
        Cursor("cursor", "cursor"),
        method="POST",
        params={"query": {"state": "open"}},
        changed_since="query.since",
        since_format="epoch",
    )
    state = fetch(client, search, landing, execution=EXECUTION, since=SINCE)
    assert (ids(landing, state), server.asked) == ([1, 2, 3], asked)
    assert search.params == {"query": {"state": "open"}}


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("iso", "2025-03-04T07:00:00.123456Z"),
        ("iso-offset", "2025-03-04T07:00:00.123456%2B00:00"),
        ("epoch", "1741071600"),
        ("epoch-ms", "1741071600123"),
        ("date", "2025-03-04"),
    ],
)
def test_changed_since_in_the_form_that_the_source_wants(
    client: SourceClient, server: ScriptedServer, landing: Landing, form: TimeFormat, written: str
) -> None:
    server.on(f"/a?expand=lines&n=2&since={written}", body())
    asked = endpoint(SinglePage(), changed_since="since", since_format=form, params={"expand": "lines"})
    assert fetch(client, asked, landing, execution=EXECUTION, since=SINCE).complete


def test_a_404_behind_the_first_page_is_the_end(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    server.on("/a?n=2&page=1", body(1, 2))
    state = fetch(client, endpoint(PageNumber()), landing, execution=EXECUTION)
    assert (ids(landing, state), state.complete, landing.load_state()) == ([1, 2], True, state)
    assert server.asked == ["/a?n=2&page=1", "/a?n=2&page=2"]


def test_a_404_for_the_first_page_is_an_error(client: SourceClient, landing: Landing) -> None:
    with pytest.raises(SourceError, match="answered 404 Not Found"):
        fetch(client, endpoint(PageNumber()), landing, execution=EXECUTION)


def test_a_404_behind_the_first_is_an_error_where_links_lead_there(
    client: SourceClient, server: ScriptedServer, landing: Landing
) -> None:
    server.on("/a?n=2", body(1, 2, next="/gone"))
    with pytest.raises(SourceError, match="gone answered 404 Not Found"):
        fetch(client, endpoint(NextUrl()), landing, execution=EXECUTION)


def test_a_short_page_does_not_end_pages_that_shift(
    client: SourceClient, server: ScriptedServer, landing: Landing
) -> None:
    server.on("/a?n=2&offset=0", body(1))
    server.on("/a?n=2&offset=1", body(2, 3))
    server.on("/a?n=2&offset=3", body())
    state = fetch(client, endpoint(Offset()), landing, execution=EXECUTION)
    assert ids(landing, state) == [1, 2, 3]


def test_a_total_ends_a_resumed_walk_too(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    style = endpoint(Offset(total="count"))
    server.on("/a?n=2&offset=0", body(1, 2, count=3))
    server.on("/a?n=2&offset=2", Reply(b"down", 500))
    with pytest.raises(SourceError, match="answered 500"):
        fetch(client, style, landing, execution=EXECUTION)
    server.on("/a?n=2&offset=2", body(3, count=3))
    server.asked.clear()
    state = fetch(client, style, landing, execution=EXECUTION)
    assert (ids(landing, state), server.asked) == ([1, 2, 3], ["/a?n=2&offset=2"])


def test_a_source_that_does_not_know_the_page_parameter(
    client: SourceClient, server: ScriptedServer, landing: Landing
) -> None:
    for number in range(1, 20):
        server.on(f"/a?n=2&page={number}", body(1, 2))
    with pytest.raises(SourceError, match="is page 10, and the last 10 pages hold the same records") as raised:
        fetch(client, endpoint(PageNumber()), landing, execution=EXECUTION)
    assert not raised.value.retryable
    assert "check the pagination in the contract's endpoint" in str(raised.value)


def test_a_cursor_that_goes_round(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    server.on("/a?n=2", body(1, cursor="x"))
    server.on("/a?n=2&after=x", body(2, cursor="x"))
    with pytest.raises(SourceError, match="was fetched before: the pages go round"):
        fetch(client, endpoint(Cursor("after", "cursor")), landing, execution=EXECUTION)


@pytest.mark.parametrize(
    ("style", "said"),
    [
        (NextUrl("meta.next"), 'it has no "meta.next", by which its contract finds the next page'),
        (Offset(total="meta.total"), 'it has no "meta.total", by which its contract finds the next page'),
    ],
)
def test_a_path_that_is_not_in_the_body(
    client: SourceClient, server: ScriptedServer, landing: Landing, style: Any, said: str
) -> None:
    first = endpoint(style).first(server.url).url
    server.on(first.removeprefix(server.url), body(1))
    with pytest.raises(SourceError, match=said) as raised:
        fetch(client, endpoint(style), landing, execution=EXECUTION)
    assert "page 1, which cannot be used" in str(raised.value)
    assert not raised.value.retryable


def test_a_clock_of_its_own_is_that_of_the_oldest_page(
    client: SourceClient, server: ScriptedServer, landing: Landing, caplog: pytest.LogCaptureFixture
) -> None:
    made = [Reply(b'{"items": [], "next": "/b"}', headers={"X-Made": "2025-01-02T03:04:05Z"})]
    server.on("/a?n=2", *made)
    server.on("/b", Reply(b'{"items": [], "next": null}', headers={"X-Made": "Thu, 02 Jan 2025 03:00:00 GMT"}))
    state = fetch(client, endpoint(NextUrl(), clock="X-Made"), landing, execution=EXECUTION)
    assert state.fetched_at == datetime(2025, 1, 2, 3, 0, tzinfo=UTC)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("said", [None, "lately"])
def test_a_clock_that_is_not_there(
    client: SourceClient, server: ScriptedServer, landing: Landing, said: str | None
) -> None:
    server.on("/a?n=2", Reply(b'{"items": []}', headers={"X-Made": said} if said else {}))
    with pytest.raises(SourceError, match='has no header "X-Made" with a time in it'):
        fetch(client, endpoint(SinglePage(), clock="X-Made"), landing, execution=EXECUTION)


NOW = datetime(2025, 6, 1, tzinfo=UTC)
WINDOWS = endpoint(
    SinglePage(), changed_since="from", changed_until="to", since_format="date", window=timedelta(days=60)
)


@pytest.fixture
def windows(server: ScriptedServer) -> list[str]:
    """A source on 1 June 2025 whose records changed from January on, and what it is asked for."""
    asked = ["from=2025-01-01&to=2025-03-02", "from=2025-03-02&to=2025-05-01", "from=2025-05-01"]
    for number, question in enumerate(asked, start=1):
        server.on(f"/a?n=2&{question}", body(number))
        server.script[f"/a?n=2&{question}"][0].date = "Sun, 01 Jun 2025 00:00:00 GMT"
    return [f"/a?n=2&{question}" for question in asked]


def by_windows(client: SourceClient, landing: Landing) -> FetchState:
    since = datetime(2025, 1, 1, tzinfo=UTC)
    return fetch(client, WINDOWS, landing, execution=EXECUTION, since=since, lookback=timedelta(minutes=15))


def test_a_first_load_by_windows_reaches_the_present(
    client: SourceClient, server: ScriptedServer, landing: Landing, windows: list[str]
) -> None:
    state = by_windows(client, landing)
    assert (ids(landing, state), server.asked, state.until, state.complete) == ([1, 2, 3], windows, None, True)


def test_a_first_load_by_windows_stops_when_it_has_enough(
    client: SourceClient,
    server: ScriptedServer,
    landing: Landing,
    windows: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "WINDOWED_RECORDS", 2)
    state = by_windows(client, landing)
    assert (ids(landing, state), server.asked) == ([1, 2], windows[:2])
    assert (state.until, state.complete) == (datetime(2025, 5, 1, tzinfo=UTC), True)
    assert by_windows(client, landing) == state


def test_a_broken_first_load_goes_on_in_its_window(
    client: SourceClient, server: ScriptedServer, landing: Landing, windows: list[str]
) -> None:
    good = server.script[windows[1]]
    server.on(windows[1], Reply(b"down", 500))
    with pytest.raises(SourceError, match="answered 500"):
        by_windows(client, landing)
    server.script[windows[1]] = good
    server.asked.clear()
    state = by_windows(client, landing)
    assert (ids(landing, state), server.asked) == ([1, 2, 3], windows[1:])


def test_a_window_that_the_sources_clock_has_not_reached_is_the_present(
    client: SourceClient, server: ScriptedServer, landing: Landing, windows: list[str]
) -> None:
    server.script[windows[0]][0].date = "Sun, 02 Mar 2025 00:14:00 GMT"
    state = by_windows(client, landing)
    assert (server.asked, state.until, state.complete) == (windows[:1], None, True)


def test_windows_are_read_again_where_pages_shift(
    client: SourceClient, server: ScriptedServer, landing: Landing, windows: list[str]
) -> None:
    server.script[windows[2]].append(body(3, 4))
    state, settled = fetch_until_settled(
        client,
        WINDOWS,
        landing,
        lambda text: {record["id"] for record in json.loads(text)["items"]},
        execution=EXECUTION,
        since=datetime(2025, 1, 1, tzinfo=UTC),
        lookback=timedelta(minutes=15),
    )
    assert (server.asked, settled, state.passes) == (windows * 3, True, [3, 6, 9])
    assert ids(landing, state) == [1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"window": timedelta(days=1)}, "/a: a window needs `changed_since` and `changed_until`"),
        ({"window": timedelta(0), "changed_since": "a", "changed_until": "b"}, "a window must be longer than nothing"),
        ({"requests_per_second": 0}, "requests_per_second must be above 0, not 0"),
        ({"page_size": 0}, "page_size must be at least 1, not 0"),
    ],
)
def test_an_endpoint_that_cannot_work(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Endpoint("/a", **more)

import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest

from include.contracts.endpoint import Endpoint
from include.extract.client import Answer, SourceClient, SourceError
from include.extract.fetch import fetch
from include.extract.landing import FetchState, Landing, LandingError, PageInfo
from include.extract.pagination import PageRequest
from tests.extract.scripted_server import Reply, ScriptedServer

EXECUTION = UUID("11111111-2222-4333-8444-555555555555")
OTHER = UUID("99999999-2222-4333-8444-555555555555")
SINCE = datetime(2025, 3, 4, 12, 0, tzinfo=UTC)
ENDPOINT = Endpoint("/customers", page_size=2, changed_since="modified_since")
FIRST = "/customers?limit=2"


def link(path: str) -> dict[str, str]:
    return {"Link": f'<{path}>; rel="next"'}


def after(page: int) -> str:
    return f"{FIRST}&after={page}"


def serve(server: ScriptedServer, pages: int) -> list[bytes]:
    """Script `pages` pages of two records, and one more record on the last; returns the bodies."""
    bodies = [json.dumps([{"id": 2 * n}, {"id": 2 * n + 1}]).encode() for n in range(pages)]
    bodies[-1] = b'[{"id": "last"}]'
    for n, body in enumerate(bodies):
        server.on(after(n) if n else FIRST, Reply(body, headers=link(after(n + 1)) if n + 1 < pages else {}))
    return bodies


def landed(landing: Landing) -> list[bytes]:
    state = landing.load_state()
    assert state is not None
    return [landing.read_page(page.number) for page in state.pages]


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def test_every_page_lands_as_received(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    bodies = serve(server, 4)
    lines: list[str] = []
    before = datetime.now(UTC)
    state = fetch(client, ENDPOINT, landing, execution=EXECUTION, report=lines.append)
    assert state == FetchState(
        entity="customers",
        execution=EXECUTION,
        fetched_at=state.fetched_at,
        started_at=state.started_at,
        first=PageRequest(server.url + FIRST),
        pages=[PageInfo(number=number, records=count) for number, count in enumerate([2, 2, 2, 1], start=1)],
    )
    assert state.complete
    assert before <= state.started_at <= datetime.now(UTC)
    assert landing.load_state() == state
    assert landed(landing) == bodies
    assert server.asked == [FIRST, after(1), after(2), after(3)]
    assert len(lines) == 1
    assert lines[0].startswith("customers: 4 pages, 7 records landed, complete; ")


def test_a_complete_fetch_is_not_repeated(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    serve(server, 2)
    state = fetch(client, ENDPOINT, landing, execution=EXECUTION)
    server.asked.clear()
    assert fetch(client, ENDPOINT, landing, execution=EXECUTION) == state
    assert server.asked == []


def test_an_empty_array_is_a_page_without_records(
    client: SourceClient, server: ScriptedServer, landing: Landing
) -> None:
    server.on(FIRST, Reply(b"[]"))
    state = fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert (state.pages, state.complete) == ([PageInfo(number=1, records=0)], True)


@pytest.mark.parametrize(
    ("endpoint", "since", "asked"),
    [
        (ENDPOINT, SINCE, f"{FIRST}&modified_since=2025-03-04T12:00:00Z"),
        (
            ENDPOINT,
            datetime(2025, 3, 4, 12, 0, 0, 5, tzinfo=UTC).astimezone(timezone(timedelta(hours=5))),
            f"{FIRST}&modified_since=2025-03-04T12:00:00.000005Z",
        ),
        (Endpoint("customers?active=1", page_size_param="n"), None, "/customers?active=1&n=5000"),
        (Endpoint("/v1/customers", page_size_param=""), None, "/v1/customers"),
    ],
)
def test_the_first_url(
    client: SourceClient,
    server: ScriptedServer,
    landing: Landing,
    endpoint: Endpoint,
    since: datetime | None,
    asked: str,
) -> None:
    server.on(asked, Reply(b"[1]"))
    assert fetch(client, endpoint, landing, execution=EXECUTION, since=since).since == since
    assert server.asked == [asked]


@pytest.mark.parametrize(
    ("endpoint", "since", "said"),
    [
        (Endpoint("/customers"), SINCE, "/customers has no `changed_since` parameter: it can only be read whole"),
        (ENDPOINT, SINCE.replace(tzinfo=None), "a time needs a time zone, got 2025-03-04T12:00:00"),
    ],
)
def test_a_since_that_cannot_be_asked_for(
    client: SourceClient, server: ScriptedServer, landing: Landing, endpoint: Endpoint, since: datetime, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        fetch(client, endpoint, landing, execution=EXECUTION, since=since)
    assert server.asked == []


def test_records_at_a_path(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    server.on("/customers?limit=5000", Reply(b'{"data": {"items": [1, 2, 3]}, "total": 3}'))
    state = fetch(client, Endpoint("/customers", records="data.items"), landing, execution=EXECUTION)
    assert state.records == 3


@pytest.mark.parametrize("resumes", [1, 2, 3])
def test_a_broken_fetch_goes_on_where_it_was(
    client: SourceClient, server: ScriptedServer, landing: Landing, resumes: int
) -> None:
    bodies = serve(server, 4)
    good = server.script[after(resumes)]
    server.on(after(resumes), Reply(b"down", 500))
    with pytest.raises(SourceError, match="answered 500"):
        fetch(client, ENDPOINT, landing, execution=EXECUTION)
    broken = landing.load_state()
    assert broken is not None
    assert (len(broken.pages), broken.next) == (resumes, PageRequest(server.url + after(resumes)))
    landing.write_page(resumes + 1, b"a page whose state was not saved any more")

    server.script[after(resumes)] = good
    server.asked.clear()
    state = fetch(client, ENDPOINT, Landing(landing.folder), execution=EXECUTION)
    assert server.asked == [after(n) for n in range(resumes, 4)]
    assert landed(landing) == bodies
    assert (state.fetched_at, state.started_at, state.records) == (broken.fetched_at, broken.started_at, 7)
    assert state.complete


KILLED = """
import sys, uuid, pathlib, requests
from include.contracts.endpoint import Endpoint
from include.extract.client import SourceClient
from include.extract.fetch import fetch
from include.extract.landing import Landing
url, folder, execution = sys.argv[1:]
client = SourceClient(requests.Session(), url, "customers")
fetch(client, Endpoint("/customers", page_size=2), Landing(pathlib.Path(folder)), execution=uuid.UUID(execution))
"""


def test_a_killed_fetch_goes_on_to_the_same_result(
    client: SourceClient, server: ScriptedServer, landing: Landing, tmp_path: Path
) -> None:
    bodies = serve(server, 5)
    good = server.script[after(3)]
    server.on(after(3), Reply(b"[1", missing=10, hold=True))
    command = [sys.executable, "-c", KILLED, server.url, tmp_path / "landing", str(EXECUTION)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as child:
        assert server.held.wait(30)
        child.kill()
    server.release.set()
    server.script[after(3)] = good
    state = fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert landed(landing) == bodies
    assert (state.records, state.complete) == (9, True)
    assert server.asked[:4] == [FIRST, after(1), after(2), after(3)]
    assert FIRST not in server.asked[4:]


@pytest.mark.parametrize(
    "other",
    [
        {"execution": OTHER},
        {"execution": EXECUTION, "since": SINCE},
    ],
)
def test_a_folder_of_another_execution_is_refused(
    client: SourceClient, server: ScriptedServer, landing: Landing, other: dict[str, UUID | datetime]
) -> None:
    serve(server, 2)
    fetch(client, ENDPOINT, landing, execution=EXECUTION)
    with pytest.raises(LandingError, match="give each execution its own folder"):
        fetch(client, ENDPOINT, landing, **other)  # type: ignore[arg-type]  # the two are spelled out above


@pytest.mark.parametrize(
    ("body", "retryable", "said"),
    [
        (b"<html><title>Sign in</title></html>", True, 'the body is HTML or XML titled "Sign in", not JSON'),
        (b'[{"id": 1}, {"id', True, "the body is not valid JSON: Unterminated string"),
        (b"", True, "the body is empty"),
        (b'["\xff"]', True, "the body is not UTF-8: byte 0xff at offset 2"),
        (b'{"data": []}', False, 'expected an array, but the body is an object with the names "data"'),
    ],
)
def test_a_page_that_is_no_array_of_records(
    client: SourceClient, server: ScriptedServer, landing: Landing, body: bytes, retryable: bool, said: str
) -> None:
    serve(server, 3)
    server.on(after(1), Reply(body))
    with pytest.raises(SourceError) as raised:
        fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert str(raised.value).startswith(
        f"customers: {server.url}{after(1)} answered with page 2, which cannot be used: {said}"
    )
    assert raised.value.retryable is retryable
    state = landing.load_state()
    assert state is not None
    assert (state.records, state.complete) == (2, False)


@pytest.mark.parametrize("back_to", [FIRST, after(1), after(2), after(1) + "#top"])
def test_pages_that_go_round_are_an_error(
    client: SourceClient, server: ScriptedServer, landing: Landing, back_to: str
) -> None:
    serve(server, 4)
    server.on(after(2), Reply(b"[1]", headers=link(back_to)))
    with pytest.raises(SourceError, match="is the next link of page 3, and was fetched before") as raised:
        fetch(client, ENDPOINT, landing, execution=EXECUTION, page_limit=10)
    assert not raised.value.retryable
    assert server.asked == [FIRST, after(1), after(2)]


def test_pages_without_end_are_an_error(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    serve(server, 4)
    with pytest.raises(SourceError, match="beyond the limit of 3 pages"):
        fetch(client, ENDPOINT, landing, execution=EXECUTION, page_limit=3)
    assert len(server.asked) == 3
    assert fetch(client, ENDPOINT, landing, execution=EXECUTION, page_limit=4).complete


def test_a_next_link_to_another_host_is_sent_nothing(
    client: SourceClient, server: ScriptedServer, other_server: ScriptedServer, landing: Landing
) -> None:
    server.on(FIRST, Reply(b"[1]", headers=link(other_server.url + after(1))))
    with pytest.raises(SourceError, match="another origin than that of the connection: refused") as raised:
        fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert not raised.value.retryable
    assert (server.asked, other_server.connections) == ([FIRST], 0)


def test_a_secret_in_a_link_stays_out_of_errors(client: SourceClient, server: ScriptedServer, landing: Landing) -> None:
    server.on(FIRST, Reply(b"[1]", headers=link(FIRST + "&page_token=abcdefgh")))
    server.on(FIRST + "&page_token=abcdefgh", Reply(b"abcdefgh", 410))
    with pytest.raises(SourceError) as raised:
        fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert "page_token=*** answered 410 Gone, saying '***'" in str(raised.value)


def test_fetched_at_is_the_sources_clock_less_the_time_it_took(
    client: SourceClient, server: ScriptedServer, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, 2)
    server.script[FIRST][0].date = "Tue, 04 Mar 1997 12:00:00 GMT"
    ask = client.ask

    def slowly(request: PageRequest, *, may_be_missing: bool) -> Answer:
        answer = ask(request, may_be_missing=may_be_missing)
        assert answer is not None
        return Answer(answer.url, answer.headers, answer.body, timedelta(seconds=2.5))

    monkeypatch.setattr(client, "ask", slowly)  # a measured time differs from run to run
    state = fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert state.fetched_at == datetime(1997, 3, 4, 11, 59, 57, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_without_the_sources_clock_ours_less_a_margin(
    client: SourceClient,
    server: ScriptedServer,
    landing: Landing,
    caplog: pytest.LogCaptureFixture,
    date: str | None,
) -> None:
    server.on(FIRST, Reply(b"[]", date=date))
    state = fetch(client, ENDPOINT, landing, execution=EXECUTION)
    assert state.fetched_at == state.started_at - timedelta(minutes=5)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "customers: the source sends no Date header that can be read; taking our own clock less 0:05:00 as its time"
    ]


def test_a_failing_landing_does_not_wait_for_the_next_page(
    client: SourceClient, server: ScriptedServer, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(server, 3)
    asked, held = threading.Event(), threading.Event()
    waited_for: list[str] = []
    ask = client.ask

    def hold_the_second(request: PageRequest, *, may_be_missing: bool) -> Answer | None:
        if request.url.endswith(after(1)):
            asked.set()
            if not held.wait(3):
                waited_for.append(request.url)
        return ask(request, may_be_missing=may_be_missing)

    def disk_full(number: int, body: bytes) -> None:
        assert asked.wait(5), "the next page is asked for before this one is landed"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client, "ask", hold_the_second)
    monkeypatch.setattr(landing, "write_page", disk_full)
    with pytest.raises(OSError, match="No space left"):
        fetch(client, ENDPOINT, landing, execution=EXECUTION)
    held.set()
    for thread in threading.enumerate():
        if thread.name == "fetch-customers":
            thread.join()
    assert waited_for == []

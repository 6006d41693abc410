"""Fetch an entity: page after page from the source into landing, going on where an earlier try ended."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from include.contracts.endpoint import Endpoint
from include.extract.client import Answer, SourceClient, http_date
from include.extract.json_records import MalformedBody, NotAnArray, decode_body
from include.extract.landing import FetchState, Landing, LandingError, PageInfo
from include.extract.pagination import Page, PageRequest, PagingError
from include.transform.cleaners import parse_datetime

__all__ = ["PAGE_LIMIT", "fetch", "fetch_until_settled"]

log = logging.getLogger(__name__)

PAGE_LIMIT = 100_000
MOST_PASSES = 5
MOST_SAME_PAGES = 10
WINDOWED_RECORDS = 500_000
"""A first load by windows ends its execution with the window that reaches this; the next run goes on."""
REPORT_SECONDS = 5.0
CLOCK_MARGIN = timedelta(minutes=5)
DATE = "Date"


def fetch(
    client: SourceClient,
    endpoint: Endpoint,
    landing: Landing,
    *,
    execution: UUID,
    since: datetime | None = None,
    lookback: timedelta = timedelta(0),
    page_limit: int = PAGE_LIMIT,
    report: Callable[[str], None] = log.info,
) -> FetchState:
    """Bring every page of `endpoint` into `landing`; returns the complete state.

    A landing that holds an unfinished fetch of this execution is gone on with from its last landed page; one that is
    complete is returned as it is, with no request. Two pages at most are in memory: the next one is requested while
    the last is counted and written, where the pagination knows it from the headers.

    Where the endpoint has a `window`, what changed since `since` is asked for window by window, until
    WINDOWED_RECORDS have landed or the source's present is reached: the state's `until` says how far.

    Args:
        client: the source.
        endpoint: what to ask it for.
        landing: the execution's folder.
        execution: the attempt's id.
        since: ask only for what changed since then, inclusively (aware); None asks for everything.
        lookback: how late a change may become visible: windows end so long before the source's present.
        page_limit: the most pages to expect; more are taken for a source that never ends.
        report: takes a line on the progress every few seconds and at the end.

    Raises:
        SourceError: the source failed, sent something else than an array of records, or its pages go round.
        LandingError: the landing is damaged or of another execution, entity or `since`.
        ValueError: `since` for an endpoint that cannot be asked for changes.
    """
    state = landing.load_state()
    if state is not None:
        _check_same(state, client.entity, execution, since)
        if state.complete:
            return state
    started_at = datetime.now(UTC)
    windows = _Windows(client, endpoint, since, lookback)
    first_until = state.first_until if state else windows.end(since, started_at - CLOCK_MARGIN)
    first = endpoint.first(client.base_url, since, first_until)
    request = state.next if state and state.next else first
    repeats = _Repeats(client, page_limit, first, request)
    progress = _Progress(client.entity, state.records if state else 0, report)
    ends = endpoint.pagination.missing_ends
    walked = state.walked if state else 0
    coming = _in_background(client, request, may_be_missing=ends and walked > 0)
    while True:
        answer = coming.result()
        if state is None:
            assert answer is not None  # noqa: S101 - the first page may not be missing
            fetched_at = _source_time(client, endpoint, request, answer, started_at)
            state = FetchState(
                entity=client.entity,
                execution=execution,
                since=since,
                fetched_at=fetched_at,
                started_at=started_at,
                first=first,
                first_until=first_until,
                until=first_until,
            )
        elif endpoint.clock != DATE and answer is not None:  # a page may have been made before the fetch began
            state.fetched_at = min(state.fetched_at, _source_time(client, endpoint, request, answer, started_at))
        following = None
        if answer is not None:
            page = Page(
                request,
                answer.url,
                answer.headers,
                answer.body,
                endpoint.records,
                earlier=walked,
                page_size=endpoint.page_size if endpoint.page_size_param else None,
            )
            number = len(state.pages) + 1
            try:
                following = endpoint.pagination.next(page)
                if following is not None:
                    following = client.without_credentials(following)
                    repeats.check_request(following, number)
                    coming = _in_background(client, following, may_be_missing=ends)
                records = page.records
                repeats.check_page(page, number)
            except (MalformedBody, NotAnArray, PagingError) as error:
                raise client.error(
                    request.url,
                    f"answered with page {number}, which cannot be used: {error}",
                    "check the contract's endpoint, or ask the source's owner",
                    retryable=isinstance(error, MalformedBody),  # a body that was cut off, a page shown in maintenance
                ) from None
            landing.write_page(number, page.body)
            state.pages.append(PageInfo(number=number, records=records))
            walked += records
        if following is None:
            following = windows.following(state)
            if following is not None:
                walked = 0
                coming = _in_background(client, following, may_be_missing=False)
        state.next = following
        landing.save_state(state)
        progress.landed(state, last=following is None)
        if following is None:
            return state
        request = following


def fetch_until_settled(
    client: SourceClient,
    endpoint: Endpoint,
    landing: Landing,
    identities: Callable[[str], set[Any]],
    *,
    execution: UUID,
    since: datetime | None = None,
    lookback: timedelta = timedelta(0),
    report: Callable[[str], None] = log.info,
) -> tuple[FetchState, bool]:
    """Read an endpoint whose pages shift again and again, until two readings in a row bring the same records.

    Pages by number or offset skip records while others vanish. All readings land, one behind the other; what a later
    one repeats is a duplicate. A fetch that was cut off goes on in the reading where it was.

    Args:
        identities: what tells the records of a page's text apart: their keys and versions.

    Returns:
        The state, and whether the last two of at most five readings brought the same. The other arguments and what it
        raises are those of `fetch`.
    """
    while True:
        state = fetch(client, endpoint, landing, execution=execution, since=since, lookback=lookback, report=report)
        if not state.passes or state.passes[-1] < len(state.pages):
            state.passes.append(len(state.pages))
            landing.save_state(state)
        readings = [
            {
                identity
                for page in state.pages[begin:end]
                for identity in identities(decode_body(landing.read_page(page.number)))
            }
            for begin, end in pairwise([0, *state.passes][-3:])
        ]
        if len(readings) == 2 and readings[0] == readings[1]:
            return state, True
        if len(state.passes) == MOST_PASSES:
            report(f"{client.entity}: {MOST_PASSES} readings brought different records: the watermark stays")
            return state, False
        state.next, state.until, state.walk_begins = state.first, state.first_until, len(state.pages)
        landing.save_state(state)


class _Windows:
    """The windows of the version's time that a first load goes by, one behind the other; none for other endpoints."""

    def __init__(self, client: SourceClient, endpoint: Endpoint, since: datetime | None, lookback: timedelta) -> None:
        self._client = client
        self._endpoint = endpoint
        self._window = endpoint.window if since is not None else None
        self._lookback = lookback

    def end(self, start: datetime | None, present: datetime) -> datetime | None:
        """The end of the window that begins at `start`; None where it is open: it reaches into the present."""
        if self._window is None or start is None or start + self._window > present - self._lookback:
            return None
        return start + self._window

    def following(self, state: FetchState) -> PageRequest | None:
        """What asks for the next window, after the last page of one; None where the fetch is at its end.

        Leaves in the state how far it has come: None for the present.
        """
        start = state.until
        if start is None or start > state.fetched_at - self._lookback:  # by the source's clock it was the present
            state.until = None
            return None
        if state.reading >= WINDOWED_RECORDS:
            return None
        state.until = self.end(start, state.fetched_at)
        state.walk_begins = len(state.pages)
        return self._endpoint.first(self._client.base_url, start, state.until)


class _Repeats:
    """Refuses pages that go round: a request that was made before, the same records again and again, too many pages."""

    def __init__(self, client: SourceClient, page_limit: int, *requests: PageRequest) -> None:
        self._client = client
        self._page_limit = page_limit
        self._seen = {request.fingerprint for request in requests}
        self._digest = b""
        self._same = 1

    def check_request(self, request: PageRequest, number: int) -> None:
        """Checks what is to follow page `number`."""
        if request.fingerprint in self._seen:
            raise self._client.error(
                request.url,
                f"is the next link of page {number}, and was fetched before: the pages go round",
                "ask the source's owner",
                retryable=False,
            )
        if number >= self._page_limit:
            raise self._client.error(
                request.url,
                f"is the next link of page {number}, beyond the limit of {self._page_limit:,} pages",
                "raise `page_size` in the contract's endpoint, or the limit",
                retryable=False,
            )
        self._seen.add(request.fingerprint)

    def check_page(self, page: Page, number: int) -> None:
        """Checks page `number`: pages that shift may bring the same records twice in a row, not for ever."""
        digest = page.digest if page.records else b""
        self._same = self._same + 1 if digest and digest == self._digest else 1
        self._digest = digest
        if self._same >= MOST_SAME_PAGES:
            raise self._client.error(
                page.request.url,
                f"is page {number}, and the last {self._same} pages hold the same records: the pages go round",
                "check the pagination in the contract's endpoint: the source seems not to know its parameter",
                retryable=False,
            )


class _Progress:
    """Reports a fetch every few seconds; how much is left is not known before the last page."""

    def __init__(self, entity: str, records_before: int, report: Callable[[str], None]) -> None:
        self._entity = entity
        self._records_before = records_before
        self._report = report
        self._began = self._reported = time.monotonic()

    def landed(self, state: FetchState, *, last: bool) -> None:
        now = time.monotonic()
        if not last and now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        seconds = now - self._began
        rate = (state.records - self._records_before) / max(seconds, 1e-3)
        self._report(
            f"{self._entity}: {len(state.pages):,} pages, {state.records:,} records landed"
            f"{', complete' if last else ''}; {rate:,.0f} records a second for {seconds:,.1f} s"
        )


def _in_background(client: SourceClient, request: PageRequest, *, may_be_missing: bool) -> Future[Answer | None]:
    """Ask in a thread that a failing or killed task does not wait for, as it would for an executor's."""
    answer: Future[Answer | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(client.ask(request, may_be_missing=may_be_missing))
        except BaseException as error:  # whatever it is, who waits for the answer must have it
            answer.set_exception(error)

    threading.Thread(target=ask, name=f"fetch-{client.entity}", daemon=True).start()
    return answer


def _check_same(state: FetchState, entity: str, execution: UUID, since: datetime | None) -> None:
    found = (state.entity, state.execution, state.since)
    if found != (entity, execution, since):
        raise LandingError(
            f"the landing folder holds {found[0]}, execution {found[1]}, since {found[2]}, "
            f"but {entity}, execution {execution}, since {since} is to be fetched: give each execution its own folder"
        )


def _source_time(
    client: SourceClient, endpoint: Endpoint, request: PageRequest, answer: Answer, started_at: datetime
) -> datetime:
    """The source's clock when it was asked for `answer`, or when it made it if the endpoint's clock says that. UTC."""
    said = answer.headers.get(endpoint.clock)
    if endpoint.clock != DATE:
        try:
            return parse_datetime(said or "")
        except ValueError:
            raise client.error(
                request.url,
                f'has no header "{endpoint.clock}" with a time in it, but {said!r:.60}',
                "check the `clock` in the contract's endpoint",
                retryable=False,
            ) from None
    date = http_date(said)
    if date is not None:
        return date - answer.elapsed
    log.warning(
        "%s: the source sends no Date header that can be read; taking our own clock less %s as its time",
        client.entity,
        CLOCK_MARGIN,
    )
    return started_at - CLOCK_MARGIN

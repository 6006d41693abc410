"""Fetch an entity: page after page from the source into landing, going on where an earlier try ended."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urldefrag
from uuid import UUID

from include.contracts.endpoint import Endpoint
from include.extract.client import Answer, SourceClient, http_date
from include.extract.json_records import MalformedBody, NotAnArray, decode_body
from include.extract.landing import FetchState, Landing, LandingError, PageInfo
from include.extract.pagination import Page

__all__ = ["PAGE_LIMIT", "fetch", "fetch_until_settled"]

log = logging.getLogger(__name__)

PAGE_LIMIT = 100_000
MOST_PASSES = 5
REPORT_SECONDS = 5.0
CLOCK_MARGIN = timedelta(minutes=5)


def fetch(
    client: SourceClient,
    endpoint: Endpoint,
    landing: Landing,
    *,
    execution: UUID,
    since: datetime | None = None,
    page_limit: int = PAGE_LIMIT,
    report: Callable[[str], None] = log.info,
) -> FetchState:
    """Bring every page of `endpoint` into `landing`; returns the complete state.

    A landing that holds an unfinished fetch of this execution is gone on with from its last landed page; one that is
    complete is returned as it is, with no request. Two pages at most are in memory: the next one is requested while
    the last is counted and written, where the pagination knows its URL from the headers.

    Args:
        client: the source.
        endpoint: what to ask it for.
        landing: the execution's folder.
        execution: the attempt's id.
        since: ask only for what changed since then, inclusively (aware); None asks for everything.
        page_limit: the most pages to expect; more are taken for a source that never ends.
        report: takes a line on the progress every few seconds and at the end.

    Raises:
        SourceError: the source failed, sent something else than an array of records, or its links go round.
        LandingError: the landing is damaged or of another execution, entity or `since`.
        ValueError: `since` for an endpoint that cannot be asked for changes.
    """
    first_url = endpoint.first_url(client.base_url, since)
    state = landing.load_state()
    if state is not None:
        _check_same(state, client.entity, execution, since)
        if state.complete:
            return state
    started_at = datetime.now(UTC)
    url = state.next_url if state and state.next_url else first_url
    seen = {_fingerprint(first_url), _fingerprint(url)}
    progress = _Progress(client.entity, state.records if state else 0, report)
    coming = _in_background(client, url)
    while True:
        answer = coming.result()
        if state is None:
            state = FetchState(
                entity=client.entity,
                execution=execution,
                since=since,
                fetched_at=_source_time(client.entity, answer, started_at),
                started_at=started_at,
                url=first_url,
            )
        number = len(state.pages) + 1
        page = Page(answer.url, answer.headers, answer.body, endpoint.records)
        try:
            following = endpoint.pagination.next_url(page)
            if following is not None:
                _check_new(client, following, seen, number, page_limit)
                coming = _in_background(client, following)
            records = page.records
        except (MalformedBody, NotAnArray) as error:
            raise client.error(
                url,
                f"answered with page {number}, which cannot be used: {error}",
                "check the contract's endpoint, or ask the source's owner",
                retryable=isinstance(error, MalformedBody),  # a body that was cut off, a page shown during maintenance
            ) from None
        landing.write_page(number, page.body)
        state.pages.append(PageInfo(number=number, records=records))
        state.next_url = following
        landing.save_state(state)
        progress.landed(state, last=following is None)
        if following is None:
            return state
        url = following


def fetch_until_settled(
    client: SourceClient,
    endpoint: Endpoint,
    landing: Landing,
    identities: Callable[[str], set[Any]],
    *,
    execution: UUID,
    since: datetime | None = None,
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
        state = fetch(client, endpoint, landing, execution=execution, since=since, report=report)
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
        state.next_url = state.url
        landing.save_state(state)


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


def _in_background(client: SourceClient, url: str) -> Future[Answer]:
    """Ask for `url` in a thread that a failing or killed task does not wait for, as it would for an executor's."""
    answer: Future[Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(client.get(url))
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


def _check_new(client: SourceClient, url: str, seen: set[bytes], number: int, page_limit: int) -> None:
    """Refuse a next link that was followed before, and a page beyond the limit; remember the link."""
    fingerprint = _fingerprint(url)
    if fingerprint in seen:
        raise client.error(
            url,
            f"is the next link of page {number}, and was fetched before: the pages go round",
            "ask the source's owner",
            retryable=False,
        )
    if number >= page_limit:
        raise client.error(
            url,
            f"is the next link of page {number}, beyond the limit of {page_limit:,} pages",
            "raise `page_size` in the contract's endpoint, or the limit",
            retryable=False,
        )
    seen.add(fingerprint)


def _fingerprint(url: str) -> bytes:
    return hashlib.blake2b(urldefrag(url).url.encode(), digest_size=16).digest()


def _source_time(entity: str, answer: Answer, started_at: datetime) -> datetime:
    """The source's clock when it was asked for `answer`, UTC."""
    date = http_date(answer.headers.get("Date"))
    if date is not None:
        return date - answer.elapsed
    log.warning(
        "%s: the source sends no Date header that can be read; taking our own clock less %s as its time",
        entity,
        CLOCK_MARGIN,
    )
    return started_at - CLOCK_MARGIN

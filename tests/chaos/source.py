"""A source in simulated time: its records change while its pages are read, its commits show late, its clocks differ.

Times are whole milliseconds since `EPOCH`, by a clock that is right; what the source stamps and answers with is off by
its skews. `Source.respond` is the whole HTTP API; `InProcess` and `serving` put it behind a `requests.Session`.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

EPOCH = datetime(2024, 3, 1, tzinfo=UTC)
"""Long past: whatever takes our own clock is later than all that the source says."""
SECOND = 1000
MINUTE = 60 * SECOND

Flaw = Literal["", "long", "number", "child", "version", "key"]
"""What is wrong with a record: a label that is too long (a mended contract takes it) or a number, a child twice, a
version or a key that cannot be read."""


def moment(milliseconds: int) -> datetime:
    """The aware UTC time of a simulated one."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def milliseconds(time: datetime) -> int:
    """The reverse of `moment`."""
    return round((time - EPOCH) / timedelta(milliseconds=1))


@dataclass(frozen=True)
class Behaviour:
    """How a source is. Durations and skews are milliseconds."""

    paging: Literal["by key", "by stamp", "by offset"] = "by key"
    page_size: int = 3
    repeats: bool = False  # a page begins with the last record of the one before
    stamps_every: int = 1  # how coarse `updated_at` is
    stamping_skew: int = 0
    answering_skew: int = 0
    first_answer: int = SECOND  # the longest that it takes
    answer: int = SECOND
    fault_share: float = 0.0


@dataclass(frozen=True)
class Change:
    """What somebody does to a record: sets it, or removes it (`label` is None). Shows `delay` after it was stamped."""

    at: int
    key: str
    label: str | None
    parts: tuple[str, ...] = ()
    flaw: Flaw = ""
    delay: int = 0
    stamp_back: int = 0  # how far the stamp lies behind the stamping clock: beyond what a source may do


@dataclass(frozen=True)
class State:
    """A record as it shows from `visible` on; one that is removed has no label."""

    key: str
    stamp: int
    visible: int
    label: str | None
    parts: tuple[str, ...] = ()
    flaw: Flaw = ""

    def as_json(self) -> dict[str, Any]:
        """As the source sends it."""
        parts: list[dict[str, Any]] = [{"number": number, "name": name} for number, name in enumerate(self.parts)]
        if self.flaw == "child":
            parts = [{"number": 1, "name": "once"}, {"number": 1, "name": "twice"}]
        return {
            "id": None if self.flaw == "key" else self.key,
            "label": {"long": f"long {self.label}", "number": 5}.get(self.flaw, self.label),
            "updated_at": f"after {self.stamp}" if self.flaw == "version" else moment(self.stamp).isoformat(),
            "parts": parts,
        }


@dataclass
class Reply:
    """An answer; a status of 0 is a connection that is reset."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Source:
    """The records of one source, and its clock, which only requests and `advance` move."""

    def __init__(self, behaviour: Behaviour, changes: tuple[Change, ...], seed: int) -> None:
        """Begin at time 0 with what `changes` made of it until then."""
        self.behaviour = behaviour
        self.now = min((change.at for change in changes), default=0)
        self.states: dict[str, list[State]] = {}
        self.requests = 0
        self.records_sent = 0
        self.faults = True
        self._coming = sorted(changes, key=lambda change: change.at, reverse=True)
        self._seed = seed
        self.advance(-self.now)

    def advance(self, duration: int) -> None:
        """Let time pass, and happen what happens in it."""
        until = self.now + duration
        while self._coming and self._coming[-1].at <= until:
            self._do(self._coming.pop())
        self.now = until

    def quiesce(self) -> None:
        """Nobody changes anything any more; wait until all shows and a slow first answer's clock is passed."""
        self._coming = []
        self.faults = False
        shown = max((states[-1].visible for states in self.states.values() if states), default=0)
        self.advance(max(shown - self.now, 0) + self.behaviour.first_answer + 2 * SECOND)

    def shown(self, at: int | None = None) -> dict[str, State]:
        """What the source holds by now, or held at a time, by key."""
        at = self.now if at is None else at
        found = {}
        for key, states in self.states.items():
            visible = [state for state in states if state.visible <= at]
            if visible and visible[-1].label is not None:
                found[key] = visible[-1]
        return found

    def held_throughout(self, key: str, begin: int, end: int) -> bool:
        """Whether the record was there, and its key readable, at every moment from `begin` to `end`."""
        states = self.states.get(key, [])
        ends = [following.visible for following in states[1:]] + [end + 1]
        within = [state for state, until in zip(states, ends, strict=False) if state.visible <= end and until > begin]
        there = all(state.label is not None and state.flaw != "key" for state in within)
        return bool(within) and within[0].visible <= begin and there

    def _do(self, change: Change) -> None:
        states = self.states.setdefault(change.key, [])
        before = states[-1] if states else None
        was_there = before is not None and before.label is not None
        if change.label is None and not was_there:
            return
        every = self.behaviour.stamps_every
        stamp = (change.at + self.behaviour.stamping_skew - change.stamp_back) // every * every
        visible = change.at + change.delay
        if before is not None:
            visible = max(visible, before.visible + 1)  # a row's lock makes its writers wait for each other
            if not was_there and stamp <= before.stamp:
                return  # it comes back with a newer stamp, or not yet
        states.append(State(change.key, stamp, visible, change.label, change.parts, change.flaw))

    def respond(self, target: str) -> Reply:
        """The answer to GET `target`, a path with its query; takes its time."""
        self.requests += 1
        chance = Random(self._seed * 1_000_003 + self.requests)  # noqa: S311 - nothing secret; the same whatever else is cut
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        first = "after" not in query and "offset" not in query
        duration = chance.randint(1, self.behaviour.first_answer if first else self.behaviour.answer)
        until_read = chance.randint(0, duration)
        until_dated = chance.choice([until_read, duration, chance.randint(until_read, duration)])
        fault = chance.random() < self.behaviour.fault_share and self.faults
        self.advance(until_read)
        reply = chance.choice([Reply(500), Reply(503, {"Retry-After": "3"}), Reply(0), Reply(200, body=b"[{")])
        if not fault:
            reply = self._page(urlsplit(target).path, query)
        self.advance(until_dated - until_read)
        clock = moment(self.now + self.behaviour.answering_skew).replace(microsecond=0)
        reply.headers |= {"Date": format_datetime(clock, usegmt=True), "X-Elapsed": str(duration)}
        self.advance(duration - until_dated)
        return reply

    def _page(self, path: str, query: dict[str, str]) -> Reply:
        records = list(self.shown().values())
        if "modified_since" in query:
            since = milliseconds(datetime.fromisoformat(query["modified_since"]))
            strictly = "strictly" in query
            records = [r for r in records if r.stamp > since or (r.stamp == since and not strictly)]
        cursors: dict[str, tuple[str, ...]]
        if self.behaviour.paging == "by key":
            cursors = {record.key: (record.key,) for record in records}
        else:
            cursors = {record.key: (f"{record.stamp + 10**12:015d}", record.key) for record in records}
        records.sort(key=lambda record: cursors[record.key])
        size, link = self.behaviour.page_size, ""
        if self.behaviour.paging == "by offset":
            begin = int(query.get("offset", 0))
            page = records[begin : begin + size]
            if begin + size < len(records):
                link = urlencode(query | {"offset": str(begin + size)})
        else:
            after = tuple(query["after"].split("~")) if "after" in query else ()
            left = [record for record in records if cursors[record.key] > after]
            page = left[:size]
            if len(left) > size:
                link = urlencode(query | {"after": "~".join(cursors[page[-2 if self.behaviour.repeats else -1].key])})
        self.records_sent += len(page)
        headers = {"Link": f'<{path}?{link}>; rel="next"'} if link else {}
        return Reply(200, headers, json.dumps([record.as_json() for record in page]).encode())


class Session(requests.Session):
    """A session to a simulated source: an answer took as long as the source says, not as our own clock does.

    `before` and `after` are called around every request.
    """

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        super().__init__()
        self.trust_env = False
        self._before = before
        self._after = after

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        self._before()
        response = super().send(request, **kwargs)
        response.elapsed = timedelta(milliseconds=int(response.headers["X-Elapsed"]))
        self._after()
        return response


class InProcess(HTTPAdapter):
    """Asks a source without a network."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        reply = self._source.respond(request.path_url)
        if reply.status == 0:
            raise requests.ConnectionError(ConnectionResetError("reset by the simulated source"))
        body = urllib3.HTTPResponse(
            io.BytesIO(reply.body), headers=reply.headers, status=reply.status, preload_content=False
        )
        return self.build_response(request, body)


class _QuietServer(ThreadingHTTPServer):
    """Connections are reset here on purpose; what else fails in a handler shows at the client."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Server:
    """Serves one source after the other over HTTP on 127.0.0.1."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self._http = _QuietServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's methods have their own self
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                assert server.source is not None
                reply = server.source.respond(self.path)
                if reply.status == 0:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.rfile.close()
                    self.connection.close()
                    return
                self.send_response_only(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def finish(self) -> None:
                if self.connection.fileno() != -1:
                    super().finish()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

"""The demo API's routes: the source's three endpoints, a Slack webhook with the page that shows what it was sent, and
the endpoints that control the demo.

Every answer's `Date` is the demo's clock. `/health`, `/slack` and the webhook need no token, all else a bearer token.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.local.demo_api.collection import Collection, NotEnoughRecordsError
from include.local.demo_api.data import EPOCH_MS, Customers, Orders, Products, stamp
from include.local.demo_api.faults import BrokenOff, Fault, Faults
from include.local.demo_api.slack_page import SECURITY, page
from include.operations.block_kit import refusal

MAX_LIMIT = 10_000
ClockMode = Literal["real", "frozen", "wall"]
EntityName = Literal["customers", "products", "orders"]


@dataclass(frozen=True)
class Settings:
    """What a demo API is: the token it asks for, how many records, which ones, how many of them dirty.

    A page holds `page_size` records, or what `limit=` asks for, never more than `largest_page`.
    `clock`: "real" starts at the demo's epoch and runs on in real time, "frozen" stands still there, "wall" is the
    machine's own; all three move by `POST /_control/advance` too.
    """

    token: str
    customers: int = 50_000
    products: int = 2_000
    orders: int = 100_000
    seed: int = 7
    dirty: float = 0.02
    page_size: int = 1_000
    largest_page: int = MAX_LIMIT
    clock: ClockMode = "real"


class Clock:
    """The source's clock, in milliseconds since 1970."""

    def __init__(self, mode: ClockMode) -> None:
        self._mode = mode
        self.reset()

    def reset(self) -> None:
        """Back to where it began (the demo's epoch; the machine's time for "wall")."""
        self._advanced_ms = 0
        self._started = time.monotonic()

    def advance(self, seconds: float) -> None:
        """Goes forward."""
        self._advanced_ms += round(seconds * 1000)

    def now_ms(self) -> int:
        """The time now."""
        if self._mode == "wall":
            return time.time_ns() // 1_000_000 + self._advanced_ms
        elapsed = 0 if self._mode == "frozen" else int((time.monotonic() - self._started) * 1000)
        return EPOCH_MS + elapsed + self._advanced_ms


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Advance(_Body):
    """How far the clock goes, and how many records of an entity (None: of each) change, come and go."""

    seconds: float = Field(default=0, ge=0)
    change: int = Field(default=0, ge=0)
    add: int = Field(default=0, ge=0)
    delete: int = Field(default=0, ge=0)
    entity: EntityName | None = None


class Named(_Body):
    """A record by its id."""

    entity: EntityName
    id: str


class Put(_Body):
    """Any record, and whether the expectations count it as valid."""

    entity: EntityName
    record: Any
    valid: bool = True


class Warm(_Body):
    """Which entity to prepare (None: all). Pages of every `limit` are ready then."""

    entity: EntityName | None = None
    limit: int | None = None


B = TypeVar("B", bound=BaseModel)


class DemoApi:
    """The state behind the routes. All methods that are routes answer as the module says."""

    def __init__(self, settings: Settings) -> None:
        customers = Customers(settings.seed, settings.customers, settings.dirty)
        products = Products(settings.seed, settings.products, settings.dirty)
        orders = Orders(settings.seed, settings.orders, settings.dirty, customers, products)
        self.settings = settings
        self.clock = Clock(settings.clock)
        self.collections = {each.name: Collection(each, settings.seed) for each in (customers, products, orders)}
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.slack_messages: list[tuple[int, dict[str, Any]]] = []

    def routes(self) -> list[Route]:
        """All routes."""
        control: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "expectations", self.expectations),
            ("GET", "requests", self.counted_requests),
            ("GET", "slack", self.kept_slack_messages),
            ("POST", "advance", self.advance),
            ("POST", "restore", self.restore),
            ("POST", "remove", self.remove),
            ("POST", "put", self.put),
            ("POST", "warm", self.warm),
            ("POST", "reset", self.reset),
            ("POST", "faults", self.add_fault),
            ("DELETE", "faults", self.clear_faults),
        ]
        return [
            Route("/health", self.health),
            Route("/slack", self.slack_page, methods=["GET"]),
            Route("/{entity:str}", self.listing, methods=["GET"]),
            *(Route(f"/_control/{path}", endpoint, methods=[method]) for method, path, endpoint in control),
            Route("/slack/services/{rest:path}", self.slack_webhook, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        """That the server answers, and its time."""
        return JSONResponse({"status": "ok", "clock": stamp(self.clock.now_ms())})

    async def listing(self, request: Request) -> Response:
        """A page of an entity, or what a fault makes of it."""
        entity = request.path_params["entity"]
        collection = self.collections.get(entity)
        if collection is None:
            raise HTTPException(404, f"there is no {request.url.path}")
        limit = min(_limit(request.query_params.get("limit"), self.settings.page_size), self.settings.largest_page)
        since_ms = _since(request.query_params.get("modified_since"))
        after, number = _decoded(request.query_params.get("after"))
        fault = self.faults.take(entity, number)
        kind = fault.kind if fault else None
        if fault:
            if fault.kind in ("429", "503", "500"):
                return self._refusal(fault)
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
        match kind:
            case "html":
                return HTMLResponse("<html><body><h1>Down for maintenance</h1></body></html>")
            case "not_array":
                return JSONResponse({"message": "an object where an array is expected"})
            case "empty":
                return JSONResponse([])
        page = await run_in_threadpool(collection.page, after, limit, since_ms, kind == "half")
        response = Response(page.body, media_type="application/json")
        following = request.url.include_query_params(after=_encoded(page.last, number + 1)) if page.more else None
        if kind == "loop":
            following = request.url
        elif fault and fault.kind == "foreign_link":
            following = (following or request.url).replace(netloc=fault.host)
        if following is not None:
            response.headers["Link"] = f'<{following}>; rel="next"'
        return BrokenOff(response, kind) if kind in ("reset", "truncate", "die") else response

    async def slack_webhook(self, request: Request) -> Response:
        """A Slack incoming webhook: keeps a message that Slack would take, and answers as Slack does."""
        fault = self.faults.take("slack", 1)
        if fault and fault.kind in ("429", "503", "500"):
            return self._refusal(fault)
        if fault and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        try:
            message = await request.json()
        except ValueError:
            message = None
        if code := refusal(message):
            return PlainTextResponse(code, 400)
        self.slack_messages.append((self.clock.now_ms(), message))
        return PlainTextResponse("ok")

    async def slack_page(self, request: Request) -> Response:
        """The kept messages, as Slack would show them."""
        return HTMLResponse(page(self.slack_messages), headers=SECURITY)

    async def expectations(self, request: Request) -> Response:
        """The counts that a pipeline should come to, an entity; with `modified_since`, those of a delta."""
        since_ms = _since(request.query_params.get("modified_since"))
        counts = {
            name: await run_in_threadpool(collection.expectations, since_ms)
            for name, collection in self.collections.items()
        }
        return JSONResponse(counts)

    async def counted_requests(self, request: Request) -> Response:
        """How many requests each path had, those of control and health aside."""
        return JSONResponse(dict(self.requests))

    async def kept_slack_messages(self, request: Request) -> Response:
        """What the webhook was sent, oldest first."""
        return JSONResponse([message for _, message in self.slack_messages])

    async def advance(self, request: Request) -> Response:
        """Moves the clock, then changes, adds and deletes; answers the clock and the ids."""
        wanted = await _read(request, Advance)
        self.clock.advance(wanted.seconds)
        now_ms = self.clock.now_ms()
        done: dict[str, Any] = {"clock": stamp(now_ms)}
        for name, collection in self.collections.items():
            if wanted.entity in (None, name):
                try:
                    done[name] = await run_in_threadpool(
                        collection.advance, now_ms, wanted.change, wanted.add, wanted.delete
                    )
                except NotEnoughRecordsError as error:
                    raise HTTPException(409, str(error)) from error
        return JSONResponse(done)

    async def restore(self, request: Request) -> Response:
        """Brings a deleted record back."""
        wanted = await _read(request, Named)
        if not self.collections[wanted.entity].restore(wanted.id, self.clock.now_ms()):
            raise HTTPException(404, f"{wanted.entity}: no deleted record has the id {wanted.id}")
        return JSONResponse({"restored": wanted.id})

    async def remove(self, request: Request) -> Response:
        """Deletes a record."""
        wanted = await _read(request, Named)
        if not self.collections[wanted.entity].remove(wanted.id):
            raise HTTPException(404, f"{wanted.entity}: no record has the id {wanted.id}")
        return JSONResponse({"removed": wanted.id})

    async def put(self, request: Request) -> Response:
        """Stores any record."""
        wanted = await _read(request, Put)
        self.collections[wanted.entity].put(wanted.record, wanted.valid, self.clock.now_ms())
        return JSONResponse({"stored": wanted.entity})

    async def warm(self, request: Request) -> Response:
        """Prepares all pages; answers the number of records of each entity."""
        wanted = await _read(request, Warm)
        return JSONResponse(
            {
                name: await run_in_threadpool(collection.warm)
                for name, collection in self.collections.items()
                if wanted.entity in (None, name)
            }
        )

    async def reset(self, request: Request) -> Response:
        """Back to the initial data and clock, without faults, counts and messages."""
        for collection in self.collections.values():
            collection.reset()
        self.clock.reset()
        self.faults.clear()
        self.requests.clear()
        self.slack_messages.clear()
        return JSONResponse({"clock": stamp(self.clock.now_ms())})

    async def add_fault(self, request: Request) -> Response:
        """Asks for a fault."""
        fault = await _read(request, Fault)
        self.faults.add(fault)
        return JSONResponse(fault.model_dump())

    async def clear_faults(self, request: Request) -> Response:
        """Forgets all faults."""
        self.faults.clear()
        return JSONResponse({"faults": []})

    def _refusal(self, fault: Fault) -> Response:
        response = JSONResponse({"error": f"fault {fault.kind}"}, int(fault.kind))
        if fault.retry_after == "date":
            response.headers["Retry-After"] = _http_date(self.clock.now_ms() + round(fault.seconds * 1000))
        elif fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response


class Gatekeeper:
    """Counts requests, refuses those without the token, and puts the demo's time on every answer."""

    def __init__(self, app: ASGIApp, api: DemoApi) -> None:
        self._app = app
        self._api = api
        self._authorization = f"Bearer {api.settings.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"date", _http_date(self._api.clock.now_ms()).encode()),
                ]
            await send(message)

        path: str = scope["path"]
        if path != "/health" and not path.startswith("/_control/"):
            self._api.requests[path] += 1
        given = dict(scope["headers"]).get(b"authorization", b"")
        open_to_all = path in ("/health", "/slack") or path.startswith("/slack/")
        app = self._app if open_to_all or hmac.compare_digest(given, self._authorization) else _unauthorized
        await app(scope, receive, send_dated)


_unauthorized = JSONResponse({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})


def create_app(settings: Settings) -> Starlette:
    """The application. Its `state.demo_api` is the `DemoApi` behind it."""
    api = DemoApi(settings)
    app = Starlette(
        routes=api.routes(),
        middleware=[Middleware(Gatekeeper, api=api)],
        exception_handlers={HTTPException: _error},
    )
    app.state.demo_api = api
    return app


async def _error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _read(request: Request, model: type[B]) -> B:
    """The request's JSON body; nothing counts as an empty object. Raises HTTPException 400 naming what is wrong."""
    body = await request.body() or b"{}"
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, json.dumps(error.errors(include_url=False, include_input=False))) from error


def _limit(text: str | None, default: int) -> int:
    with contextlib.suppress(ValueError):
        limit = default if text is None else int(text)
        if 1 <= limit <= MAX_LIMIT:
            return limit
    raise HTTPException(400, f"limit must be a whole number from 1 to {MAX_LIMIT}, not {text!r}")


def _since(text: str | None) -> int | None:
    """The time as milliseconds since 1970, rounded up, so that "at or after" stays true."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            seconds = moment.replace(microsecond=0).timestamp()
            return int(seconds) * 1000 + math.ceil(moment.microsecond / 1000)
    raise HTTPException(400, f"modified_since must be an ISO 8601 time with an offset (+ is %2B), not {text!r}")


def _encoded(slot: int, page: int) -> str:
    return base64.urlsafe_b64encode(f"{slot}:{page}".encode()).decode().rstrip("=")


def _decoded(cursor: str | None) -> tuple[int, int]:
    """The slot to go on behind and the number of the page, from 1."""
    if cursor is None:
        return -1, 1
    with contextlib.suppress(ValueError, binascii.Error):
        slot, page = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(":")
        if int(slot) >= 0 and int(page) >= 1:
            return int(slot), int(page)
    raise HTTPException(400, f"after must be a cursor from a Link header, not {cursor!r}")


def _http_date(ms: int) -> str:
    return formatdate(ms / 1000, usegmt=True)

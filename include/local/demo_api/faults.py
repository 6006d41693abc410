"""Faults on demand: what is asked for, which request it meets, and answers that break off."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

Endpoint = Literal["customers", "products", "orders", "slack"]
FaultKind = Literal[
    "429",
    "503",
    "500",
    "reset",
    "slow",
    "truncate",
    "html",
    "not_array",
    "loop",
    "foreign_link",
    "half",
    "empty",
    "die",
]


class Fault(BaseModel):
    """A fault that is to happen.

    `entity` None means every endpoint; `times` None means for ever; `on_page` counts from 1, None means every page.
    The rest belongs to one kind each: `retry_after` seconds, or "date" for `seconds` from now as an HTTP date of the
    demo's clock, for the three statuses; `seconds` to wait for `slow`; the `host` of a `foreign_link`.
    """

    model_config = ConfigDict(extra="forbid")

    kind: FaultKind
    entity: Endpoint | None = None
    times: int | None = Field(default=1, ge=1)
    on_page: int | None = Field(default=None, ge=1)
    retry_after: int | Literal["date"] | None = None
    seconds: float = Field(default=1, ge=0)
    host: str = "elsewhere.invalid"


class Faults:
    """The faults that are still to happen, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Asks for a fault."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Forgets all faults."""
        self._faults.clear()

    def take(self, endpoint: str, page: int) -> Fault | None:
        """The first fault that this request meets; it has one time less to happen then."""
        for fault in self._faults:
            if fault.entity in (None, endpoint) and fault.on_page in (None, page):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                return fault
        return None


class ReachableTransport(H11Protocol):
    """Uvicorn's HTTP/1.1 with the transport in the request's state: without it no answer can break off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Called by the event loop for a new connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class BrokenOff(Response):
    """Half of an answer: then the connection ends (`truncate`), is reset (`reset`), or the process dies (`die`)."""

    def __init__(self, whole: Response, kind: FaultKind) -> None:
        super().__init__(whole.body, whole.status_code, dict(whole.headers))
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends headers that promise the whole body, then half of it."""
        body = bytes(self.body)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport: asyncio.Transport = scope["state"]["transport"]
        if self._kind == "truncate":
            transport.close()
        else:
            await asyncio.sleep(0.05)  # lets the half leave first: a reset discards what is not sent yet
            if self._kind == "die":
                os._exit(70)
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass

"""A Slack webhook on this machine: checks the form of what it is sent as Slack documents it, answers as Slack does.

The limits are Slack's own (docs.slack.dev, Block Kit reference), written down here once more on purpose: what builds
messages must not be able to check itself.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PATH = "/services/T0000/B0000/AbCdEfGhIjKl"
TOKEN = "T0000/B0000/AbCdEfGhIjKl"


class RefusedError(Exception):
    """Slack would answer 400 with this code; `why` is more than Slack says."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


def check(payload: Any) -> None:
    """Raises RefusedError where a webhook of Slack would not take the payload."""
    if not isinstance(payload, dict):
        raise RefusedError("invalid_payload", "not a JSON object")
    text, blocks = payload.get("text"), payload.get("blocks")
    if text is not None and not isinstance(text, str):
        raise RefusedError("invalid_payload", "text is no string")
    if not text and not blocks:
        raise RefusedError("no_text", "neither text nor blocks")
    if blocks is not None:
        _blocks(blocks)


def _need(condition: Any, why: str) -> None:
    if not condition:
        raise RefusedError("invalid_blocks", why)


def _blocks(blocks: Any) -> None:
    _need(isinstance(blocks, list), "blocks is no list")
    _need(len(blocks) <= 50, f"{len(blocks)} blocks, Slack takes 50")
    ids = []
    for number, block in enumerate(blocks):
        _need(isinstance(block, dict), f"block {number} is no object")
        kind = block.get("type")
        _need(kind in KINDS, f"block {number} is of the type {kind!r}")
        try:
            KINDS[kind](block)
        except RefusedError as error:
            raise RefusedError("invalid_blocks", f"block {number} ({kind}): {error}") from error
        if "block_id" in block:
            _text(block["block_id"], 255, "block_id")
            ids.append(block["block_id"])
    _need(len(ids) == len(set(ids)), "a block_id stands twice")


def _only(thing: dict[str, Any], *names: str) -> None:
    unknown = thing.keys() - {"type", "block_id", *names}
    _need(not unknown, f"invalid additional property: {', '.join(sorted(unknown))}")


def _text(value: Any, most: int, name: str) -> None:
    _need(isinstance(value, str), f"{name} is no string")
    _need(1 <= len(value) <= most, f"{name} has {len(value)} characters, Slack takes 1 to {most}")


def _text_object(value: Any, most: int, name: str, *, kinds: Sequence[str] = ("plain_text", "mrkdwn")) -> None:
    _need(isinstance(value, dict), f"{name} is no text object")
    _need(value.get("type") in kinds, f"{name} is of the type {value.get('type')!r}")
    plain = value["type"] == "plain_text"
    unknown = value.keys() - {"type", "text", "emoji" if plain else "verbatim"}
    _need(not unknown, f"{name}: invalid additional property: {', '.join(sorted(unknown))}")
    _text(value.get("text"), most, name)
    _need(all(isinstance(value.get(flag, True), bool) for flag in ("emoji", "verbatim")), f"{name}: a flag is no flag")


def _list(value: Any, most: int, name: str) -> list[Any]:
    _need(isinstance(value, list), f"{name} is no list")
    _need(1 <= len(value) <= most, f"{name} has {len(value)} items, Slack takes 1 to {most}")
    return list(value)


def _header(block: dict[str, Any]) -> None:
    _only(block, "text")
    _text_object(block.get("text"), 150, "text", kinds=("plain_text",))


def _section(block: dict[str, Any]) -> None:
    _only(block, "text", "fields", "accessory", "expand")
    _need("text" in block or "fields" in block, "neither text nor fields")
    if "text" in block:
        _text_object(block["text"], 3000, "text")
    if "fields" in block:
        for one in _list(block["fields"], 10, "fields"):
            _text_object(one, 2000, "a field")
    if "accessory" in block:
        _button(block["accessory"])


def _context(block: dict[str, Any]) -> None:
    _only(block, "elements")
    for one in _list(block.get("elements"), 10, "elements"):
        _text_object(one, 3000, "an element")


def _actions(block: dict[str, Any]) -> None:
    _only(block, "elements")
    elements = _list(block.get("elements"), 25, "elements")
    for one in elements:
        _button(one)
    ids = [one["action_id"] for one in elements if "action_id" in one]
    _need(len(ids) == len(set(ids)), "an action_id stands twice")


def _button(button: Any) -> None:
    _need(isinstance(button, dict) and button.get("type") == "button", "an element is no button")
    _only(button, "text", "url", "value", "action_id", "style", "accessibility_label")
    _text_object(button.get("text"), 75, "a button's text", kinds=("plain_text",))
    if "url" in button:
        _text(button["url"], 3000, "a button's url")
        parts = urlsplit(button["url"])
        _need(parts.scheme in ("http", "https") and parts.hostname, "a button's url is no http or https URL")
    for name, most in {"value": 2000, "action_id": 255, "accessibility_label": 75}.items():
        if name in button:
            _text(button[name], most, f"a button's {name}")
    _need(button.get("style", "primary") in ("primary", "danger"), "a button's style is neither primary nor danger")


KINDS: dict[Any, Callable[[dict[str, Any]], None]] = {
    "header": _header,
    "section": _section,
    "divider": _only,
    "context": _context,
    "actions": _actions,
}


@dataclass
class Reply:
    """A scripted answer. `wait` seconds pass before it; its body comes a byte each `drip` seconds; `missing` bytes are
    announced and not sent; `reset` resets the connection instead of answering."""

    status: int = 200
    body: str = "ok"
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0
    drip: float = 0
    missing: int = 0
    reset: bool = False


@dataclass(frozen=True)
class Taken:
    """A message that was taken, and when, in seconds of `time.monotonic()`."""

    payload: dict[str, Any]
    at: float


class SlackServer:
    """Takes messages at PATH. Scripted answers are used up first, in order; they take nothing, unless they are `ok`."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.refused: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.script: list[Reply] = []
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.base = f"http://127.0.0.1:{self._http.server_port}"
        self.url = self.base + PATH

    @property
    def connection(self) -> str:
        """The connection that leads here, in Airflow's JSON form."""
        return json.dumps({"conn_type": "slackwebhook", "host": f"{self.base}/services", "password": TOKEN})

    @property
    def payloads(self) -> list[dict[str, Any]]:
        """What was taken, oldest first."""
        return [taken.payload for taken in self.taken]

    def _answer(self, path: str, content_type: str, body: bytes) -> Reply:
        scripted = self.script.pop(0) if self.script else None
        if scripted and (scripted.status, scripted.body) != (200, "ok"):
            return scripted
        if path != PATH:
            return Reply(404, "no_service")
        if content_type.partition(";")[0].strip() != "application/json":
            self.refused.append(f"the content type is {content_type!r}")
            return Reply(400, "invalid_payload")
        try:
            payload = json.loads(body)
            check(payload)
        except (RefusedError, ValueError) as error:
            self.refused.append(str(error))
            return Reply(400, error.code if isinstance(error, RefusedError) else "invalid_payload")
        self.taken.append(Taken(payload, time.monotonic()))
        return scripted or Reply()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's methods have their own self
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append(("GET", self.path))
                self.reply(server.script.pop(0) if server.script else Reply(404, "no_service"))

            def do_POST(self) -> None:
                server.requests.append(("POST", self.path))
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(server._answer(self.path, self.headers.get("Content-Type", ""), body))

            def reply(self, reply: Reply) -> None:
                server.closing.wait(reply.wait)
                if reply.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.rfile.close()
                    self.connection.close()
                    self.close_connection = True
                    return
                body = reply.body.encode()
                self.send_response_only(reply.status)
                for name, value in {"Content-Type": "text/html", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) + reply.missing))
                self.send_header("Connection", "close")
                self.end_headers()
                for part in [body[at : at + 1] for at in range(len(body))] if reply.drip else [body]:
                    server.closing.wait(reply.drip)
                    self.wfile.write(part)
                    self.wfile.flush()
                self.close_connection = True

            def finish(self) -> None:
                if self.connection.fileno() != -1:
                    super().finish()

            def handle(self) -> None:
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # whoever asked has gone, as a client with a time-out does

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@contextmanager
def serving_slack() -> Iterator[SlackServer]:
    """Serves from a thread of this process while the context lasts."""
    server = SlackServer()
    thread = threading.Thread(target=server._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server._http.shutdown()
        server._http.server_close()
        thread.join()

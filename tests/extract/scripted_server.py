"""An HTTP server that answers by script, and remembers what it was asked."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOW = "now"


@dataclass
class Reply:
    """One answer. `missing` bytes are announced and not sent; `reset` then resets the connection, or at once.

    `hold` keeps the connection open after the body, until the server's `release`.
    """

    body: bytes = b"[]"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    date: str | None = NOW
    missing: int = 0
    reset: bool = False
    hold: bool = False


class ScriptedServer:
    """Replies to each path (with its query) by the list scripted for it, whose last reply repeats.

    A POST is scripted, and remembered, as its path, a space and its body.
    """

    def __init__(self) -> None:
        self.script: dict[str, list[Reply]] = {}
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.held = threading.Event()
        self.release = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def on(self, path: str, *replies: Reply) -> None:
        self.script[path] = list(replies)

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's methods have their own self
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def do_GET(self) -> None:
                self.answer(self.path)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(f"{self.path} {body.decode()}")

            def answer(self, asked: str) -> None:
                server.asked.append(asked)
                server.tokens.append(self.headers.get("Authorization"))
                server.headers.append(dict(self.headers))
                replies = server.script.get(asked, [Reply(b"no such path", 404)])
                self.reply(replies.pop(0) if len(replies) > 1 else replies[0])

            def reply(self, reply: Reply) -> None:
                if not reply.reset or reply.missing:
                    self.send_response_only(reply.status)
                    headers = dict(reply.headers)
                    if "Transfer-Encoding" not in headers:
                        headers["Content-Length"] = str(len(reply.body) + reply.missing)
                    if reply.date:
                        headers["Date"] = formatdate(usegmt=True) if reply.date == NOW else reply.date
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body)
                if reply.hold:
                    server.held.set()
                    server.release.wait(60)
                if reply.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.rfile.close()
                    self.connection.close()
                if reply.reset or reply.missing:
                    self.close_connection = True

            def finish(self) -> None:
                if self.connection.fileno() != -1:
                    super().finish()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator["ScriptedServer"]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

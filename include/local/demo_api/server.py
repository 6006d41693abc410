"""The demo API over real HTTP: uvicorn with the demo's own `Date` and a protocol that can break connections off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from include.local.demo_api.app import Settings, create_app
from include.local.demo_api.faults import ReachableTransport

LOOPBACK = "127.0.0.1"


def build_server(settings: Settings) -> uvicorn.Server:
    """A server that is not started yet. `run(sockets=[...])` serves until `should_exit` is set or a signal comes."""
    config = uvicorn.Config(
        create_app(settings),
        http=ReachableTransport,
        ws="none",
        lifespan="off",
        date_header=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def listen(port: int, host: str = LOOPBACK) -> socket.socket:
    """A listening socket, on this machine only unless `host` says more; port 0 takes a free one.

    Raises OSError if the port is taken.
    """
    listening = socket.create_server((host, port), backlog=2048)
    listening.set_inheritable(False)
    return listening


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[str]:
    """Serves from a thread of this process while the context lasts; yields the base URL."""
    server = build_server(settings)
    listening = listen(port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="demo-api", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()

import logging
from collections.abc import Iterator

import pytest
import requests

from include.extract.client import SourceClient
from tests.extract.scripted_server import ScriptedServer

TOKEN = "s3cr3t-token-of-the-source"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as server:
        yield server


@pytest.fixture
def other_server() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as server:
        yield server


@pytest.fixture
def slept() -> list[float]:
    """The seconds that the client would have slept."""
    return []


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


@pytest.fixture
def client(server: ScriptedServer, session: requests.Session, slept: list[float]) -> SourceClient:
    return SourceClient(session, server.url, "customers", sleep=slept.append)


@pytest.fixture(autouse=True)
def _logs_hold_no_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert TOKEN not in caplog.text

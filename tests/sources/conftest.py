"""Fixtures: two servers that this project did not write. The first run installs them, both at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sources.json_server import server as json_server_program
from tests.sources.json_server.server import InvoiceServer
from tests.sources.oscar import server as oscar_program
from tests.sources.oscar.server import ShopServer


@pytest.fixture(scope="session")
def installations() -> Iterator[dict[str, Future[Path]]]:
    """The two installations, under way."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            "oscar": pool.submit(oscar_program.install),
            "json_server": pool.submit(json_server_program.install),
        }


@pytest.fixture(scope="session")
def json_server(
    installations: dict[str, Future[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InvoiceServer]:
    """json-server with its invoices, for tests that only read."""
    installations["json_server"].result()
    with json_server_program.serving(tmp_path_factory.mktemp("json_server")) as server:
        yield server


@pytest.fixture(scope="session")
def oscar(installations: dict[str, Future[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopServer]:
    """The shop with its catalogue, for tests that only read."""
    installations["oscar"].result()
    with oscar_program.serving(tmp_path_factory.mktemp("oscar")) as server:
        yield server


@pytest.fixture
def own_json_server(installations: dict[str, Future[Path]], tmp_path: Path) -> Iterator[InvoiceServer]:
    """json-server for one test that changes its invoices."""
    installations["json_server"].result()
    with json_server_program.serving(tmp_path) as server:
        yield server


@pytest.fixture
def own_oscar(installations: dict[str, Future[Path]], tmp_path: Path) -> Iterator[ShopServer]:
    """The shop for one test that changes its catalogue."""
    installations["oscar"].result()
    with oscar_program.serving(tmp_path) as server:
        yield server

"""Fixtures that several packages of tests share: a real PostgreSQL server, and a database of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from xdist.scheduler import LoadScopeScheduling

from include.database import migrate
from include.local.postgres import PostgresServer
from tests.memory import temporary_folder

TEMPLATE = "migrated"
SERVICES = ("e2e", "sources", "local")
"""Packages whose tests start services, and programs that they install; they stay in one process."""

settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")  # a machine that others use is slow now and then

_numbers = itertools.count()


class Shares(LoadScopeScheduling):
    """What two processes share between them: the services as one, everything else file by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "services" if _starts_services(file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    """What `make test` asks for: its two processes never start the same service at once."""
    return Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts services comes first, since it takes longest."""
    items.sort(key=lambda item: not _starts_services(item.nodeid))


def _starts_services(nodeid: str) -> bool:
    return nodeid.split("/")[1] in SERVICES


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, of SLUICE_POSTGRES_BIN if that is set, with a migrated template database."""
    with temporary_folder() as folder:
        server = PostgresServer(Path(folder) / "postgres", fsync=False)
        server.start()
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
            migrate.upgrade(server.dsn(TEMPLATE))
            yield server
        finally:
            server.stop()


@pytest.fixture
def app_database(postgres: PostgresServer) -> Iterator[str]:
    """The libpq URI of a freshly migrated database."""
    plain = f"test_{next(_numbers)}"
    name = sql.Identifier(plain)
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(TEMPLATE)))
    yield postgres.dsn(plain)
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture
def app_db(app_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a freshly migrated database."""
    with psycopg.connect(app_database) as connection:
        yield connection

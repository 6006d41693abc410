"""Fixtures that several packages of tests share: a real PostgreSQL server, and a database of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.database import migrate
from include.local.postgres import PostgresServer
from tests.memory import temporary_folder

TEMPLATE = "migrated"
SERVICES = ("e2e", "sources", "local")
"""Packages whose tests start services, and programs that they install: they stay in one process, one after the other."""

_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What two processes share between them: the services, which take longest, first; everything else file by file."""
    here = Path(__file__).parent
    for item in items:
        package = item.path.relative_to(here).parts[0]
        group = "services" if package in SERVICES else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0] != "services")


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

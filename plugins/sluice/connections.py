"""Airflow's connections as the plain things that `include/` takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from sqlalchemy import URL, make_url

UTC_SESSION = "-c timezone=UTC"


@contextmanager
def app_db(*, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """A connection to `app_db` whose session is in UTC: committed and closed at the end, rolled back on an error."""
    with _connection("app_db", autocommit=autocommit) as connection:
        yield connection


@contextmanager
def warehouse_db(*, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """The same to `warehouse_db`, which may be another server."""
    with _connection("warehouse_db", autocommit=autocommit) as connection:
        yield connection


def app_db_url() -> URL:
    """SQLAlchemy's URL of `app_db`, with the driver psycopg 3 and in UTC. It holds the password: never log it."""
    return _url("app_db")


def warehouse_db_url() -> URL:
    """The same of `warehouse_db`."""
    return _url("warehouse_db")


def _connection(conn_id: str, *, autocommit: bool) -> psycopg.Connection[Any]:
    connection = cast("psycopg.Connection[Any]", PostgresHook(conn_id, options=UTC_SESSION).get_conn())
    connection.autocommit = autocommit
    return connection


def _url(conn_id: str) -> URL:
    url = make_url(PostgresHook(conn_id).get_uri()).set(drivername="postgresql+psycopg")
    return url.update_query_dict({"options": UTC_SESSION})

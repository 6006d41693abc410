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
    connection = cast("psycopg.Connection[Any]", PostgresHook("app_db", options=UTC_SESSION).get_conn())
    connection.autocommit = autocommit
    with connection:
        yield connection


def app_db_url() -> URL:
    """SQLAlchemy's URL of `app_db`, with the driver psycopg 3. It holds the password: never log it."""
    return make_url(PostgresHook("app_db").get_uri()).set(drivername="postgresql+psycopg")

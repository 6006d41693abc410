"""Alembic's environment for the connection `warehouse_db`; `include.database.migrate` hands the connection in."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import text

from include.database.metadata import warehouse_metadata

VERSION_TABLE = "alembic_version_warehouse"
SCHEMAS = {"raw", "warehouse"}  # what `warehouse_build` holds comes and goes with the loads


def ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Only the schemas of this set are compared: a database may hold others."""
    if kind == "schema":
        return name in SCHEMAS
    return not (kind == "table" and str(name).startswith("alembic_version"))  # other sets keep theirs here too


connection = context.config.attributes["connection"]
connection.execute(text("create schema if not exists warehouse"))  # it holds the version table
connection.commit()
context.configure(
    connection=connection,
    target_metadata=warehouse_metadata(),
    include_schemas=True,
    include_name=ours,
    version_table=VERSION_TABLE,
    version_table_schema="warehouse",
    compare_server_default=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()

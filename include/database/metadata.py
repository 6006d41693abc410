"""The metadata that Alembic compares with the databases: one a database, since one transaction cannot span two."""

from __future__ import annotations

from sqlalchemy import MetaData

from include.contracts import CONTRACTS
from include.database.entities import entity_tables
from include.database.operations import operations_tables
from include.database.raw import raw_tables
from include.database.warehouse import warehouse_tables

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def app_metadata() -> MetaData:
    """The tables of the connection `app_db`: `app`, derived from the contracts, and `operations`."""
    metadata = MetaData(naming_convention=NAMING)
    for contract in CONTRACTS:
        entity_tables(contract, metadata)
    operations_tables(metadata)
    return metadata


def warehouse_metadata() -> MetaData:
    """The tables of the connection `warehouse_db`: `raw`, derived from the contracts, and `warehouse`."""
    metadata = MetaData(naming_convention=NAMING)
    raw_tables(metadata)
    warehouse_tables(metadata)
    return metadata

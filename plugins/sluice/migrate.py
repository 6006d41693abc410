"""Brings the databases that the connections name to the newest version: `python -m sluice.migrate`."""

from __future__ import annotations

import time

from include.database import migrate
from sluice.connections import app_db_url, warehouse_db_url


def main() -> None:
    for connection, url in (("app_db", app_db_url()), ("warehouse_db", warehouse_db_url())):
        started = time.monotonic()
        migrate.upgrade(url, connection.removesuffix("_db"))
        print(f"{connection}: migrated in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()

"""Brings the databases that the connections name to the newest version: `python -m sluice.migrate`."""

from __future__ import annotations

import time

from include.database import migrate
from sluice.connections import app_db_url


def main() -> None:
    started = time.monotonic()
    migrate.upgrade(app_db_url())
    print(f"app_db: migrated in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()

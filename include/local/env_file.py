"""Writes the `.env` that docker-compose.yaml reads: `python3 -m include.local.env_file [path]`.

It is `.env.example` with every secret drawn at random. Needs Python's standard library only, so that a machine which
has nothing but Docker and Python can run it.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / ".env.example"


def _password() -> str:
    return secrets.token_urlsafe(24)


def _signing_key() -> str:
    return secrets.token_urlsafe(64)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


SECRETS = {
    "POSTGRES_PASSWORD": _password,
    "AIRFLOW_DB_PASSWORD": _password,
    "SLUICE_DB_PASSWORD": _password,
    "VALKEY_PASSWORD": _password,
    "AIRFLOW_ADMIN_PASSWORD": _password,
    "AIRFLOW_FERNET_KEY": _fernet_key,
    "AIRFLOW_API_SECRET_KEY": _signing_key,
    "AIRFLOW_JWT_SECRET": _signing_key,
    "DEMO_API_TOKEN": _password,
}


def fill_in(example: str) -> str:
    """The text of `.env.example` with a value for every name in SECRETS; all else stays as it is."""
    lines = []
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        draw = SECRETS.get(name) if equals and not value else None
        lines.append(line + draw() if draw else line)
    return "\n".join(lines) + "\n"


def write(path: Path) -> None:
    """Make the file, readable by its owner only. Raises FileExistsError if there is one: its secrets are in use."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(fill_in(EXAMPLE.read_text()))


def main() -> int:
    """Write the file and say what to do next; 1 if there is one already."""
    parser = argparse.ArgumentParser(prog="python3 -m include.local.env_file", description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=REPOSITORY / ".env", help="default: the repository's")
    path = parser.parse_args().path
    try:
        write(path)
    except FileExistsError:
        print(
            f"error: {path} exists and stays as it is: the databases were made with its passwords. Edit it, or remove "
            "it together with all data: docker compose --profile demo down --volumes",
            file=sys.stderr,
        )
        return 1
    print(
        f"Wrote {path}. Next:\n"
        "  docker compose --profile demo up --build --detach --wait    Airflow and an API with made-up data\n"
        "  docker compose up --build --detach --wait                   Airflow alone, after setting your own API and\n"
        "                                                              databases in that file\n"
        "Then open http://localhost:8080 as admin; the password is AIRFLOW_ADMIN_PASSWORD in that file."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

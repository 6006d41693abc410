"""`python -m include.local.new_entity NAME FROM [--connection ID]`: a contract and its migration from a sample.

Reads a sample of the URL or file, writes `include/contracts/<name>.py` with every guess marked, then the migration, and
tries both on the first records. It never overwrites; what it has written stays where a later step fails.
"""

from __future__ import annotations

import argparse
import json
import keyword
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from include.contracts import CONTRACTS
from include.local.new_entity.guesses import EntityGuess, GuessError, guess, is_sql_word
from include.local.new_entity.sample import EndpointGuess, FilesGuess, SampleError, open_source, read_file, read_url
from include.local.new_entity.source_text import contract_text
from include.local.settings import Settings
from include.masking import mask_url

REPOSITORY = Path(__file__).resolve().parents[3]
CONTRACT_FILES = REPOSITORY / "include/contracts"
VERSIONS = REPOSITORY / "include/database/migrations/app/versions"
NAME = re.compile(r"[a-z][a-z0-9_]{0,19}")
CONNECTION = re.compile(r"[a-z][a-z0-9_]{0,49}")


def main() -> int:
    """Runs the command; 0 if all went well, 1 with the reason on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m include.local.new_entity", description=__doc__)
    parser.add_argument("name", help="the entity, a plural: invoices")
    parser.add_argument("source", help="a URL, or a csv, jsonl or parquet file")
    parser.add_argument("--connection", help="the Airflow connection of the source (source_api)")
    arguments = parser.parse_args()
    try:
        return new_entity(arguments.name, arguments.source, arguments.connection or "source_api")
    except (SampleError, GuessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def new_entity(name: str, address: str, connection: str) -> int:
    """Writes the contract and the migration of an entity, and tries them; 0 if all went well.

    Raises SampleError or GuessError where nothing can be proposed; nothing is written then.
    """
    check_name(name)
    if not CONNECTION.fullmatch(connection):
        raise SampleError(f"{connection!r} is no name of a connection: it needs a letter, then a-z, 0-9 and _")
    if "://" not in address or address.startswith("file://"):
        address = str(Path(unquote(address.removeprefix("file://"))).absolute())
    print(f"{name}: reading a sample of {mask_url(address)}")
    records, source, shown = _sampled(name, address, connection)
    taken = [table for one in CONTRACTS for table in (one.name, *(child.table for child in one.children.values()))]
    text_only = isinstance(source, FilesGuess) and source.files.format == "csv"
    entity = guess(name, records, text_only=text_only, tables=taken)
    path = CONTRACT_FILES / f"{name}.py"
    with path.open("x") as file:
        file.write(contract_text(entity, source, connection, shown))
    _ruff(path)
    print(f"wrote {path.relative_to(REPOSITORY)}: {_summary(entity)}", flush=True)
    known = set(VERSIONS.glob("*.py"))
    tried = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "include.local.new_entity.dry_sync", name, address], cwd=REPOSITORY, check=False
    )
    migrations = sorted(set(VERSIONS.glob("*.py")) - known)
    if migrations:
        _ruff(*migrations)
    print(f"\n{next_steps(entity, source, connection, migrations)}")
    return tried.returncode


def check_name(name: str) -> None:
    """Raises SampleError, saying why, for a name that a new entity cannot have."""
    if not NAME.fullmatch(name):
        raise SampleError(f"{name!r} is no name of an entity: 1 to 20 of a-z, 0-9 and _, a letter first (invoices)")
    if is_sql_word(name) or keyword.iskeyword(name):
        raise SampleError(f"{name!r} means something in SQL or Python: take another name, a plural ({name}s)")
    if (CONTRACT_FILES / f"{name}.py").exists():
        raise SampleError(f"include/contracts/{name}.py exists and stays as it is: take another name, or remove it")
    for one in CONTRACTS:
        if name in (one.name, f"{one.name}_history", *(child.table for child in one.children.values())):
            raise SampleError(f"the contract {one.name} has a table {name} already: take another name")


def next_steps(entity: EntityGuess, source: EndpointGuess | FilesGuess, connection: str, migrations: list[Path]) -> str:
    """What is left to do, with what is to be pasted where."""
    contract = f"include/contracts/{entity.name}.py"
    steps = [f"Read {contract}, and settle what its comments ask to confirm."]
    if migrations:
        migration = migrations[0].relative_to(REPOSITORY)
        steps.append(f"Read {migration}. After a change of fields: remove it, then make revision "
                     f'MESSAGE="{entity.name}" and make format.')  # fmt: skip
    else:
        steps.append(f'Write the migration, which is not there yet: make revision MESSAGE="{entity.name}".')
    if isinstance(source, EndpointGuess):
        steps += _connection_steps(source, connection)
    steps.append("make docs, make lint, then make stack, which applies the migration.")
    run = f"""airflow dags test daily_sync --conf '{{"entities": ["{entity.name}"]"""
    steps.append(
        f"""A dry run through the gate, and a first run:
eval "$(make -s env)"
{run}, "dry_run": true}}'
{run}}}'"""
    )
    return "Next:\n" + "\n".join(
        textwrap.indent(f"{number}. {step}", "   ")[3:] for number, step in enumerate(steps, start=1)
    )


def _connection_steps(source: EndpointGuess, connection: str) -> list[str]:
    settings = Settings.read(REPOSITORY / "airflow_settings.yaml")
    variable = f"AIRFLOW_CONN_{connection.upper()}"
    example = json.dumps({"conn_type": "http", "host": source.base_url, "password": "<token>"})
    secret = f"Where the source asks for credentials, set them in the environment: {variable}='{example}'"
    if any(declared.conn_id == connection for declared in settings.connections):
        return [f"The connection {connection} is declared; let it lead to {source.base_url}. {secret}"]
    parts = urlsplit(source.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host, scheme, shown_port = str(parts.hostname), f" {parts.scheme}", f" {port}"
    default = f":-http://{host}:{port}/{parts.scheme}"
    if parts.path:  # a host that is a whole URL is taken as it is
        host, scheme, shown_port, default = source.base_url, "", "", ":?set it in .env"
    return [
        f"""Declare the connection. In airflow_settings.yaml, under connections:
    - conn_id: {connection}
      conn_type: http
      conn_host: {host}
      conn_schema:{scheme}
      conn_login:
      conn_password:
      conn_port:{shown_port}
      conn_extra:
and under pools:
    - pool_name: {connection}
      pool_slot: 4
      pool_description: Requests to {connection} at the same time
In docker-compose.yaml, below AIRFLOW_CONN_SOURCE_API:
    {variable}: ${{{variable}{default}}}
In .env.example, below AIRFLOW_CONN_SOURCE_API:
# Where {urlsplit(source.endpoint.path).path} is read from
{variable}=
{secret}"""
    ]


def _sampled(name: str, address: str, connection: str) -> tuple[list[Any], EndpointGuess | FilesGuess, str]:
    """The records, the source, and what to call it in a file: without a query, which may hold secrets."""

    def report(line: str) -> None:
        print(f"  {line}")

    if "://" not in address:
        records, files = read_file(Path(address), report)
        return records, files, Path(address).name
    with requests.Session() as session:
        records, source = read_url(open_source(name, address, connection, session), name, report)
    return records, source, source.base_url.rstrip("/") + "/" + urlsplit(source.endpoint.path).path.lstrip("/")


def _summary(entity: EntityGuess) -> str:
    nested = "".join(f", {len(child.entity.fields)} of {child.table}" for child in entity.children)
    count = len(entity.left_out) + sum(len(child.entity.left_out) for child in entity.children)
    left_out = f"; {count} left out, see its comments" if count else ""
    return (
        f"{len(entity.fields)} fields{nested}, key {', '.join(entity.key)}, "
        f"version {entity.version or 'none'}{left_out}"
    )


def _ruff(*paths: Path) -> None:
    """Lays the files out and takes imports out that they do not need."""
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check", "--fix-only", "--select=F401"], ["check", "--fix-only"], ["format"]):
        subprocess.run([ruff, *command, "--quiet", *paths], cwd=REPOSITORY, check=False)  # noqa: S603 - ruff, on own files


if __name__ == "__main__":
    sys.exit(main())

"""`python -m include.local up|down|status|env`: the embedded stack for a laptop."""

import argparse
import logging
import os
import sys
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from include.database import migrate
from include.local.postgres import binaries
from include.local.processes import StackError
from include.local.settings import export_lines
from include.local.stack import METADATA, REPOSITORY, Stack


def main() -> int:
    """Run one command; 0 if all went well, 1 with the reason on stderr if not."""
    parser = argparse.ArgumentParser(prog="python -m include.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start PostgreSQL, Valkey and the demo API")
    up.add_argument("--with-airflow", action="store_true", help="and the whole of Airflow")
    commands.add_parser("down", help="stop what `up` started; data stay")
    commands.add_parser("status", help="show what runs; 1 if something that was started has ended")
    env = commands.add_parser("env", help="print export lines in which any `airflow` command works")
    env.add_argument("--metadata", choices=list(METADATA), default="airflow", help="demo: for `airflow dags test`")
    revision = commands.add_parser("revision", help="write the migration that a changed contract needs")
    revision.add_argument("message", help="what changed, in a few words")
    commands.add_parser("psql", help="a SQL prompt on the data; arguments go to psql").add_argument("rest", nargs="*")
    arguments = parser.parse_args()

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    root = Path(os.environ.get("SLUICE_LOCAL") or REPOSITORY / ".local")
    if not root.is_absolute():
        parser.error(f"SLUICE_LOCAL is {root}, expected an absolute path")
    stack = Stack(root, durable=True)
    try:
        if arguments.command == "up":
            return _up(stack, with_airflow=arguments.with_airflow)
        if arguments.command == "down":
            stack.down()
            return 0
        if arguments.command == "status":
            return _status(stack)
        if arguments.command == "revision":
            return _revision(stack, arguments.message)
        if arguments.command == "psql":
            return _psql(stack, arguments.rest)
        return _env(stack, arguments.metadata)
    except (StackError, PermissionError, psycopg.OperationalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _up(stack: Stack, *, with_airflow: bool) -> int:
    stack.up()
    migrate.upgrade_all(stack.dsn())
    stack.prepare_metadata()
    if with_airflow:
        address = stack.up_airflow()
        login, password = stack.admin()
        print(f"Airflow: {address}   login: {login}   password: {password}")
    return 0


def _revision(stack: Stack, message: str) -> int:
    if not message.strip():
        print('error: say what changed: make revision MESSAGE="customers get a loyalty tier"', file=sys.stderr)
        return 1
    stack.up(("postgres",))
    migrate.upgrade_all(stack.dsn())
    written = [migrate.write_revision(stack.dsn(), message, name) for name in migrate.outdated(stack.dsn())]
    for path in written:
        print(f"{path}: read it, then make format, and make stack applies it")
    if not written:
        print("The tables are what the contracts say: there is nothing to migrate")
    return 0


def _psql(stack: Stack, arguments: list[str]) -> int:
    """Becomes psql; the password goes by its environment, not by its arguments, which other users can see."""
    info = conninfo_to_dict(stack.dsn())
    environ = {f"PG{name}": str(info[key]) for name, key in (
        ("HOST", "host"), ("PORT", "port"), ("USER", "user"), ("PASSWORD", "password"), ("DATABASE", "dbname")
    )}  # fmt: skip
    psql = binaries() / "psql"
    os.execve(psql, [str(psql), *arguments], {**os.environ, **environ})  # noqa: S606 - no shell is wanted


def _status(stack: Stack) -> int:
    services = stack.services()
    if not services:
        print("nothing was started")
    for name, service in services.items():
        condition = "running" if service.is_running() else "ended"
        print(f"{name:<22} {condition:<8} port {service.port or '-':<6} pid {service.pid}  {service.log}")
    return 0 if all(service.is_running() for service in services.values()) else 1


def _env(stack: Stack, metadata: str) -> int:
    print(export_lines(stack.environment(metadata)))
    if metadata == "airflow" and stack.airflow_is_up():
        print(
            "warning: Airflow is up and its scheduler would take the tasks of `airflow dags test` away: "
            "for that, use the environment of `env --metadata demo`",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

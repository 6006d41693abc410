"""The local stack: PostgreSQL, Valkey, the demo API and, on request, Airflow's own processes, all below one folder.

The folder is `.local/` of the repository, or what SLUICE_LOCAL names. Its `stack.json` (mode 0600) remembers pids,
ports and secrets, so that a later call finds again what an earlier one started.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
from pydantic import BaseModel, Field

from include.local import airflow, valkey
from include.local.postgres import (
    PostgresServer,
    create_database,
    has_database,
    prepare,
    stop_postgres,
)
from include.local.processes import HOST, Service, StackError, choose_port, spawn, stop, wait_until_ready
from include.local.settings import Endpoint, Settings

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICES = ("postgres", "valkey", "demo_api")
DATA_ROLE = "sluice"
METADATA_ROLE = "airflow"
# `airflow dags test` needs a metadata database that no scheduler works on: it would take the tasks away
METADATA = {"airflow": "airflow", "demo": "airflow_demo"}
DEMO_SIZES = {"customers": "50000", "products": "2000", "orders": "100000"}
LOCK_SECONDS = 300.0


class State(BaseModel):
    """What `stack.json` holds."""

    services: dict[str, Service] = Field(default_factory=dict)
    ports: dict[str, int] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    # metadata database to the Airflow version and the pools that it was prepared for
    prepared: dict[str, str] = Field(default_factory=dict)


class Stack:
    """The services below `root`. `durable=False` lets PostgreSQL skip fsync: for data that tests throw away."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root.absolute()
        self.durable = durable

    def up(self, services: Sequence[str] = SERVICES) -> None:
        """Start what of `services` is not running yet, and wait until each answers.

        Data, secrets and, where still free, ports stay those of earlier starts. Raises StackError with a remedy.
        """
        with self._locked() as state:
            self._complete(state)
            if "postgres" in services:
                self._up_postgres(state)
            if "valkey" in services:
                self._up("valkey", state, self._launch_valkey, self._valkey_answers)
            if "demo_api" in services:
                self._up("demo_api", state, self._launch_demo_api, self._demo_api_answers)
                started_with = state.services["demo_api"].command
                if started_with[-len(sizes := _demo_sizes()) :] != sizes:
                    logger.warning("demo_api: keeps the size it was started with; `down` first, then `up`, changes it")

    def prepare_metadata(self) -> None:
        """Bring Airflow's two metadata databases to the installed version, with the declared pools.

        Quick when nothing has changed since the last time. Raises StackError if PostgreSQL is not up.
        """
        with self._locked() as state:
            self._prepare_metadata(state)

    def up_airflow(self) -> str:
        """Start Airflow's processes on the running services; returns the address of its UI once all are healthy.

        Raises StackError if PostgreSQL is not up, or if a process ends or is not healthy within two minutes.
        """
        with self._locked() as state:
            self._prepare_metadata(state)
            if not any(self._is_running(state, name) for name in airflow.COMPONENTS):
                state.ports["airflow"] = choose_port("airflow", state.ports.get("airflow"))
            port = state.ports["airflow"]
            environ = {**os.environ, **self._environment(state, "airflow")}
            for name, arguments in airflow.COMPONENTS.items():
                if self._already_running(state, name):
                    continue
                log = self.root / "logs" / f"{name}.log"
                own_port = port if name == "airflow_api_server" else None
                state.services[name] = spawn(airflow.command(*arguments), log, environ, own_port, cwd=REPOSITORY)
                self._save(state)
            components = {name: state.services[name] for name in airflow.COMPONENTS}
            with self._forgetting_ended(state):
                wait_until_ready(components, lambda: airflow.is_healthy(port), airflow.STARTUP_SECONDS)
        return f"http://{HOST}:{port}"

    def down(self) -> None:
        """Stop what this stack started and nothing else; data, ports and secrets stay."""
        with self._locked() as state:
            for names in (tuple(airflow.COMPONENTS), ("demo_api",), ("valkey",), ("postgres",)):
                services = {name: state.services[name] for name in names if name in state.services}
                started = time.monotonic()
                for name, service in services.items():
                    if not service.is_running():
                        logger.info("%s: had ended already (pid %d)", name, service.pid)
                if "postgres" in services:
                    stop_postgres(services["postgres"])
                else:
                    stop(services.values())
                for name in services:
                    del state.services[name]
                self._save(state)
                if services:
                    logger.info("%s: stopped in %.1f s", ", ".join(services), time.monotonic() - started)

    def services(self) -> dict[str, Service]:
        """The services that were started and not stopped, dead ones among them."""
        return self._load().services

    def airflow_is_up(self) -> bool:
        """Whether any of Airflow's processes runs."""
        state = self._load()
        return any(self._is_running(state, name) for name in airflow.COMPONENTS)

    def admin(self) -> tuple[str, str]:
        """Login and password of Airflow's UI. Raises StackError if the stack was never up."""
        return airflow.ADMIN, self._secret(self._load(), "admin_password")

    def dsn(self, database: str = DATA_ROLE) -> str:
        """The libpq URI for a database as its owner: `sluice`, or one of Airflow's. Raises StackError before `up`."""
        return self._dsn(self._load(), database)

    def environment(self, metadata: str = "airflow") -> dict[str, str]:
        """The environment in which any `airflow` command works on this stack; `metadata` is `airflow` or `demo`.

        Raises StackError if the stack is not up.
        """
        state = self._load()
        if not self._is_running(state, "postgres"):
            raise StackError("The local stack is not running: start it with `python -m include.local up`")
        return self._environment(state, metadata)

    def _complete(self, state: State) -> None:
        """Draw the secrets, and the port that Airflow's options name before Airflow runs, that are not there yet."""
        for name in ("postgres_sluice", "postgres_airflow", "valkey", "demo_api", "admin_password"):
            state.secrets.setdefault(name, secrets.token_urlsafe(24))
        for name in ("api_secret_key", "jwt_secret"):
            state.secrets.setdefault(name, secrets.token_urlsafe(64))
        state.secrets.setdefault("fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        if "airflow" not in state.ports:
            state.ports["airflow"] = choose_port("airflow", 8080)
        self._save(state)

    def _up_postgres(self, state: State) -> None:
        name = "postgres"
        server = PostgresServer(self.root / name, fsync=self.durable, port=state.ports.get(name))
        if not self._already_running(state, name):
            server.port = state.ports[name] = choose_port(name, state.ports.get(name))
            state.services[name] = server.launch()
            self._save(state)
            with self._forgetting_ended(state):
                server.wait_until_ready(state.services[name])
        roles = {role: self._secret(state, f"postgres_{role}") for role in (DATA_ROLE, METADATA_ROLE)}
        owners = {DATA_ROLE: DATA_ROLE, METADATA["airflow"]: METADATA_ROLE}
        for database in prepare(server.dsn(), roles, owners):
            state.prepared.pop(database, None)
        self._save(state)

    def _up(
        self, name: str, state: State, launch: Callable[[State, int], Service], answers: Callable[[State], bool]
    ) -> None:
        if self._already_running(state, name):
            return
        port = state.ports[name] = choose_port(name, state.ports.get(name))
        state.services[name] = launch(state, port)
        self._save(state)
        with self._forgetting_ended(state):
            wait_until_ready({name: state.services[name]}, lambda: answers(state))

    @contextlib.contextmanager
    def _forgetting_ended(self, state: State) -> Iterator[None]:
        """What did not come up has been stopped: `status` and `down` have nothing to do with it any more."""
        try:
            yield
        except StackError:
            state.services = {name: service for name, service in state.services.items() if service.is_running()}
            self._save(state)
            raise

    def _launch_valkey(self, state: State, port: int) -> Service:
        return valkey.launch(self.root / "valkey", port, self._secret(state, "valkey"))

    def _valkey_answers(self, state: State) -> bool:
        return valkey.answers(state.ports["valkey"], self._secret(state, "valkey"))

    def _launch_demo_api(self, state: State, port: int) -> Service:
        # The clock of the wall: one that began anew with each start would be behind the snapshots in the database.
        options = ["--port", str(port), "--clock", "wall", *_demo_sizes()]
        command = [sys.executable, "-m", "include.local.demo_api", *options]
        environ = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "DEMO_API_TOKEN": self._secret(state, "demo_api"),
        }
        logger.info("demo_api: starting on port %d (%s)", port, " ".join(_demo_sizes()))
        return spawn(command, self.root / "logs" / "demo_api.log", environ, port, cwd=REPOSITORY)

    def _demo_api_answers(self, state: State) -> bool:
        response = airflow.get(f"http://{HOST}:{state.ports['demo_api']}/health")
        return response is not None and response.ok

    def _prepare_metadata(self, state: State) -> None:
        if not self._is_running(state, "postgres"):
            raise StackError("PostgreSQL is not running: start it with `python -m include.local up`")
        pools = self._settings().pools_json()
        wanted = f"{airflow.version()} {hashlib.sha256(pools.encode()).hexdigest()[:16]}"
        pools_file = self.root / "pools.json"
        pools_file.write_text(pools)
        server = PostgresServer(self.root / "postgres", port=state.ports["postgres"])
        first, copy = METADATA["airflow"], METADATA["demo"]
        for metadata, database in METADATA.items():
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                if has_database(connection, database) and state.prepared.get(database) == wanted:
                    continue
                is_fresh = first not in state.prepared
                if database == copy and not has_database(connection, copy):
                    create_database(connection, copy, METADATA_ROLE, template=first)
                    logger.info("airflow: made the metadata database %s as a copy of %s", copy, first)
                    state.prepared[copy] = wanted
                    self._save(state)
                    continue
            if is_fresh:
                logger.info("airflow: making the metadata database %s, once", database)
            environ = self._environment(state, metadata)
            log = self.root / "logs" / "airflow_metadata.log"
            airflow.run(["db", "migrate"], environ, log)
            airflow.run(["pools", "import", str(pools_file)], environ, log)
            state.prepared[database] = wanted
            self._save(state)

    def _environment(self, state: State, metadata: str) -> dict[str, str]:
        home = self.root / "airflow"
        home.mkdir(parents=True, exist_ok=True)
        passwords = home / "simple_auth_manager_passwords.json"
        _write_private(passwords, json.dumps({airflow.ADMIN: self._secret(state, "admin_password")}))
        endpoints = {
            host: Endpoint(HOST, state.ports[name], self._secret(state, secret))
            for host, name, secret in (
                ("postgres", "postgres", f"postgres_{DATA_ROLE}"),
                ("valkey", "valkey", "valkey"),
                ("demo-api", "demo_api", "demo_api"),
            )
            if name in state.services
        }
        if "demo_api" in state.services:  # any token does: whoever reaches the demo API may post to it
            webhook = f"http://{HOST}:{state.ports['demo_api']}/slack/services"
            endpoints["slack_alerts"] = Endpoint(webhook, None, "local/demo/alerts")
        folders = {name: self.root / name for name in ("landing", "data_docs")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        variables = {f"{name}_uri": folder.as_uri() for name, folder in folders.items()}
        keys = {name: self._secret(state, name) for name in ("api_secret_key", "jwt_secret", "fernet_key")}
        return {
            **airflow.options(
                REPOSITORY, home, self._dsn(state, METADATA[metadata]), state.ports["airflow"], passwords, keys
            ),
            "PYTHONPATH": _prepended("PYTHONPATH", str(REPOSITORY), str(REPOSITORY / "plugins")),
            "PATH": _prepended("PATH", str(Path(sys.executable).parent)),
            **self._settings().environment(endpoints, variables, os.environ),
        }

    def _dsn(self, state: State, database: str) -> str:
        role = DATA_ROLE if database == DATA_ROLE else METADATA_ROLE
        if "postgres" not in state.ports:
            raise StackError("The local stack was never up: start it with `python -m include.local up`")
        return (
            f"postgresql://{role}:{self._secret(state, f'postgres_{role}')}@{HOST}:{state.ports['postgres']}/{database}"
        )

    def _settings(self) -> Settings:
        return Settings.read(REPOSITORY / "airflow_settings.yaml")

    def _secret(self, state: State, name: str) -> str:
        if name not in state.secrets:
            raise StackError("The local stack was never up: start it with `python -m include.local up`")
        return state.secrets[name]

    def _is_running(self, state: State, name: str) -> bool:
        return name in state.services and state.services[name].is_running()

    def _already_running(self, state: State, name: str) -> bool:
        """Whether nothing needs to be started; what a dead service left of its session is ended."""
        if name not in state.services:
            return False
        service = state.services[name]
        if service.is_running():
            logger.info("%s: already running on port %s (pid %d)", name, service.port or "-", service.pid)
            variable = f"SLUICE_{name.upper()}_PORT"
            if os.environ.get(variable, str(service.port)) != str(service.port):
                logger.warning("%s: %s takes effect after `down`", name, variable)
            return True
        logger.info("%s: was started as pid %d and has ended, starting it again", name, service.pid)
        stop([service])
        return False

    @property
    def _state_file(self) -> Path:
        return self.root / "stack.json"

    def _load(self) -> State:
        if self._state_file.exists():
            return State.model_validate_json(self._state_file.read_text())
        return State()

    def _save(self, state: State) -> None:
        _write_private(self._state_file, state.model_dump_json(indent=2))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[State]:
        """The state, held so that no other call changes it or the services meanwhile."""
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            _acquire(lock.fileno(), self.root)
            state = self._load()
            yield state


def _demo_sizes() -> list[str]:
    """The demo API's options, from SLUICE_DEMO_CUSTOMERS, _PRODUCTS and _ORDERS."""
    return [
        option
        for entity, default in DEMO_SIZES.items()
        for option in (f"--{entity}", os.environ.get(f"SLUICE_DEMO_{entity.upper()}", default))
    ]


def _acquire(lock: int, root: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StackError(
                    f"Another command has worked on {root} for {LOCK_SECONDS:.0f} s: wait for it to end, or end it"
                ) from None
            if not waiting:
                logger.info("waiting for another command that works on %s", root)
                waiting = True
            time.sleep(0.1)
        else:
            return


def _write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner may read, whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def _prepended(variable: str, *entries: str) -> str:
    """The search path of the environment with `entries` first, each once."""
    present = os.environ.get(variable, "").split(os.pathsep)
    return os.pathsep.join([*entries, *(entry for entry in present if entry and entry not in entries)])

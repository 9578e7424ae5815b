"""The one writer's lock: held by the operating system, so that it is free the moment its holder dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from store.errors import LockedError
from store.format.files import LOCK


def acquire(run: Path) -> FileLock:
    """Take the writer's lock of a run, or raise at once.

    Raises
    ------
    LockedError
        With the process id and host of the holder.
    """
    path = run / LOCK
    lock = FileLock(path, thread_local=False)  # another thread may close the writer
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(f"{run}: being written by {_holder(path)}; wait for it, or stop it, then try again") from None
    path.write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
    return lock


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "another process"
    except OSError:
        return "another process"

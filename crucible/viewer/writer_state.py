"""Whether a run is being written: told without taking the writer's lock."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any, Literal

from crucible.viewer.source import DOCUMENT, LOCK, TRAJECTORY, stand_of

State = Literal["recording", "stopped", "complete"]
QUIET_S = 120.0
"""A writer on another machine counts as gone when it has not committed for so long: four of its usual intervals."""


def writer_state(run: Path) -> State:
    """``complete`` if the run ended, ``recording`` if its writer lives, ``stopped`` if the writer is gone.

    The writer's lock is only looked at. A writer on this machine is known by its process, and on Linux by the lock
    that it holds; of one on another machine only the age of the last commit is known.
    """
    if stand_of(run).completed:
        return "complete"
    try:
        holder = re.match(r"pid (\d+) on (.*)", (run / LOCK).read_text(errors="replace"))
    except OSError:
        return "stopped"
    if holder is None:
        return "stopped"
    if holder[2].strip() != socket.gethostname():
        age_s = time.time() - (run / TRAJECTORY / DOCUMENT).stat().st_mtime
        return "recording" if age_s < QUIET_S else "stopped"
    held = _is_locked(run / LOCK)
    return "recording" if (_is_alive(int(holder[1])) if held is None else held) else "stopped"


def describe(run: Path) -> dict[str, Any]:
    """The state, and the command that goes on with a run that stopped."""
    state = writer_state(run)
    command = f"crucible resume {run.name}" if state == "stopped" else None
    return {"state": state, "command": command}


def _is_locked(lock: Path) -> bool | None:
    """Whether any process holds the lock, as Linux lists it; None elsewhere."""
    if sys.platform != "linux":
        return None
    try:
        inode = lock.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    return any(line.split()[1] == "FLOCK" and f":{inode} " in line for line in lines if len(line.split()) > 5)


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # a signal would end the process; the lock's holder is believed
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

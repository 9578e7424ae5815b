"""Whether a process of this machine is there, and what this machine is called."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

_PROCESSES_HERE = Path("/proc/self/ns/pid")
_OF_THE_MACHINE = "pid:[4026531836]"
"""The PID namespace that Linux starts with; a container has one of its own."""


def machine_name() -> str:
    """What tells this machine from another one whose processes are not seen here; it stands in LOCK.

    In a container with a PID namespace of its own, that too: a container may share the machine's name (as with
    ``docker run --network host``), and sees neither its processes nor, in ``/proc/locks``, what these lock.
    """
    name = socket.gethostname()
    try:
        space = str(_PROCESSES_HERE.readlink())
    except OSError:  # no Linux
        return name
    return name if space == _OF_THE_MACHINE else f"{name}, PID namespace {space.strip('pid:[]')}"


def is_alive(pid: int) -> bool:
    """Whether there is such a process on this machine, also another user's.

    On Windows it is believed to be there: asking by a signal would end it.
    """
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True

"""Whether a run is being written: told without taking the writer's lock."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

from crucible.inputs.stored_config import is_trained
from store.format.files import DOCUMENT, LOCK, is_alone, trajectory_of
from store.processes import is_alive, machine_name
from store.run.commit import Commit, read_commit
from store.small_file import read_small

State = Literal["recording", "stopped", "complete"]
QUIET_S, INTERVALS = 120.0, 4
"""A writer on another machine counts as gone when it has not committed for so long, and for so many of the intervals
that its run was told to commit at.
"""
LONGEST_HOLDER = 4096
"""Bytes of a LOCK file: it names a process and a machine."""


def writer_state(run: Path) -> State:
    """``complete`` if the run ended, ``recording`` if its writer lives, ``stopped`` if the writer is gone.

    The writer's lock is only looked at. A writer on this machine is known by its process, and on Linux by the lock
    that it holds; of one on another machine, or in another container, only the age of the last commit is known.
    """
    commit = read_commit(run)
    if commit.completed:
        return "complete"
    state = _of_the_lock(run, _longest_quiet_s(commit))
    return "complete" if state == "stopped" and read_commit(run).completed else state  # it ended meanwhile


def stand(run: Path) -> tuple[Commit, State]:
    """The last commit of a run, and what its writer does, of one moment: one that is not complete is never called so.

    Raises
    ------
    NotATrajectoryError, DamageError
        As reading the commit raises.
    """
    while True:
        commit, state = read_commit(run), writer_state(run)
        if commit.completed or state != "complete":
            return commit, "complete" if commit.completed else state


def _longest_quiet_s(commit: Commit) -> float:
    """How long a writer that lives may be without a commit; `crucible train` keeps its interval in the config."""
    config = commit.attributes.get("config")
    interval = config.get("commit_interval") if isinstance(config, dict) else None
    return max(QUIET_S, INTERVALS * interval) if isinstance(interval, (int, float)) else QUIET_S


def _of_the_lock(run: Path, longest_quiet_s: float) -> State:
    """Whether the writer of a run that is not complete lives, by its lock."""
    try:
        holder = re.match(r"pid (\d+) on (.*)", read_small(run / LOCK, LONGEST_HOLDER).decode(errors="replace"))
    except OSError:
        return "stopped"
    if holder is None:
        return "stopped"
    if holder[2].strip() != machine_name():
        age_s = time.time() - (trajectory_of(run) / DOCUMENT).stat().st_mtime
        return "recording" if age_s < longest_quiet_s else "stopped"
    held = _is_locked(run / LOCK)
    return "recording" if (is_alive(int(holder[1])) if held is None else held) else "stopped"


def describe(run: Path) -> dict[str, Any]:
    """The state, and the command that goes on with a run that stopped; None where no command does."""
    commit, state = stand(run)
    goes_on = state == "stopped" and way_on(run, commit)
    command = f"crucible {shlex.join(['resume', run.name])}" if goes_on else None
    return {"state": state, "command": command}


def way_on(run: Path, commit: Commit) -> list[str] | None:
    """The words after `crucible` that go on with an interrupted run; None where no command does.

    A loop of the user's own goes on by ``crucible.attach(..., resume=step)``, an import by the same import again.
    """
    if is_alone(run) or not is_trained(commit) or writer_state(run) != "stopped":
        return None
    return ["resume", str(run)]


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

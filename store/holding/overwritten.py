"""A run whose place a new one takes: set aside in its own folder until the new one's first commit, lost by no crash.

The lock must be held. The trajectory moves away first and comes back last: where the run has one, it is that of the new
run as soon as anything is set aside, and what is set aside may go; where it has none, what is set aside is the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from store.disk import Disk
from store.errors import RunExistsError
from store.format.files import (
    CHECKPOINT,
    CONFIG,
    LOCK,
    METADATA,
    OVERWRITTEN,
    PARTIAL,
    REPORT,
    SECOND_COPY,
    SET_ASIDE,
    TRAJECTORY,
)
from store.holding.leftovers import find
from store.run.commit import read_commit
from store.run.training_state import digests, named
from store.run.whereabouts import is_there

STAYING = (LOCK, PARTIAL, OVERWRITTEN)
"""What stays in its place: the lock that is held, and what is no part of a run."""
_OWN = {TRAJECTORY, CHECKPOINT, CONFIG, METADATA, SECOND_COPY, REPORT, SET_ASIDE, *STAYING}


def refuse_foreign(run: Path) -> None:
    """Raise unless every file of a folder is one that the store made, so that a new run may take its place.

    Raises
    ------
    RunExistsError
        With the first file that is not, or a link.
    DamageError
        There is a trajectory, and its commit cannot be read.
    """
    if run.is_dir() and (others := next(_foreign(run), None)):
        raise RunExistsError(
            f"{run}: {others} is no file of a run, so overwrite=True removes nothing here; move it away, or name "
            "another folder"
        )


def set_aside(run: Path, disk: Disk) -> None:
    """Move a run's files to their fixed place; nothing where there is no trajectory."""
    if not is_there(run):
        return
    disk.remove(run / PARTIAL)  # also a compacted copy, which is never to be taken for the new run
    disk.make_folder(run / OVERWRITTEN)
    for path in sorted(_inside(run), key=lambda path: path.name != TRAJECTORY):
        if path.name not in STAYING:
            disk.rename(path, run / OVERWRITTEN / path.name)
    disk.sync_folder(run)


def settle(run: Path, disk: Disk) -> None:
    """After the new run's first commit, or a crash: remove what is set aside, or put it back where no run came."""
    if not (run / OVERWRITTEN).is_dir():
        return
    if not is_there(run):
        for path in sorted(_inside(run / OVERWRITTEN), key=lambda path: path.name == TRAJECTORY):
            disk.remove(run / path.name)  # of the new run
            disk.rename(path, run / path.name)
    disk.remove(run / OVERWRITTEN)
    disk.sync_folder(run)


def is_waiting(run: Path) -> bool:
    """Whether something is set aside."""
    return (run / OVERWRITTEN).is_dir()


def _foreign(run: Path) -> Iterator[Path]:
    """What the store did not make, below the run's folder; and links, behind which anything may lie."""
    for path in _inside(run):
        if path.name not in _OWN or path.is_symlink():
            yield path.relative_to(run)
    if not is_there(run):
        return
    commit = read_commit(run)
    found = find(run, commit).foreign
    found += [run / TRAJECTORY / name for name in commit.arrays if (run / TRAJECTORY / name).is_symlink()]
    for state in named(commit):
        known = digests(commit, state)
        found += [path for path in _inside(run / CHECKPOINT / state) if path.name not in known or path.is_symlink()]
    yield from (path.relative_to(run) for path in found)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []

"""All that the viewer asks of the store and of a run: this module alone knows where it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import xarray as xr

from crucible.inspection.published import without_paths
from store.errors import DamageError, LabelError, StaleHandleError, StoreError
from store.format.files import DOCUMENT, LOCK, TRAJECTORY, run_folder, trajectory_of
from store.reading.reader import open_trajectory
from store.run.commit import Commit, read_commit

__all__ = [
    "DOCUMENT",
    "LOCK",
    "TRAJECTORY",
    "Commit",
    "DamageError",
    "LabelError",
    "StaleHandleError",
    "Stand",
    "StoreError",
    "at_one_commit",
    "commit_of",
    "dataset",
    "key_of",
    "plain_message",
    "published",
    "refuse_other_file",
    "run_folder",
    "stand_of",
    "still_stands",
    "whole_commit",
    "without_paths",
]

LOOKS = 100
"""So often it is looked at a run that goes on just then."""
_BLOCK = re.compile(r"c\.(\d+)")
_OWN = re.compile(rb'"sha256_of_this_file":"([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a run stands: its last commit, as the page names it.

    Parameters
    ----------
    key : str
        SHA-256 of the published commit; another one is another commit.
    run_id : str
        Tells one run from another in the same folder.
    generation : int
        Grows with every cut and every compaction.
    steps : int
        Label of the last committed step.
    completed : bool
        Whether the run ended.
    """

    key: str
    run_id: str
    generation: int
    steps: int
    completed: bool


def dataset(run: Path) -> xr.Dataset:
    """The run as a lazy Dataset at its last commit."""
    return open_trajectory(run)


def stand_of(run: Path) -> Stand:
    """Where the run stands now; a few microseconds when it stands where it stood before.

    Raises
    ------
    NotATrajectoryError, DamageError
        There is no trajectory here, or its commit is damaged.
    """
    return _remembered(run)[1]


def at_one_commit(run: Path) -> tuple[Stand, Commit, xr.Dataset]:
    """Where the run stands, its commit as `whole_commit` has it, and the run: all of one commit, though it goes on.

    Raises
    ------
    StaleHandleError
        The run was committed to at each of a hundred looks.
    """
    for _ in range(LOOKS):
        stand, commit, ds = stand_of(run), whole_commit(run), dataset(run)
        if stand_of(run).key == stand.key:
            return stand, commit, ds
    raise StaleHandleError(f"{run}: is committed to all the time; try again when it goes on more slowly")


def published(run: Path) -> bytes:
    """The commit (zarr.json of the group) as it leaves this machine: no absolute path, no name of host or user."""
    return _remembered(run)[0]


def whole_commit(run: Path) -> Commit:
    """The commit without what stays behind when a trajectory is copied alone: its checkpoint and documents."""
    commit = read_commit(run)
    return replace(commit, attributes=without_paths(commit.attributes), checkpoint=None, sha256={})


def commit_of(run: Path) -> Commit:
    """The run's last commit, remembered as `stand_of` remembers where it stands."""
    return _remembered(run)[2]


def still_stands(run: Path, path: str, writer: str, rows: int) -> bool:
    """Whether rows that stood in a commit of the run stand in its last one; in that of a fork they may not.

    Parameters
    ----------
    path : str
        A file of the trajectory.
    writer : str
        Who had come last, by that commit.
    rows : int
        How many rows of the file that commit vouched for.
    """
    commit, name = commit_of(run), path.split("/")[-2]
    if commit.standing is None or name not in commit.arrays:
        return True
    bound = commit.standing.writers.bounds.get(int(writer, 16) if re.fullmatch("[0-9a-f]{16}", writer) else -1)
    array, block = commit.array(trajectory_of(run), name), _block_of(path)
    if bound is None or not array.layout.has_steps or not rows:
        return bound is not None
    axis = str(array.metadata["dimension_names"][0])
    return bound >= commit.labels(axis).label(block * array.chunk_shape[0] + rows - 1)


def _block_of(path: str) -> int:
    """The block of steps that a file of the trajectory holds."""
    found = _BLOCK.match(path.rpartition("/")[2])
    return int(found[1]) if found else 0


def refuse_other_file(run: Path, commit: Commit, path: str, fd: int) -> None:
    """Raise where an open file of the trajectory does not belong to the run's commit: a page does not look at that.

    What is damaged otherwise, or no file of the commit, passes: the page sees it itself.

    Parameters
    ----------
    commit : Commit
        Read before the file was opened, since a file ahead of it is fine, and one behind it is not.
    path : str
        Below the server's root, as ``trajectory.zarr/W/c.0.0.0``.

    Raises
    ------
    LabelError
        It is a file of another run, of a fork, or of before a cut.
    StaleHandleError
        The run was cut back, compacted or replaced meanwhile.
    """
    name, key = path.split("/")[-2:]
    array = commit.array(trajectory_of(run), name) if name in commit.arrays else None
    block = _block_of(path)
    if array is None or block >= array.layout.blocks or array.layout.key(block) != key:
        return
    try:
        array.check_file(block, fd)
    except LabelError:
        raise
    except DamageError:
        pass


def plain_message(error: Exception, run: Path) -> str:
    """An error in one line that names no folder above the run."""
    return " ".join(str(error).split()).replace(f"{run}/", "").replace(str(run), run.name)


def key_of(commit: bytes) -> str:
    """The SHA-256 by which a commit names itself."""
    found = _OWN.search(commit)
    if found is None:
        raise ValueError("the commit does not name its own digest")
    return found[1].decode()


def _remembered(run: Path) -> tuple[bytes, Stand, Commit]:
    try:
        status = (trajectory_of(run) / DOCUMENT).stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
    except OSError:
        stamp = (0, 0, 0)  # reading says what is the matter
    return _read(run, stamp)


@lru_cache(maxsize=16)
def _read(run: Path, _stamp: tuple[int, int, int]) -> tuple[bytes, Stand, Commit]:
    commit = read_commit(run)
    data = replace(commit, attributes=without_paths(commit.attributes)).to_bytes()
    run_id = commit.run_name[:36]  # as the page names it, see commit.ts
    return data, Stand(key_of(data), run_id, commit.generation, commit.committed_steps, commit.completed), commit

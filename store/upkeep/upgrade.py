"""A run of format 1 becomes one of format 2: the same chunks in fewer files, each of which says what it holds."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.disk import LocalDisk
from store.format import layout, writers
from store.format.codec import Array
from store.format.files import TRAJECTORY, run_folder
from store.format.schema import FORMAT_VERSION, Channel
from store.holding.held_run import hold_run
from store.run.array import StoredArray
from store.run.commit import Commit
from store.system_calls import Bytes
from store.upkeep.rewrite import rewrite


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What upgrading did.

    Attributes
    ----------
    run : Path
        The run's folder.
    before_files, after_files : int
        Files of the trajectory.
    was_of_version : int
        Version of the format before.
    elapsed_s : float
        Wall time; 0 for a run that is of the newest format.
    """

    run: Path
    before_files: int
    after_files: int
    was_of_version: int
    elapsed_s: float


def upgrade(
    run: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 2,
    lock: bool = True,
    disk: LocalDisk | None = None,
) -> UpgradeReport:
    """Rewrite a run of format 1 in format 2, so that it can go on. Its chunks stay the same, byte for byte.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.
    progress : callable, optional
        Called with (bytes done, bytes in all), uncompressed.
    threads : int
        Threads that copy.
    lock : bool
        As `TrajectoryWriter.create` takes it.
    disk : LocalDisk, optional
        Where the bytes go.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here.
    DamageError
        The run is damaged, or the copy is not equal to it. The run stays as it was.
    LockedError, BudgetError, OSError
        Somebody writes it; there is no room for the copy; as the disk says.

    Notes
    -----
    The copy is built beside the run and takes its place by two renames. Handles opened before are stale afterwards.
    """
    since, folder, disk = time.monotonic(), run_folder(run, to_write=True), disk or LocalDisk()
    held, commit = hold_run(folder, disk, lock=lock)
    with held:
        before = _files(folder)
        if commit.version == FORMAT_VERSION:
            return UpgradeReport(folder, before, before, commit.version, 0.0)
        rewrite(held, commit, upgraded(commit), _take_over, threads=threads, progress=progress)
        return UpgradeReport(folder, before, _files(folder), commit.version, time.monotonic() - since)


def upgraded(commit: Commit) -> Commit:
    """The same in format 2, with its first writer; of the next generation."""
    new = replace(
        commit, arrays=_all_in_shards(commit.arrays), pending=_all_in_shards(commit.pending),
        version=FORMAT_VERSION, generation=commit.generation + 1,
    )  # fmt: skip
    return replace(new, **writers.create(new.state, uuid.uuid4(), writers.new_writer()))


def _all_in_shards(arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The zarr.json of each array, whose chunks stay as they are."""
    stored = {name: StoredArray(Path(name), metadata) for name, metadata in arrays.items()}
    return {
        name: layout.array_metadata(
            Channel.from_array(name, array.metadata), array.shape, array.chunk_shape, array.layout.compression
        )
        for name, array in stored.items()
    }


def _take_over(old: StoredArray, _new: StoredArray, index: tuple[int, ...]) -> tuple[Sequence[Bytes], Array]:
    """A chunk as it is; it is unpacked only to be compared."""
    data = old.read_bytes(index)
    return [data], old.decode(data, index)


def _files(run: Path) -> int:
    return sum(path.is_file() for path in (run / TRAJECTORY).rglob("*"))

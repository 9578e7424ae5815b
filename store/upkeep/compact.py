"""A finished run in long blocks at a high compression level: smaller by half, one token quicker to read.

The copy is built beside the run, compared with it bit for bit, and takes its place by two renames under the writer's
lock. `store.format.commit.finish_swap` does the second one if a crash came between them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from store.disk import LocalDisk, free_bytes
from store.errors import BudgetError, DamageError, WriterError
from store.format.array import Array, StoredArray, bits
from store.format.commit import Commit, read_commit, to_json
from store.format.files import COMPACTED, DOCUMENT, REPLACED, TRAJECTORY, folder_bytes, run_folder
from store.threads import for_each
from store.writing.lock import acquire

BLOCK_STEPS = 1024
"""Steps of a block; a power of two, as all blocks; fewer only where the run has fewer."""
TILE_ELEMENTS = 4096
"""Elements of a row in a chunk: 64 tokens of 64 numbers."""
ZSTD_LEVEL = 19
Task = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What compacting did.

    Attributes
    ----------
    run : Path
        The run's folder.
    raw_bytes : int
        Bytes of all arrays without compression.
    before_bytes, after_bytes : int
        Bytes of the trajectory's files.
    block_steps : int
        Steps of a block now.
    elapsed_s : float
        Wall time; 0 for a run that was compacted already.
    """

    run: Path
    raw_bytes: int
    before_bytes: int
    after_bytes: int
    block_steps: int
    elapsed_s: float


def compact(
    run: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 2,
    disk: LocalDisk | None = None,
) -> CompactReport:
    """Rewrite a finished run into long blocks. It stays plain Zarr with core codecs, and can no longer be resumed.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.
    progress : callable, optional
        Called with (bytes done, bytes in all), uncompressed.
    threads : int
        Encoding threads.
    disk : LocalDisk, optional
        Where the bytes go.

    Raises
    ------
    WriterError
        The run is not finished.
    DamageError
        The run is damaged, or the copy is not equal to it. The run stays as it was.
    LockedError, BudgetError, OSError
        Somebody writes it; there is no room for the copy; as the disk says.

    Notes
    -----
    Reads each chunk up to four times. Memory: 300 MB for the process, most of it tables of zstd. Takes minutes:
    28 ms of processor time a step at 3,644 x 64. Handles opened before are stale afterwards.
    """
    since, folder, disk = time.monotonic(), run_folder(run), disk or LocalDisk()
    read_commit(folder)  # an error says more than a lock file in a folder that is none of ours
    lock = acquire(folder)
    try:
        commit = read_commit(folder)
        if not commit.completed:
            raise WriterError(f"{folder}: stands at step {commit.committed_steps} and is not finished; resume it first")
        disk.remove(folder / REPLACED)  # of a swap that was cut short
        before = folder_bytes(folder / TRAJECTORY)
        if "compacted" in commit.attributes:
            return _report(folder, commit, before, 0.0)
        if (free := free_bytes(folder)) < before:
            raise BudgetError(f"{folder}: the copy may take {before:,} bytes, and the disk has {free:,} free")
        smaller = _relaid(commit)
        try:
            _build(folder, commit, smaller, disk, progress=progress, threads=threads)
        except BaseException:
            disk.remove(folder / COMPACTED)
            raise
        _swap(folder, disk)
        return _report(folder, smaller, before, time.monotonic() - since)
    finally:
        lock.release()


def _relaid(commit: Commit) -> Commit:
    """The commit with long blocks, small tiles and a high level; of the next generation."""
    block = min(BLOCK_STEPS, 1 << (commit.rows - 1).bit_length())
    arrays = {}
    for name, metadata in commit.arrays.items():
        array = StoredArray(Path(name), metadata)
        chunk = list(array.chunk_shape)
        if len(chunk) > 1 and array.order[-1] == 0:
            inner = int(np.prod(chunk[2:], dtype=object))
            chunk[0] = min(block, max(1, array.shape[0]))
            chunk[1] = min(array.shape[1], max(1, TILE_ELEMENTS // inner)) or 1
        grid = {**metadata["chunk_grid"], "configuration": {"chunk_shape": chunk}}
        codecs = [
            {**codec, "configuration": {**codec["configuration"], "level": ZSTD_LEVEL}}
            if codec["name"] == "zstd"
            else codec
            for codec in metadata["codecs"]
        ]
        arrays[name] = {**metadata, "chunk_grid": grid, "codecs": codecs}
    attributes = {**commit.attributes, "compacted": {"block_steps": block, "zstd_level": ZSTD_LEVEL}}
    return replace(commit, arrays=arrays, attributes=attributes, generation=commit.generation + 1)


def _build(
    run: Path, commit: Commit, smaller: Commit, disk: LocalDisk, *,
    progress: Callable[[int, int], None] | None, threads: int,
) -> None:  # fmt: skip
    """Make the copy, durable; its zarr.json comes last."""
    target = run / COMPACTED
    disk.remove(target)
    disk.make_folder(target)
    total = sum(array.chunk_bytes * int(np.prod(array.grid)) for array in _arrays(target, smaller))
    finished = 0

    def done(count: int) -> None:
        nonlocal finished
        finished += count
        if progress:
            progress(finished, total)

    def copy(task: Task) -> int:
        name, index = task
        old, new = commit.array(run / TRAJECTORY, name), smaller.array(target, name)
        _copy_chunk(old, new, index, disk, target.parent)
        return new.chunk_bytes

    for name in smaller.arrays:
        disk.make_folder(target / name)
    for_each(_tasks(target, smaller), lambda: copy, done, threads)
    for name, metadata in smaller.arrays.items():
        disk.put(target / name / DOCUMENT, [to_json(metadata)], target.parent)
        disk.sync_folder(target / name)
    disk.put(target / DOCUMENT, [smaller.to_bytes()], target.parent)
    disk.sync_folder(target)
    disk.sync_folder(target.parent)


def _arrays(trajectory: Path, commit: Commit) -> list[StoredArray]:
    return [commit.array(trajectory, name) for name in commit.arrays]


def _tasks(trajectory: Path, commit: Commit) -> Iterator[Task]:
    for array in _arrays(trajectory, commit):
        for index in array.indices():
            yield array.name, index


def _copy_chunk(old: StoredArray, new: StoredArray, index: tuple[int, ...], disk: LocalDisk, scratch: Path) -> None:
    """Gather a new chunk from the old ones, write it, read it back and compare."""
    chunk = new.empty_chunk()
    chunk[...] = np.nan if new.dtype.kind == "f" else 0
    spans = [
        (i * part, min((i + 1) * part, size)) for i, part, size in zip(index, new.chunk_shape, new.shape, strict=True)
    ]
    pieces = [
        range(start // part, -(-stop // part)) for (start, stop), part in zip(spans, old.chunk_shape, strict=True)
    ]
    for source in itertools.product(*pieces):
        _copy_overlap(
            old.read_chunk(source), [i * part for i, part in zip(source, old.chunk_shape, strict=True)], chunk, spans
        )
    disk.put(new.folder / new.key(index), new.encode(chunk), scratch)
    if not np.array_equal(bits(new.read_chunk(index)), bits(chunk)):
        raise DamageError(f"{new.where(index)}: the copy read back differs from what was written; the run is untouched")


def _copy_overlap(source: Array, origin: list[int], target: Array, spans: list[tuple[int, int]]) -> None:
    """Copy what a chunk at `origin` and the part `spans` of the array have in common."""
    common = [
        (max(first, start), min(first + size, stop))
        for first, size, (start, stop) in zip(origin, source.shape, spans, strict=True)
    ]
    inside = tuple(slice(low - first, high - first) for (low, high), first in zip(common, origin, strict=True))
    outside = tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(common, spans, strict=True))
    target[outside] = source[inside]


def _swap(run: Path, disk: LocalDisk) -> None:
    """Put the copy in the run's place. Whoever opens the run between the two renames does the second one."""
    disk.rename(run / TRAJECTORY, run / REPLACED)
    disk.sync_folder(run)
    try:
        disk.rename(run / COMPACTED, run / TRAJECTORY)
    except FileNotFoundError:
        if not (run / TRAJECTORY / DOCUMENT).exists():
            raise
    disk.remove(run / REPLACED)


def _report(run: Path, commit: Commit, before: int, elapsed_s: float) -> CompactReport:
    trajectory: Any = run / TRAJECTORY
    raw = sum(int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize for array in _arrays(trajectory, commit))
    block = commit.attributes["compacted"]["block_steps"]
    return CompactReport(run, raw, before, folder_bytes(trajectory), block, elapsed_s)

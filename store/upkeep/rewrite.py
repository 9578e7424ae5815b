"""A trajectory in other files: built beside the run, read back and compared, and put in its place by two renames.

Compacting and upgrading do this. `store.run.whereabouts.finish_swap` does the second rename if a crash came between.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from store.disk import Disk, free_bytes
from store.errors import BudgetError, DamageError
from store.format.codec import Array
from store.format.files import COMPACTED, DOCUMENT, PARTIAL, REPLACED, SECOND_COPY, TRAJECTORY, folder_bytes
from store.format.label import STATIC
from store.format.shard import ShardWriter
from store.holding.held_run import HeldRun
from store.holding.leftovers import clear_replaced
from store.run.array import StoredArray
from store.run.commit import Commit
from store.run.document import digest, to_json
from store.system_calls import Bytes
from store.threads import for_each

Task = tuple[str, int]
Encode = Callable[[StoredArray, StoredArray, tuple[int, ...]], tuple[Sequence[Bytes], Array]]
"""``encode(old, new, index) -> (bytes in parts, values)`` of a chunk of the new array, from the old one's."""
Progress = Callable[[int, int], None]


def rewrite(
    held: HeldRun, commit: Commit, new: Commit, encode: Encode, *, threads: int, progress: Progress | None
) -> None:
    """Build a trajectory of format 2 with the same numbers, and put it in the run's place.

    Parameters
    ----------
    commit, new : Commit
        What the run stands at, and what it will; the files are written by the newest writer of `new`.
    progress : callable, optional
        Called with (bytes done, bytes in all), uncompressed.

    Raises
    ------
    DamageError
        The run is damaged, or the copy is not equal to it. The run stays as it was.
    BudgetError, OSError
        There is no room for the copy; as the disk says.
    """
    run, disk = held.run, held.disk
    clear_replaced(run, commit, disk)  # of a swap that was cut short
    before, free = folder_bytes(run / TRAJECTORY), free_bytes(run)
    if free < before:
        raise BudgetError(f"{run}: the copy may take {before:,} bytes, and the disk has {free:,} free")
    try:
        _build(run, commit, new, encode, disk, threads=threads, progress=progress)
    except BaseException:
        disk.remove(run / COMPACTED)
        raise
    held.check()
    _swap(run, disk)
    disk.put(run / SECOND_COPY, [new.to_bytes()], run / PARTIAL)
    clear_replaced(run, new, disk)


def encode_anew(old: StoredArray, new: StoredArray, index: tuple[int, ...]) -> tuple[Sequence[Bytes], Array]:
    """Gather a chunk from the old ones and encode it."""
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
    return new.encode(chunk), chunk


def _copy_overlap(source: Array, origin: list[int], target: Array, spans: list[tuple[int, int]]) -> None:
    """Copy what a chunk at `origin` and the part `spans` of the array have in common."""
    common = [
        (max(first, start), min(first + size, stop))
        for first, size, (start, stop) in zip(origin, source.shape, spans, strict=True)
    ]
    inside = tuple(slice(low - first, high - first) for (low, high), first in zip(common, origin, strict=True))
    outside = tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(common, spans, strict=True))
    target[outside] = source[inside]


def _build(
    run: Path, commit: Commit, new: Commit, encode: Encode, disk: Disk, *, threads: int, progress: Progress | None
) -> None:
    """Make the copy, durable; its zarr.json comes last."""
    target = run / COMPACTED
    disk.remove(target)
    disk.make_folder(target)
    arrays = {name: new.array(target, name) for name in new.arrays}
    total = sum(array.chunk_bytes * int(np.prod(array.grid)) for array in arrays.values())
    finished = 0

    def done(count: int) -> None:
        nonlocal finished
        finished += count
        if progress:
            progress(finished, total)

    def copy(task: Task) -> int:
        name, block = task
        return _copy_file(commit.array(run / TRAJECTORY, name), arrays[name], block, encode, disk)

    for name in arrays:
        disk.make_folder(target / name)
    for_each(_tasks(arrays.values()), lambda: copy, done, threads)
    for name, metadata in new.arrays.items():
        disk.put(target / name / DOCUMENT, [to_json(metadata)], target.parent)
        disk.sync_folder(target / name)
    disk.put(target / DOCUMENT, [new.to_bytes()], target.parent)
    disk.sync_folder(target)
    disk.sync_folder(target.parent)


def _tasks(arrays: Iterable[StoredArray]) -> Iterator[Task]:
    return ((array.name, block) for array in arrays for block in range(array.layout.blocks))


def _copy_file(old: StoredArray, new: StoredArray, block: int, encode: Encode, disk: Disk) -> int:
    """Write a file, read it back and compare; returns the bytes of its numbers."""
    assert new.standing is not None
    layout, seen = new.layout, []
    last = {"static": STATIC, "final": new.standing.committed_steps}.get(layout.role, layout.last(block))
    file = disk.create(new.folder / layout.key(block))
    try:
        shard = ShardWriter(
            file, name=layout.file_name(block), writer=new.standing.writers.newest, last=last,
            count=layout.chunks_of_a_file,
        )  # fmt: skip
        for index in layout.indices(block):
            parts, values = encode(old, new, index)
            shard.add(parts)
            seen.append(_fingerprint(new, values))
        shard.finish()
        file.flush()
    finally:
        file.close()
    for expected, (index, values) in zip(seen, new.read_block(block), strict=True):
        if _fingerprint(new, values) != expected:
            raise DamageError(
                f"{new.where(index)}: the copy read back differs from what was written; the run is untouched"
            )
    return layout.chunk_bytes * layout.chunks_of_a_file


def _fingerprint(array: StoredArray, values: Array) -> str:
    """SHA-256 of a chunk's numbers as they lie in memory."""
    return digest(np.ascontiguousarray(values.transpose(array.order)).data.cast("B"))


def _swap(run: Path, disk: Disk) -> None:
    """Put the copy in the run's place. Whoever opens the run between the two renames does the second one."""
    disk.rename(run / TRAJECTORY, run / REPLACED)
    disk.sync_folder(run)
    try:
        disk.rename(run / COMPACTED, run / TRAJECTORY)
    except FileNotFoundError:
        if not (run / TRAJECTORY / DOCUMENT).exists():
            raise

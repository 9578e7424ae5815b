"""Stored chunks to their places in a safetensors file, in threads, a few chunks in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.run.array import StoredArray
from store.tensorfile.file import TensorFileWriter
from store.tensorfile.header import TensorSpec
from store.threads import for_each

Array = NDArray[Any]
Index = tuple[int, ...]
Task = tuple["Part", list[Index]]
_GROUP_BYTES = 32 << 20
"""Raw bytes of the chunks that are written together: longer pieces, fewer calls, and threads that wait less."""
_SHORT = 4096
_STRIP = 64
"""Columns that are transposed at once: 1.8 ms a chunk of 8 MiB, against 12 ms for the whole at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """An array of a file and where its values come from.

    Parameters
    ----------
    tensor : TensorSpec
        What the file declares.
    array : StoredArray or None
        The stored array that is copied; None where `values` are.
    first, stop : int
        Its rows, half open.
    values : array or None
        A small array in memory.
    chosen : array of int64 or None
        Positions along its second axis that are copied, ascending; None for all.
    """

    tensor: TensorSpec
    array: StoredArray | None = None
    first: int = 0
    stop: int = 0
    values: Array | None = None
    chosen: Array | None = None


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a chunk's part of the second axis lies among what is exported, and which of its positions are wanted."""

    first: int
    count: int
    wanted: slice | Array


def tasks_of(parts: Iterable[Part]) -> Iterator[Task]:
    """Every chunk that is needed, in the order of the file, neighbours together."""
    for part in parts:
        if part.array is None:
            yield part, []
        elif part.stop > part.first:
            height = part.array.chunk_shape[0]
            together = max(1, _GROUP_BYTES // part.array.chunk_bytes)
            for block in range(part.first // height, -(-part.stop // height)):
                indices = list(part.array.indices(block))
                for start in range(0, len(indices), together):
                    yield part, indices[start : start + together]


class Copier:
    """Brings chunks, and arrays from memory, to their places in a file. One for each thread: it keeps its memory."""

    def __init__(self, file: TensorFileWriter) -> None:
        self._file = file
        self._packed = self._rows = np.empty(0, np.uint8)
        self._zeros: dict[str, bytes] = {}

    def copy(self, part: Part, indices: list[Index]) -> int:
        """Copy what one task names; returns the bytes put."""
        name, array = part.tensor.name, part.array
        if array is None:
            values = np.asarray(part.values)
            self._file.put(name, (), values)
            return values.nbytes
        height = array.chunk_shape[0]
        start = indices[0][0] * height
        low, high = max(part.first, start), min(part.stop, start + height)
        columns = [_columns_inside(array, index, part.chosen) for index in indices]
        count = sum(column.count for column in columns)
        is_flat = len(array.shape) == 1
        shape = (high - low,) if is_flat else (high - low, count, *array.shape[2:])
        place = (low - part.first,) if is_flat else (low - part.first, columns[0].first)
        rows = self._room(array, math.prod(shape)).reshape(high - low, -1)
        if self._gather(array, indices, columns, slice(low - start, high - start), rows):
            self._file.put_rows(name, place, rows.reshape(shape))
        else:
            self._file.put_zeros(name, place, shape)
        return rows.nbytes

    def _gather(
        self, array: StoredArray, indices: list[Index], columns: list[_Columns], inside: slice, rows: Array
    ) -> bool:
        """Fill `rows` (step, column) from chunks side by side; whether there is anything but zeros."""
        done, something = 0, False
        for index, column in zip(indices, columns, strict=True):
            target = rows[:, done : done + column.count * math.prod(array.shape[2:])]
            done += target.shape[1]
            data = array.read_bytes(index)
            if len(data) <= _SHORT and data == self._zero_chunk(array):
                target[...] = 0
            else:
                stored = array.decode(data, index, self._packed[: array.chunk_bytes]).transpose(array.order)
                wanted = stored[column.wanted] if len(array.shape) > 1 else stored[None]
                _transpose(wanted.reshape(-1, array.chunk_shape[0])[:, inside], target)
                something = True
        return something

    def _room(self, array: StoredArray, elements: int) -> Array:
        """Room for rows; and, in `_packed`, for a chunk as it is stored. Fresh memory would cost a fifth more."""
        if len(self._packed) < array.chunk_bytes:
            self._packed = np.empty(array.chunk_bytes, np.uint8)
        if len(self._rows) < elements * array.dtype.itemsize:
            self._rows = np.empty(elements * array.dtype.itemsize, np.uint8)
        return self._rows[: elements * array.dtype.itemsize].view(array.dtype)

    def _zero_chunk(self, array: StoredArray) -> bytes:
        """What a chunk of zeros looks like on disk: half of the displacements of a run that comes to rest."""
        if array.name not in self._zeros:
            chunk = array.empty_chunk()
            chunk[...] = 0
            self._zeros[array.name] = b"".join(array.encode(chunk))
        return self._zeros[array.name]


def _columns_inside(array: StoredArray, index: Index, chosen: Array | None) -> _Columns:
    """The columns of a chunk; an array of one dimension counts as one column."""
    if len(array.shape) == 1:
        return _Columns(0, 1, slice(None))
    start = index[1] * array.chunk_shape[1]
    stop = min(start + array.chunk_shape[1], array.shape[1])
    if chosen is None:
        return _Columns(start, stop - start, slice(0, stop - start))
    first, last = np.searchsorted(chosen, [start, stop]).tolist()
    return _Columns(first, last - first, chosen[first:last] - start)


def _transpose(columns: Array, rows: Array) -> None:
    """Fill `rows` (step, column) from `columns` (column, step), in strips that stay in the processor's cache."""
    for start in range(0, len(columns), _STRIP):
        rows[:, start : start + _STRIP] = columns[start : start + _STRIP].T


def copy_all(file: TensorFileWriter, parts: Iterable[Part], done: Callable[[int], Any], threads: int) -> None:
    """Copy all parts; `done` gets the bytes of each piece."""

    def worker() -> Callable[[Task], int]:
        copier = Copier(file)
        return lambda task: copier.copy(*task)

    for_each(tasks_of(parts), worker, done, threads)

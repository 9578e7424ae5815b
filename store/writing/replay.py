"""Steps that are computed again after a resume, compared with the stored ones, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from store.run.array import StoredArray, bits
from store.writing.ring import Ring


def first_difference(ring: Ring, arrays: Mapping[str, StoredArray], start: int, stop: int) -> tuple[int, str] | None:
    """The first of rows ``start:stop`` that differs from what is stored, and in which channel.

    Reads a chunk at a time.
    """
    found = [(row, name) for name in ring.names if (row := _first_row(ring, arrays[name], start, stop)) is not None]
    return min(found, default=None)


def _first_row(ring: Ring, array: StoredArray, start: int, stop: int) -> int | None:
    part = array.chunk_shape[0]
    for block in range(start // part, -(-stop // part)):
        first, last = max(start, block * part), min(stop, (block + 1) * part)
        found = [_first_in_chunk(ring, array, index, (first, last)) for index in array.indices(block)]
        if rows := [row for row in found if row is not None]:
            return min(rows)
    return None


def _first_in_chunk(ring: Ring, array: StoredArray, index: tuple[int, ...], span: tuple[int, int]) -> int | None:
    chunk = array.read_chunk(index)
    inside = tuple(slice(i * size, (i + 1) * size) for i, size in zip(index[1:], array.chunk_shape[1:], strict=True))
    for offset, rows in ring.segments(array.name, *span):
        new = rows[(slice(None), *inside)]
        at = span[0] + offset - index[0] * array.chunk_shape[0]
        stored = chunk[(slice(at, at + len(new)), *(slice(0, size) for size in new.shape[1:]))]
        changed = np.flatnonzero((bits(new) != bits(stored)).reshape(len(new), -1).any(axis=1))
        if changed.size:
            return span[0] + offset + int(changed[0])
    return None

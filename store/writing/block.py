"""The rows of one block of steps, wherever they lie: what an encoder is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from store.format.codec import Array
from store.run.array import StoredArray


class Block(Protocol):
    """Rows ``start:stop`` of the channels of one step axis; `start` is the first row of a block of chunks."""

    @property
    def start(self) -> int:
        """First row."""

    @property
    def stop(self) -> int:
        """One past the last row."""

    def rows(self, name: str) -> Array:
        """All rows of a channel, (rows, ...)."""

    def tile(self, name: str, tokens: slice, room: Array) -> Array:
        """The rows of some tokens, (rows, tokens, ...), time fastest in memory; `room` may be used for them."""

    def is_still(self, name: str, tokens: slice, before: Array) -> bool:
        """Whether all rows of some tokens equal this one, (tokens, ...), to the bit."""

    def last(self, name: str) -> Array:
        """The last row of a channel. Of a stored block only after all its tiles were read."""


class StoredBlock:
    """A block that is read from its chunks, a tile at a time; at most one chunk of a channel is in memory.

    Parameters
    ----------
    arrays : mapping of str to StoredArray
        Every array on the axis.
    start, stop : int
        Its rows; `start` is a multiple of the steps of a chunk.
    """

    def __init__(self, arrays: Mapping[str, StoredArray], start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._arrays = arrays
        self._chunks: dict[str, tuple[int, Array]] = {}
        self._last: dict[str, Array] = {}

    def rows(self, name: str) -> Array:
        """All rows of a channel, (rows, ...)."""
        return self._arrays[name].read_rows(self.start, self.stop)

    def tile(self, name: str, tokens: slice, room: Array) -> Array:  # noqa: ARG002 - decoded in memory of its own
        """The rows of some tokens, as they lie in the chunk where they lie in one."""
        array = self._arrays[name]
        part = array.chunk_shape[1]
        pieces = []
        for j in range(tokens.start // part, -(-tokens.stop // part)):
            inside = slice(max(0, tokens.start - j * part), min(part, tokens.stop - j * part))
            pieces.append(self._chunk(name, j)[: self.stop - self.start, inside])
        rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        if name not in self._last:
            self._last[name] = np.empty(array.shape[1:], array.dtype)
        self._last[name][tokens] = rows[-1]
        return rows

    def is_still(self, name: str, tokens: slice, before: Array) -> bool:  # noqa: ARG002
        """Never known: to find out would read a chunk that is not kept."""
        return False

    def last(self, name: str) -> Array:
        """The last row of a channel with tokens, put together from the tiles that were read."""
        return self._last[name]

    def _chunk(self, name: str, j: int) -> Array:
        held = self._chunks.get(name)
        if held is None or held[0] != j:
            array = self._arrays[name]
            block = self.start // array.chunk_shape[0]
            self._chunks[name] = held = (j, array.read_chunk((block, j, *(0,) * (len(array.shape) - 2))))
        return held[1]

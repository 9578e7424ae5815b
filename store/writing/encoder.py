"""The open block of one axis, from the ring to chunks: transpose, derive and encode, a tile of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from store.disk import Bytes
from store.format.array import Array, StoredArray
from store.format.chunking import SCALAR_ROWS
from store.format.schema import Channel
from store.writing.ring import Ring

Rows = dict[str, Array]
Derive = Callable[[Rows, Rows], Mapping[str, Array]]
"""``derive({"W": (tile, hidden)}, {"W": (steps, tile, hidden)}) -> {"delta_W_prime": (steps, tile, hidden), ...}``"""


class Put(Protocol):
    """Where finished chunks go."""

    def __call__(self, name: str, index: Sequence[int], parts: Sequence[Bytes]) -> None:
        """Make the chunk of array `name` hold these bytes."""


class Encoder:
    """Writes the open block of a ring as chunks.

    Memory: one chunk per tiled channel, one block per derived channel without hidden axis, one row per channel.

    Parameters
    ----------
    ring : Ring
        Where the rows are.
    arrays : mapping of str to StoredArray
        Shapes and codecs of the arrays on this axis.
    derived : sequence of Channel
        What `derive` answers; all of them lie on the axis "step".
    derive : callable or None
        See `Derive`. It gets the given channels that have a token axis.
    """

    def __init__(
        self, ring: Ring, arrays: Mapping[str, StoredArray], derived: Sequence[Channel], derive: Derive | None
    ) -> None:
        self.ring = ring
        self.arrays = arrays
        self.derive = derive
        self.derived = {channel.name: channel for channel in derived}
        self.previous: Rows = {}
        given = list(ring.channels.values())
        self._by_token = [channel.name for channel in given if channel.dims[:1] == ("token",)]
        self._tiled = [channel.name for channel in given if _is_tiled(channel)]
        self._whole = [channel.name for channel in given if channel.dims and not _is_tiled(channel)]
        self._scalars = {name: self._scalar(name) for name in ring.names if len(arrays[name].shape) == 1}
        self._scratch: dict[str, Array] = {}
        self._constants: dict[tuple[str, bytes], list[Bytes]] = {}

    def load(self, start: int, stop: int) -> None:
        """Fill the ring with the stored rows of the block that begins at `start`, up to `stop`."""
        ring = self.ring
        for name in ring.names:
            for offset, slots in ring.segments(name, start, stop):
                self.arrays[name].read_rows(start + offset, start + offset + len(slots), out=slots)
        ring.start, ring.stop = start, stop

    def load_before(self) -> None:
        """Take what an open block needs of the rows before it from the disk, as if they had just been written."""
        start = self.ring.start
        for name, values in self._scalars.items():
            first = start - start % SCALAR_ROWS
            self.arrays[name].read_rows(first, start, out=values[: start - first])
        if start:
            self.previous = {name: self.arrays[name].read_rows(start - 1, start)[0] for name in self._by_token}

    def flush(self, stop: int, put: Put) -> None:
        """Write the open block's rows up to `stop`, the whole chunks anew."""
        for name in self._scalars:
            self._keep_scalars(name, stop)
            put(name, (self.ring.start // SCALAR_ROWS,), self.arrays[name].encode(self._scalars[name]))
        for name, index, values in self.chunks(stop):
            put(name, index, self._encoded(self.arrays[name], values))

    def chunks(self, stop: int) -> Iterator[tuple[str, tuple[int, ...], Array]]:
        """The open block's rows up to `stop` as chunks: (array, index, values), cut off where a chunk is not full.

        Values share memory that is used again for the next one.
        """
        block, rows = self.ring.start // self.ring.block, stop - self.ring.start
        for name in self._whole:
            yield from self._cut(name, block, self.ring.rows(name, self.ring.start, stop))
        if not self._by_token:
            return
        summaries = self._summaries(rows)
        for tile, tokens in self._tiles():
            gathered = self._gather(tokens, rows)
            for name in self._tiled:
                yield self._at(name, block, tile, gathered[name])
            for name, values in self._derive(gathered, tokens).items():
                if name in summaries:
                    summaries[name][:, tokens] = values
                else:
                    yield self._at(name, block, tile, values)
        for name, values in summaries.items():
            yield from self._cut(name, block, values)

    def advance(self) -> None:
        """Go to the next block; the open one is on disk for good. The caller then frees it in the ring."""
        last = self.ring.start + self.ring.block
        for name in self._scalars:
            self._keep_scalars(name, last)
        self.previous = {name: self.ring.rows(name, last - 1, last)[0] for name in self._by_token}

    def _tiles(self) -> Iterator[tuple[int, slice]]:
        tokens = self.arrays[self._by_token[0]].shape[1]
        size = min((self.arrays[name].chunk_shape[1] for name in [*self._tiled, *self._derived_tiled]), default=tokens)
        for tile in range(-(-tokens // size)):
            yield tile, slice(tile * size, min((tile + 1) * size, tokens))

    @property
    def _derived_tiled(self) -> list[str]:
        return [name for name, channel in self.derived.items() if _is_tiled(channel)]

    def _summaries(self, rows: int) -> Rows:
        """Room for the block of each derived channel that is written over all tokens at once, time fastest."""
        names = [name for name, channel in self.derived.items() if not _is_tiled(channel)]
        shapes = {name: self.arrays[name].shape[1:] for name in names}
        return {
            name: np.moveaxis(np.empty((*shape, rows), self.arrays[name].dtype), -1, 0)
            for name, shape in shapes.items()
        }

    def _gather(self, tokens: slice, rows: int) -> Rows:
        """The open block of a tile of tokens, time fastest in memory, of every given channel with tokens."""
        start, gathered = self.ring.start, {}
        for name in self._by_token:
            chunk = self._room(name, tokens.stop - tokens.start)[:rows]
            for offset, segment in self.ring.segments(name, start, start + rows):
                chunk[offset : offset + len(segment)] = segment[:, tokens]
            gathered[name] = chunk
        return gathered

    def _room(self, name: str, tokens: int) -> Array:
        """Memory of one chunk, used again and again; of `tokens` tokens for a channel that is not tiled."""
        array = self.arrays[name]
        if name in self._tiled or name in self.derived:
            if name not in self._scratch:
                self._scratch[name] = array.empty_chunk()
            return self._scratch[name][:, :tokens]
        return np.empty((array.chunk_shape[0], tokens), array.dtype)

    def _derive(self, chunks: Rows, tokens: slice) -> Rows:
        """Derived rows of the open block; NaN at step 0, which no move leads to."""
        if self.derive is None or not self.derived:
            return {}
        if self.ring.start:
            before = {name: self.previous[name][tokens] for name in chunks}
            answers = self.derive(before, chunks)
            return {name: answers[name] for name in self.derived}
        first = {name: rows[0] for name, rows in chunks.items()}
        later = self.derive(first, {name: rows[1:] for name, rows in chunks.items()})
        return {name: _with_nothing_first(channel, later[name]) for name, channel in self.derived.items()}

    def _at(self, name: str, block: int, tile: int, values: Array) -> tuple[str, tuple[int, ...], Array]:
        return name, (block, tile, *(0,) * (values.ndim - 2)), values

    def _cut(self, name: str, block: int, values: Array) -> Iterator[tuple[str, tuple[int, ...], Array]]:
        """A block of rows of an array, cut into its chunks."""
        array = self.arrays[name]
        for index in np.ndindex(*array.grid[1:]):
            inside = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, array.chunk_shape[1:], strict=True))
            yield name, (block, *index), values[(slice(None), *inside)]

    def _encoded(self, array: StoredArray, values: Array) -> list[Bytes]:
        """Encode a chunk, filled up where it is cut off; a constant one (no strides) is encoded only once."""
        if values.shape != array.chunk_shape:
            return array.encode(self._filled(array, values))
        if any(values.strides):
            return array.encode(values)
        key = (array.name, values.flat[0].tobytes())
        if key not in self._constants:
            self._constants[key] = array.encode(values)
        return self._constants[key]

    def _filled(self, array: StoredArray, values: Array) -> Array:
        """The values in a whole chunk; given rows lie in one already."""
        chunk = self._scratch.get(array.name)
        if chunk is None or not np.may_share_memory(chunk, values):
            chunk = array.empty_chunk()
            chunk[tuple(slice(0, size) for size in values.shape)] = values
        fill = np.nan if array.dtype.kind == "f" else 0
        for axis, size in enumerate(values.shape):
            chunk[(*(slice(None),) * axis, slice(size, None))] = fill
        return chunk

    def _scalar(self, name: str) -> Array:
        array = self.arrays[name]
        return np.full(SCALAR_ROWS, np.nan if array.dtype.kind == "f" else 0, array.dtype)

    def _keep_scalars(self, name: str, stop: int) -> None:
        """Put the open block's numbers in their place in the long chunk."""
        start, values = self.ring.start, self._scalars[name]
        first = start % SCALAR_ROWS
        if first == 0:
            values[:] = self._scalar(name)
        values[first : first + stop - start] = self.ring.rows(name, start, stop)


def _is_tiled(channel: Channel) -> bool:
    return channel.dims[:1] == ("token",) and len(channel.dims) > 1


def _with_nothing_first(channel: Channel, later: Array) -> Array:
    """Rows with one before them that does not exist, in the same memory order (time fastest)."""
    inner = later.shape[1:]
    rows = np.moveaxis(np.empty((*inner, len(later) + 1), later.dtype), -1, 0)
    rows[0] = channel.nothing
    rows[1:] = later
    return rows

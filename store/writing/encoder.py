"""A block of one axis, from rows to chunks: transpose, derive and encode, a tile of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from store.format.chunking import SCALAR_ROWS
from store.format.codec import Array
from store.format.schema import Channel
from store.run.array import StoredArray, bits
from store.system_calls import Bytes
from store.writing.block import Block
from store.writing.block_file import BlockFiles, OpenBlock

Rows = dict[str, Array]
Derive = Callable[[Rows, Rows], Mapping[str, Array]]
"""``derive({"W": (tile, hidden)}, {"W": (steps, tile, hidden)}) -> {"delta_W_prime": (steps, tile, hidden), ...}``"""


LEAST_RATIO = 16
"""Bytes of a chunk are kept for the next block only where they are so many times fewer than its numbers."""
See = Callable[[Rows], None]


Chunk = tuple[str, tuple[int, ...], Array]
"""(array, index, values), cut off where a chunk is not full."""
Encoded = tuple[str, tuple[int, ...], Sequence[Bytes]]
"""(array, index, bytes in parts)."""


@dataclass(slots=True)
class Still:
    """A tile of tokens in which nothing moved over a whole block: what it became, for the next block like it.

    Parameters
    ----------
    stop : int
        One past the block's last row.
    chunks : mapping of str to list of bytes
        Encoded chunk of each tiled array.
    rows : mapping of str to array, shape (tile,)
        The row of each other derived array that all rows of the block equal.
    """

    stop: int
    chunks: dict[str, Sequence[Bytes]]
    rows: Rows


class Encoder:
    """Makes chunks of the blocks of one axis, in order. What it derives needs the last row of the block before.

    No array is held whole in memory: one chunk per tiled channel, one block per derived channel without hidden axis,
    one row per channel.

    Parameters
    ----------
    given : sequence of Channel
        The channels on this axis whose rows the blocks have; its labels may be among them.
    arrays : mapping of str to StoredArray
        Shapes and codecs of all arrays of the run.
    derived : sequence of Channel
        What `derive` answers; all of them lie on the axis "step".
    derive : callable or None
        See `Derive`. It gets the given channels that have a token axis.
    """

    def __init__(
        self,
        given: Sequence[Channel],
        arrays: Mapping[str, StoredArray],
        derived: Sequence[Channel],
        derive: Derive | None,
    ) -> None:
        self.arrays = arrays
        self.derive = derive
        self.derived = {channel.name: channel for channel in derived}
        self.previous: Rows = {}
        self._by_token = [channel.name for channel in given if channel.dims[:1] == ("token",)]
        self._tiled = [channel.name for channel in given if _is_tiled(channel)]
        self._whole = [channel.name for channel in given if channel.dims and not _is_tiled(channel)]
        self._scalars = {channel.name: self._scalar(channel.name) for channel in given if not channel.dims}
        self._scratch: dict[str, Array] = {}
        self._constants: dict[tuple[str, bytes], list[Bytes]] = {}
        self._still: dict[int, Still] = {}

    def go_to(self, start: int) -> None:
        """Take what the block that begins at `start` needs of the rows before it from the disk."""
        for name, values in self._scalars.items():
            first = start - start % SCALAR_ROWS
            self.arrays[name].read_rows(first, start, out=values[: start - first])
        if start:
            self.previous = {name: self.arrays[name].read_rows(start - 1, start)[0] for name in self._by_token}

    def write(self, block: Block, open_block: OpenBlock) -> None:
        """Write a block, which may not be full yet, as whole chunks."""
        with BlockFiles(open_block) as files:
            for name, index, parts in self._encoded_chunks(block):
                files.add(name, index[0], self.arrays[name].layout.labels.label(block.stop - 1), parts)

    def chunks(self, block: Block, see: See | None = None) -> Iterator[Chunk]:
        """A block's rows as chunks, each array's in the order of its file.

        Values share memory that is used again for the next one. `see` is shown the given rows of each tile of tokens.
        """
        for name in self._whole:
            yield from self._cut(name, block, block.rows(name))
        if not self._by_token:
            return
        summaries = self._summaries(block.stop - block.start)
        for tile, tokens, gathered in self.tiles(block):
            if see is not None:
                see(gathered)
            yield from self._chunks_of(tile, tokens, gathered, block, summaries)
        for name, values in summaries.items():
            yield from self._cut(name, block, values)

    def encoded(self, block: Block, names: Collection[str]) -> Iterator[Encoded]:
        """As `chunks`, encoded, and of these arrays alone."""
        return (self._encode(chunk) for chunk in self.chunks(block) if chunk[0] in names)

    def _encoded_chunks(self, block: Block) -> Iterator[Encoded]:
        """As `chunks`, encoded, and those of the arrays of one number a step."""
        for name in self._scalars:
            self._keep_scalars(name, block)
            yield name, (block.start // SCALAR_ROWS,), self.arrays[name].encode(self._scalars[name])
        for name in self._whole:
            yield from map(self._encode, self._cut(name, block, block.rows(name)))
        if not self._by_token:
            return
        summaries = self._summaries(block.stop - block.start)
        for tile, tokens in self._tiles():
            yield from self._encoded_tile(tile, tokens, block, summaries)
        for name, values in summaries.items():
            yield from map(self._encode, self._cut(name, block, values))

    def _encoded_tile(self, tile: int, tokens: slice, block: Block, summaries: Rows) -> Iterator[Encoded]:
        """The encoded chunks of a tile of tokens; those of the block before where nothing moved in either."""
        is_full = block.stop - block.start == self.arrays[self._by_token[0]].chunk_shape[0]
        is_still = is_full and self._is_still(block, tokens)
        before = self._still.pop(tile, None) if is_full else None
        if is_still and before and before.stop == block.start:
            self._still[tile] = replace(before, stop=block.stop)
            for name, row in before.rows.items():
                summaries[name][:, tokens] = row
            for name, parts in before.chunks.items():
                yield name, self._index(name, block, tile), parts
            return
        kept: dict[str, Sequence[Bytes]] = {}
        gathered = self._gathered(block, tokens)
        for name, index, parts in map(self._encode, self._chunks_of(tile, tokens, gathered, block, summaries)):
            if is_still and _length(parts) * LEAST_RATIO <= self.arrays[name].chunk_bytes:
                kept[name] = [bytes(part) for part in parts]
            yield name, index, parts
        rows = {name: values[-1, tokens].copy() for name, values in summaries.items()}
        is_small = len(kept) == len(self._tiled) + len(self._derived_tiled)
        if is_still and is_small and all(_is_constant(summaries[name][:, tokens], row) for name, row in rows.items()):
            self._still[tile] = Still(block.stop, kept, rows)

    def _is_still(self, block: Block, tokens: slice) -> bool:
        """Whether no given row differs from the last one of the block before, by one comparison a channel."""
        if not self.previous:
            return False
        return all(block.is_still(name, tokens, self.previous[name][tokens]) for name in self._by_token)

    def _chunks_of(self, tile: int, tokens: slice, gathered: Rows, block: Block, summaries: Rows) -> Iterator[Chunk]:
        """The chunks of a tile of tokens; what is derived without hidden axis goes into `summaries`."""
        for name in self._tiled:
            yield name, self._index(name, block, tile), gathered[name]
        for name, values in self._derive(gathered, tokens, is_first=block.start == 0).items():
            if name in summaries:
                summaries[name][:, tokens] = values
            else:
                yield name, self._index(name, block, tile), values

    def advance(self, block: Block) -> None:
        """Go to the next block; this one is full."""
        for name in self._scalars:
            self._keep_scalars(name, block)
        self.previous = {name: block.last(name) for name in self._by_token}

    def tiles(self, block: Block) -> Iterator[tuple[int, slice, Rows]]:
        """The given rows of a block that have tokens, a tile at a time: (number, positions of its tokens, rows)."""
        for tile, tokens in self._tiles():
            yield tile, tokens, self._gathered(block, tokens)

    def _gathered(self, block: Block, tokens: slice) -> Rows:
        width = tokens.stop - tokens.start
        return {name: block.tile(name, tokens, self._room(name, width)) for name in self._by_token}

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

    def _room(self, name: str, tokens: int) -> Array:
        """Memory of one chunk, used again and again; of `tokens` tokens for a channel that is not tiled."""
        array = self.arrays[name]
        if name in self._tiled or name in self.derived:
            if name not in self._scratch:
                self._scratch[name] = array.empty_chunk()
            return self._scratch[name][:, :tokens]
        return np.empty((array.chunk_shape[0], tokens), array.dtype)

    def _derive(self, chunks: Rows, tokens: slice, *, is_first: bool) -> Rows:
        """Derived rows of a block; NaN at step 0, which no move leads to."""
        if self.derive is None or not self.derived:
            return {}
        if not is_first:
            before = {name: self.previous[name][tokens] for name in chunks}
            answers = self.derive(before, chunks)
            return {name: answers[name] for name in self.derived}
        first = {name: rows[0] for name, rows in chunks.items()}
        later = self.derive(first, {name: rows[1:] for name, rows in chunks.items()})
        return {name: _with_missing_first(channel, later[name]) for name, channel in self.derived.items()}

    def _index(self, name: str, block: Block, tile: int) -> tuple[int, ...]:
        return (self._number(name, block), tile, *(0,) * (len(self.arrays[name].shape) - 2))

    def _number(self, name: str, block: Block) -> int:
        """Number of the block along the chunks of an array."""
        return block.start // self.arrays[name].chunk_shape[0]

    def _cut(self, name: str, block: Block, values: Array) -> Iterator[Chunk]:
        """A block of rows of an array, cut into its chunks."""
        array = self.arrays[name]
        for index in np.ndindex(*array.grid[1:]):
            inside = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, array.chunk_shape[1:], strict=True))
            yield name, (self._number(name, block), *index), values[(slice(None), *inside)]

    def _encode(self, chunk: Chunk) -> Encoded:
        name, index, values = chunk
        return name, index, self._encoded(self.arrays[name], values)

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

    def _keep_scalars(self, name: str, block: Block) -> None:
        """Put a block's numbers in their place in the long chunk."""
        values, first = self._scalars[name], block.start % SCALAR_ROWS
        if first == 0:
            values[:] = self._scalar(name)
        values[first : first + block.stop - block.start] = block.rows(name)


def _length(parts: Sequence[Bytes]) -> int:
    return sum(memoryview(part).nbytes for part in parts)


def _is_constant(values: Array, row: Array) -> bool:
    """Whether all rows are this one, to the bit."""
    return bool((bits(values) == bits(row)).all())


def _is_tiled(channel: Channel) -> bool:
    return channel.dims[:1] == ("token",) and len(channel.dims) > 1


def _with_missing_first(channel: Channel, later: Array) -> Array:
    """Rows with one before them that does not exist, in the same memory order (time fastest)."""
    inner = later.shape[1:]
    rows = np.moveaxis(np.empty((*inner, len(later) + 1), later.dtype), -1, 0)
    rows[0] = channel.missing_value
    rows[1:] = later
    return rows

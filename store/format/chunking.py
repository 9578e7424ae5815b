"""Chunk shapes, and the memory and disk that a run will take, from plain numbers. No I/O.

The figures behind the constants stand in docs/reference/format.md and docs/decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.format.schema import Channel

BLOCK_STEPS = 128
"""Steps of a block: the fewest that reach 100 times compression on the real run."""
CHUNK_BYTES = 4 << 20
"""Raw bytes of a chunk of the widest given channel: 256 tokens of 64 bfloat16 numbers over a block."""
OPEN_BLOCK_BYTES = 64 << 20
"""Most raw bytes of given rows in the open block; wider rows get shorter blocks."""
SHORTEST_BLOCK = 8
SCALAR_ROWS = 65_536
"""Rows of a chunk of one number a step: a million step labels are 16 chunks."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a trajectory is cut: steps of a block, tokens of a tile."""

    block_steps: int
    token_tile: int

    def chunk_shape(self, channel: Channel, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Chunk shape of a channel's array, in the order of `channel.all_dims`."""
        inner = [sizes[dim] for dim in channel.dims]
        if not channel.has_steps:
            return tuple(max(1, size) for size in inner)
        if not inner:
            return (SCALAR_ROWS,)
        if channel.dims[0] == "token":
            inner[0] = min(inner[0], self._tokens(channel))
        return (self.block_steps, *inner)

    def _tokens(self, channel: Channel) -> int:
        if len(channel.dims) > 1:
            return self.token_tile
        return max(1, CHUNK_BYTES // (self.block_steps * np.dtype(channel.dtype).itemsize))


def row_bytes(channel: Channel, sizes: Mapping[str, int]) -> int:
    """Raw bytes of one row of a channel."""
    return math.prod(sizes[dim] for dim in channel.dims) * np.dtype(channel.dtype).itemsize


def choose(channels: Iterable[Channel], sizes: Mapping[str, int]) -> Chunking:
    """The chunking of a trajectory of these channels.

    A block has 128 steps, fewer (a power of two, at least 8) where the open block would pass 64 MiB. A tile has as
    many tokens as make 4 MiB of the widest given channel, so 256 at 64 bfloat16 numbers a token.

    Examples
    --------
    >>> choose([Channel("W", ("token", "hidden"), "uint16")], {"token": 3699, "hidden": 64})
    Chunking(block_steps=128, token_tile=256)
    """
    given = [channel for channel in channels if channel.role == "given"]
    total = max(1, sum(row_bytes(channel, sizes) for channel in given))
    fits = max(SHORTEST_BLOCK, OPEN_BLOCK_BYTES // total)
    block = min(BLOCK_STEPS, 1 << (fits.bit_length() - 1))
    tokens = max(1, sizes.get("token", 1))
    per_token = [row_bytes(channel, sizes) // tokens for channel in given if channel.dims[:1] == ("token",)]
    tile = max(1, CHUNK_BYTES // (block * max(per_token, default=1) or 1))
    return Chunking(block, min(tile, tokens))


def block_steps(arrays: Mapping[str, Mapping[str, Any]], axis: str) -> int:
    """Steps of a block of a run whose arrays' metadata are these; `BLOCK_STEPS` on an axis of numbers alone."""
    of_axis = (array for array in arrays.values() if len(array["shape"]) > 1 and array["dimension_names"][0] == axis)
    return next((int(array["chunk_grid"]["configuration"]["chunk_shape"][0]) for array in of_axis), BLOCK_STEPS)


def ring_slots(block_steps: int) -> int:
    """Rows that the ring holds: an open block, and a sixth of one that arrives while that is written."""
    return block_steps + max(2, block_steps // 6)


@dataclass(frozen=True, slots=True)
class Projection:
    """What recording a run will take: `memory_bytes` while it runs, raw bytes, and the most files and disk bytes."""

    memory_bytes: int
    raw_bytes: int
    disk_bytes: int
    files: int


def project(channels: Iterable[Channel], sizes: Mapping[str, int], rows: int, ratio: float = 1.0) -> Projection:
    """Memory, disk and files of a run of `rows` rows (states, so steps + 1).

    Parameters
    ----------
    ratio : float
        Assumed compression of channels with a token axis; 1.0 gives the most that the disk can take.
    """
    channels = list(channels)
    chunking = choose(channels, sizes)
    raw = files = ring = derived = norms = 0
    for channel in channels:
        row = row_bytes(channel, sizes)
        count = _rows_of(channel, rows)
        raw += row * count
        files += 1 + _files_of(channel, sizes, chunking, count)
        tiled = channel.dims[:1] == ("token",) and len(channel.dims) > 1
        tile = row * chunking.token_tile // max(1, sizes.get("token", 1)) * chunking.block_steps
        if channel.role == "given":
            ring += row * ring_slots(chunking.block_steps) + (2 * tile if tiled else row * chunking.block_steps)
        elif channel.role == "derived":
            derived += 2 * tile if tiled else 0
            norms += 0 if tiled else row * chunking.block_steps
    return Projection(ring + derived + norms, raw, math.ceil(raw / ratio), files + 4)


def _rows_of(channel: Channel, rows: int) -> int:
    if not channel.has_steps:
        return 1
    last = rows - 1 if channel.until is None else min(rows - 1, channel.until)
    return last // channel.every + 1


def _files_of(channel: Channel, sizes: Mapping[str, int], chunking: Chunking, rows: int) -> int:
    """A file for each block of steps; one for an array without a step axis."""
    return -(-rows // chunking.chunk_shape(channel, sizes)[0]) if channel.has_steps else 1

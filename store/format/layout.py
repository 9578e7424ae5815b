"""How an array of format 2 lies in files: its zarr.json, and from there which chunk is where.

A file is a shard: a block of steps, all tokens (rounded up to whole tiles), everything else. A chunk in it is a block
of steps times a tile of tokens. An array without tokens, or without a step axis, is one chunk a file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from store.errors import ChecksumError, MetadataError
from store.format.codec import MOST_GROWTH_BYTES, ZSTD, Array, Compression, chunk_codecs, pack, unpack
from store.format.schema import Channel, Role
from store.format.step_labels import StepLabels
from store.format.validity import STATIC_NEED, Need, final_need
from store.system_calls import Bytes

LARGEST_CHUNK_BYTES = 1 << 30
MOST_CHUNKS_OF_A_FILE = 1 << 20
MOST_FILES = 1 << 20
MOST_CHUNKS = 1 << 24
DTYPES = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)),
}
"""Data types that every reader of Zarr v3 knows."""
ROLES = get_args(Role)


def array_metadata(
    channel: Channel, shape: Sequence[int], chunk_shape: Sequence[int], compression: Compression = ZSTD
) -> dict[str, Any]:
    """The zarr.json of a channel's array, key for key as zarr-python 3.1 writes it.

    Parameters
    ----------
    chunk_shape : sequence of int
        Of a chunk; the shape of a file follows from it.
    """
    dtype = np.dtype(channel.dtype)
    order = _order(channel, len(shape))
    sharding = {
        "chunk_shape": list(chunk_shape),
        "codecs": chunk_codecs(dtype, order, compression),
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    file_shape = _file_shape(shape, chunk_shape, has_steps=channel.has_steps)
    return array_document(channel, shape, file_shape, [{"name": "sharding_indexed", "configuration": sharding}])


def array_document(
    channel: Channel, shape: Sequence[int], grid: Sequence[int], codecs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The zarr.json of a channel's array in either format, cut by this grid and encoded by these codecs."""
    return {
        "shape": list(shape),
        "data_type": channel.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN" if np.dtype(channel.dtype).kind == "f" else channel.fill_value,
        "codecs": list(codecs),
        "attributes": channel.to_attributes(),
        "dimension_names": list(channel.all_dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


@dataclass(frozen=True)
class Layout:
    """An array's shape, its chunks and its files. An index counts chunks, and its first number is that of the block.

    Parameters
    ----------
    name : str
        Path of the array below the group.
    shape, chunk_shape : tuple of int
        Of the array and of a chunk, in the order of the dimensions.
    dtype : numpy dtype
        Little-endian.
    order : tuple of int
        Dimensions in the order of the bytes, slowest first: time is fastest.
    compression : Compression
        Of the chunks.
    dims : tuple of str
        Names of the dimensions.
    role : str
        See `store.format.schema.Channel`.
    labels : StepLabels
        Which step each row of its step axis is.
    """

    name: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]
    compression: Compression
    dims: tuple[str, ...]
    role: str
    labels: StepLabels

    @classmethod
    def from_metadata(cls, name: str, metadata: Mapping[str, Any], axis: Mapping[str, Any] | None = None) -> Layout:
        """The layout that a zarr.json describes; `check_array_metadata` refuses what describes none.

        Parameters
        ----------
        axis : mapping, optional
            Attributes of the labels of its step axis; without, rows are labelled by the array's own schedule.
        """
        channel = Channel.from_array(name.rpartition("/")[2], metadata)
        shape = tuple(metadata["shape"])
        sharding = metadata["codecs"][0]["configuration"]
        return cls(
            name, shape, tuple(sharding["chunk_shape"]), np.dtype(channel.dtype).newbyteorder("<"),
            _order(channel, len(shape)), Compression.from_metadata(sharding["codecs"]),
            channel.all_dims, channel.role, labels_of(metadata, axis),
        )  # fmt: skip

    @property
    def has_steps(self) -> bool:
        """Whether the array grows along a step axis."""
        return self.role in ("given", "derived")

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk's numbers."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def most_bytes(self) -> int:
        """No chunk has more bytes when it is compressed."""
        return self.chunk_bytes + MOST_GROWTH_BYTES

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-size // part) for size, part in zip(self.shape, self.chunk_shape, strict=True))

    @property
    def blocks(self) -> int:
        """Number of files."""
        return (self.grid[0] if self.has_steps else 1) if all(self.shape) else 0

    @cached_property
    def chunks_of_a_file(self) -> int:
        """Number of chunks in each file."""
        return math.prod(self.grid[1:]) if self.has_steps else 1

    def indices(self, block: int) -> Iterator[tuple[int, ...]]:
        """Indices of a file's chunks, in the order of the file."""
        return itertools.product((block,), *(range(count) for count in self.grid[1:]))

    def position(self, index: Sequence[int]) -> int:
        """Which chunk of its file this is."""
        position = 0
        for i, count in zip(index[1:], self.grid[1:], strict=True):
            position = position * count + i
        return position

    def key(self, block: int) -> str:
        """Name of a file in the array's folder."""
        return ".".join(["c", str(block), *("0",) * (len(self.shape) - 1)])

    def file_name(self, block: int) -> str:
        """Path of a file below the group, by which its label knows it."""
        return f"{self.name}/{self.key(block)}"

    def last(self, block: int) -> int:
        """Step label of the last row in the file of a block, at the array's length."""
        return self.labels.label(min(self.shape[0], (block + 1) * self.chunk_shape[0]) - 1)

    def need(self, block: int, committed_steps: int) -> Need:
        """What a commit, at whose length the array is seen, needs of a file."""
        if self.has_steps:
            return Need(self.last(block))
        return final_need(committed_steps) if self.role == "final" else STATIC_NEED

    def where(self, index: Sequence[int]) -> str:
        """Which steps (labels) and which of the tokens (positions) a chunk holds; of ``(block,)`` a file."""
        spans = []
        for axis, (dim, i, part, size) in enumerate(zip(self.dims, index, self.chunk_shape, self.shape, strict=False)):
            first, last = i * part, max(i * part, min((i + 1) * part, size) - 1)
            if axis == 0 and self.has_steps:
                first, last = self.labels.label(first), self.labels.label(last)
            spans.append(f"{'token positions' if dim == 'token' else dim} {first}..{last}")
        return f"{self.name}[{', '.join(spans)}]"

    def empty_chunk(self) -> Array:
        """An uninitialised chunk whose memory order is the stored one, seen in the order of the dimensions."""
        stored = np.empty([self.chunk_shape[axis] for axis in self.order], self.dtype)
        return stored.transpose(np.argsort(self.order))

    def encode(self, chunk: Array) -> list[Bytes]:
        """Bytes of a full-size chunk given in the order of the dimensions; parts of them may share its memory."""
        return pack(np.ascontiguousarray(chunk.transpose(self.order), self.dtype), self.compression)

    def decode(self, data: Bytes, where: object, room: Array | None = None) -> Array:
        """A full-size chunk in the order of the dimensions, from its verified bytes; in `room` (uint8) if given.

        Raises
        ------
        ChecksumError
            They don't unpack to a chunk.
        """
        flat = np.empty(self.chunk_bytes, np.uint8) if room is None else room
        try:
            unpack(data, self.compression, flat)
        except ValueError as error:
            raise ChecksumError(f"{where}: {error}; restore the file or cut the run back") from error
        stored = flat.view(self.dtype).reshape([self.chunk_shape[axis] for axis in self.order])
        return stored.transpose(np.argsort(self.order))


def check_array_metadata(name: str, metadata: Mapping[str, Any]) -> None:
    """Raise unless an array's zarr.json describes an array of format 2, of a size that can be meant.

    Raises
    ------
    MetadataError
    """

    def refuse(what: str) -> MetadataError:
        return MetadataError(f"zarr.json: array {name!r}: {what}; this is not what format 2 writes")

    try:
        shape = [checked_size(size) for size in metadata["shape"]]
        sharding = metadata["codecs"][0]["configuration"]
        chunk_shape = [checked_size(size) for size in sharding["chunk_shape"]]
        channel = Channel.from_array(name.rpartition("/")[2], metadata)
        expected = array_metadata(channel, shape, chunk_shape, Compression.from_metadata(sharding["codecs"]))
        wrong = [key for key in metadata.keys() | expected.keys() if metadata.get(key) != expected.get(key)]
        layout = Layout.from_metadata(name, metadata)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, StopIteration) as error:
        raise refuse(f"{type(error).__name__} {error}") from error
    if channel.dtype not in DTYPES or channel.role not in ROLES or type(channel.every) is not int:
        raise refuse(f"a {channel.role} array of {channel.dtype}, every {channel.every} steps")
    if wrong or len(shape) != len(channel.all_dims):
        raise refuse(f"{', '.join(sorted(wrong)) or 'shape'} cannot be so")
    if layout.chunk_bytes > LARGEST_CHUNK_BYTES:
        raise refuse(f"chunks {chunk_shape} would unpack to more than {LARGEST_CHUNK_BYTES} bytes")
    counts = layout.blocks, layout.chunks_of_a_file
    if counts[0] > MOST_FILES or counts[1] > MOST_CHUNKS_OF_A_FILE or math.prod(counts) > MOST_CHUNKS:
        raise refuse(f"shape {shape} would be {counts[0]} files of {counts[1]} chunks")
    if not channel.has_steps and chunk_shape != [max(1, size) for size in shape]:
        raise refuse(f"chunks {chunk_shape} of an array without steps, which is one chunk of {shape}")


def labels_of(metadata: Mapping[str, Any], axis: Mapping[str, Any] | None) -> StepLabels:
    """The labels of the rows of an array, given the attributes of its step axis, or by its own schedule."""
    return StepLabels.from_attributes(axis or metadata["attributes"])


def _order(channel: Channel, ndim: int) -> tuple[int, ...]:
    """Dimensions in the order of the bytes: time fastest."""
    return (*range(1, ndim), 0) if channel.has_steps else tuple(range(ndim))


def _file_shape(shape: Sequence[int], chunk_shape: Sequence[int], *, has_steps: bool) -> list[int]:
    """Shape of a file: a block of steps, and as many chunks as cover the rest."""
    if not shape:
        raise ValueError("an array without dimensions cannot be a shard; give it one dimension of size 1")
    covered = [max(1, -(-size // part)) * part for size, part in zip(shape, chunk_shape, strict=True)]
    return [chunk_shape[0], *covered[1:]] if has_steps else covered


def checked_size(value: object) -> int:
    """A size, as it was; JSON knows others than whole numbers from 0."""
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError(f"{value!r} is no size")
    return value

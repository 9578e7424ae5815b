"""One array of a trajectory: its chunks, read strictly, in both formats; and the zarr.json of format 1.

A chunk that is missing, of another length, or of another checksum raises, before anything is unpacked. What format 2
adds stands in `store.format.layout` and `store.run.shard_file`.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from store.disk import LOCAL
from store.errors import ChecksumError, DamageError, MetadataError, MissingError
from store.format.codec import CHECKSUM_BYTES, Array, Compression, chunk_codecs, crc32c
from store.format.label import Label
from store.format.layout import Layout, array_document, checked_size, labels_of
from store.format.schema import Channel
from store.format.validity import fits
from store.format.writers import Standing
from store.run.shard_file import Place, check_committed_file, open_shard, read_chunk, read_committed_chunk
from store.system_calls import Bytes

ZSTD_LEVEL = 1
LARGEST_CHUNK_BYTES = 1 << 30
MOST_CHUNKS_OF_AN_AXIS = 1 << 20
MOST_CHUNKS = 1 << 24


def array_metadata(
    channel: Channel, shape: Sequence[int], chunks: Sequence[int], level: int = ZSTD_LEVEL
) -> dict[str, Any]:
    """The zarr.json of a channel's array in format 1, key for key as zarr-python 3.1 writes it."""
    dtype = np.dtype(channel.dtype)
    order = [*range(1, len(shape)), 0] if channel.has_steps else range(len(shape))
    return array_document(channel, shape, chunks, chunk_codecs(dtype, order, Compression("zstd", level)))


@dataclass(frozen=True)
class StoredArray:
    """An array on disk, of either format: its folder and its zarr.json, read as data.

    In format 1 a chunk is a file, in format 2 a part of the file of its block of steps.

    Parameters
    ----------
    folder : Path
        Where its files lie.
    metadata : mapping
        Its zarr.json, taken from the group's (the commit), so that its length is the committed one.
    axis : mapping
        Attributes of the labels of its step axis, by which messages name steps.
    standing : Standing, optional
        Of that commit; what is read must belong to it. None in format 1.
    now : callable, optional
        Reads the standing of the commit on disk, given the group's folder.
    """

    folder: Path
    metadata: Mapping[str, Any]
    axis: Mapping[str, Any] = field(default_factory=dict)
    standing: Standing | None = None
    now: Callable[[Path], Standing | None] | None = None

    @property
    def name(self) -> str:
        """Name of the array."""
        return self.folder.name

    @cached_property
    def is_sharded(self) -> bool:
        """Whether a file holds all chunks of a block, as in format 2."""
        return bool(self.metadata["codecs"][0]["name"] == "sharding_indexed")

    @cached_property
    def layout(self) -> Layout:
        """Its chunks: their shape, order and compression."""
        describe = Layout.from_metadata if self.is_sharded else _layout_of_plain_chunks
        return describe(self.name, self.metadata, self.axis)

    @property
    def shape(self) -> tuple[int, ...]:
        """Committed shape."""
        return self.layout.shape

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk, in the order of the dimensions."""
        return self.layout.chunk_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return self.layout.dtype

    @property
    def order(self) -> tuple[int, ...]:
        """Dimensions in the order of the bytes: time is fastest."""
        return self.layout.order

    @property
    def chunk_bytes(self) -> int:
        """Raw bytes of a chunk."""
        return self.layout.chunk_bytes

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return self.layout.grid

    def indices(self, block: int | None = None) -> Iterator[tuple[int, ...]]:
        """Index of every chunk, or of those of one block of steps."""
        ranges = [range(count) for count in self.grid]
        if block is not None:
            ranges[0] = range(block, block + 1)
        return itertools.product(*ranges)

    def key(self, index: Sequence[int]) -> str:
        """Name of the file that holds a chunk."""
        return self.layout.key(index[0]) if self.is_sharded else ".".join(["c", *map(str, index)])

    def keys(self) -> set[str]:
        """Names of all its files."""
        if self.is_sharded:
            return {self.layout.key(block) for block in range(self.layout.blocks)}
        return {self.key(index) for index in self.indices()}

    def where(self, index: Sequence[int]) -> Place:
        """Which steps and tokens a chunk holds, and in which file, for messages."""
        return Place(self.folder / self.key(index), self.layout, tuple(index))

    def empty_chunk(self) -> Array:
        """An uninitialised chunk whose memory order is the stored one, seen in the order of the dimensions."""
        return self.layout.empty_chunk()

    def encode(self, chunk: Array) -> list[Bytes]:
        """Bytes of a full-size chunk given in the order of the dimensions; parts of them may share its memory."""
        return self.layout.encode(chunk)

    def decode(self, data: Bytes, index: Sequence[int], room: Array | None = None) -> Array:
        """A full-size chunk in the order of the dimensions, from its bytes; in `room` (uint8) if given.

        Raises
        ------
        ChecksumError
            They are not those of a chunk. In format 2 reading has compared the checksum.
        """
        if not self.is_sharded:
            _verify(data, self.where(index))
        return self.layout.decode(data, self.where(index), room)

    def read_bytes(self, index: Sequence[int]) -> bytes:
        """The bytes of a chunk. A link is not followed.

        Raises
        ------
        DamageError
            The file is not there, or in format 2: is damaged, or none that belongs to the commit.
        StaleHandleError
            In format 2: the run was removed, replaced, cut back or compacted since the commit was read.
        """
        place = self.where(index)
        if not self.is_sharded:
            return _read_plain(place)
        if self.standing is None:
            return read_chunk(place.path, self.layout, index)[0]
        return read_committed_chunk(place.path, self.layout, index, self.standing, self._standing_now)

    def check_file(self, block: int, fd: int | None = None) -> None:
        """Look whether the file of a block belongs to the commit, for who reads its chunks by other means.

        In format 1 nothing tells.

        Parameters
        ----------
        fd : int, optional
            The file, opened already; it is left open.

        Raises
        ------
        DamageError, StaleHandleError
            As `read_bytes`; of damage within a chunk nothing is seen.
        """
        if self.standing is not None and self.is_sharded:
            path = self.folder / self.layout.key(block)
            check_committed_file(path, self.layout, block, self.standing, self._standing_now, fd=fd)

    def read_chunk(self, index: Sequence[int]) -> Array:
        """A full-size chunk in the order of the dimensions; time is fastest in memory."""
        return self.decode(self.read_bytes(index), index)

    def read_block(self, block: int) -> Iterator[tuple[tuple[int, ...], Array]]:
        """All chunks of a block of steps, each with its index; in format 2 its file is opened once."""
        for index, data in self._bytes_of(block) if self.is_sharded else self._plain_bytes_of(block):
            yield index, self.decode(data, index)

    def read_rows(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``start:stop`` of the first axis, whole, in C order unless `out` is given."""
        shape = (stop - start, *self.shape[1:])
        rows = np.empty(shape, self.dtype) if out is None else out
        part = self.chunk_shape[0]
        for block in range(start // part, -(-stop // part)):
            first, last = max(start, block * part), min(stop, (block + 1) * part)
            for index, chunk in self.read_block(block):
                inside = tuple(
                    slice(i * size, min((i + 1) * size, full))
                    for i, size, full in zip(index[1:], self.chunk_shape[1:], self.shape[1:], strict=True)
                )
                cut = tuple(slice(0, s.stop - s.start) for s in inside)
                rows[(slice(first - start, last - start), *inside)] = chunk[
                    (slice(first - block * part, last - block * part), *cut)
                ]
        return rows

    def _plain_bytes_of(self, block: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
        return ((index, self.read_bytes(index)) for index in self.indices(block))

    def _bytes_of(self, block: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """Chunks of one file, in its order. What is wrong with it is said by the reading of a single chunk."""
        waiting = deque(self.indices(block))
        with suppress(DamageError), open_shard(self.folder / self.layout.key(block), self.layout, block) as file:
            while waiting and self._belongs(file.label, block):
                data = file.chunk(waiting[0])
                yield waiting.popleft(), data
        for index in waiting:
            yield index, self.read_bytes(index)

    def _belongs(self, label: Label, block: int) -> bool:
        if self.standing is None:
            return True
        return fits(label, self.layout.need(block, self.standing.committed_steps), self.standing.writers)

    def _standing_now(self) -> Standing | None:
        return self.now(self.folder.parent) if self.now else None


def _layout_of_plain_chunks(name: str, metadata: Mapping[str, Any], axis: Mapping[str, Any]) -> Layout:
    """The chunks of an array of format 1."""
    channel, shape = Channel.from_array(name, metadata), tuple(metadata["shape"])
    order = next((c["configuration"]["order"] for c in metadata["codecs"] if c["name"] == "transpose"), None)
    return Layout(
        name, shape, tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        np.dtype(channel.dtype).newbyteorder("<"), tuple(order or range(len(shape))),
        Compression.from_metadata(metadata["codecs"]), channel.all_dims, channel.role, labels_of(metadata, axis),
    )  # fmt: skip


def _verify(data: Bytes, place: Place) -> None:
    """Raise unless the bytes of a plain chunk have the right checksum."""
    view = memoryview(data)
    stored = int.from_bytes(view[-CHECKSUM_BYTES:], "little")
    if len(view) < CHECKSUM_BYTES or crc32c([view[:-CHECKSUM_BYTES]]) != stored:
        raise ChecksumError(
            f"{place}: the checksum does not match its {len(view)} bytes; "
            "restore the file from a copy, or cut the run back with `crucible check --repair`"
        )


def _read_plain(place: Place) -> bytes:
    """The file of a plain chunk."""
    try:
        fd = LOCAL.open_plain(place.path)
    except FileNotFoundError:
        raise MissingError(
            f"{place}: the chunk is not there; restore it from a copy, or cut the run back with "
            "`crucible check --repair`"
        ) from None
    except OSError as error:
        raise MissingError(f"{place}: {error.strerror}; a chunk must be a plain file") from error
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_size > place.layout.most_bytes:
            raise ChecksumError(f"{place}: longer than any chunk of {place.layout.chunk_bytes} bytes can be")
        return file.read()


def bits(values: Array) -> Array:
    """The same memory as integers, so that NaN equals NaN of the same payload and -0 differs from 0."""
    return values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "f" else values


def check_array_metadata(name: str, metadata: Mapping[str, Any]) -> None:
    """Raise unless an array's zarr.json describes an array of format 1, of a size that can be meant."""

    def refuse(what: str) -> MetadataError:
        return MetadataError(f"zarr.json: array {name!r}: {what}; this is not what format 1 writes")

    try:
        shape = [checked_size(size) for size in metadata["shape"]]
        chunks = [checked_size(size) for size in metadata["chunk_grid"]["configuration"]["chunk_shape"]]
        channel = Channel.from_array(name, metadata)
        level = next(codec["configuration"]["level"] for codec in metadata["codecs"] if codec["name"] == "zstd")
        expected = array_metadata(channel, shape, chunks, int(level))
        wrong = [key for key in metadata.keys() | expected.keys() if metadata.get(key) != expected.get(key)]
        counts = [-(-size // part) for size, part in zip(shape, chunks, strict=True)]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, StopIteration) as error:
        raise refuse(f"{type(error).__name__} {error}") from error
    if not name.isidentifier() or np.dtype(channel.dtype).name != channel.dtype:
        raise refuse(f"{channel.dtype} under this name")
    if wrong or len(shape) != len(channel.all_dims):
        raise refuse(f"{', '.join(sorted(wrong)) or 'shape'} cannot be so")
    if np.prod(chunks, dtype=object) * np.dtype(channel.dtype).itemsize > LARGEST_CHUNK_BYTES:
        raise refuse(f"chunks {chunks} would unpack to more than {LARGEST_CHUNK_BYTES} bytes")
    if max(counts, default=0) > MOST_CHUNKS_OF_AN_AXIS or np.prod(counts, dtype=object) > MOST_CHUNKS:
        raise refuse(f"shape {shape} would be {counts} chunks")
    if not channel.has_steps and chunks != [max(1, size) for size in shape]:
        raise refuse(f"chunks {chunks} of an array without steps, which is one chunk of {shape}")

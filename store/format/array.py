"""One array of a trajectory: its zarr.json, and its chunks to and from bytes.

The bytes are those that zarr writes with the codecs `transpose` (time fastest), `bytes` (little-endian), `zstd` level 1
and `crc32c`; made by hand, since a training process should load neither zarr nor its codec pipeline. Reading is
strict: a chunk that is missing, of another length, or of another checksum raises, before anything is unpacked.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd

from store.disk import Bytes
from store.errors import ChecksumError, MetadataError, MissingError
from store.format.schema import Channel
from store.format.step_labels import StepLabels

Array = np.ndarray[Any, Any]
ZSTD_LEVEL = 1
LARGEST_CHUNK_BYTES = 1 << 30
MOST_CHUNKS_OF_AN_AXIS = 1 << 20
MOST_CHUNKS = 1 << 24
_PLAIN_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Follow no link, and do not wait for who writes into a pipe."""
_MAGIC = (0xFD2FB528).to_bytes(4, "little")
_RAW_BLOCK = 128 << 10
_SAMPLE_BYTES = 64 << 10
_WORTH_COMPRESSING = 1.2


def array_metadata(
    channel: Channel, shape: Sequence[int], chunks: Sequence[int], level: int = ZSTD_LEVEL
) -> dict[str, Any]:
    """The zarr.json of a channel's array, key for key as zarr-python 3.1 writes it."""
    many_bytes = np.dtype(channel.dtype).itemsize > 1
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}} if many_bytes else {"name": "bytes"},
        {"name": "zstd", "configuration": {"level": level, "checksum": False}},
        {"name": "crc32c"},
    ]
    if channel.has_steps and len(shape) > 1:
        order = [*range(1, len(shape)), 0]
        codecs.insert(0, {"name": "transpose", "configuration": {"order": order}})
    is_float = np.dtype(channel.dtype).kind == "f"
    return {
        "shape": list(shape),
        "data_type": channel.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN" if is_float else channel.fill_value,
        "codecs": codecs,
        "attributes": channel.to_attributes(),
        "dimension_names": list(channel.all_dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


@dataclass(frozen=True)
class StoredArray:
    """An array on disk: its folder and its zarr.json, read as data.

    Parameters
    ----------
    folder : Path
        Where its chunks lie.
    metadata : mapping
        Its zarr.json, taken from the group's (the commit), so that its length is the committed one.
    axis : mapping
        Attributes of the labels of its step axis, by which messages name steps.
    """

    folder: Path
    metadata: Mapping[str, Any]
    axis: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the array."""
        return self.folder.name

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Committed shape."""
        return tuple(self.metadata["shape"])

    @cached_property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk, in the order of the dimensions."""
        return tuple(self.metadata["chunk_grid"]["configuration"]["chunk_shape"])

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        dtype: np.dtype[Any] = np.dtype(self.metadata["data_type"]).newbyteorder("<")
        return dtype

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Dimensions in the order of the bytes: time is fastest."""
        for codec in self.metadata["codecs"]:
            if codec["name"] == "transpose":
                return tuple(codec["configuration"]["order"])
        return tuple(range(len(self.shape)))

    @cached_property
    def level(self) -> int:
        """Level of zstd."""
        return int(next(c["configuration"]["level"] for c in self.metadata["codecs"] if c["name"] == "zstd"))

    @property
    def chunk_bytes(self) -> int:
        """Raw bytes of a chunk."""
        return int(np.prod(self.chunk_shape, dtype=object)) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-size // part) for size, part in zip(self.shape, self.chunk_shape, strict=True))

    def indices(self, block: int | None = None) -> Iterator[tuple[int, ...]]:
        """Index of every chunk, or of those of one block of steps."""
        ranges = [range(count) for count in self.grid]
        if block is not None:
            ranges[0] = range(block, block + 1)
        return itertools.product(*ranges)

    def key(self, index: Sequence[int]) -> str:
        """File name of a chunk."""
        return ".".join(["c", *map(str, index)])

    def where(self, index: Sequence[int]) -> str:
        """Which steps (labels) and which of the tokens (positions: ids are in another array) a chunk holds."""
        spans, labels = [], StepLabels.from_attributes(self.axis)
        for axis, dim in enumerate(self.metadata["dimension_names"]):
            first = index[axis] * self.chunk_shape[axis]
            last = max(first, min(first + self.chunk_shape[axis], self.shape[axis]) - 1)
            if axis == 0 and self.metadata["attributes"]["role"] in ("given", "derived"):
                first, last = labels.label(first), labels.label(last)
            spans.append(f"{'token positions' if dim == 'token' else dim} {first}..{last}")
        return f"{self.folder.parent.parent.name}: {self.name}[{', '.join(spans)}] ({self.folder / self.key(index)})"

    def empty_chunk(self) -> Array:
        """An uninitialised chunk whose memory order is the stored one, seen in the order of the dimensions."""
        stored = np.empty([self.chunk_shape[axis] for axis in self.order], self.dtype)
        return stored.transpose(np.argsort(self.order))

    def encode(self, chunk: Array) -> list[Bytes]:
        """Bytes of a full-size chunk given in the order of the dimensions; parts of them may share its memory."""
        stored = np.ascontiguousarray(chunk.transpose(self.order), self.dtype)
        parts = _pack(stored, self.level)
        return [*parts, _crc32c(parts).to_bytes(4, "little")]

    def decode(self, data: Bytes, index: Sequence[int], room: Array | None = None) -> Array:
        """A full-size chunk in the order of the dimensions, from its checked bytes; in `room` (uint8) if given."""
        self.verify(data, index)
        flat = np.empty(self.chunk_bytes, np.uint8) if room is None else room
        try:
            zstd.decompress(memoryview(data)[:-4], flat)
        except (RuntimeError, ValueError) as error:
            raise ChecksumError(f"{self.where(index)}: {error}; restore the file or cut the run back") from error
        stored = flat.view(self.dtype).reshape([self.chunk_shape[axis] for axis in self.order])
        return stored.transpose(np.argsort(self.order))

    def verify(self, data: Bytes, index: Sequence[int]) -> None:
        """Raise unless the bytes have the right checksum and claim to unpack to one chunk, no more."""
        view = memoryview(data)
        if len(view) < 9 or _crc32c([view[:-4]]) != int.from_bytes(view[-4:], "little"):
            raise ChecksumError(
                f"{self.where(index)}: the checksum does not match its {len(view)} bytes; "
                "restore the file from a copy, or cut the run back with `crucible check --repair`"
            )
        claimed = frame_content_bytes(view)
        if claimed != self.chunk_bytes:
            raise ChecksumError(f"{self.where(index)}: claims to unpack to {claimed} bytes, not {self.chunk_bytes}")

    def read_bytes(self, index: Sequence[int]) -> bytes:
        """The file of a chunk. A link is not followed."""
        path = self.folder / self.key(index)
        try:
            fd = os.open(path, _PLAIN_FILE)
        except FileNotFoundError:
            raise MissingError(
                f"{self.where(index)}: the chunk is not there; restore it from a copy, or cut the run back with "
                "`crucible check --repair`"
            ) from None
        except OSError as error:
            raise MissingError(f"{self.where(index)}: {error.strerror}; a chunk must be a plain file") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise MissingError(f"{self.where(index)}: a chunk must be a plain file")
        with os.fdopen(fd, "rb") as file:
            if status.st_size > self.chunk_bytes + (1 << 20):  # zstd never grows data by so much
                raise ChecksumError(f"{self.where(index)}: longer than any chunk of {self.chunk_bytes} bytes can be")
            return file.read()

    def read_chunk(self, index: Sequence[int]) -> Array:
        """A full-size chunk in the order of the dimensions; time is fastest in memory."""
        return self.decode(self.read_bytes(index), index)

    def read_rows(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``start:stop`` of the first axis, whole, in C order unless `out` is given."""
        shape = (stop - start, *self.shape[1:])
        rows = np.empty(shape, self.dtype) if out is None else out
        part = self.chunk_shape[0]
        for block in range(start // part, -(-stop // part)):
            first, last = max(start, block * part), min(stop, (block + 1) * part)
            for index in self.indices(block):
                inside = tuple(
                    slice(i * size, min((i + 1) * size, full))
                    for i, size, full in zip(index[1:], self.chunk_shape[1:], self.shape[1:], strict=True)
                )
                chunk = self.read_chunk(index)
                cut = tuple(slice(0, s.stop - s.start) for s in inside)
                rows[(slice(first - start, last - start), *inside)] = chunk[
                    (slice(first - block * part, last - block * part), *cut)
                ]
        return rows


def _crc32c(parts: Sequence[Bytes]) -> int:
    """Checksum of bytes in parts. google_crc32c takes no memoryview, but an array over the same memory."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, np.frombuffer(part, np.uint8))
    return value


def _pack(stored: Array, level: int) -> list[Bytes]:
    """A zstd frame; of raw blocks where a sample of float numbers gains too little to be worth the processor."""
    if stored.dtype.kind == "f" and stored.nbytes > 4 * _SAMPLE_BYTES:
        sample = stored.reshape(-1).view(np.uint8)[:_SAMPLE_BYTES]
        if len(zstd.compress(sample, level)) * _WORTH_COMPRESSING > _SAMPLE_BYTES:
            return _raw_frame(stored.data.cast("B"))
    return [zstd.compress(stored, level)]


def _raw_frame(data: memoryview) -> list[Bytes]:
    """A zstd frame that stores its content as it is (RFC 8878, 3.1.1: single segment, 4-byte content size)."""
    parts: list[Bytes] = [_MAGIC, b"\xa0", len(data).to_bytes(4, "little")]
    for start in range(0, len(data), _RAW_BLOCK):
        block = data[start : start + _RAW_BLOCK]
        is_last = start + _RAW_BLOCK >= len(data)
        parts += [(len(block) << 3 | is_last).to_bytes(3, "little"), block]
    return parts


def frame_content_bytes(frame: Bytes) -> int | None:
    """What a zstd frame says that it unpacks to (RFC 8878, 3.1.1.1); None when it does not say or is no frame."""
    head = bytes(frame[:18])
    if head[:4] != _MAGIC or len(head) < 9:
        return None
    descriptor = head[4]
    single = bool(descriptor & 0x20)
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if not size or len(head) < start + size:
        return None
    value = int.from_bytes(head[start : start + size], "little")
    return value + 256 if size == 2 else value


def bits(values: Array) -> Array:
    """The same memory as integers, so that NaN equals NaN of the same payload and -0 differs from 0."""
    return values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "f" else values


def check_array_metadata(name: str, metadata: Mapping[str, Any]) -> None:
    """Raise unless an array's zarr.json describes an array of format 1, of a size that can be meant."""

    def refuse(what: str) -> MetadataError:
        return MetadataError(f"zarr.json: array {name!r}: {what}; this is not what format 1 writes")

    try:
        shape = [_size(size) for size in metadata["shape"]]
        chunks = [_size(size) for size in metadata["chunk_grid"]["configuration"]["chunk_shape"]]
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


def _size(value: object) -> int:
    """A size, as it was; JSON knows others than whole numbers from 0."""
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError(f"{value!r} is no size")
    return value

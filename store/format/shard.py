"""A file of format 2: a shard of Zarr, made and taken apart by our own hand.

    chunk 0 | chunk 1 | ... | chunk n-1 | label | offset and size of each chunk, u64 pairs | CRC-32C of the pairs

That is what the codec `sharding_indexed` reads, with its index at the end: every chunk is there, one behind the other
from the first byte on, and only the label lies in bytes that the index does not name. All of it is demanded here, so
that a reader of the store refuses any file in which one bit differs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from store.errors import ChecksumError
from store.format.codec import CHECKSUM_BYTES, SMALLEST_CHUNK_BYTES, crc32c
from store.format.label import Label, decode_label, encode_label, label_bytes, name_crc
from store.system_calls import Bytes

_PAIR_BYTES = 16
_RESTORE = "restore the file from a copy, or cut the run back with `crucible check --repair`"


class Sink(Protocol):
    """What a file is written to; an open file is one. It takes all bytes that it is given."""

    def write(self, data: Bytes, /) -> object:
        """Append these bytes."""


class ShardWriter:
    """Writes one file, chunk after chunk; memory is that of the chunk at hand.

    Parameters
    ----------
    sink : Sink
        Where the bytes go, from the file's start on.
    name : str
        The file's path below the group, ``"<array>/<key>"``.
    writer, last : int
        See `store.format.label.Label`.
    count : int
        Number of chunks.
    """

    def __init__(self, sink: Sink, *, name: str, writer: int, last: int, count: int) -> None:
        self._sink, self._name, self._count = sink, name, count
        self._writer, self._last = writer, last
        self._sizes: list[int] = []
        self._chunk_crcs: list[int] = []

    def add(self, parts: Sequence[Bytes]) -> None:
        """Write the next chunk: encoded bytes, in parts, that end with their CRC-32C."""
        if len(self._sizes) == self._count:
            raise ValueError(f"{self._name}: more than {self._count} chunks")
        for part in parts:
            self._sink.write(part)
        self._sizes.append(sum(memoryview(part).nbytes for part in parts))
        self._chunk_crcs.append(int.from_bytes(_end(parts), "little"))

    def finish(self) -> Label:
        """Write the label and the index behind the last chunk."""
        if len(self._sizes) != self._count:
            raise ValueError(f"{self._name}: {len(self._sizes)} of {self._count} chunks were written")
        label = Label(self._writer, self._last, name_crc(self._name), tuple(self._chunk_crcs))
        pairs = _pairs(self._sizes)
        self._sink.write(encode_label(label, pairs))
        self._sink.write(pairs + crc32c([pairs]).to_bytes(CHECKSUM_BYTES, "little"))
        return label


@dataclass(frozen=True, slots=True)
class Tail:
    """What stands behind the chunks of a file.

    Parameters
    ----------
    label : Label
        What the file says that it holds.
    bounds : tuple of int
        Where each chunk begins, and last where the last one ends; bytes from the file's start.
    """

    label: Label
    bounds: tuple[int, ...]


def tail_bytes(count: int) -> int:
    """Length of label and index of a file of `count` chunks."""
    return label_bytes(count) + _PAIR_BYTES * count + CHECKSUM_BYTES


def parse_tail(data: Bytes, file_bytes: int, count: int, most_bytes: int, where: object) -> Tail:
    """Take a file's last `tail_bytes(count)` bytes apart and check all that can be checked without the chunks.

    Parameters
    ----------
    file_bytes : int
        Length of the whole file.
    most_bytes : int
        No chunk is longer than this.
    where : object
        Names the file in messages.

    Raises
    ------
    ChecksumError
        The bytes are not what was written, or name chunks that cannot be.
    """
    view = memoryview(data)
    if len(view) != tail_bytes(count):
        raise ChecksumError(f"{where}: has {file_bytes} bytes, too few for the index of {count} chunks; {_RESTORE}")
    pairs = view[label_bytes(count) : -CHECKSUM_BYTES]
    if crc32c([pairs]) != int.from_bytes(view[-CHECKSUM_BYTES:], "little"):
        raise ChecksumError(f"{where}: the index does not match its checksum; {_RESTORE}")
    label = decode_label(view[: label_bytes(count)], pairs, where)
    return Tail(label, _bounds(pairs, file_bytes - len(view), most_bytes, where))


def read_tail(fd: int, file_bytes: int, count: int, most_bytes: int, where: object) -> Tail:
    """Label and index of an open file of this length and so many chunks; see `parse_tail`."""
    size = tail_bytes(count)
    return parse_tail(read_at(fd, size, max(0, file_bytes - size)), file_bytes, count, most_bytes, where)


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Bytes of an open file from `offset` on; fewer than `size` where the file ends before."""
    parts = []
    while size and (part := _pread(fd, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _seek_and_read(fd: int, size: int, offset: int, /) -> bytes:
    """As os.pread, for a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


_pread = getattr(os, "pread", _seek_and_read)  # Windows has none


def _end(parts: Sequence[Bytes]) -> bytes:
    """The last four bytes."""
    end = b""
    for part in reversed(parts):
        end = bytes(memoryview(part).cast("B")[-CHECKSUM_BYTES:]) + end
        if len(end) >= CHECKSUM_BYTES:
            break
    return end[-CHECKSUM_BYTES:]


def _pairs(sizes: Sequence[int]) -> bytes:
    """The index of chunks of these sizes that lie one behind the other."""
    pairs = np.zeros((len(sizes), 2), "<u8")
    pairs[:, 1] = sizes
    pairs[1:, 0] = np.cumsum(pairs[:-1, 1])
    return pairs.tobytes()


def _bounds(pairs: memoryview, end: int, most_bytes: int, where: object) -> tuple[int, ...]:
    """Where chunks begin and end. In Python's integers: a sum of two u64 may wrap around to a small number."""
    bounds = [0]
    for position, (offset, size) in enumerate(np.frombuffer(pairs, "<u8").reshape(-1, 2).tolist()):
        if offset != bounds[-1] or not SMALLEST_CHUNK_BYTES <= size <= most_bytes:
            raise ChecksumError(
                f"{where}: the index says that chunk {position} has {size} bytes from byte {offset} on; it must begin "
                f"at byte {bounds[-1]} and have {SMALLEST_CHUNK_BYTES} to {most_bytes} bytes; {_RESTORE}"
            )
        bounds.append(offset + size)
    if bounds[-1] != end:
        raise ChecksumError(f"{where}: the chunks end at byte {bounds[-1]}, the label begins at byte {end}; {_RESTORE}")
    return tuple(bounds)

"""The label of a file: who wrote it, up to which step, and which chunks belong to it.

A file of format 2 holds the chunks of one block of steps. Between the chunks and the index lies the label, in bytes
that no entry of the index names, so that other readers of Zarr skip it. Little-endian:

    writer                                       u64
    step label of the file's last row            i64   -1 for a static array, T for a final one
    CRC-32C of "<array>/<key>"                   u32
    CRC-32C of each chunk, less its last 4 bytes u32[n]
    CRC-32C of all this and of the index's pairs u32

A chunk and the index each end with a checksum of their own. Both checksums here leave that one out: the CRC of any
bytes followed by their own CRC is one constant, so it would tell nothing of the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from store.errors import ChecksumError
from store.format.codec import CHECKSUM_BYTES, crc32c
from store.system_calls import Bytes

STATIC = -1
"""`last` of an array without a step axis that is known from the start."""
_HEAD = struct.Struct("<QqI")


@dataclass(frozen=True, slots=True)
class Label:
    """What a file says that it holds.

    Parameters
    ----------
    writer : int
        The 64 random bits of the writer that wrote the file.
    last : int
        Step label of its last row; -1 for a static array, the last step of the run for a final one.
    name_crc : int
        CRC-32C of the file's name, see `name_crc`.
    chunk_crcs : tuple of int
        The checksum that each chunk ends with.
    """

    writer: int
    last: int
    name_crc: int
    chunk_crcs: tuple[int, ...]


def name_crc(name: str) -> int:
    """CRC-32C of a file's path below the group, ``"<array>/<key>"``."""
    return crc32c([name.encode()])


def label_bytes(count: int) -> int:
    """Length of the label of a file of `count` chunks."""
    return _HEAD.size + CHECKSUM_BYTES * (count + 1)


def encode_label(label: Label, pairs: Bytes) -> bytes:
    """The label's bytes, bound to the index of the file.

    Parameters
    ----------
    pairs : bytes
        The index without its checksum: offset and size of each chunk, as in the file.
    """
    head = _HEAD.pack(label.writer, label.last, label.name_crc)
    data = head + struct.pack(f"<{len(label.chunk_crcs)}I", *label.chunk_crcs)
    return data + crc32c([data, pairs]).to_bytes(CHECKSUM_BYTES, "little")


def decode_label(data: Bytes, pairs: Bytes, where: object) -> Label:
    """The label that these bytes are.

    Raises
    ------
    ChecksumError
        They are no label, or that of another index.
    """
    view = memoryview(data)
    body = view[:-CHECKSUM_BYTES]
    if crc32c([body, pairs]) != int.from_bytes(view[-CHECKSUM_BYTES:], "little"):
        raise ChecksumError(
            f"{where}: the label does not match its checksum; the file is damaged, or another program wrote it: "
            "restore it from a copy, or cut the run back with `crucible check --repair`"
        )
    count = (len(body) - _HEAD.size) // CHECKSUM_BYTES
    writer, last, crc = _HEAD.unpack_from(body)
    return Label(writer, last, crc, struct.unpack_from(f"<{count}I", body, _HEAD.size))

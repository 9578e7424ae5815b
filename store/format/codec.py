"""Numbers to compressed, checked bytes and back: the codecs of a chunk.

The bytes are those that zarr-python writes with the same codecs. They are made by hand, since a training process
should load neither zarr nor its codec pipeline. Whatever compresses, the last codec is `crc32c`: the last four bytes
of a chunk are the checksum of those before them. The label of a file holds that very number for each chunk
(`store.format.label`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

from store.system_calls import Bytes

Array = np.ndarray[Any, Any]
CHECKSUM_BYTES = 4
SMALLEST_CHUNK_BYTES = 13
"""A checksum behind the shortest frame of zstd; a buffer of blosc is longer."""
MOST_GROWTH_BYTES = 1 << 20
"""No codec makes a chunk longer than its numbers by as much as this."""
_LEVELS = {"zstd": range(1, 23), "blosc": range(1, 10)}
_ZSTD_MAGIC = (0xFD2FB528).to_bytes(4, "little")
_RAW_BLOCK = 128 << 10
_SAMPLE_BYTES = 64 << 10
_WORTH_COMPRESSING = 1.2
_BLOSC_HEAD = 16

# With several threads blosc puts its blocks in the order in which they are done, other bytes each time. zarr-python
# sets the same when it is imported.
blosc.use_threads = False


@dataclass(frozen=True, slots=True)
class Compression:
    """What makes a chunk's bytes fewer.

    Parameters
    ----------
    codec : {"zstd", "blosc"}
        `zstd` alone, or `blosc`: zstd of the numbers with their first bytes first, then their second bytes, and so
        on. Blosc is better for float numbers that all change at every step; zstd for all else.
    level : int
        Level of zstd; blosc goes up to 9.
    """

    codec: Literal["zstd", "blosc"] = "zstd"
    level: int = 1

    def __post_init__(self) -> None:
        if self.codec not in _LEVELS or type(self.level) is not int or self.level not in _LEVELS[self.codec]:
            raise ValueError(f"no compression {self.codec!r} of level {self.level!r}; zstd has 1 to 22, blosc 1 to 9")

    def to_metadata(self, itemsize: int) -> dict[str, Any]:
        """The codec as zarr.json has it, for numbers of `itemsize` bytes."""
        if self.codec == "zstd":
            return {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}
        return {
            "name": "blosc",
            "configuration": {
                "typesize": itemsize,
                "cname": "zstd",
                "clevel": self.level,
                "shuffle": "shuffle",
                "blocksize": 0,
            },
        }

    @classmethod
    def from_metadata(cls, codecs: Sequence[Mapping[str, Any]]) -> Compression:
        """The compression among the codecs of a chunk.

        Raises
        ------
        KeyError, TypeError, ValueError, StopIteration
            There is none.
        """
        codec = next(codec for codec in codecs if codec["name"] in _LEVELS)
        return cls(codec["name"], codec["configuration"]["level" if codec["name"] == "zstd" else "clevel"])


ZSTD = Compression()
BLOSC = Compression("blosc")


def chunk_codecs(dtype: np.dtype[Any], order: Sequence[int], compression: Compression) -> list[dict[str, Any]]:
    """All codecs of a chunk as zarr.json has them; `order` is that of the dimensions in memory, slowest first."""
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1 else {"name": "bytes"},
        compression.to_metadata(dtype.itemsize),
        {"name": "crc32c"},
    ]
    if list(order) != sorted(order):
        codecs.insert(0, {"name": "transpose", "configuration": {"order": list(order)}})
    return codecs


def crc32c(parts: Sequence[Bytes]) -> int:
    """Checksum of bytes in parts. google_crc32c takes no memoryview, but an array over the same memory."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, np.frombuffer(part, np.uint8))
    return value


def pack(stored: Array, compression: Compression) -> list[Bytes]:
    """Bytes of a chunk whose numbers lie in memory as they are stored; in parts, which may share its memory."""
    if compression.codec == "blosc":
        itemsize = stored.dtype.itemsize
        parts: list[Bytes] = [blosc.compress(stored, b"zstd", compression.level, blosc.SHUFFLE, 0, itemsize)]
    elif _hardly_compresses(stored, compression.level):
        parts = _raw_frame(stored.data.cast("B"))
    else:
        parts = [zstd.compress(stored, compression.level)]
    return [*parts, crc32c(parts).to_bytes(CHECKSUM_BYTES, "little")]


def unpack(data: Bytes, compression: Compression, out: Array) -> None:
    """Fill `out` (uint8, of a chunk's size) from a chunk's bytes, whose checksum was verified.

    Raises
    ------
    ValueError
        They claim to unpack to another size (found out before anything is unpacked), or don't unpack.
    """
    packed = memoryview(data)[:-CHECKSUM_BYTES]
    claimed = (blosc_content_bytes if compression.codec == "blosc" else frame_content_bytes)(packed)
    if claimed != out.nbytes:
        raise ValueError(f"claims to unpack to {claimed} bytes, not {out.nbytes}")
    try:
        (blosc if compression.codec == "blosc" else zstd).decompress(packed, out)
    except RuntimeError as error:
        raise ValueError(f"does not unpack: {error}") from error


def blosc_content_bytes(packed: Bytes) -> int | None:
    """What a blosc buffer says that it unpacks to; None when it says that it is itself longer or shorter than it is."""
    head = bytes(packed[:_BLOSC_HEAD])
    if len(head) < _BLOSC_HEAD or int.from_bytes(head[12:16], "little") != len(packed):
        return None
    return int.from_bytes(head[4:8], "little")


def frame_content_bytes(frame: Bytes) -> int | None:
    """What a zstd frame says that it unpacks to (RFC 8878, 3.1.1.1); None when it does not say or is no frame."""
    head = bytes(frame[:18])
    if head[:4] != _ZSTD_MAGIC or len(head) < SMALLEST_CHUNK_BYTES - CHECKSUM_BYTES:
        return None
    descriptor = head[4]
    single = bool(descriptor & 0x20)
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if not size or len(head) < start + size:
        return None
    value = int.from_bytes(head[start : start + size], "little")
    return value + 256 if size == 2 else value


def _hardly_compresses(stored: Array, level: int) -> bool:
    """Whether a sample of float numbers gains too little to be worth the processor."""
    if stored.dtype.kind != "f" or stored.nbytes <= 4 * _SAMPLE_BYTES:
        return False
    sample = stored.reshape(-1).view(np.uint8)[:_SAMPLE_BYTES]
    return len(zstd.compress(sample, level)) * _WORTH_COMPRESSING > _SAMPLE_BYTES


def _raw_frame(data: memoryview) -> list[Bytes]:
    """A zstd frame that stores its content as it is (RFC 8878, 3.1.1: single segment, 4-byte content size)."""
    parts: list[Bytes] = [_ZSTD_MAGIC, b"\xa0", len(data).to_bytes(4, "little")]
    for start in range(0, len(data), _RAW_BLOCK):
        block = data[start : start + _RAW_BLOCK]
        is_last = start + _RAW_BLOCK >= len(data)
        parts += [(len(block) << 3 | is_last).to_bytes(3, "little"), block]
    return parts

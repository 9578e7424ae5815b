"""NumPy's .npz archives, read in pieces: never a pickle, never a path, never a bomb.

A member is read from its beginning on, in pieces, as the import asks for its rows; nothing is unpacked to disk, and no
name of a member is ever used as a path.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.sources.source import LONGEST_TEXT, plain_word
from crucible.units import one_line
from store.errors import TensorFileError
from store.tensorfile.header import NAME_CAP, RANK_CAP, TensorSpec, code_of
from store.tensorfile.stamp import refuse_changed, stamp_of

Array = NDArray[Any]
MAGIC = b"PK\x03\x04"
NPY, NO_ARRAY = ".npy", "is no .npy array"
MOST_MEMBERS = 1_000
HEADER_CAP = 10_000
DIRECTORY_CAP = 1 << 20
LARGEST_RATIO, SMALL_BYTES = 200, 256 << 20
"""An archive above this many bytes may not unpack to more than so many times its own length."""
_PIECE = 1 << 20
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_NAME_LENGTHS, _LOCAL_HEADER = 26, 30
"""Where a member's own header names the lengths of what follows it, and how long it is without that."""
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(slots=True)
class _Member:
    """An array of the archive: where its values begin, and how far it was read."""

    info: zipfile.ZipInfo
    tensor: TensorSpec
    stored_dtype: np.dtype[Any]
    begin: int
    stream: IO[bytes] | _Unpacked | None = None
    at: int = 0


class _Unpacked:
    """A member that is not packed, read straight into its place; at its end its checksum is compared."""

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo) -> None:
        file.seek(info.header_offset + _NAME_LENGTHS)
        lengths = struct.unpack("<HH", file.read(4))
        self._file, self._info, self._crc = file, info, 0
        self._at, self._left = info.header_offset + _LOCAL_HEADER + sum(lengths), info.file_size

    def read(self, size: int) -> bytes:
        """The next bytes."""
        room = bytearray(size)
        return bytes(room[: self.readinto(memoryview(room))])

    def readinto(self, room: memoryview) -> int:
        """Fill the head of `room` with the next bytes; how many."""
        room = room[: self._left]
        self._file.seek(self._at)
        count: int = self._file.readinto(room)  # type: ignore[attr-defined] # of every file that is open for reading
        self._crc = zlib.crc32(room[:count], self._crc)
        self._at, self._left = self._at + count, self._left - count
        if not self._left and self._crc != self._info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._info.filename!r}")
        return count

    def close(self) -> None:
        """The archive's file stays open."""


class NpzFile:
    """A .npz archive; a `crucible.interchange.sources.source.Source`.

    Parameters
    ----------
    path : path-like
        The file.

    Raises
    ------
    TensorFileError
        It is broken or hostile, or holds no array.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise TensorFileError("not a regular file")
            self.file_bytes, self._stamp = status.st_size, stamp_of(status)
            _refuse_large_directory(self._file, self.file_bytes)
            self._zip = zipfile.ZipFile(self._file)
            self._members: dict[str, _Member] = {}
            self.others: dict[str, str] = {}
            self.ignored: dict[str, str] = {}
            self.doubts: tuple[str, ...] = ()
            self.words: dict[str, Any] = {}
            self._read_members()
        except BaseException as error:
            self._file.close()
            if isinstance(error, TensorFileError):
                raise TensorFileError(f"{self.path}: {error}") from None
            if isinstance(error, (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)):
                raise TensorFileError(f"{self.path}: not a .npz archive that can be read: {one_line(error)}") from None
            raise
        self.tensors: Mapping[str, TensorSpec] = {name: member.tensor for name, member in self._members.items()}
        text = repr([(i.filename, i.file_size, i.CRC) for i in self._zip.infolist()])
        self.header_sha256 = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    def _read_members(self) -> None:
        infos = self._zip.infolist()
        _refuse_hostile(infos, self.file_bytes)
        for info in infos:
            if not info.filename.endswith(NPY):
                self.others[info.filename] = NO_ARRAY
                continue
            name = info.filename.removesuffix(NPY)
            with self._zip.open(info) as stream:
                found = _read_header(stream, info, name)
                if isinstance(found, str):
                    self.others[name] = found
                elif found.tensor.shape:
                    self._members[name] = found
                else:
                    self._read_word(name, found, stream)

    def _read_word(self, name: str, member: _Member, stream: IO[bytes]) -> None:
        value = np.frombuffer(stream.read(member.stored_dtype.itemsize), member.stored_dtype)
        self.words[name[:NAME_CAP]] = plain_word(value[0])

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array along its slowest dimension, into the head of `out` if that is given."""
        member = self._members[name]
        tensor = member.tensor
        shape = (stop - start, *tensor.shape[1:])
        fits = out is not None and out.dtype == member.stored_dtype
        raw = out[: shape[0]] if out is not None and fits else np.empty(shape, member.stored_dtype)
        try:
            self._seek(member, member.begin + tensor.offset((start,)))
            self._fill(member, raw)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise TensorFileError(f"{self.path}: {name}[{start}:{stop}] is damaged: {one_line(error)}") from None
        return raw if member.stored_dtype == tensor.dtype else raw.astype(tensor.dtype)

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""
        return self.rows(name, 0, self.tensors[name].shape[0])

    def _seek(self, member: _Member, offset: int) -> None:
        """Go to a byte of the unpacked member: forwards where it is, else from its beginning."""
        if member.stream is None or member.at > offset:
            if member.stream is not None:
                member.stream.close()
            member.stream, member.at = self._zip.open(member.info), 0
            if member.info.compress_type == zipfile.ZIP_STORED:
                member.stream.close()
                member.stream = _Unpacked(self._file, member.info)
        while member.at < offset:
            piece = member.stream.read(min(_PIECE, offset - member.at))
            if not piece:
                raise EOFError("it ends before its time")
            member.at += len(piece)

    def _fill(self, member: _Member, target: Array) -> None:
        room = memoryview(target.reshape(-1).view(np.uint8).data)
        stream = member.stream
        while room and stream is not None:
            count = stream.readinto(room[:_PIECE])  # type: ignore[union-attr] # a member of an archive has it too
            if not count:
                raise EOFError("it ends before its time")
            room, member.at = room[count:], member.at + count

    def refuse_changed(self) -> None:
        """Raise where the file was written to since it was opened."""
        refuse_changed(self.path, self._stamp, os.fstat(self._file.fileno()))

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()


def _refuse_hostile(infos: list[zipfile.ZipInfo], file_bytes: int) -> None:
    """Refuse paths, encryption, members twice or one inside the other, and what unpacks to too much."""
    if len(infos) > MOST_MEMBERS:
        raise TensorFileError(f"{len(infos)} members, more than {MOST_MEMBERS}")
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise TensorFileError("two members have one name")
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        shown = repr(info.filename[:80])
        parts = info.filename.removesuffix(NPY).split("/")
        if not 0 < len(info.filename) <= NAME_CAP or any(p in ("", ".", "..") or set(p) & set("\\:\0") for p in parts):
            raise TensorFileError(f"the member {shown} is a path, and not a name for an array")
        if info.flag_bits & 1:
            raise TensorFileError(f"the member {shown} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise TensorFileError(f"the member {shown} is packed by method {info.compress_type}; known is deflate")
        if info.header_offset < end:
            raise TensorFileError(f"the member {shown} lies within another")
        end = info.header_offset + 30 + info.compress_size
    unpacked = sum(info.file_size for info in infos)
    if end > file_bytes:
        raise TensorFileError("the archive was cut short")
    if unpacked > max(SMALL_BYTES, LARGEST_RATIO * file_bytes):
        raise TensorFileError(
            f"{file_bytes:,} bytes that unpack to {unpacked:,}, more than {LARGEST_RATIO} times as many; save the "
            "arrays anew with numpy.savez, without compression, if that is right"
        )


def _refuse_large_directory(file: IO[bytes], file_bytes: int) -> None:
    """Refuse a list of members that would take much memory to read."""
    start = max(0, file_bytes - (1 << 16) - 22)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise TensorFileError("a zip archive without an end: it was cut short")
    size = struct.unpack_from("<I", tail, at + 12)[0]
    locator = tail[max(0, at - 20) : at]
    if locator.startswith(_LOCATOR64):
        file.seek(struct.unpack_from("<Q", locator, 8)[0])
        end64 = file.read(56)
        if not end64.startswith(_END64) or len(end64) < 56:
            raise TensorFileError("a zip archive whose end is damaged")
        size = struct.unpack_from("<Q", end64, 40)[0]
    if size > DIRECTORY_CAP:
        raise TensorFileError(f"a list of members of {size:,} bytes, above the limit of {DIRECTORY_CAP:,}")
    file.seek(0)


def _read_header(stream: IO[bytes], info: zipfile.ZipInfo, name: str) -> _Member | str:
    """The array that a member begins with, or why it cannot be read."""
    head = io.BytesIO(stream.read(12))
    version = np.lib.format.read_magic(head)
    if version not in _READ_HEADER:
        return f"is of version {version} of the .npy format"
    lengths = {(1, 0): "<H", (2, 0): "<I"}
    count = struct.unpack_from(lengths[version], head.getvalue(), 8)[0]
    begin = 8 + struct.calcsize(lengths[version]) + count
    if count > HEADER_CAP:
        raise TensorFileError(f"{name} has a header of {count} bytes, above the limit of {HEADER_CAP}")
    rest = io.BytesIO(head.getvalue()[8:] + stream.read(begin - 12))
    shape, is_fortran, dtype = _READ_HEADER[version](rest)
    if dtype.hasobject:
        raise TensorFileError(f"{name} holds pickled Python objects, which are never read")
    if not shape and dtype.kind == "U" and dtype.itemsize <= LONGEST_TEXT:
        return _Member(info, TensorSpec(name, "U8", ()), dtype, begin)
    if dtype.kind not in "biuf" or len(shape) > RANK_CAP:
        return f"is {dtype} of rank {len(shape)}, not an array of numbers"
    if is_fortran and len(shape) > 1:
        return "lies in Fortran order; save numpy.ascontiguousarray(...) of it"
    try:
        code = code_of(dtype)
    except StopIteration:
        return f"is {dtype}, which is not taken"
    tensor = TensorSpec(name, code, tuple(int(size) for size in shape))
    if min(shape, default=0) < 0 or info.file_size != begin + tensor.nbytes:
        raise TensorFileError(f"{name} has shape {shape} of {dtype}, but {info.file_size:,} bytes in the archive")
    return _Member(info, tensor, dtype, begin)

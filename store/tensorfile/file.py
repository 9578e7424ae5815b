"""Named arrays to and from safetensors files, in a stream: nothing is believed before it is checked, nothing is whole.

bfloat16 arrays go in and out as uint16 bit patterns, which is what NumPy can hold without changing a bit. What a
header may say stands in `store.tensorfile.header`.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from store.disk import LOCAL, LocalDisk, free_bytes
from store.errors import BudgetError, TensorFileError
from store.placed_file import PlacedFile, check_target
from store.tensorfile.header import HEADER_CAP, TensorSpec, encode_header, lay_out, parse_header, parse_metadata
from store.tensorfile.stamp import refuse_changed, stamp_of

_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (torch.save and numpy.savez make those)",
    b"\x80\x02": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
}


class TensorFile:
    """A safetensors file, open for reading in pieces.

    The header is read and checked when the file is opened, in at most 10 MB; arrays are read row by row, with
    ``os.preadv``, into memory that the caller may bring. Nothing is mapped, so a file of any size costs what is asked.

    Parameters
    ----------
    path : path-like
        The file.

    Attributes
    ----------
    tensors : mapping of str to TensorSpec
        The arrays, in the order of the file.
    metadata : mapping of str to str
        What the header says under ``__metadata__``.
    stamp : (int, int)
        Length and time of the last write when it was opened, see `stamp_of`.

    Raises
    ------
    TensorFileError
        If the header or the file's length is not what the format demands.
    OSError
        If the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = LOCAL.open_plain(self.path, follow=True)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise TensorFileError(f"{self.path}: not a regular file") from None
            raise
        try:
            self.metadata: Mapping[str, str] = {}
            self.header_sha256, self.tensors, self._data_at, self.file_bytes = self._read_header()
        except TensorFileError as error:
            self.close()
            raise TensorFileError(f"{self.path}: {error}") from None
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> tuple[str, Mapping[str, TensorSpec], int, int]:
        status = os.fstat(self._file)
        self.stamp = stamp_of(status)
        start = os.pread(self._file, 8, 0)
        header_bytes = int.from_bytes(start, "little")
        if len(start) < len("8 bytes.") or not 0 < header_bytes <= status.st_size - 8:
            other = next((what for magic, what in _OTHER_FORMATS.items() if start.startswith(magic)), "")
            if other:
                raise TensorFileError(f"this is {other}, not a safetensors file; pickles and archives are never read")
            raise TensorFileError(f"a header of {header_bytes} bytes does not fit a file of {status.st_size} bytes")
        if header_bytes > HEADER_CAP:
            raise TensorFileError(f"a header of {header_bytes} bytes is above the limit of {HEADER_CAP}")
        text = os.pread(self._file, header_bytes, 8)
        tensors = parse_header(text, status.st_size - 8 - header_bytes)
        self.metadata = parse_metadata(text)
        return hashlib.sha256(text).hexdigest(), tensors, 8 + header_bytes, status.st_size

    def refuse_changed(self) -> None:
        """Raise where the file was written to since it was opened; not where another one has taken its name.

        Raises
        ------
        TensorFileError
        """
        refuse_changed(self.path, self.stamp, os.fstat(self._file))

    def rows(self, name: str, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Rows ``[start, stop)`` of an array along its slowest dimension, into the head of `out` if that is given."""
        tensor = self.tensors[name]
        if not 0 <= start <= stop <= tensor.shape[0]:
            raise IndexError(f"{self.path}: {name} has rows 0 to {tensor.shape[0]}, not [{start}, {stop})")
        shape = (stop - start, *tensor.shape[1:])
        rows = np.empty(shape, tensor.dtype) if out is None else out[: stop - start]
        if rows.shape != shape or rows.dtype != tensor.dtype or not rows.flags.c_contiguous:
            raise ValueError(f"{name}: rows {rows.dtype} {rows.shape} cannot take {tensor.dtype} {shape}")
        self._fill(tensor, tensor.offset((start,)), rows)
        return rows

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole array; for the small ones."""
        tensor = self.tensors[name]
        whole = np.empty(tensor.shape, tensor.dtype)
        self._fill(tensor, 0, whole)
        return whole

    def _fill(self, tensor: TensorSpec, offset: int, target: npt.NDArray[Any]) -> None:
        room = memoryview(target.reshape(-1).view(np.uint8).data)
        at = self._data_at + tensor.begin + offset
        while room:
            count = os.preadv(self._file, [room], at)
            if not count:
                raise TensorFileError(
                    f"{self.path}: {tensor.name} ends at byte {at}; the file was cut while it was read"
                )
            room, at = room[count:], at + count
        if tensor.code == "BOOL" and target.size and target.view(np.uint8).max() > 1:
            raise TensorFileError(f"{self.path}: {tensor.name} is BOOL but holds bytes other than 0 and 1")

    def close(self) -> None:
        """Close the file; what was read stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TensorFileWriter:
    """A safetensors file being written: the header first, then rows at any place, from any thread.

    A context manager: it appears under its name, whole and durable, when the block ends well and every byte was put;
    otherwise nothing of it stays. The bytes are those that ``safetensors.torch.save_file`` would write.

    Parameters
    ----------
    path : path-like
        The file that appears.
    tensors : iterable of TensorSpec
        What it will hold, in any order.
    replace : bool
        Whether a file that is there already may be replaced.
    metadata : mapping of str to str, optional
        Texts about the arrays, for the header.
    disk : LocalDisk, optional
        Where it lies.

    Raises
    ------
    RunExistsError
        If something is there and `replace` is not set.
    BudgetError
        If the disk has too little room for the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: Iterable[TensorSpec],
        *,
        replace: bool = False,
        metadata: Mapping[str, str] | None = None,
        disk: LocalDisk | None = None,
    ) -> None:
        self.path, self._replace, self._disk = Path(path), replace, disk or LocalDisk()
        placed = lay_out(tensors)
        self.tensors = {tensor.name: tensor for tensor in placed}
        self._header = encode_header(placed, metadata)
        self._data_at = len(self._header)
        self.file_bytes = self._data_at + (placed[-1].end if placed else 0)
        self._lock, self._put_bytes = threading.Lock(), 0
        check_target(self.path, replace=replace)
        if (free := free_bytes(self.path.parent)) < self.file_bytes:
            raise BudgetError(f"{self.path}: the file takes {self.file_bytes:,} bytes, the disk has {free:,} free")

    def put(self, name: str, index: tuple[int, ...], values: npt.NDArray[Any]) -> None:
        """Put values, which are contiguous in the file, from the element with these leading indices on.

        Each byte of the file must be put once.
        """
        data = _bytes_of(values)
        self._file.write_at(self._claim(name, index, values.dtype, len(data)), data)

    def put_rows(self, name: str, index: tuple[int, ...], rows: npt.NDArray[Any]) -> None:
        """Put pieces of consecutive rows: ``rows[i]`` from the element ``(index[0] + i, *index[1:])`` on."""
        if rows.size:
            first = self._claim_rows(name, index, rows.shape, rows.dtype)
            stride = self.tensors[name].nbytes // self.tensors[name].shape[0]
            self._file.write_rows(first, stride, _bytes_of(rows), rows.nbytes // len(rows))

    def put_zeros(self, name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> None:
        """As `put_rows` of zeros, but leaves a hole in the file: it reads as zeros and takes neither time nor room."""
        if math.prod(shape):
            self._claim_rows(name, index, shape, self.tensors[name].dtype)

    def _claim_rows(self, name: str, index: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        piece = math.prod(shape[1:]) * dtype.itemsize
        self._claim(name, (index[0] + shape[0] - 1, *index[1:]), dtype, piece, (shape[0] - 1) * piece)
        return self._data_at + self.tensors[name].begin + self.tensors[name].offset(index)

    def _claim(self, name: str, index: tuple[int, ...], dtype: np.dtype[Any], length: int, more: int = 0) -> int:
        """The place of `length` bytes in the file, if they fit there; `more` bytes are put elsewhere with them."""
        tensor = self.tensors[name]
        if dtype != tensor.dtype:
            raise ValueError(f"{name}: {dtype} values cannot be put into {tensor.code}")
        if (offset := tensor.offset(index)) + length > tensor.nbytes:
            raise ValueError(f"{name}: {length} bytes from {index} on pass the end of {tensor.shape}")
        with self._lock:
            self._put_bytes += length + more
        return self._data_at + tensor.begin + offset

    def __enter__(self) -> Self:
        self._file = PlacedFile(self.path, self._disk, replace=self._replace)
        try:
            self._file.stretch(self.file_bytes)
            self._file.write_at(0, memoryview(self._header))
        except BaseException:
            self._file.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._put_bytes + self._data_at != self.file_bytes:
                    raise ValueError(f"{self.path}: {self._put_bytes} bytes were put, not those that the header names")
                self._file.publish()
        finally:
            self._file.discard()


def _bytes_of(values: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)

"""The lab's HDF5 files, read in pieces and believed as little as any other file.

An HDF5 file can point into other files (external links, external and virtual datasets) and can name filters that are
loaded as plugins. Only datasets that lie in the file itself, plain or packed with the filters that HDF5 brings, are
read; names are looked up in the root group and never followed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.notebook import FILE_ARRAYS, MOST_NAMES
from store.errors import TensorFileError
from store.tensorfile.header import RANK_CAP, TensorSpec, code_of

Array = NDArray[Any]
MAGIC = b"\x89HDF\r\n\x1a\n"
LARGEST_CHUNK_BYTES = 256 << 20
MOST_MEMBERS = 1_000
_FILTERS = ("deflate", "shuffle", "fletcher32", "szip", "lzf", "nbit", "scaleoffset")


class Hdf5File:
    """An HDF5 file whose root group holds the notebook's arrays; a `crucible.interchange.Source`.

    Parameters
    ----------
    path : path-like
        The file.
    lossy : bool
        Take a float16 W, rounded to bfloat16. What float16 could not hold was lost when the file was written.
    skip : collection of str
        Members that are not looked at.

    Raises
    ------
    TensorFileError
        The file is broken, points elsewhere, or holds W in a dtype that cannot hold bfloat16.
    ImportError
        h5py is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, lossy: bool = False, skip: Collection[str] = ()) -> None:
        self.path = Path(path)
        try:
            import h5py
        except ImportError:
            raise ImportError(
                f"{self.path} is an HDF5 file, and h5py is not installed: pip install 'crucible-trajectory[hdf5]'"
            ) from None
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TensorFileError(f"{self.path}: not a regular file")
        self.file_bytes, self.lossy = status.st_size, False
        try:
            # The file is never locked or changed, and its name is never searched for elsewhere.
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=32 << 20)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise TensorFileError(f"{self.path}: not an HDF5 file that can be read: {_one_line(error)}") from None
        try:
            self.skipped = [name for name in self._file if name in skip]
            self._datasets, self.others = self._find()
            self.tensors: Mapping[str, TensorSpec] = {n: self._tensor(n, lossy=lossy) for n in self._datasets}
            self.attributes = list(itertools.islice(self._file.attrs, MOST_NAMES))
        except BaseException as error:
            self.close()
            if isinstance(error, TensorFileError):
                raise TensorFileError(f"{self.path}: {error}") from None
            if isinstance(error, (OSError, RuntimeError, ValueError, KeyError, TypeError)):
                raise TensorFileError(f"{self.path}: damaged: {_one_line(error)}") from None
            raise
        text = repr([(t.name, t.code, t.shape) for t in self.tensors.values()])
        self.header_sha256 = hashlib.sha256(f"{text} {status.st_mtime_ns}".encode()).hexdigest()

    def _find(self) -> tuple[dict[str, Any], list[str]]:
        """The datasets that are understood, and the names of what is not."""
        import h5py

        if len(self._file) > MOST_MEMBERS:
            raise TensorFileError(f"{len(self._file)} members, more than {MOST_MEMBERS}")
        datasets, others = {}, []
        for name in self._file:
            if name in self.skipped:
                continue
            link = self._file.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise TensorFileError(f"{name[:80]!r} is a link ({type(link).__name__}), and links are not followed")
            if name in FILE_ARRAYS:
                datasets[name] = self._checked(name)
            else:
                others.append(name)
        return datasets, others

    def _checked(self, name: str) -> Any:  # noqa: ANN401 - h5py has no types
        import h5py

        data = self._file[name]
        if not isinstance(data, h5py.Dataset) or data.shape is None:
            raise TensorFileError(f"{name} is not an array")
        if data.dtype.kind not in "biuf" or len(data.shape) > RANK_CAP:
            raise TensorFileError(f"{name} is {data.dtype} of rank {len(data.shape)}, not an array of numbers")
        if data.external or data.is_virtual:
            raise TensorFileError(f"{name} lies in other files, which are not read")
        layout = data.id.get_create_plist()
        for i in range(layout.get_nfilters()):
            number = layout.get_filter(i)[0]
            if number not in _known_filters(h5py):
                raise TensorFileError(f"{name} is packed with filter {number}; known are {', '.join(_FILTERS)}")
        if data.chunks and np.prod(data.chunks, dtype=object) * data.dtype.itemsize > LARGEST_CHUNK_BYTES:
            raise TensorFileError(f"{name} has chunks {data.chunks}, above {LARGEST_CHUNK_BYTES} bytes")
        self._refuse_unwritten(name, data)
        return data

    def _refuse_unwritten(self, name: str, data: Any) -> None:  # noqa: ANN401 - h5py has no types
        """HDF5 answers zeros where nothing was ever written; a file that was cut short would look frozen."""
        if data.chunks:
            pairs = zip(data.shape, data.chunks, strict=True)
            expected = int(np.prod([-(-size // part) for size, part in pairs], dtype=object))
            if (found := data.id.get_num_chunks()) != expected:
                raise TensorFileError(f"{name} has {found} of its {expected} chunks; the rest was never written")
        elif not data.size * data.dtype.itemsize <= data.id.get_storage_size() <= self.file_bytes:
            raise TensorFileError(f"{name} has shape {data.shape}, but {data.id.get_storage_size()} bytes in the file")

    def _tensor(self, name: str, *, lossy: bool) -> TensorSpec:
        data = self._datasets[name]
        try:
            code = code_of(data.dtype)
        except StopIteration:
            raise TensorFileError(f"{name} is {data.dtype}, which is not taken") from None
        if name == "W" and code == "F16":
            if not lossy:
                raise TensorFileError(
                    "W is float16, which cannot hold bfloat16: small weights and mantissas were changed when the file "
                    "was written. Say --lossy to take it nevertheless, rounded to bfloat16"
                )
            self.lossy, code = True, "BF16"
        return TensorSpec(name, code, tuple(data.shape))

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array along its slowest dimension, into the head of `out` if that is given."""
        tensor, data = self.tensors[name], self._datasets[name]
        rows = np.empty((stop - start, *tensor.shape[1:]), tensor.dtype) if out is None else out[: stop - start]
        if not rows.size:
            return rows
        try:
            if name == "W" and self.lossy:
                rows[...] = to_bfloat16_bits(data[start:stop])
            else:
                data.read_direct(rows, np.s_[start:stop])
        except (OSError, RuntimeError) as error:
            raise TensorFileError(f"{self.path}: {name}[{start}:{stop}] is damaged: {_one_line(error)}") from None
        return rows

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""
        return self.rows(name, 0, self.tensors[name].shape[0]) if self.tensors[name].shape else self._datasets[name][()]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def to_bfloat16_bits(values: Array) -> NDArray[np.uint16]:
    """float16 numbers rounded to the nearest bfloat16, ties to even; NaN becomes the quiet NaN.

    Examples
    --------
    >>> [hex(b) for b in to_bfloat16_bits(np.array([1, -0.0, 1.001, np.inf, np.nan], np.float16))]
    ['0x3f80', '0x8000', '0x3f80', '0x7f80', '0x7fc0']
    """
    from analysis.lattice import float32_to_bits

    return float32_to_bits(values.astype(np.float32))


def _known_filters(h5py: Any) -> set[int]:  # noqa: ANN401 - a module
    numbers = {getattr(h5py.h5z, f"FILTER_{name.upper()}", None) for name in _FILTERS}
    return {number for number in numbers if number is not None}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

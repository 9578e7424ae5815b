"""The lab's HDF5 files, read in pieces and believed as little as any other file.

An HDF5 file can point into other files (external links, external and virtual datasets) and can name filters that are
loaded as plugins. Only datasets that lie in the file itself, plain or packed with the filters that HDF5 brings, are
read, in the root group and the groups in it; no link is ever followed. What an array declares of its numbers is looked
at in `crucible.interchange.sources.declared`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.file_table import CALLED, STEP_NAMES
from crucible.interchange.sources.declared import is_only_a_name, own_fill, refuse_filled, refuse_other_meaning
from crucible.interchange.sources.source import MOST_NUMBERS, MOST_WORDS, plain_word
from crucible.units import one_line
from store.errors import TensorFileError
from store.tensorfile.header import RANK_CAP, TensorSpec, code_of
from store.tensorfile.stamp import refuse_changed, stamp_of

Array = NDArray[Any]
MAGIC = b"\x89HDF\r\n\x1a\n"
LARGEST_CHUNK_BYTES = 256 << 20
MOST_MEMBERS = 1_000
DEEPEST = 4
LONGEST_TEXTS = 16 << 20
"""Texts are read of a file that has so many bytes beside its arrays at most: nothing else says how long they are."""
UNREADABLE_WORD = "is neither a number nor a text, nor a list of a few numbers"
_FILTERS = ("deflate", "shuffle", "fletcher32", "szip", "lzf", "nbit", "scaleoffset")


class Hdf5File:
    """An HDF5 file; a `crucible.interchange.sources.source.Source`. Arrays in groups are called ``group/name``.

    Parameters
    ----------
    path : path-like
        The file.
    skip : collection of str
        Members that are not looked at.

    Raises
    ------
    TensorFileError
        The file is broken, or points elsewhere.
    ImportError
        h5py is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, skip: Collection[str] = ()) -> None:
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
        self.file_bytes, self._stamp = status.st_size, stamp_of(status)
        try:
            # The file is never locked or changed, and its name is never searched for elsewhere.
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=32 << 20)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise TensorFileError(f"{self.path}: not an HDF5 file that can be read: {one_line(error)}") from None
        self._skip, self._members = frozenset(skip), 0
        self._datasets: dict[str, Any] = {}
        self.tensors: dict[str, TensorSpec] = {}
        self.others: dict[str, str] = {}
        self.ignored: dict[str, str] = {}
        self.doubts: tuple[str, ...] = ()
        self.words: dict[str, Any] = {}
        try:
            self._look_into(self._file, "", frozenset())
        except BaseException as error:
            self.close()
            if isinstance(error, TensorFileError):
                raise TensorFileError(f"{self.path}: {error}") from None
            if isinstance(error, (OSError, RuntimeError, ValueError, KeyError, TypeError)):
                raise TensorFileError(f"{self.path}: damaged: {one_line(error)}") from None
            raise
        text = repr([(t.name, t.code, t.shape) for t in self.tensors.values()])
        self.header_sha256 = hashlib.sha256(f"{text} {status.st_mtime_ns}".encode()).hexdigest()

    def _look_into(self, group: Any, prefix: str, above: frozenset[int]) -> None:  # noqa: ANN401 - h5py has no types
        """Take in what a group holds, and the groups in it, each once."""
        import h5py

        self._members += len(group)
        if self._members > MOST_MEMBERS:
            raise TensorFileError(f"{self._members} members, more than {MOST_MEMBERS}")
        address = h5py.h5o.get_info(group.id).addr
        for member in group:
            name = f"{prefix}{member}"
            if name in self._skip or member in self._skip:
                self.others[name] = "was not looked at"
                continue
            link = group.get(member, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise TensorFileError(f"{name[:80]!r} is a link ({type(link).__name__}), and links are not followed")
            inner = group[member]
            if isinstance(inner, h5py.Group) and len(inner):
                if address in above or prefix.count("/") >= DEEPEST:
                    raise TensorFileError(f"{name[:80]!r}: groups within groups, more than {DEEPEST} deep")
                self._look_into(inner, f"{name}/", above | {address})
            else:
                self._take(name, inner)
        self._take_attributes(group, prefix)

    def _take_attributes(self, group: Any, prefix: str) -> None:  # noqa: ANN401 - h5py has no types
        """The attributes of a group that are numbers or texts."""
        for name in itertools.islice(group.attrs, MOST_WORDS):
            try:
                held = group.attrs.get_id(name)
                word = plain_word(group.attrs[name]) if self._is_small(held.dtype, held.shape) else None
            except (OSError, RuntimeError, TypeError, ValueError, KeyError, UnicodeError):
                word = None
            if word is not None:
                self.words[f"{prefix}{name[:80]}"] = word
            else:
                self.ignored[f"attribute {prefix}{name[:80]}"] = UNREADABLE_WORD

    def _is_small(self, dtype: Any, shape: Any) -> bool:  # noqa: ANN401 - h5py has no types
        """Whether a value may be read whole: a few numbers, or a text that cannot be longer than a small file."""
        import h5py

        if shape is None or np.prod(shape, dtype=object) > MOST_NUMBERS:
            return False
        text = h5py.check_string_dtype(dtype)
        if text is None:
            return bool(dtype.kind in "biuf")
        arrays = sum(int(data.id.get_storage_size()) for data in self._datasets.values())
        return (self.file_bytes - arrays if text.length is None else text.length) <= LONGEST_TEXTS

    def _take(self, name: str, data: Any) -> None:  # noqa: ANN401 - h5py has no types
        """One array, or a single number or text; what is neither is named."""
        import h5py

        local = name.rpartition("/")[2]
        if isinstance(data, h5py.Dataset) and is_only_a_name(data):
            self.ignored[name] = "is the name of a dimension alone"
            return
        is_one = isinstance(data, h5py.Dataset) and data.shape == () and local not in STEP_NAMES
        if is_one and not data.external and not data.is_virtual and self._is_small(data.dtype, data.shape):
            word = plain_word(data[()])
            if word is not None:
                self.words[name[:80]] = word
                return
        try:
            self._datasets[name] = self._checked(name, data)
            self.tensors[name] = self._tensor(name)
        except TensorFileError as error:
            if local in CALLED:
                raise
            self._datasets.pop(name, None)
            self.others[name] = str(error).removeprefix(f"{name} ")

    def _checked(self, name: str, data: Any) -> Any:  # noqa: ANN401 - h5py has no types
        import h5py

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
        refuse_other_meaning(name, data)
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

    def _tensor(self, name: str) -> TensorSpec:
        data = self._datasets[name]
        try:
            return TensorSpec(name, code_of(data.dtype), tuple(data.shape))
        except StopIteration:
            raise TensorFileError(f"{name} is {data.dtype}, which is not taken") from None

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array along its slowest dimension, into the head of `out` if that is given."""
        tensor, data = self.tensors[name], self._datasets[name]
        rows = np.empty((stop - start, *tensor.shape[1:]), tensor.dtype) if out is None else out[: stop - start]
        if not rows.size:
            return rows
        try:
            data.read_direct(rows, np.s_[start:stop])
        except (OSError, RuntimeError) as error:
            raise TensorFileError(f"{self.path}: {name}[{start}:{stop}] is damaged: {one_line(error)}") from None
        refuse_filled(f"{self.path}: {name}", own_fill(data), rows, start)
        return rows

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""
        return self.rows(name, 0, self.tensors[name].shape[0]) if self.tensors[name].shape else self._datasets[name][()]

    def refuse_changed(self) -> None:
        """Raise where the file was written to since it was opened."""
        refuse_changed(self.path, self._stamp, os.fstat(self._file.id.get_vfd_handle()))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _known_filters(h5py: Any) -> set[int]:  # noqa: ANN401 - a module
    numbers = {getattr(h5py.h5z, f"FILTER_{name.upper()}", None) for name in _FILTERS}
    return {number for number in numbers if number is not None}

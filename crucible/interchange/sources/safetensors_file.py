"""A safetensors file as a source: its arrays, and what its ``__metadata__`` says."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from crucible.interchange.file_table import STEP_NAMES
from crucible.interchange.sources.source import MOST_WORDS, plain_word, read_texts
from store.tensorfile.file import TensorFile

Array = NDArray[Any]


class SafetensorsFile:
    """A `store.tensorfile.file.TensorFile` as a `crucible.interchange.sources.source.Source`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = TensorFile(path)
        self.path, self.file_bytes = self._file.path, self._file.file_bytes
        self.header_sha256 = self._file.header_sha256
        numbers = [t.name for t in self._file.tensors.values() if t.shape == () and t.name not in STEP_NAMES]
        self.words = read_texts(self._file.metadata)
        self.words |= {name: plain_word(self._file.read(name)) for name in numbers[:MOST_WORDS]}
        self.tensors = {name: tensor for name, tensor in self._file.tensors.items() if name not in numbers}
        self.others, self.ignored = dict[str, str](), dict[str, str]()
        self.doubts: tuple[str, ...] = ()

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array, into the head of `out` if that is given."""
        return self._file.rows(name, start, stop, out)

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""
        return self._file.read(name)

    def refuse_changed(self) -> None:
        """Raise where the file was written to since it was opened."""
        self._file.refuse_changed()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

"""What every kind of file offers once it is open and its header is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from store.tensorfile.header import TensorSpec

Array = NDArray[Any]
MOST_WORDS, MOST_NUMBERS, LONGEST_TEXT = 200, 32, 10_000
"""Hyper-parameters that are taken from a file, numbers in one of them, and characters."""


class Source(Protocol):
    """A file of named arrays, open for reading in pieces. Names may have groups in front, as in ``run_0/W``."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def file_bytes(self) -> int:
        """Its length."""

    @property
    def header_sha256(self) -> str:
        """By which an interrupted import knows it again."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Its arrays of numbers, as its header says."""

    @property
    def others(self) -> Mapping[str, str]:
        """What else is in it, and why it is no array of numbers that can be read."""

    @property
    def ignored(self) -> Mapping[str, str]:
        """What is left out unasked, and why: attributes that are no numbers, files that are no checkpoints."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may not be as it is taken, a sentence each."""

    @property
    def words(self) -> Mapping[str, Any]:
        """What it says in words: hyper-parameters, as JSON values."""

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array, into the head of `out` if that is given."""

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""

    def refuse_changed(self) -> None:
        """Raise a TensorFileError where it was written to since it was opened; one that is read again is looked at."""

    def close(self) -> None:
        """Close the file."""


def plain_word(value: Any) -> Any:  # noqa: ANN401 - whatever an attribute holds
    """A hyper-parameter as a JSON value: a number, a text, a list of a few numbers; None for anything else.

    Examples
    --------
    >>> plain_word(np.float64(0.5)), plain_word(b"adam"), plain_word(np.arange(3)), plain_word(object())
    (0.5, 'adam', [0, 1, 2], None)
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value[:LONGEST_TEXT]
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        return None
    if array.dtype.kind == "U" and not array.ndim:
        return str(array)[:LONGEST_TEXT]
    if array.dtype.kind not in "biuf" or array.size > MOST_NUMBERS:
        return None
    number = array.tolist()
    is_finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    return number if is_finite else None


def read_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    """Texts as safetensors has them in ``__metadata__``, with those that are numbers as numbers.

    Examples
    --------
    >>> read_texts({"lr": "1e-3", "optimizer": "adam", "layers": "2"})
    {'lr': 0.001, 'optimizer': 'adam', 'layers': 2}
    """
    return {name[:80]: _number_or_text(text) for name, text in list(texts.items())[:MOST_WORDS]}


def _number_or_text(text: str) -> Any:  # noqa: ANN401 - a number, or the text
    try:
        value = json.loads(text[:LONGEST_TEXT])
    except (ValueError, RecursionError):
        return text[:LONGEST_TEXT]
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return value if is_number else text[:LONGEST_TEXT]

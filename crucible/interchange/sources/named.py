"""A file's arrays under the store's names and in the dtypes that the store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.sources.source import Source
from store.errors import TensorFileError
from store.tensorfile.header import TensorSpec

Array = NDArray[Any]
KEPT_AS = {
    ("W", "I16"): "U16",
    ("W", "F64"): "F32",
    ("loss", "F16"): "F32",
    ("last_motion_step", "I64"): "I32",
    **{(name, "U16"): "BF16" for name in ("adam_m", "adam_v", "gradient")},
    **{(name, code): "I64" for name in ("dead_indices", "live_indices", "token")
       for code in ("I8", "U8", "I16", "U16", "I32", "U32", "U64")},
}  # fmt: skip
"""The dtype in which the store keeps an array of a file, where it is not the file's."""


class NamedArrays:
    """A source seen through the names of the table: ``tensors["W"]`` is the file's array of weights, whatever its name.

    Parameters
    ----------
    source : Source
        The open file.
    names : mapping of str to str
        The file's name of each array, by the store's.
    words : mapping
        The hyper-parameters that belong to these arrays.
    lossy : bool
        Round a float16 W to bfloat16, and a float64 one to float32.
    """

    def __init__(
        self, source: Source, names: Mapping[str, str], words: Mapping[str, Any], *, lossy: bool = False
    ) -> None:
        self._source, self._may_round = source, lossy
        self.path: Path = source.path
        self.file_bytes, self.header_sha256, self.words = source.file_bytes, source.header_sha256, dict(words)
        self.raw = {name: source.tensors[there] for name, there in names.items()}
        self.tensors: Mapping[str, TensorSpec] = {
            name: replace(tensor, code=self._kept_as(name, tensor.code)) for name, tensor in self.raw.items()
        }
        self.lossy = lossy and "W" in self.raw and self.raw["W"].code in ("F16", "F64")

    def _kept_as(self, name: str, code: str) -> str:
        if name == "W" and code == "F16" and self._may_round:
            return "BF16"
        return KEPT_AS.get((name, code), code)

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array; in `out`, if that is given and nothing is converted.

        Raises
        ------
        TensorFileError
            They are damaged, or no numbers of the dtype that is kept; or the file was written to since it was opened.
        """
        raw, kept = self.raw[name], self.tensors[name]
        values = self._source.rows(raw.name, start, stop, out if raw.dtype == kept.dtype else None)
        self._source.refuse_changed()
        return values if raw.dtype == kept.dtype else self._converted(name, values, start)

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""
        values = self._source.read(self.raw[name].name)
        self._source.refuse_changed()
        return self._converted(name, values, 0)

    def _converted(self, name: str, values: Array, start: int) -> Array:
        raw, kept = self.raw[name], self.tensors[name]
        if raw.dtype == kept.dtype:
            return values
        if (raw.code, kept.code) == ("I16", "U16"):
            return values.view(np.uint16)
        if (raw.code, kept.code) == ("F16", "BF16"):
            return to_bfloat16_bits(values)
        with np.errstate(over="ignore", invalid="ignore"):
            made: Array = values.astype(kept.dtype)
            back = made.astype(values.dtype)
        if not self._may_round and not np.array_equal(values, back, equal_nan=values.dtype.kind == "f"):
            self._refuse_rounding(raw, kept, values, back, start)
        return made

    def _refuse_rounding(self, raw: TensorSpec, kept: TensorSpec, values: Array, back: Array, start: int) -> None:
        at = np.unravel_index(int(np.argmax((values != back) & ~np.isnan(values))), values.shape)
        place = ", ".join(str(int(i)) for i in (start + at[0], *at[1:]))
        how = "; say --lossy to round it" if kept.code == "F32" else ""
        raise TensorFileError(
            f"{self.path}: {raw.name}[{place}] is {values[at].item()!r}, which no {kept.dtype} can hold{how}"
        )

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def to_bfloat16_bits(values: Array) -> NDArray[np.uint16]:
    """float16 numbers rounded to the nearest bfloat16, ties to even; NaN becomes the quiet NaN.

    Examples
    --------
    >>> [hex(b) for b in to_bfloat16_bits(np.array([1, -0.0, 1.001, np.inf, np.nan], np.float16))]
    ['0x3f80', '0x8000', '0x3f80', '0x7f80', '0x7fc0']
    """
    from analysis.lattice import float32_to_bits

    return float32_to_bits(values.astype(np.float32))

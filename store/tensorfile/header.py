"""The header of a safetensors file: what it must say, what is refused, where the arrays lie. No I/O.

A file is 8 bytes with the length of a header, the header (JSON: name, dtype, shape and place of each array) and the
arrays' bytes. `lay_out` puts arrays where ``safetensors.torch.save_file`` puts them, so that a file written here is
that one byte for byte: by dtype, then by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from store.errors import TensorFileError

HEADER_CAP = 256 * 1024
"""Bytes of header that are read at most: room for some 2,500 arrays, and little enough to parse in 10 MB."""
METADATA = "__metadata__"
"""The key of a header under which texts may stand."""
RANK_CAP = 8
NAME_CAP = 255
DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "BF16": "<u2", "F16": "<f2",
    "U16": "<u2", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
"""Dtype codes and their NumPy dtypes, in the order in which save_file lays them out."""
_RANK_OF_CODE = {code: rank for rank, code in enumerate(DTYPES)}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One array of a file.

    Parameters
    ----------
    name : str
        Its name: not empty, without path separators.
    code : str
        Its dtype as the format calls it, a key of `DTYPES`.
    shape : tuple of int
        Its shape, slowest first.
    begin : int
        Offset of its first byte behind the header.
    """

    name: str
    code: str
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of its elements; uint16 for BF16."""
        return np.dtype(DTYPES[self.code])

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.begin + self.nbytes

    def offset(self, index: tuple[int, ...]) -> int:
        """Offset, within the array, of the element whose leading indices are these."""
        strides = (math.prod(self.shape[axis + 1 :]) for axis in range(len(index)))
        return sum(i * stride for i, stride in zip(index, strides, strict=True)) * self.dtype.itemsize


def code_of(dtype: npt.DTypeLike, *, bits_of: str | None = None) -> str:
    """The format's code of a NumPy dtype; BF16 for integer bits of bfloat16.

    Examples
    --------
    >>> code_of("uint16"), code_of("uint16", bits_of="bfloat16")
    ('U16', 'BF16')
    """
    if bits_of == "bfloat16":
        return "BF16"
    wanted = np.dtype(dtype).newbyteorder("<")
    return next(code for code, name in DTYPES.items() if np.dtype(name) == wanted and code != "BF16")


def lay_out(tensors: Iterable[TensorSpec]) -> list[TensorSpec]:
    """The arrays in the order of ``save_file``, each at its place.

    Examples
    --------
    >>> [(t.name, t.begin) for t in lay_out([TensorSpec("W", "U16", (2, 3)), TensorSpec("c", "F32", (2,))])]
    [('c', 0), ('W', 8)]
    """
    placed, begin = [], 0
    for tensor in sorted(tensors, key=lambda tensor: (_RANK_OF_CODE[tensor.code], tensor.name)):
        _check_name(tensor.name)
        placed.append(replace(tensor, begin=begin))
        begin = placed[-1].end
    return placed


def encode_header(tensors: Iterable[TensorSpec], metadata: Mapping[str, str] | None = None) -> bytes:
    """The length and the header of a file with these arrays, padded to 8 bytes as ``save_file`` does; with texts about
    them, if there are any.
    """
    document: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    document |= {
        tensor.name: {"dtype": tensor.code, "shape": list(tensor.shape), "data_offsets": [tensor.begin, tensor.end]}
        for tensor in tensors
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def parse_header(text: bytes, data_bytes: int) -> dict[str, TensorSpec]:
    """The arrays that a header names, checked against each other and against the length of the data.

    Parameters
    ----------
    text : bytes
        The header without its length.
    data_bytes : int
        Bytes in the file behind the header.

    Returns
    -------
    dict of str to TensorSpec
        In the order of the file.

    Raises
    ------
    TensorFileError
        Anything but distinct names, known dtypes, small ranks and arrays that lie side by side, in the order in which
        they are named, from the first byte of the data to the last.
    """
    try:
        document = json.loads(text.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TensorFileError(f"the header is no JSON that this format allows: {str(error)[:120]}") from None
    if not isinstance(document, dict) or text[:1] != b"{":
        raise TensorFileError("the header is not a JSON object")
    metadata = document.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TensorFileError("__metadata__ is not an object of texts")
    tensors, end = {}, 0
    for name, entry in document.items():
        tensors[name] = tensor = _parse_entry(name, entry, end)
        end = tensor.end
    if end != data_bytes:
        what = "cut short" if end > data_bytes else "followed by bytes that no array owns"
        raise TensorFileError(f"the data is {what}: the header names {end} bytes, the file holds {data_bytes}")
    return tensors


def parse_metadata(text: bytes) -> dict[str, str]:
    """What a header that `parse_header` took says under ``__metadata__``.

    Examples
    --------
    >>> parse_metadata(b'{"__metadata__": {"seed": "42"}}')
    {'seed': '42'}
    """
    if METADATA.encode() not in text:
        return {}
    metadata: dict[str, str] = json.loads(text.decode()).get(METADATA, {})
    return metadata


def _parse_entry(name: str, entry: object, begin: int) -> TensorSpec:
    _check_name(name)
    shown = repr(name[:80])
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise TensorFileError(f"array {shown}: expected dtype, shape and data_offsets, and nothing else")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise TensorFileError(f"array {shown}: dtype {str(code)[:20]!r} is not one of {', '.join(DTYPES)}")
    if not _are_counts(shape) or len(shape) > RANK_CAP:
        raise TensorFileError(f"array {shown}: its shape is not a list of at most {RANK_CAP} counts below 2^63")
    if not _are_counts(offsets) or len(offsets) != len(("begin", "end")):
        raise TensorFileError(f"array {shown}: data_offsets is not a pair of counts below 2^63")
    tensor = TensorSpec(name, code, tuple(shape), begin)
    if tensor.nbytes >= 2**63:
        raise TensorFileError(f"array {shown}: shape {tensor.shape} has more elements than any file can hold")
    if offsets != [begin, tensor.end]:
        raise TensorFileError(
            f"array {shown}: {code} of shape {tensor.shape} must lie at bytes [{begin}, {tensor.end}), "
            f"right behind the one before, not at {offsets}"
        )
    return tensor


def _are_counts(numbers: object) -> bool:
    """Whether this is a list of non-negative integers; JSON's true and 1.0 are none."""
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _check_name(name: str) -> None:
    if not 0 < len(name) <= NAME_CAP or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise TensorFileError(f"{name[:80]!r} is not a name for an array: 1 to {NAME_CAP} characters, no path")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands in it twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

"""What the notebook's file looks like, and how its arrays belong to a run's. No I/O.

The file holds what a run holds, but for two habits that only this module knows: arrays of moves that are derived from
the states (delta_W_prime and its norms) begin with step 1, while `loss` keeps an empty row 0; and the token ids are
called dead_indices where they are the ids of dead tokens, else `token`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from store.errors import TensorFileError
from store.format.schema import Channel
from store.tensorfile.header import Tensor

Array = NDArray[Any]
DEAD_INDICES = "dead_indices"
TOKEN = "token"
_MASK = ("BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array that a file of the lab may hold.

    Parameters
    ----------
    dims : tuple of str
        Its dimensions; "move" is one shorter than "step".
    codes : tuple of str
        Dtypes that are taken.
    """

    dims: tuple[str, ...]
    codes: tuple[str, ...]


FILE_ARRAYS = {
    "W": FileArray(("step", "token", "hidden"), ("U16", "BF16")),
    "delta_W_prime": FileArray(("move", "token", "hidden"), ("F32",)),
    "displacement_l1": FileArray(("move", "token"), ("F32",)),
    "displacement_l2": FileArray(("move", "token"), ("F32",)),
    "displacement_linf": FileArray(("move", "token"), ("F32",)),
    "centroid": FileArray(("step", "hidden"), ("F32",)),
    "loss": FileArray(("step",), ("F32",)),
    "last_motion_step": FileArray(("token",), ("I32",)),
    "dead_mask": FileArray(("vocabulary",), _MASK),
    "live_mask": FileArray(("vocabulary",), _MASK),
    "token_occurrence_counts": FileArray(("vocabulary",), ("I64", "I32")),
    DEAD_INDICES: FileArray(("dead",), ("I64",)),
    "live_indices": FileArray(("live",), ("I64",)),
    TOKEN: FileArray(("token",), ("I64",)),
}
"""Every array that import understands. W must be there."""
MASKS = ("dead_mask", "live_mask")


class Source(Protocol):
    """A file of named arrays, open for reading in pieces; `store.tensorfile.file.TensorFile` is one."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What the header says."""

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows ``[start, stop)`` of an array."""

    def read(self, name: str) -> Array:
        """A whole array."""


def check_arrays(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], list[str]]:
    """The sizes of the dimensions of a file's arrays, and the names that are not understood.

    Raises
    ------
    TensorFileError
        W is missing, an array has another dtype or rank than the notebook's, or two disagree about a length.
    """
    if "W" not in tensors:
        raise TensorFileError(f"no array W; it holds {', '.join(list(tensors)[:20]) or 'nothing'}")
    sizes: dict[str, int] = {}
    for name, expected in FILE_ARRAYS.items():
        if name in tensors:
            _check_array(tensors[name], expected, sizes)
    if not sizes["step"] or not sizes["token"] or not sizes["hidden"]:
        raise TensorFileError(f"W has shape {tensors['W'].shape}: there is nothing in it")
    return sizes, [name for name in tensors if name not in FILE_ARRAYS]


def _check_array(tensor: Tensor, expected: FileArray, sizes: dict[str, int]) -> None:
    name, dims = tensor.name, expected.dims
    if tensor.code not in expected.codes:
        raise TensorFileError(f"{name} is {tensor.code}; expected {' or '.join(expected.codes)}")
    if len(tensor.shape) != len(dims):
        raise TensorFileError(f"{name} has shape {tensor.shape}; expected {len(dims)} dimensions, {', '.join(dims)}")
    for dim, size in zip(dims, tensor.shape, strict=True):
        known = sizes["step"] - 1 if dim == "move" else sizes.setdefault(dim, size)
        if size != known:
            raise TensorFileError(
                f"{name} has shape {tensor.shape}; expected {known} along its {dim} dimension, as the arrays before it"
            )


def read_mask(values: Array, name: str) -> NDArray[np.bool_]:
    """A mask of any integer dtype as bool; only 0 and 1 make sense."""
    if values.size and (values.min() < 0 or values.max() > 1):
        raise TensorFileError(f"{name} holds numbers other than 0 and 1")
    return values.astype(np.bool_)


def read_tokens(source: Source, sizes: Mapping[str, int]) -> NDArray[np.int64]:
    """The token id of each recorded row: as the file says, or as it must be.

    In this order: the array `token`; dead_indices, where they are as many as the rows; the ids that dead_mask marks,
    where those are as many; 0, 1, 2, ... where the rows are the whole vocabulary, or where nothing is said.
    """
    rows, names = sizes["token"], source.tensors
    mask = read_mask(source.read("dead_mask"), "dead_mask") if "dead_mask" in names else None
    indices = source.read(DEAD_INDICES) if DEAD_INDICES in names else None
    for name in (TOKEN, DEAD_INDICES):
        if name in names:
            _check_ids(source.read(name), name, sizes.get("vocabulary"))
    if mask is not None and indices is not None and not mask[indices].all():
        raise TensorFileError(f"{DEAD_INDICES} names {indices[~mask[indices]][0]}, which dead_mask does not mark")
    if TOKEN in names:
        return source.read(TOKEN)
    if indices is not None and len(indices) == rows:
        return indices
    if mask is not None and mask.sum() == rows:
        return np.flatnonzero(mask)
    if rows == sizes.get("vocabulary", rows) and (indices is None or "vocabulary" in sizes):
        return np.arange(rows, dtype=np.int64)
    marked = "" if mask is None else f", dead_mask marks {mask.sum()} of {mask.size}"
    named = "" if indices is None else f", {DEAD_INDICES} names {len(indices)}"
    raise TensorFileError(f"W has {rows} rows{marked}{named}: which tokens they are cannot be told")


def _check_ids(ids: Array, name: str, vocabulary: int | None) -> None:
    if ids.size and (ids[0] < 0 or (ids[1:] <= ids[:-1]).any()):
        raise TensorFileError(f"{name} is not a list of ids in ascending order")
    if ids.size and vocabulary is not None and ids[-1] >= vocabulary:
        raise TensorFileError(f"{name} names {ids[-1]}, but the masks have {vocabulary} ids")


def first_row(channel: Channel) -> int:
    """The row of a run's array with which the file's begins: derived moves leave out row 0, which is NaN."""
    return int(channel.role == "derived" and channel.belongs_to == "move")


def id_arrays(tokens: NDArray[np.int64], dead: Callable[[], Array] | None) -> dict[str, NDArray[np.int64]]:
    """The arrays of token ids that a file of these tokens holds.

    Parameters
    ----------
    tokens : array of int64
        Ids of the exported rows.
    dead : callable or None
        Reads the run's dead_mask, if it has one.

    Examples
    --------
    >>> mask = np.array([False, True, True])
    >>> list(id_arrays(np.array([1, 2]), lambda: mask)), list(id_arrays(np.array([0, 1]), lambda: mask))
    (['dead_indices'], ['dead_indices', 'token'])
    """
    if dead is None:
        return {TOKEN: tokens}
    mask = dead()
    if tokens.size and tokens.max() < mask.size and mask[tokens].all():
        return {DEAD_INDICES: tokens}
    return {DEAD_INDICES: np.flatnonzero(mask), TOKEN: tokens}

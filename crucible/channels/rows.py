"""Which rows are recorded: ids in any of the ways in which people have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]
Rows = str | slice | Iterable[int] | tuple[ArrayLike, ...] | ArrayLike | None
"""Ids in any of the ways one has them, see `choose`."""


def choose(rows: Rows, size: int, populations: Mapping[str, ArrayLike] | None = None) -> Ids:
    """Ids of the rows to record, ascending.

    Parameters
    ----------
    rows : "all" or None, the name of a population, a mask, a slice, or ids
        What to record. A mask is bool, (row,). Ids may be a list, a range, an array, a tensor, (n,) or (n, 1) as of
        ``nonzero()``, or the tuple of one array that ``np.where`` gives.
    size : int
        Rows of the parameter.
    populations : mapping of str to ids
        What the names mean.

    Raises
    ------
    ValueError
        An unknown name; a mask of another length; ids that are out of range, double, or none.

    Examples
    --------
    >>> choose(np.array([[True, False, True]])[0], 3), choose(slice(1, None), 3), choose(np.where(np.eye(3)[1]), 3)
    (array([0, 2]), array([1, 2]), array([1]))
    """
    if rows is None:
        rows = "all"
    if isinstance(rows, str):
        known = {"all": np.arange(size, dtype=np.int64), **(populations or {})}
        if rows not in known:
            raise ValueError(f"rows={rows!r} is no population: known are {', '.join(known)}; pass populations= or ids")
        rows = known[rows]
    given: NDArray[Any] = np.arange(size)[rows] if isinstance(rows, slice) else as_array(rows)
    if given.dtype.kind == "b":
        given = _marked(given, size)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not given.size:
        raise ValueError(f"rows must be a list of at least one id, not {given.dtype} of shape {given.shape}")
    ids = np.sort(given.astype(np.int64))
    if ids[0] < 0 or ids[-1] >= size:
        raise ValueError(f"rows hold ids from {ids[0]} to {ids[-1]}, but the parameter has rows 0 to {size - 1}")
    if (ids[1:] == ids[:-1]).any():
        raise ValueError(f"rows hold id {ids[:-1][ids[1:] == ids[:-1]][0]} twice")
    return ids


def some(ids: Ids) -> str:
    """The first of them, for a message."""
    return ", ".join(map(str, ids[:4])) + (", ..." if len(ids) > 4 else "")


def as_array(rows: Any) -> NDArray[Any]:  # noqa: ANN401 - whatever numpy can make an array of
    """A tensor, a range or a list as an array; out of the tuple of `where`, without the second axis of `nonzero()`."""
    if isinstance(rows, tuple) and len(rows) == 1 and getattr(rows[0], "ndim", 0) == 1:
        rows = rows[0]
    if not isinstance(rows, np.ndarray):
        rows = np.asarray(rows.tolist() if hasattr(rows, "tolist") else list(rows) if np.iterable(rows) else rows)
    array: NDArray[Any] = rows
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _marked(mask: NDArray[np.bool_], size: int) -> Ids:
    """The ids that a mask marks."""
    if mask.shape != (size,):
        raise ValueError(
            f"rows is a mask of shape {mask.shape}, but the parameter has {size} rows: give one bool for each"
        )
    return np.flatnonzero(mask).astype(np.int64)

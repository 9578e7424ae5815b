"""The mean of a state's rows with the bits of torch's, without loading torch where that can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import lattice

Array = NDArray[Any]
Floats = NDArray[np.float32]
COLUMNS_AT_ONCE = 64
"""Most columns that torch adds at once: four vectors of 16. Those beyond a multiple of it it sums in another order."""
_LEVELS, _LEAST_POWER = 4, 4


def mean_of_rows(weights: Array) -> Floats:
    """``weights.float().mean(dim=0)`` of torch on a CPU, bit for bit.

    Parameters
    ----------
    weights : array, shape (token, hidden)
        uint16 (bits of bfloat16), float32 or float16.

    Returns
    -------
    array of float32, shape (hidden,)

    Notes
    -----
    torch adds rows in steps of 2^p, adds the sums of so many steps, and so on, four levels up
    (aten/src/ATen/native/cpu/SumKernel.cpp). Where `hidden` is no multiple of 64, torch itself is asked, which takes
    200 MB to load.
    """
    if weights.shape[1] % COLUMNS_AT_ONCE:
        return _by_torch(weights)
    with np.errstate(invalid="ignore", over="ignore"):
        return _cascade(np.ascontiguousarray(lattice.as_float32(weights))) / np.float32(len(weights))


def _cascade(rows: Floats) -> Floats:
    """The sum of rows in torch's order."""
    step = 1 << max(_LEAST_POWER, (len(rows) - 1).bit_length() // _LEVELS)
    total = np.zeros(rows.shape[1], np.float32)
    left = []
    for level in range(_LEVELS):
        whole = len(rows) // step * step if level < _LEVELS - 1 else 0
        left.append(_in_order(rows[None, whole:])[0])
        rows = _in_order(rows[:whole].reshape(-1, step, rows.shape[1]))
    for each in left:
        total = total + each
    return total


def _in_order(groups: Floats) -> Floats:
    """Sums along the second axis, one after the other from 0 on: (group, row, column) to (group, column)."""
    sums: Floats = np.add.reduce(groups, axis=1, dtype=np.float32)
    return sums + np.float32(0)  # from 0 on, so that a sum is never -0


def _by_torch(weights: Array) -> Floats:
    import torch

    numbers = torch.from_numpy(np.ascontiguousarray(weights))
    floats = numbers.view(torch.bfloat16).float() if weights.dtype == np.uint16 else numbers.float()
    values: Floats = floats.mean(dim=0).numpy()
    return values

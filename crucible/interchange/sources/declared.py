"""What an HDF5 array declares of its numbers: the order of its dimensions, a scale they are packed with, a fill value.

NetCDF-4 files are HDF5 files, and programs that write them (xarray, netCDF4) keep these beside the numbers. Read
without them, the numbers would be other ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import TensorFileError

Array = NDArray[Any]
PACKED: Mapping[str, float] = {"scale_factor": 1, "add_offset": 0}
"""Attributes by which stored numbers are multiplied, and to which they are added; and what changes nothing."""
IN_ORDER: Mapping[str, int] = {
    "step": 0, "steps": 0, "time": 0, "token": 1, "tokens": 1, "vocabulary": 1, "vocab": 1, "hidden": 2,
}  # fmt: skip
"""Names of dimensions, and where each of them stands among others."""
_ONLY_A_NAME = b"This is a netCDF dimension but not a netCDF variable"
_FEW = 8
"""Fewer numbers than these may be the fill value by themselves."""


def is_only_a_name(data: Any) -> bool:  # noqa: ANN401 - h5py has no types
    """Whether a dataset is what NetCDF makes of a dimension without labels: a name, and numbers that nobody wrote."""
    name = data.attrs.get("NAME", b"")
    return bytes(name if isinstance(name, bytes) else str(name).encode()).startswith(_ONLY_A_NAME)


def refuse_other_meaning(name: str, data: Any) -> None:  # noqa: ANN401 - h5py has no types
    """Raise where the numbers of a dataset are not what they look like when they are read as they lie.

    Raises
    ------
    TensorFileError
        They are packed, or its dimensions bear names in another order than step, token, hidden.
    """
    for attribute, without in PACKED.items():
        if attribute in data.attrs and not np.all(np.asarray(data.attrs[attribute]) == without):
            raise TensorFileError(
                f"{name} is packed: its attribute {attribute} says that its numbers are others than those that are "
                "stored; write it anew as they are"
            )
    names = _dimensions(data)
    places = [IN_ORDER[each] for each in names if each in IN_ORDER]
    if places != sorted(places):
        raise TensorFileError(
            f"{name} has the dimensions {' x '.join(names)}, in this order; write it anew as step x token x hidden"
        )


def refuse_filled(name: str, fill: Any, rows: Array, start: int) -> None:  # noqa: ANN401 - a number
    """Raise where rows are nothing but the value that HDF5 answers for what was never written.

    Zeros are not looked for: they may be weights. NaN shows what it is.

    Parameters
    ----------
    fill : number or None
        The fill value; None where there is none of its own.
    rows : array, shape (row, ...)
        What was read; `start` is the number of the first row.

    Raises
    ------
    TensorFileError
    """
    if fill is None or math.prod(rows.shape[1:]) < _FEW or not len(rows):
        return
    unwritten = (rows == fill).reshape(len(rows), -1).all(axis=1)
    if unwritten.any():
        at = start + int(np.argmax(unwritten))
        raise TensorFileError(
            f"{name}[{at}] is {fill} throughout, the fill value of the array: it was never written; cut the array off "
            "before the first such row"
        )


def own_fill(data: Any) -> Any:  # noqa: ANN401 - h5py has no types
    """The fill value of a dataset, where it is a number other than 0 and NaN; else None."""
    try:
        fill = data.fillvalue
    except RuntimeError:  # of a type of its own
        return None
    return fill if np.ndim(fill) == 0 and np.isfinite(fill) and fill != 0 else None


def _dimensions(data: Any) -> list[str]:  # noqa: ANN401 - h5py has no types
    """The name of each dimension: its label, or that of the scale that is attached to it; "?" for none."""
    names = []
    for dimension in data.dims:
        label = dimension.label or next((str(scale.name or "") for scale in dimension.values()), "")
        names.append(label.rpartition("/")[2][:80] or "?")
    return names

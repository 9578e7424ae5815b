"""From a Dataset's arrays to torch tensors, bit for bit; and what torch's dtypes are called here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis import lattice
from crucible.units import a_or_an

if TYPE_CHECKING:
    import xarray as xr


def to_torch(array: xr.DataArray) -> torch.Tensor:
    """Load a DataArray as a tensor of the dtype that its numbers mean.

    Parameters
    ----------
    array : DataArray
        Any part of a trajectory. uint16 with the attribute ``bits_of: "bfloat16"`` becomes a bfloat16 tensor.

    Returns
    -------
    Tensor
        On the cpu, in memory of its own.

    Raises
    ------
    TypeError
        A whole Dataset, or something that is no DataArray.
    ValueError
        If it should hold bits, but xarray made other numbers of them: `where`, `reindex` and outer joins do.

    Examples
    --------
    >>> import xarray as xr
    >>> one = xr.DataArray(np.array([0x3F80], np.uint16), attrs={"bits_of": "bfloat16"})
    >>> to_torch(one)
    tensor([1.], dtype=torch.bfloat16)
    """
    if hasattr(array, "data_vars"):
        names = ", ".join(str(name) for name in array.data_vars)
        raise TypeError(f"to_torch takes one array, not a Dataset: call to_torch(ds.W); this one has {names}")
    if not hasattr(array, "attrs"):
        raise TypeError(f"to_torch takes an array of a Dataset, as ds.W, not {a_or_an(type(array).__name__)}")
    name = "the array" if array.name is None else str(array.name)
    lattice.refuse_lost_bits(name, array.dtype, array.attrs.get("bits_of"))
    tensor = torch.from_numpy(np.array(array.values, order="C"))
    return tensor.view(torch.bfloat16) if array.attrs.get("bits_of") == "bfloat16" else tensor


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as NumPy, the store and messages have it.

    Examples
    --------
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")

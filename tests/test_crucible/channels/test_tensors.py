"""Arrays as tensors: bits stay bits, and what is no longer bits is no tensor of weights."""

import numpy as np
import pytest
import torch
import xarray as xr

from analysis import simulate
from crucible import to_torch


def test_bits_become_the_bfloat16_numbers_that_they_are():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    tensor = to_torch(ds.W.sel(token=[1]))
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (7, 1, 4))
    assert tensor[0, 0].tolist() == [1.5] * 4


def test_bits_that_were_made_numbers_are_refused():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    for made in (ds.W.where(ds.token > 0), ds.W.astype(np.int64), ds.reindex(token=[0, 2]).W):
        with pytest.raises(ValueError, match=r"W: by its attribute bits_of .* instead of where"):
            to_torch(made)
    assert to_torch(ds.loss).dtype == torch.float32


def test_a_whole_dataset_is_told_to_give_one_array():
    ds = xr.Dataset({"W": ("step", np.zeros(2)), "loss": ("step", np.zeros(2))})
    with pytest.raises(TypeError, match=r"not a Dataset: call to_torch\(ds.W\); this one has W, loss"):
        to_torch(ds)
    with pytest.raises(TypeError, match="not a ndarray"):
        to_torch(np.zeros(2))

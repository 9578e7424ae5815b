"""A group of format 2 read by programs that know nothing of labels, bit for bit."""

import importlib.util
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from format2_cases import KINDS, same_bits, write_group


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others") / "trajectory.zarr"
    return folder, write_group(folder)


@pytest.mark.parametrize("name", KINDS)
def test_zarr_reads_it_equal(group, name):
    folder, arrays = group
    array = zarr.open_group(folder, mode="r")[name]
    assert same_bits(array[...], arrays[name])
    if array.ndim == 3:
        assert same_bits(np.ascontiguousarray(array[1:3, 2:9]), np.ascontiguousarray(arrays[name][1:3, 2:9]))


@pytest.mark.slow
def test_xarray_reads_it_equal(group):
    folder, arrays = group
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(folder)
    for name in KINDS:
        assert same_bits(ds[name].values, arrays[name]), name


@pytest.mark.skipif(not importlib.util.find_spec("tensorstore"), reason="needs tensorstore")
@pytest.mark.parametrize("name", KINDS)
def test_tensorstore_reads_it_equal(group, name):
    import tensorstore as ts

    folder, arrays = group
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder / name}/"}}
    array = ts.open(spec, read=True).result()
    assert same_bits(np.ascontiguousarray(array.read().result()), arrays[name])
    if array.ndim == 3:
        assert same_bits(np.ascontiguousarray(array[1:3, 2:9].read().result()),
                         np.ascontiguousarray(arrays[name][1:3, 2:9]))  # fmt: skip

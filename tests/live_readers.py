"""Readers of a run that grows: each opens and reads in a tight loop, and checks every row by its step.

``python -m live_readers LIBRARY RUN`` reads until the run is completed and prints how often it opened it.
"""

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import store_cases

from store.format.files import TRAJECTORY
from store.run.commit import read_commit

RECENT = 60
"""Rows at the end that each reading looks at: what is torn is torn there."""


@lru_cache(maxsize=2)
def wanted_rows(steps):
    return store_cases.expected(steps)


def assert_rows(rows_of, names):
    """All arrays have one length, and each of the last rows is that of its step."""
    arrays = {name: rows_of(name) for name in names}
    length = arrays[names[0]].shape[0]
    assert {array.shape[0] for array in arrays.values()} == {length}
    wanted = wanted_rows(-(-length // 500) * 500)
    for name, array in arrays.items():
        rows = np.asarray(array[max(0, length - RECENT) :])
        assert np.array_equal(rows, wanted[name][:length][-RECENT:], equal_nan=rows.dtype.kind == "f"), name
    return length


def ours(run):
    import store

    ds = store.open_trajectory(run)
    assert ds.sizes["step"] == ds.attrs["committed_steps"] + 1
    return assert_rows(lambda name: ds[name], ["step", "W", "jump", "size", "centroid", "loss"])


def xarray(run):
    import xarray as xr

    ds = xr.open_zarr(run / TRAJECTORY)
    return assert_rows(lambda name: ds[name], ["step", "jump", "W", "loss"])


def zarr(run):
    import zarr as z

    group = z.open_group(run / TRAJECTORY, mode="r")
    assert group["W"].shape[0] == group.attrs["committed_steps"] + 1
    return assert_rows(lambda name: group[name], ["loss", "W", "size", "step"])


def dask(run):
    """One array by itself, by its own metadata: it may be behind, never ahead."""
    import dask.array as da

    return assert_rows(lambda name: da.from_zarr(str(run / TRAJECTORY), component=name), ["W"])


LIBRARIES = {"ours": ours, "xarray": xarray, "zarr": zarr, "dask": dask}


def loop(library, run, wait_for=None, said=()):
    """Open and read until the run is completed; how often, and how many lengths were seen.

    Where the run is seen at a step of `said`, a file ``<run>.<step>.<library>`` says so.
    """
    run, lengths, opened, completed = Path(run), set(), 0, False
    while not completed:
        if wait_for is not None and wait_for() is not None:
            raise RuntimeError("the writer ended before the run did")
        if not (run / TRAJECTORY).exists():
            continue
        completed = read_commit(run).completed
        length = LIBRARIES[library](run)
        assert length >= max(lengths, default=0)
        if length - 1 in said and length not in lengths:
            Path(f"{run}.{length - 1}.{library}").touch()
        lengths.add(length)
        opened += 1
    return opened, len(lengths)


if __name__ == "__main__":
    store_cases.patch_blocks()
    print(*loop(sys.argv[1], sys.argv[2], said=set(map(int, sys.argv[3:]))))

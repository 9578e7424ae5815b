"""Which other programs find the last state in what was written: ``python -m peers.elsewhere OUT STATES``."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np


def xarray_zarr(out):
    import xarray

    return xarray.open_zarr(_group(out)).W.data


def zarr(out):
    import zarr

    return zarr.open_group(_group(out), mode="r")["W"]


def tensorstore(out):
    import tensorstore as ts

    array = ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{_group(out)}/W"}}).result()
    return array.read().result()


def h5py(out):
    import h5py

    return h5py.File(out, "r")["W"]


def safetensors(out):
    from safetensors import safe_open

    return safe_open(out, "np").get_tensor("W")


TOOLS = (xarray_zarr, zarr, tensorstore, h5py, safetensors)


def _group(out):
    return next((path for path in (out / "trajectory.zarr",) if path.exists()), out)


def openers(out, states):
    """Names of the tools that give the last state, bit for bit."""
    found = []
    for tool in TOOLS:
        if importlib.util.find_spec(tool.__name__.partition("_")[0]) is None:
            continue
        try:
            if np.array_equal(np.asarray(tool(out)[len(states) - 1]), states[-1]):
                found.append(tool.__name__.partition("_")[0])
        except Exception:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(openers(Path(sys.argv[1]), np.load(sys.argv[2], mmap_mode="r"))))

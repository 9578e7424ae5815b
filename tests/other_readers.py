"""Programs for Zarr that know nothing of Crucible. Each reads an array by the group's consolidated metadata.

zarrs and zarrita are installed by `make slow`; where they are not, the tests skip and say so.
"""

import base64
import json
import shutil
import subprocess
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

ZARRITA = Path(__file__).parent / "zarrita"
MOST_PATIENCE_S = 60


class UnreadableError(Exception):
    """zarrita raised."""


def by_zarr(group, name, spans=...):
    return np.asarray(zarr.open_group(group, mode="r", use_consolidated=True)[name][spans])


def by_xarray(group, name, spans=...):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xarray.open_zarr(group, consolidated=True)[name][spans].values


def by_tensorstore(group, name, spans=...):
    """By the array's own metadata: TensorStore knows no groups. While a run goes on these are behind the commit."""
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{Path(group) / name}/"}}
    return np.ascontiguousarray(tensorstore.open(spec, read=True).result()[spans].read().result())


def by_zarrs(group, name, spans=...):
    """`strict` raises where zarrs would leave the work to zarr-python."""
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}):
        return by_zarr(group, name, spans)


def by_zarrita(process, group, name, spans=...):
    """One line to node and one back."""
    selection = None if spans is ... else [[span.start, span.stop] for span in spans]
    process.stdin.write(json.dumps([str(group), name, selection]) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    if "error" in answer:
        raise UnreadableError(answer["error"])
    dtype = np.dtype(answer["dtype"])
    strides = [stride * dtype.itemsize for stride in answer["stride"]]
    return np.ndarray(answer["shape"], dtype, base64.b64decode(answer["data"]), strides=strides)


@contextmanager
def reader(library):
    """The function that reads with this library; skips the test where it is not installed."""
    if library == "zarrita":
        if shutil.which("node") is None or not (ZARRITA / "node_modules" / "zarrita").is_dir():
            pytest.skip("needs node and zarrita: cd tests/zarrita && npm ci")
        command = ["node", ZARRITA / "read.mjs"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield partial(by_zarrita, process)
            process.stdin.close()
            assert process.wait(MOST_PATIENCE_S) == 0
        return
    pytest.importorskip(library, reason=f"needs {library}: make slow installs it")
    yield READERS[library]


READERS = {
    "zarr": by_zarr,
    "xarray": by_xarray,
    "tensorstore": by_tensorstore,
    "zarrs": by_zarrs,
    "zarrita": by_zarrita,
}

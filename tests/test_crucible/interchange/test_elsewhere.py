"""A run opens elsewhere: every block of the page on reading without crucible, against the reference arrays."""

import os
import re
from pathlib import Path

import lab_files as lab
import numpy as np
import pytest

from crucible.interchange.importing.importer import import_run
from store.upkeep.compact import compact

PAGE = Path(__file__).parents[3] / "docs/how-to/read-without-crucible.md"
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
READERS = {"zarr": "zarr.open_group", "open_zarr": "xr.open_zarr", "open_dataset": "xr.open_dataset",
           "dask": "da.from_zarr", "tensorstore": "ts.open"}  # fmt: skip


@pytest.fixture(scope="module", params=["as written", "compacted"])
def reference(request, tmp_path_factory):
    """A folder with a run of several blocks and tiles, and what it holds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    arrays = lab.notebook(lab.weights(40, 9, 4), vocabulary=15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr("store.format.chunking.BLOCK_STEPS", 16)
        patch.setattr("store.format.chunking.CHUNK_BYTES", 16 * 4 * 4 * 2)
        import_run(lab.write(folder / "a", arrays), folder / "runs/crucible-1")
        if request.param == "compacted":
            compact(folder / "runs/crucible-1")
    return folder, arrays


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("reader", READERS)
def test_reads_the_same_numbers(reference, monkeypatch, reader):
    folder, arrays = reference
    monkeypatch.chdir(folder)
    names = {}
    exec(CODE[0], names)
    (block,) = [code for code in CODE if READERS[reader] in code]
    assert "crucible" not in re.sub(r'"[^"]*"', "", block)
    exec(block, names)
    assert np.asarray(names["W"]).tobytes() == arrays["W"].tobytes()
    assert np.asarray(names["delta_W_prime"])[1:].tobytes() == arrays["delta_W_prime"].tobytes()
    assert np.isnan(np.asarray(names["delta_W_prime"])[0]).all()
    assert np.asarray(names["loss"]).tobytes() == arrays["loss"].tobytes()
    assert names["weights"](names["W"]).tobytes() == lab.numbers(arrays["W"]).numpy().tobytes()

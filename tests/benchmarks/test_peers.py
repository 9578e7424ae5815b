"""Crucible beside other ways to write the same numbers: whole by `make bench`, tiny in every test run."""

from pathlib import Path

import pytest
from measuring import measure_python, real_run
from peers import measure, picture
from peers.run import ways

DOCS = Path(__file__).parents[2] / "docs"
WHOLE, TINY = measure.Size(steps=600, kills=20), measure.Size(steps=140, kills=1)


@pytest.mark.benchmark
def test_all_ways_beside_each_other(tmp_path):
    try:
        made = measure_python(
            "import sys, numpy, zarr; numpy.save(sys.argv[2], zarr.open_group(sys.argv[1], mode='r')['W'][:601])",
            real_run(), tmp_path / "W.npy",
        )  # fmt: skip
        source = "the first steps of the real run, 3,644 tokens x 64"
    except pytest.skip.Exception:
        made = measure.made_states(tmp_path / "W.npy")
        source = "a generated run of 512 tokens x 32"
    assert made
    states = tmp_path / "W.npy"
    rows = measure.measured(ways(), states, tmp_path, WHOLE)
    picture.draw(rows, DOCS / "pictures" / "peers.png")
    text = measure.page(rows, source, WHOLE)
    (DOCS / "reference" / "peers.md").write_text(text, encoding="utf-8")
    print(text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return measure.made_states(tmp_path_factory.mktemp("peers") / "W.npy", TINY.steps, tokens=9, hidden=4)


@pytest.mark.slow
def test_each_way_writes_and_reads_the_same_numbers(tiny, tmp_path):
    rows = measure.measured(ways(), tiny, tmp_path, TINY)
    assert "crucible" in rows
    assert all(row["last_motion"]["right"] for row in rows.values())
    assert rows["crucible"]["wrong"] == 0
    assert {"xarray", "zarr"} <= set(rows["crucible"]["opened_by"])
    picture.draw(rows, tmp_path / "peers.png")
    assert "| crucible | " in measure.page(rows, "a tiny run", TINY)

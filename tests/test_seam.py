"""The written format joins the pillars: docs/reference/format.md says what is written, and analysis reads that."""

import re
from pathlib import Path

import numpy as np
import pytest

import analysis
import crucible  # noqa: F401 - its guard
import store
from crucible.channels.table import NOTEBOOK, derive, finisher
from store.run.commit import read_commit

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "format.md").read_text()


def table(heading):
    """Cells of the rows of the table under a heading of the page."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (40, 7, 4)) * (rng.random((40, 7, 1)) < np.linspace(0.5, 0, 40)[:, None, None])
    return analysis.simulate.trajectory(cells)


@pytest.fixture(scope="module")
def run(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seam") / "run"
    writer = store.TrajectoryWriter.create(
        folder, channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=simulated.token.values, hidden=4,
        statics={"dead_mask": simulated.dead_mask.values}, attributes={"motion_threshold": 0.1, "beta1": 0.9},
    )  # fmt: skip
    for step in simulated.step.values:
        at = simulated.sel(step=step)
        loss = None if step == 0 else float(at.loss)
        writer.append(W=at.W.values, centroid=at.centroid.values, loss=loss)
    writer.checkpoint(int(simulated.step[-1]), {"state.json": b"{}"})
    writer.complete(lambda _: {})
    return folder


def test_arrays_are_those_of_the_page(run):
    ds = store.open_trajectory(run)
    rows = [row for row in table("Arrays") if len(row) == 4]
    assert len(rows) >= 9
    seen = set()
    for names, dims, dtype, _ in rows:
        listed = re.findall(r"`(\w+)`", names)
        for name in [listed[0], *(listed[0].replace("_l1", suffix) for suffix in listed[1:])]:
            assert list(ds[name].dims) == dims.split(", "), name
            assert ds[name].dtype == dtype, name
            seen.add(name)
    assert seen == set(ds.variables)


def test_attributes_are_those_of_the_page(run):
    commit = read_commit(run)
    words = set(re.findall(r"`(\w+)`", PAGE))
    for name, metadata in commit.arrays.items():
        assert set(metadata["attributes"]) <= words, name
    group = {name for row in table("The commit") for name in re.findall(r"`(\w+)`", row[0])}
    assert {"format", "format_version", "committed_steps", "completed", "generation", "checkpoint"} <= group
    written = set((run / "trajectory.zarr" / "zarr.json").read_text().split('"consolidated')[0].split('"'))
    assert group - {"config", "provenance"} <= written


def test_files_are_those_of_the_page(run):
    paths = {re.match(r"`([\w.-]+)", row[0]).group(1) for row in table("A run is a folder")}
    assert {path.name for path in run.iterdir()} <= paths


@pytest.mark.parametrize("name", ["last_motion", "freeze_times", "fimbulwinter", "stillness", "lifecycle", "drift"])
def test_analysis_answers_the_same_on_what_was_written(run, simulated, name):
    ask = getattr(analysis, name)
    assert str(analysis.plain(ask(store.open_trajectory(run)))) == str(analysis.plain(ask(simulated)))


def test_what_is_derived_at_writing_is_what_analysis_derives(run):
    ds = store.open_trajectory(run)
    bare = ds[["W"]]
    for ask in (analysis.last_motion, analysis.census, analysis.lifecycle):
        assert str(analysis.plain(ask(ds))) == str(analysis.plain(ask(bare)))


def test_of_some_hidden_dimensions_of_what_was_written_the_moves_are_theirs(run):
    part = store.open_trajectory(run).isel(hidden=[2])
    for ask in (analysis.last_motion, analysis.census, analysis.stillness):
        assert str(analysis.plain(ask(part))) == str(analysis.plain(ask(part[["W"]])))

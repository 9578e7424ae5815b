"""Stores of every version of the format open for ever, and give the numbers that went in."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import analysis
import crucible
import store
from crucible.channels import table
from crucible.inspection.compare import compare
from store.errors import NewerFormatError, StaleHandleError, WriterError
from store.run.commit import read_commit
from store.run.document import digest
from store.upkeep.compact import compact

FORMATS = Path(__file__).parent / "formats"
spec = importlib.util.spec_from_file_location("make_v1", FORMATS / "make_v1.py")
make_v1 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_v1)


def test_version_1_opens_and_holds_what_went_in():
    ds = store.open_trajectory(FORMATS / "v1")
    states = make_v1.states()
    np.testing.assert_array_equal(ds.W.values, states)
    assert ds.attrs["committed_steps"] == make_v1.STEPS
    assert ds.attrs["completed"] is True
    assert ds.last_motion_step.values.tolist() == [-1, 25, 50, 75, 100, 125]
    assert ds.token.values.tolist() == [0, 2, 4, 6, 8, 10]
    np.testing.assert_array_equal(ds.loss.values[1:], np.float32(10 / np.arange(2, 152)))
    np.testing.assert_array_equal(ds.adam_m.values[:, 0, 0], ds.step_adam_m.values)
    assert analysis.last_motion(ds).last_motion.values.tolist() == [-1, 25, 50, 75, 100, 125]


def test_a_run_of_version_1_that_takes_the_place_of_another_is_not_read_as_that(tmp_path):
    """Its files do not say whose they are, and both are of one generation and length."""
    run = shutil.copytree(FORMATS / "v1", tmp_path / "run")
    before = store.open_trajectory(run)
    committed = run / "trajectory.zarr" / "zarr.json"
    commit = read_commit(run)
    other = replace(commit, sha256={**commit.sha256, "config.json": digest(b"another run's")})
    committed.with_suffix(".new").write_bytes(other.to_bytes())
    committed.with_suffix(".new").replace(committed)
    assert store.open_trajectory(run).W.data.name != before.W.data.name
    with pytest.raises(StaleHandleError, match="replaced"):
        before.W.values  # noqa: B018 - reading is the point


def test_version_1_is_whole():
    report = crucible.check(FORMATS / "v1")
    assert not report.damage
    assert not report.leftovers


@pytest.mark.parametrize("run", ["whole", "compacted"])
def test_version_2_opens_and_holds_what_went_in(run):
    ds = store.open_trajectory(FORMATS / "v2" / run)
    np.testing.assert_array_equal(ds.W.values, make_v1.states())
    assert ds.attrs["committed_steps"] == make_v1.STEPS
    assert ds.attrs["completed"] is True
    assert ds.last_motion_step.values.tolist() == [-1, 25, 50, 75, 100, 125]
    assert ds.token.values.tolist() == [0, 2, 4, 6, 8, 10]
    np.testing.assert_array_equal(ds.loss.values[1:], np.float32(10 / np.arange(2, 152)))
    np.testing.assert_array_equal(ds.adam_m.values[:, 0, 0], ds.step_adam_m.values)
    assert analysis.last_motion(ds).last_motion.values.tolist() == [-1, 25, 50, 75, 100, 125]


def test_an_unfinished_run_of_version_2_opens():
    ds = store.open_trajectory(FORMATS / "v2" / "open")
    np.testing.assert_array_equal(ds.W.values, make_v1.states()[:40])
    assert ds.attrs["completed"] is False


@pytest.mark.parametrize("run", ["whole", "compacted", "open"])
def test_version_2_is_whole(run):
    report = crucible.check(FORMATS / "v2" / run)
    assert not report.damage
    assert not report.leftovers


def test_version_1_is_exported_compared_and_compacted_as_before(tmp_path):
    run = shutil.copytree(FORMATS / "v1", tmp_path / "run")
    crucible.export_run(FORMATS / "v1", tmp_path / "a.safetensors")
    crucible.export_run(FORMATS / "v2" / "whole", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert compare(FORMATS / "v1", FORMATS / "v2" / "whole")["equal"]
    compact(run)
    np.testing.assert_array_equal(store.open_trajectory(run).W.values, make_v1.states())
    assert not crucible.check(run).damage


def test_version_1_does_not_go_on_until_it_is_upgraded(tmp_path):
    run = shutil.copytree(FORMATS / "v1", tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "LOCK"}
    options = {"derive": table.derive, "finish": table.finisher(0.1)}
    with pytest.raises(WriterError, match=f"format 1.*crucible upgrade {run}"):
        store.TrajectoryWriter.resume(run, **options)
    assert {path: path.read_bytes() for path in before} == before
    assert crucible.upgrade(run).was_of_version == 1
    with store.TrajectoryWriter.resume(run, **options) as writer:
        bits = make_v1.states()[-1]
        writer.append(W=bits, centroid=make_v1.centroid(bits), loss=0.0)
    assert store.open_trajectory(run).sizes["step"] == make_v1.STEPS + 2
    assert not crucible.check(run).damage


def test_a_later_version_is_refused_with_a_sentence(tmp_path):
    run = shutil.copytree(FORMATS / "v1", tmp_path / "run")
    path = run / "trajectory.zarr" / "zarr.json"
    text = path.read_text().replace('"format_version":1', '"format_version":3')
    own = json.loads(text)["attributes"]["sha256_of_this_file"]
    zeroed = text.replace(own, "0" * 64)
    path.write_text(zeroed.replace("0" * 64, digest(zeroed.encode())))
    with pytest.raises(NewerFormatError, match="format version 3; this Crucible reads up to 2"):
        store.open_trajectory(run)

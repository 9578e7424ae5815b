"""Stores of every version of the format open for ever, and give the numbers that went in."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import analysis
import crucible
import store
from store.errors import NewerFormatError
from store.format.commit import digest

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


def test_version_1_is_whole():
    report = crucible.check(FORMATS / "v1")
    assert not report.damage
    assert not report.leftovers


def test_a_later_version_is_refused_with_a_sentence(tmp_path):
    run = shutil.copytree(FORMATS / "v1", tmp_path / "run")
    path = run / "trajectory.zarr" / "zarr.json"
    text = path.read_text().replace('"format_version":1', '"format_version":3')
    own = json.loads(text)["attributes"]["sha256_of_this_file"]
    zeroed = text.replace(own, "0" * 64)
    path.write_text(zeroed.replace("0" * 64, digest(zeroed.encode())))
    with pytest.raises(NewerFormatError, match="format version 3; this Crucible reads up to 2"):
        store.open_trajectory(run)

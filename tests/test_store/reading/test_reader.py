import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import tiny_runs
from hypothesis import given, settings
from hypothesis import strategies as st

import store
from store.errors import DamageError, MissingError, NotATrajectoryError
from store.format import chunking
from store.reading.lazy import CommittedArray
from store.run.array import StoredArray


@pytest.fixture(scope="module")
def states():
    return tiny_runs.weights(30, tokens=7)


@pytest.fixture(scope="module")
def run(states, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "BLOCK_STEPS", 8)
        patch.setattr(chunking, "CHUNK_BYTES", 8 * 3 * 3 * 2)
        return tiny_runs.record(tmp_path_factory.mktemp("reader") / "run", states)


@st.composite
def slices(draw, size):
    if draw(st.booleans()):
        return draw(st.integers(0, size - 1))
    return slice(draw(st.none() | st.integers(-size, size)), draw(st.none() | st.integers(-size, size)),
                 draw(st.none() | st.integers(1, 5)))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_slice_is_numpys(run, states, data):
    key = tuple(data.draw(slices(size)) for size in states.shape)
    ds = store.open_trajectory(run)
    np.testing.assert_array_equal(ds.W.data[key].compute(scheduler="synchronous"), states[key])
    lazy = next(task for task in ds.W.data.dask.values() if isinstance(task, CommittedArray))
    np.testing.assert_array_equal(lazy[key], states[key])


def test_nothing_is_read_at_open(run, monkeypatch):
    touched = []
    decode = StoredArray.decode
    monkeypatch.setattr(
        StoredArray, "decode", lambda self, *arguments: touched.append(self.name) or decode(self, *arguments)
    )
    ds = store.open_trajectory(run)
    ds.sel(step=slice(3, 9), token=[4, 6])["W"].mean("token")
    assert set(touched) == {"token"}
    ds.W.sel(step=4).load()
    assert touched.count("W") == 3
    assert "jump" not in touched


@pytest.mark.slow
def test_it_pickles_and_runs_on_every_scheduler(run, states):
    ds = pickle.loads(pickle.dumps(store.open_trajectory(run)))
    for scheduler in ("synchronous", "threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            np.testing.assert_array_equal(ds.W.sel(token=6).values, states[:, 3])


def test_two_openings_of_one_commit_share_their_work(run):
    one, two = store.open_trajectory(run), store.open_trajectory(run / "trajectory.zarr")
    assert one.W.data.name == two.W.data.name
    assert one.W.data.name != one.jump.data.name


def test_a_handle_opened_early_stays_valid_while_the_run_grows(tmp_path, states):
    with tiny_runs.create(tmp_path / "run", states) as writer:
        tiny_runs.fill(writer, states, stop=11)
        writer.commit()
        early = store.open_trajectory(tmp_path / "run")
        tiny_runs.fill(writer, states)
        writer.commit()
        np.testing.assert_array_equal(early.W.values, states[:11])
        np.testing.assert_array_equal(store.open_trajectory(tmp_path / "run").W.values, states)


def test_what_a_small_slice_keeps_in_memory_is_small(run):
    part = store.open_trajectory(run).W.isel(token=0, hidden=0).values
    assert part.base is None or part.base.nbytes < 200


@pytest.mark.slow
def test_a_missing_chunk_raises_when_it_is_touched(tmp_path, states):
    run = tiny_runs.record(tmp_path / "run", states)
    (run / "trajectory.zarr" / "jump" / "c.0.0.0").unlink()
    ds = store.open_trajectory(run)
    np.testing.assert_array_equal(ds.W.values, states)
    with pytest.raises(MissingError, match=r"run: jump\[step 0\.\.30\]"):
        ds.jump.values  # noqa: B018 - reading is the point
    with pytest.raises(DamageError):
        ds.jump.mean().compute(scheduler="processes")


def test_no_run_no_trajectory(tmp_path):
    for path in (tmp_path, tmp_path / "absent", __file__):
        with pytest.raises(NotATrajectoryError):
            store.open_trajectory(path)


def test_a_folder_of_runs_is_answered_with_the_run_in_it(tmp_path):
    tiny_runs.record(tmp_path / "first", tiny_runs.weights(3))
    with pytest.raises(NotATrajectoryError, match=rf"did you mean {tmp_path / 'first'}\?"):
        store.open_trajectory(tmp_path)
    tiny_runs.record(tmp_path / "second", tiny_runs.weights(3))
    with pytest.raises(NotATrajectoryError, match=r"first and 1 more\?"):
        store.open_trajectory(tmp_path)


def test_an_array_of_a_run_is_answered_with_the_run_around_it(tmp_path):
    run = tiny_runs.record(tmp_path / "run", tiny_runs.weights(3))
    with pytest.raises(NotATrajectoryError, match=rf"did you mean {run}\?"):
        store.open_trajectory(run / "trajectory.zarr" / "W")


@pytest.mark.parametrize("given", [3, None, {}])
def test_what_is_no_path_is_a_type_error_that_says_so(given):
    with pytest.raises(TypeError, match="expected a path"):
        store.open_trajectory(given)


def test_a_file_is_called_a_file(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(bytes(8))
    for path in (weights, weights / "trajectory.zarr"):
        with pytest.raises(
            NotATrajectoryError, match=r"weights\.safetensors: is a file, and a run is a folder"
        ) as told:
            store.open_trajectory(path)
        assert "crucible import" in str(told.value)


def test_what_is_shown_of_bits_and_units_and_mappings(tmp_path):
    tiny_runs.record(tmp_path / "run", tiny_runs.weights(3), attributes={"config": {"seed": 7}})
    ds = store.open_trajectory(tmp_path / "run")
    assert ds.W.attrs["long_name"] == "bits of the bfloat16 W"
    assert ds.W.attrs["comment"] == "bit patterns; analysis.weights(ds) gives the numbers"
    assert all("units" not in variable.attrs for variable in ds.variables.values())
    assert json.loads(ds.attrs["config"]) == {"seed": 7}
    assert not any(isinstance(value, dict) for value in ds.attrs.values())


IN_A_FORK = """
import os, signal, sys, store
store.open_trajectory(sys.argv[1]).W.values  # starts dask's threads
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if store.open_trajectory(sys.argv[1]).W.values.any() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_reads_after_its_parent_did():
    """As workers of a torch DataLoader do."""
    run = Path(__file__).parents[2] / "formats" / "v2" / "whole"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", IN_A_FORK, run], check=False).returncode == 0

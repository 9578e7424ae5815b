"""xarray's own door to a run gives what the store's gives, and stands in nobody's way."""

import subprocess
import sys

import numpy as np
import pytest
import viewer_runs
import xarray as xr

import analysis
import store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine") / "run"
    viewer_runs.record(folder, viewer_runs.states(300))
    return folder


@pytest.mark.parametrize("chunks", [None, {}])
def test_it_gives_what_the_store_gives(run, chunks):
    ours, theirs = store.open_trajectory(run), xr.open_dataset(run, engine="crucible", chunks=chunks)
    assert theirs.identical(ours)
    assert analysis.last_motion(theirs).compute().identical(analysis.last_motion(ours).compute())


def test_with_chunks_the_arrays_come_in_those_of_the_run(run):
    ours, theirs = store.open_trajectory(run), xr.open_dataset(str(run), engine="crucible", chunks={})
    assert {name: theirs[name].chunks for name in ours} == {name: ours[name].chunks for name in ours}


def test_a_variable_can_be_dropped_and_a_file_object_is_refused(run):
    assert "W" not in xr.open_dataset(run, engine="crucible", drop_variables="W")
    with pytest.raises(TypeError, match="the path of a run, not a ndarray"):
        xr.open_dataset(np.zeros(3), engine="crucible")


def test_no_run_is_the_stores_error(tmp_path):
    with pytest.raises(store.NotATrajectoryError):
        xr.open_dataset(tmp_path, engine="crucible")


def asked(code, folder):
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_xarray_finds_the_engine_without_torch_and_beside_a_users_own_store(tmp_path):
    (tmp_path / "store.py").write_text("mine = 1")
    code = (
        "import xarray as xr, store; engines = xr.backends.list_engines(); "
        "assert 'crucible' in engines and 'torch' not in sys.modules and store.mine; "
        "assert not engines['crucible'].guess_can_open('run'); "
        "xr.open_dataset('run', engine='crucible')"
    )
    told = asked(code, tmp_path).stderr.splitlines()
    assert told[-1].startswith("ImportError: crucible needs its own package 'store'"), told

"""Weights of one run beside the norms of another are refused: its moves would be told as theirs."""

import numpy as np
import pytest
import viewer_runs
import xarray as xr

import analysis
import store


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same tokens and steps."""
    folder = tmp_path_factory.mktemp("two")
    return [viewer_runs.record(folder / f"{seed}", viewer_runs.states(60, seed=seed)) for seed in (0, 1)]


def opened_by_xarray(run):
    return xr.open_zarr(run / "trajectory.zarr", consolidated=False)


@pytest.mark.parametrize("opened", [store.open_trajectory, opened_by_xarray])
@pytest.mark.parametrize("name", ["W", "displacement_l2"])
def test_an_array_of_another_run_is_refused(runs, opened, name):
    one, other = map(opened, runs)
    mixed = one.assign({name: other[name]})
    with pytest.raises(ValueError, match=r"a stored norm is .* these are not the states of that move"):
        analysis.last_motion(mixed).load()
    if name == "W":
        expected = analysis.last_motion(other).last_motion.values
        assert analysis.last_motion(mixed[["W"]]).last_motion.values.tolist() == expected.tolist()


def test_weights_that_were_changed_are_refused_and_those_that_were_not_are_taken(runs):
    ds = store.open_trajectory(runs[0])
    bits = ds.W.values.copy()
    bits[1:] = bits[:1]
    with pytest.raises(ValueError, match="these are not the states of that move"):
        analysis.last_motion(ds.assign(W=(ds.W.dims, bits, ds.W.attrs))).load()
    expected = analysis.last_motion(ds).load()
    for W in (analysis.weights(ds), ds.W.copy(data=ds.W.values), ds.W.chunk({"step": 7})):
        assert analysis.last_motion(ds.assign(W=W)).load().identical(expected)


def test_the_weights_of_a_run_as_it_was_opened_are_not_read(runs, monkeypatch):
    ds = store.open_trajectory(runs[0])
    monkeypatch.setattr(store.reading.lazy.CommittedArray, "__getitem__", _without_weights)
    assert (analysis.last_motion(ds).last_motion.values > 0).any()


def _without_weights(array, key, read=store.reading.lazy.CommittedArray.__getitem__):
    assert array.array.name != "W"
    return np.asarray(read(array, key))

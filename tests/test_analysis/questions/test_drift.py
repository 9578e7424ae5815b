"""The centroid's way, against a plain loop."""

import math
import sys

import numpy as np
import pytest
import xarray as xr
from analysis_loops import drift_of
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import simulate
from analysis.engine.trajectory import trajectory_of
from analysis.questions.drift import centroid, drift

CHECKS = settings(max_examples=10, deadline=None)
numbers = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 1e-3, 7.25, 1e30]), st.floats(-10, 10, width=32))


@st.composite
def centroids(draw):
    steps, hidden = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    rows = [draw(st.lists(numbers, min_size=hidden, max_size=hidden))]
    for _ in range(steps - 1):
        rows.append(rows[-1] if draw(st.booleans()) else draw(st.lists(numbers, min_size=hidden, max_size=hidden)))
    first = draw(st.integers(0, 100))
    array = np.array(rows, np.float32)
    return xr.Dataset({"centroid": (("step", "hidden"), array)}, {"step": first + np.arange(steps)})


@CHECKS
@given(centroids(), st.integers(1, 4), st.integers(1, 2), st.integers(1, 12))
def test_drift_equals_the_loop_whatever_the_chunks_and_the_blocks(ds, steps, hidden, together):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["analysis.questions.drift"], "STEPS_TOGETHER", together)
        told = drift(ds.chunk({"step": steps, "hidden": hidden})).load()
    for name, values in drift_of(ds.centroid.values.tolist()).items():
        assert told[name].values == pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True), name
    assert told.step.values.tolist() == ds.step.values.tolist()


@pytest.mark.slow
@CHECKS
@given(centroids(), st.integers(1, 4))
def test_no_bit_depends_on_chunks(ds, steps):
    one, other = drift(ds).load(), drift(ds.chunk({"step": steps, "hidden": 1})).load()
    for name in one.data_vars:
        assert one[name].values.tobytes() == other[name].values.tobytes(), name


def test_the_stored_centroid_is_used_only_if_it_is_that_of_these_tokens():
    ds = simulate.with_last_motion([5, 3], total_steps=6, tokens=[2, 9])
    marked = ds.assign(centroid=ds.centroid + 1).assign_attrs(tokens=2)
    assert (centroid(trajectory_of(marked)) == ds.centroid.values + 1).all()
    part = centroid(trajectory_of(marked.sel(token=[9]))).values
    assert (part == (ds.W.sel(token=9).values.astype(np.uint32) << 16).view(np.float32)).all()
    alone = marked.drop_vars("W")
    assert (centroid(trajectory_of(alone)) == ds.centroid.values + 1).all()
    with pytest.raises(ValueError, match="that of 2 tokens, here are 1"):
        centroid(trajectory_of(alone.sel(token=[9])))
    with pytest.raises(ValueError, match="neither centroid nor W"):
        drift(ds[["loss"]])


def test_without_the_number_of_recorded_tokens_W_is_asked():
    ds = simulate.with_last_motion([5, 3, 4], total_steps=6, tokens=[2, 9, 11])
    marked = ds.assign(centroid=ds.centroid + 1)  # as plain xarray opens a run: no attribute `tokens`
    assert (centroid(trajectory_of(marked)) == ds.centroid.values).all()
    # Rows of three tokens recorded, of which the mask calls two dead: as many as are selected.
    masked = marked.assign(dead_mask=("vocabulary", ds.dead_mask.values & (np.arange(12) != 2)))
    for asked in (marked, masked):
        part = asked.sel(token=[2, 11])
        assert drift(part).equals(drift(part.drop_vars(["centroid", "dead_mask"])))
    assert (centroid(trajectory_of(masked.drop_vars("W"))) == ds.centroid.values + 1).all()


@pytest.mark.parametrize("chunks", [{"step": 2, "token": 1, "hidden": 3}, {"step": 100}])
def test_the_mean_of_weights_equals_a_loop(chunks):
    rng = np.random.default_rng(1)
    bits = rng.integers(0x3F00, 0x4000, (7, 5, 4)).astype(np.uint16)
    ds = xr.Dataset({"W": (("step", "token", "hidden"), bits)}).chunk(chunks)
    wide = (bits.astype(np.uint32) << 16).view(np.float32).tolist()
    expected = [[np.float32(math.fsum(row[j] for row in state) / 5) for j in range(4)] for state in wide]
    assert centroid(trajectory_of(ds)).values.tolist() == np.array(expected).tolist()


def test_a_slice_has_a_path_of_its_own_and_labels_stay():
    ds = simulate.with_last_motion([8], total_steps=10)
    part = drift(ds.sel(step=slice(4, 9))).load()
    assert part.step.values.tolist() == [4, 5, 6, 7, 8, 9]
    assert part.path.values[0] == 0
    assert float(part.path_length) == pytest.approx(4 / 128)
    assert part.attrs["first_step"] == 4


def test_a_centroid_that_never_moves_has_no_efficiency():
    told = drift(simulate.with_last_motion([-1], total_steps=4)).load()
    assert np.isnan(told.efficiency)
    assert int(told.frozen_steps) == 4
    assert np.isnan(told.autocorrelation).all()


def test_strange_centroids_raise_nothing():
    rows = np.array([[0.0], [np.inf], [np.nan], [1.0]], np.float32)
    told = drift(xr.Dataset({"centroid": (("step", "hidden"), rows)})).load()
    assert np.isinf(told.speed[1])
    assert np.isnan(told.net) == False  # noqa: E712 - the last state is finite again
    assert np.isnan(told.path_length)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_no_centroid_warns(scheduler):
    patterns = np.array([0x7F800000, 0xFF800000, 0x7FA00000, 0x7FC00000, 0, 0x3F800000, 0x7F7FFFFF], np.uint32)
    rows = np.random.default_rng(3).choice(patterns, (60, 2)).view(np.float32)
    told = drift(xr.Dataset({"centroid": (("step", "hidden"), rows)})).compute(scheduler=scheduler)
    with np.errstate(invalid="ignore"):
        expected = np.linalg.norm(np.diff(rows.astype(np.float64), axis=0), axis=1)
    assert np.array_equal(told.speed.values[1:], expected, equal_nan=True)

"""Cloud, axes, identical rows, exponents and box against plain loops over steps, tokens and hidden dimensions."""

import math
import struct
from collections import Counter

import numpy as np
import pytest
import xarray as xr
from analysis_loops import loop_cloud
from analysis_oracles import Trajectory
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import simulate
from analysis.engine import perstep
from analysis.questions.cloud import cloud, principal_axes, snapshots
from analysis.questions.motion import last_motion
from analysis.questions.occupancy import bounding_box, exponents, identical_rows

FINITE = [0x0000, 0x8000, 0x0001, 0x3F80, 0x3F81, 0xBF80, 0x3C23, 0x4049, 0x7F7F]
NONFINITE = [0x7F80, 0xFF80, 0x7FC0, 0x7FC1, 0x7FA0, 0xFFAB]
CHECKS = settings(max_examples=8, deadline=None)


def number(bits):
    return struct.unpack("<f", struct.pack("<I", int(bits) << 16))[0]


def ordinal(bits):
    return -(int(bits) & 0x7FFF) if int(bits) & 0x8000 else int(bits)


@st.composite
def trajectories(draw, patterns=(*FINITE, *NONFINITE)):
    steps, tokens, hidden = draw(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 3)))
    row = st.lists(st.sampled_from(patterns), min_size=tokens * hidden, max_size=tokens * hidden)
    states = [np.array(draw(row), np.uint16).reshape(tokens, hidden)]
    for _ in range(steps - 1):
        state = states[-1].copy()
        for i in range(tokens):
            if draw(st.booleans()):
                state[i, draw(st.integers(0, hidden - 1))] = draw(st.sampled_from(patterns))
        states.append(state)
    first = draw(st.integers(0, 1000))
    coords = {"step": first + np.arange(steps), "token": 3 + 2 * np.arange(tokens)}
    return xr.Dataset({"W": (("step", "token", "hidden"), np.array(states))}, coords)


chunkings = st.fixed_dictionaries({"step": st.integers(1, 4), "token": st.integers(1, 3), "hidden": st.integers(1, 2)})


@CHECKS
@given(trajectories(FINITE[:-1]), chunkings)
def test_cloud_equals_the_loop(ds, chunks):
    told = cloud(ds.chunk(chunks)).load()
    known = Trajectory(ds.W.values, tokens=ds.token.values.tolist())
    for name, values in loop_cloud(known).items():
        assert told[name].values == pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True), name
    assert told.step.values.tolist() == ds.step.values.tolist()
    assert not told.nonfinite_here.any()
    assert (int(told.nonfinite), int(told.first_nonfinite)) == (0, -1)


@pytest.mark.slow
@CHECKS
@given(trajectories(), chunkings, st.integers(1, 40))
def test_no_bit_depends_on_chunks_or_the_size_of_blocks(ds, chunks, block_bytes):
    whole = [ask(ds).load() for ask in (cloud, identical_rows, exponents, bounding_box)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perstep, "BLOCK_BYTES", block_bytes)
        cut = [ask(ds.chunk(chunks)).load() for ask in (cloud, identical_rows, exponents, bounding_box)]
    for one, other in zip(whole, cut, strict=True):
        for name in one.data_vars:
            assert one[name].values.tobytes() == other[name].values.tobytes(), name


@pytest.mark.slow
@CHECKS
@given(trajectories(), chunkings)
def test_weights_that_are_not_finite_are_counted_and_hide_nothing(ds, chunks):
    told = cloud(ds.chunk(chunks)).load()
    states = ds.W.values
    nonfinite = [sum(int(b) & 0x7F80 == 0x7F80 for b in state.ravel()) for state in states]
    assert told.nonfinite_here.values.tolist() == nonfinite
    first = next((int(label) for label, count in zip(ds.step, nonfinite, strict=True) if count), -1)
    for answer in (told, *(ask(ds).load() for ask in (principal_axes, identical_rows, exponents, bounding_box))):
        assert (int(answer.nonfinite), int(answer.first_nonfinite)) == (sum(nonfinite), first)
    for row in range(1, len(states)):
        if nonfinite[row] or nonfinite[row - 1]:
            assert np.isnan(told.bulk_motion[row])
            assert np.isnan(told.coherence[row])
        moved = 0
        for old, new in zip(states[row - 1], states[row], strict=True):
            moves = [number(b) - number(a) for a, b in zip(old, new, strict=True)]
            moved += any(move != 0 and not math.isnan(move) for move in moves)
        assert int(told.movers[row]) == moved


@CHECKS
@given(trajectories(), chunkings)
def test_identical_rows_equal_the_loop(ds, chunks):
    told = identical_rows(ds.chunk(chunks)).load()
    for row, state in enumerate(ds.W.values):
        rows = [tuple(r.tolist()) for r in state]
        count = Counter(rows)
        assert int(told.distinct[row]) == len(count)
        assert int(told.largest[row]) == max(count.values())
        assert told.group_size[row].values.tolist() == [count[r] for r in rows]
        assert told.group[row].values.tolist() == [int(ds.token[rows.index(r)]) for r in rows]


@CHECKS
@given(trajectories(), chunkings)
def test_exponents_and_box_equal_the_loop(ds, chunks):
    histogram, box = exponents(ds.chunk(chunks)).load(), bounding_box(ds.chunk(chunks)).load()
    for row, state in enumerate(ds.W.values):
        count = Counter((int(b) >> 7) & 255 for b in state.ravel())
        assert {e: int(n) for e, n in enumerate(histogram.weight_count[row].values) if n} == dict(count)
        for j in range(state.shape[1]):
            known = [b for b in state[:, j] if not math.isnan(number(b))]
            if known:
                low, high = min(known, key=number), max(known, key=number)
                assert (float(box.low[row, j]), float(box.high[row, j])) == (number(low), number(high))
                assert int(box.cells[row, j]) == ordinal(high) - ordinal(low)
            else:
                assert int(box.cells[row, j]) == box.cells.attrs["missing_value"]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float16])
def test_the_box_leaves_signalling_nan_out(dtype):
    signalling = {np.uint16: 0xFFAB, np.float32: 0xFFAB0000, np.float16: 0xFDAB}[dtype]
    bits = np.array([[0x8000], [0x7F80], [0]], np.uint16)
    column = bits if dtype == np.uint16 else np.array([[-0.0], [np.inf], [0]], dtype)
    column.view(f"u{column.itemsize}")[2] = signalling
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        box = bounding_box(xr.Dataset({"W": (("step", "token", "hidden"), column[None, order])})).load()
        assert (float(box.low[0, 0]), float(box.high[0, 0])) == (0, math.inf)
        assert np.signbit(box.low[0, 0])
    box = bounding_box(xr.Dataset({"W": (("step", "token", "hidden"), column[None, 2:])})).load()
    assert np.isnan(box.low).all()
    assert int(box.cells[0, 0]) == -1


@CHECKS
@given(trajectories(FINITE[:-1]), chunkings)
def test_principal_axes_equal_the_covariance_of_a_loop(ds, chunks):
    told = principal_axes(ds.chunk(chunks)).load()
    hidden = ds.sizes["hidden"]
    covariance = np.zeros((hidden, hidden))
    for state in ds.W.values:
        points = np.array([[number(b) for b in row] for row in state])
        for point in points:
            offset = point - points.mean(axis=0)
            covariance += np.outer(offset, offset) / (len(points) * len(ds.step))
    axes, variance = told.axes.values, told.variance.values
    assert (np.diff(variance) <= 0).all()
    assert np.allclose(axes.T @ np.diag(variance) @ axes, covariance, atol=1e-9 * max(1, np.trace(covariance)))
    assert np.allclose(axes @ axes.T, np.eye(hidden))
    assert all(axis[np.argmax(np.abs(axis))] > 0 for axis in axes)
    assert float(told.share.sum()) == (pytest.approx(1) if np.trace(covariance) > 0 else 0)


@pytest.mark.parametrize("block_bytes", [perstep.BLOCK_BYTES, 1500])
def test_principal_axes_have_the_same_bits_however_cut(block_bytes, monkeypatch):
    monkeypatch.setattr(perstep, "BLOCK_BYTES", block_bytes)
    bits = np.random.default_rng(5).integers(0x3C00, 0x4080, (61, 9, 8)).astype(np.uint16)
    ds = xr.Dataset({"W": (("step", "token", "hidden"), bits)})
    whole = principal_axes(ds).load()
    for chunks in ({"step": 1}, {"step": 7, "token": 2}, {"step": 61, "hidden": 3}, {"step": (5, 1, 50, 5)}):
        cut = principal_axes(ds.chunk(chunks)).load()
        for name in whole.data_vars:
            assert cut[name].values.tobytes() == whole[name].values.tobytes(), (name, chunks)


def test_other_lattices_give_the_same_answers():
    ds = simulate.with_phases([(2, 4, 6), (1, 2, 7), (-1, 3, 3)], total_steps=8)
    wide = ds.assign(W=(ds.W.dims, (ds.W.values.astype(np.uint32) << 16).view(np.float32)))
    for ask in (cloud, identical_rows, exponents):
        assert ask(ds).load().equals(ask(wide).load())
    assert (bounding_box(wide).cells == bounding_box(ds).cells * 2**16).all()


def test_slices_and_selections_keep_labels_and_their_own_centre():
    ds = simulate.with_last_motion([9, 5, 2], total_steps=10, tokens=[4, 8, 15])
    part = cloud(ds.sel(step=slice(3, 6), token=[4, 15])).load()
    assert part.step.values.tolist() == [3, 4, 5, 6]
    assert part.movers.values.tolist() == [0, 1, 1, 1]  # moves into the first state are not counted
    whole = cloud(ds.sel(token=[4, 15])).load().sel(step=slice(4, 6))
    assert whole.radius_mean.values.tolist() == part.radius_mean.values[1:].tolist()
    assert not cloud(ds.sel(token=[8])).radius_max.values.any()


def test_nothing_is_computed_before_it_is_asked_for():
    import dask.array as da

    def never():
        raise AssertionError("computed too early")

    W = da.map_blocks(never, chunks=((4, 4), (3, 3), (2,)), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    ds = xr.Dataset({"W": (("step", "token", "hidden"), W)})
    lazy = [ask(ds) for ask in (cloud, principal_axes, identical_rows, exponents, bounding_box)]
    with pytest.raises(AssertionError, match="too early"):
        lazy[0].compute()


def test_empty_selections_and_missing_weights_are_refused():
    ds = simulate.with_last_motion([2], total_steps=3)
    for ask in (cloud, principal_axes, identical_rows, exponents, bounding_box):
        with pytest.raises(ValueError, match="nothing is selected"):
            ask(ds.isel(token=[]))
        with pytest.raises(ValueError, match="has no W"):
            ask(ds.drop_vars("W"))


@CHECKS
@given(trajectories(FINITE[:-1]), chunkings, st.data())
def test_snapshots_are_offsets_from_the_centroid_on_the_axes_of_the_last_step(ds, chunks, data):
    steps = ds.step.values.tolist()
    asked = data.draw(st.lists(st.sampled_from(steps), min_size=1, max_size=4))
    told = snapshots(ds.chunk(chunks), steps=asked).load()
    axes = principal_axes(ds.isel(step=[-1])).load().axes.values[:3]
    assert told.step.values.tolist() == sorted(set(asked))
    for step in told.step.values:
        rows = [[number(bits) for bits in row] for row in ds.W.sel(step=step).values]
        offsets = np.array(rows) - np.mean(rows, axis=0)
        expected = offsets @ axes.T
        np.testing.assert_allclose(told.position.sel(step=step).values, expected, rtol=1e-6, atol=1e-9)


def test_a_snapshot_of_a_step_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="step 7 is not among the recorded steps 0 to 2"):
        snapshots(simulate.with_motion([[1, 0], [1, 0]]), steps=[0, 7])


@pytest.mark.parametrize("positions", [[2, 1, 0], [0, 2, 1], [0, 1, 1]])
def test_a_snapshot_of_steps_that_do_not_ascend_is_refused_since_none_of_them_is_the_last(positions):
    ds = simulate.with_motion([[1, 0], [1, 1]])
    with pytest.raises(ValueError, match=r"labels must ascend|stands at positions"):
        snapshots(ds.isel(step=positions), steps=[1])


def test_a_snapshot_of_what_is_no_dataset_is_a_type_error():
    with pytest.raises(TypeError, match="ask of the whole Dataset"):
        snapshots(simulate.with_motion([[1, 0]]).W, steps=[1])


def test_labels_of_snapshots_may_be_taken_from_a_dataset_or_an_answer():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    expected = snapshots(ds, steps=[0, 3]).load()
    for steps in (
        ds.step[::3][:2],
        ds.step.values[[0, 3]],
        {0, 3},
        (int(step) for step in (0, 3)),
        [ds.step[0], ds.step[3]],
    ):
        assert snapshots(ds, steps=steps).load().equals(expected)
    assert snapshots(ds, steps=last_motion(ds).last_motion).load().step.values.tolist() == [3, 5]


def test_snapshots_of_states_without_labels_have_the_labels_that_were_asked_for():
    ds = simulate.with_motion([[1, 0], [0, 0], [1, 1]]).load()
    ds.W[3, 0, 0] = 0x7FC0
    bare = ds[["W"]].drop_vars(["step", "token"])
    for steps in ([3], [0, 2], [2, 1]):
        told = snapshots(bare, steps=steps).load()
        assert told.step.values.tolist() == sorted(steps)
        assert (told.attrs["last_step"], int(told.first_nonfinite)) == (3, 3)

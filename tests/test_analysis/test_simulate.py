"""Simulated trajectories do what was chosen, read from the bits by plain arithmetic."""

import moving_processes as processes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from analysis import simulate

chosen_cells = arrays(
    np.int64, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5), elements=st.integers(0, 63)
)


@settings(max_examples=30, deadline=None)
@given(chosen_cells)
def test_bits_move_as_far_as_chosen(cells):
    ds = simulate.trajectory(cells)
    bits = ds.W.values.astype(int)
    assert np.array_equal(np.abs(np.diff(bits, axis=0)), cells)
    assert bits.min() >= 0x3F80
    assert bits.max() <= 0x3FFF
    assert np.array_equal(ds.delta_W_prime.values[1:], np.diff(bits, axis=0))
    assert np.isnan(ds.delta_W_prime.values[0]).all()


@settings(max_examples=30, deadline=None)
@given(chosen_cells)
def test_norms_and_last_motion_equal_a_loop(cells):
    ds = simulate.trajectory(cells).load()
    l1, l2, linf = (ds[f"displacement_{name}"].values for name in ("l1", "l2", "linf"))
    for token in range(cells.shape[1]):
        last = -1
        for step, move in enumerate(cells[:, token].tolist(), start=1):
            assert l1[step, token] == sum(move)
            assert l2[step, token] == np.float32(sum(k * k for k in move) ** 0.5)
            assert linf[step, token] == max(move)
            last = step if any(move) else last
        assert int(ds.last_motion_step[token]) == last


def test_named_answers():
    ds = simulate.with_moving_steps([1, 2, 10], total_steps=12)
    assert np.flatnonzero((ds.displacement_l2 > 0).any("token").values).tolist() == [1, 2, 10]
    ds = simulate.with_phases([(2, 4, 5), (-1, -1, 3), (6, 6, 6)], total_steps=6, tokens=[7, 8, 30])
    assert ds.token.values.tolist() == [7, 8, 30]
    assert ds.displacement_linf.sel(token=8).values[1:].tolist() == [1, 1, 1, 0, 0, 0]
    assert ds.displacement_linf.sel(token=30).values[1:].tolist() == [3] * 6
    assert ds.dead_mask.values.nonzero()[0].tolist() == [7, 8, 30]


def test_it_is_lazy_and_chunked_as_asked():
    ds = simulate.with_last_motion([3, 5], total_steps=6, chunks={"step": 2, "token": 1})
    assert ds.W.chunks == ((2, 2, 2, 1), (1, 1), (4,))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="from 0 to 63"):
        simulate.trajectory([[[64]]])
    with pytest.raises(ValueError, match="three exits"):
        simulate.with_phases([(3, 2, 5)], total_steps=6)


@pytest.mark.parametrize("process", processes.FAMILIES, ids=lambda p: f"{p.family}-{p.says}")
def test_processes_are_repeatable_and_of_the_right_shape(process):
    moved, later = process.draw(np.random.default_rng(5), 8, 300)
    again, _ = process.draw(np.random.default_rng(5), 8, 300)
    assert moved.shape == (8, 300)
    assert later.shape == (8,)
    assert moved.dtype == later.dtype == bool
    assert np.array_equal(moved, again)


def test_rates_are_those_that_were_asked_for():
    rng = np.random.default_rng(3)
    moved, later = processes.power(1, 30).draw(rng, 4000, 3000)
    assert moved[:, 2999].mean() == pytest.approx(0.01, abs=0.005)
    assert later.all()
    left = processes.exponential(300).draw(rng, 4000, 2100)[1].mean()
    assert left == pytest.approx(1 - np.exp(-300 * np.exp(-6)), abs=0.03)
    left = processes.power(2, 100).draw(rng, 4000, 5000)[1].mean()
    assert left == pytest.approx(1 - np.exp(-2), abs=0.03)


def test_bursts_have_their_size_and_gaps():
    process = processes.bursts(1, 5, 3)
    moved, _ = process.draw(np.random.default_rng(3), 3000, 4000)
    begun = np.sum(1 - np.exp(-1 / np.arange(1.0, 4001)))
    assert moved.sum(axis=1).mean() == pytest.approx(5 * begun, rel=0.07)  # bursts overlap early on


def test_an_ending_process_is_still_after_its_end():
    moved, later = processes.ending(processes.constant(3.0), 10, 20).draw(np.random.default_rng(3), 200, 60)
    ends = [np.flatnonzero(run)[-1] + 1 for run in moved]
    assert max(ends) <= 20
    assert min(ends) < 12
    assert not later.any()


def test_moving_steps_that_are_not_there_are_refused():
    for steps in ([0, 3], [9]):
        with pytest.raises(ValueError, match=r"must lie in 1\.\.8"):
            simulate.with_moving_steps(steps, total_steps=8)

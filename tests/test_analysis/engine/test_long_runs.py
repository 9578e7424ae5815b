"""Every question on runs that are longer than the longest block that anything is cut into, 65,536 steps."""

import numpy as np
import pytest
import xarray as xr
from analysis_loops import ASKED_OF_OTHERS, LOOPS, assert_is_the_loop, drift_of
from analysis_oracles import Trajectory

import analysis

EDGES = [1, 2, 40, 4095, 4096, 4097, 65_534, 65_535, 65_536, 65_537, 65_538, 131_071, 131_072, 131_073]
LENGTHS = [70_000, pytest.param(140_000, marks=pytest.mark.slow)]


def moving_steps(total, rng):
    return [step for step in EDGES if step <= total] + rng.integers(1, total, 60).tolist()


@pytest.fixture(scope="module", params=LENGTHS)
def long_run(request):
    """Two tokens that move at the edges of blocks, and now and then between them."""
    rng = np.random.default_rng(5)
    steps = moving_steps(request.param, rng)
    moves = np.zeros((request.param + 1, 2, 2), np.int64)
    moves[steps] = rng.integers(-2, 3, (len(steps), 2, 2))
    return Trajectory((0x3FC0 + np.cumsum(moves, axis=0)).astype(np.uint16))


def test_there_is_a_loop_for_every_question():
    questions = {name for name in analysis.__all__ if callable(getattr(analysis, name))}
    assert set(LOOPS) == questions - ASKED_OF_OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_the_answer_about_a_long_run_is_the_loops(name, long_run):
    ds = long_run.dataset().chunk(step=10_000, token=1)
    assert_is_the_loop(name, getattr(analysis, name)(ds).compute(), long_run)


@pytest.mark.slow
def test_two_long_runs_part_where_they_do(long_run):
    last = long_run.steps[-1]
    a, bits = long_run.dataset().chunk(step=10_000), long_run.bits.copy()
    for step in (last, 65_537, 65_536):
        bits[step, 1, 0] += 1
        told = analysis.compare(a, a.assign(W=(a.W.dims, bits)).chunk(step=65_536))
        assert (int(told.compared), int(told.equal_steps), int(told.step)) == (last + 1, step, step)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("total", [65_535, 65_536, 65_537, 140_000])
def test_the_drift_of_a_long_stored_centroid_is_the_loops(total):
    rng = np.random.default_rng(6)
    moves = np.zeros((total + 1, 2), np.float32)
    steps = moving_steps(total, rng)
    moves[steps] = rng.normal(size=(len(steps), 2))
    rows = np.cumsum(moves, axis=0, dtype=np.float32)
    told = analysis.drift(xr.Dataset({"centroid": (("step", "hidden"), rows)})).compute()
    for name, values in drift_of(rows.tolist()).items():
        np.testing.assert_allclose(told[name].values, values, rtol=1e-9, atol=1e-12, err_msg=name)

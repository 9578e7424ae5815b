"""Questions about the push on a run that is longer than the longest block that anything is cut into."""

import numpy as np
import pytest

import analysis
from analysis import simulate

TOTAL = 70_000


@pytest.mark.slow
def test_the_headroom_of_a_long_run_is_that_of_its_last_steps():
    rng = np.random.default_rng(3)
    pushes = rng.integers(1, 128, (TOTAL, 2)) / 256
    pushes[65_535:65_538] = 0.75
    ds = simulate.with_pushes(pushes).chunk(step=10_000)
    told = analysis.headroom(ds).compute()
    np.testing.assert_array_equal(told.strongest.values[1:], pushes.max(axis=1))
    np.testing.assert_array_equal(told.headroom.values, 1 / pushes[-200:].max(axis=0))
    np.testing.assert_array_equal(analysis.push(ds).values[1:], pushes)


def test_the_last_of_the_earlier_verdicts_of_a_long_run_is_the_verdict():
    moving = np.unique(np.r_[np.arange(1, 400, 20), [65_535, 65_537]])
    ds = simulate.with_moving_steps(moving.tolist(), total_steps=TOTAL).chunk(step=10_000)
    last, now = analysis.verdicts(ds).compute().isel(asked=-1), analysis.end_state(ds).compute()
    assert float(last.p) == float(now.p)

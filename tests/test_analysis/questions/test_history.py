"""What the verdict would have been at earlier steps: each moment equals the verdict on the run that ended there."""

import numpy as np
import pytest

import analysis
from analysis import simulate
from analysis.answers import plain

MOVING = [20, 40, 60, 80, 100, 120]


def silent(total):
    pushes = np.exp(np.random.default_rng(1).normal(-2, 0.05, (total, 1)))
    pushes[[step - 1 for step in MOVING]] = 1.5
    return simulate.with_pushes(pushes)


@pytest.mark.parametrize("with_push", [True, False])
def test_each_moment_is_the_verdict_on_the_run_until_then(with_push):
    ds = silent(3_000) if with_push else silent(3_000).drop_vars("push")
    told = analysis.verdicts(ds, every=400).load()
    assert told.asked.values.tolist() == [*range(400, 3_000, 400), 3_000]
    for place, last in enumerate(told.asked.values.tolist()):
        then = plain(analysis.end_state(ds.sel(step=slice(None, last))))
        now = plain(told.isel(asked=place).drop_vars("any_motion"))
        assert {name: now[name] for name in ("p", "E", "frozen", "frozen_by_silence", "frozen_by_push")} == {
            name: pytest.approx(then[name]) if isinstance(then[name], float) else then[name]
            for name in ("p", "E", "frozen", "frozen_by_silence", "frozen_by_push")
        }
    assert bool(told.frozen[-1]) == with_push


def test_nothing_is_called_frozen_once_a_weight_is_not_finite():
    ds = silent(3_000)
    bits = ds.W.values
    bits[2_950:, 0] = 0x7FC0
    told = analysis.verdicts(
        ds[["W", "push", "learning_rate", "optimizer_step"]].assign(W=(ds.W.dims, bits)), every=100
    )
    frozen = told.frozen.load()
    assert frozen.sel(asked=2_900)
    assert not frozen.sel(asked=3_000)


def test_it_asks_at_some_200_steps_and_refuses_nonsense():
    assert analysis.verdicts(silent(1_000)).sizes["asked"] == 200
    with pytest.raises(ValueError, match="every must be at least 1"):
        analysis.verdicts(silent(300), every=0)

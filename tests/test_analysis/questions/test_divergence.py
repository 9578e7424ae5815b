"""Whether a run diverged, against plain loops, in whatever chunks; and what is said of it."""

import numpy as np
import pytest
import xarray as xr
from analysis_loops import assert_is_the_loop
from analysis_oracles import SOURCES, cut, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis import simulate
from analysis.engine import inputs
from analysis.engine.trajectory import trajectory_of
from analysis.questions.divergence import divergence, record

NAN, INFINITE = 0x7FC0, 0x7F80
losses = st.lists(st.sampled_from([2.5, np.nan, np.inf, -np.inf]), min_size=1, max_size=12)


def with_weights(last, changes, **options):
    """Tokens with these last motions, and then bits at (steps, tokens, hidden); only W and the loss are kept."""
    ds = simulate.with_last_motion(last, **options).load()[["W", "loss"]]
    for at, bits in changes:
        ds.W.values[at] = bits
    return ds


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(trajectories(), st.sampled_from(SOURCES), st.data())
def test_numbers_equal_a_loop_whatever_the_chunks(run, stored, data):
    assert_is_the_loop("divergence", divergence(data.draw(cut(run.dataset(stored=stored)))), run)


def loss_from_by_a_loop(loss):
    stretches, start = [], None  # of steps 1, 2, ... without a finite loss: [first, length]
    for step, value in enumerate(loss, start=1):
        if np.isfinite(value):
            start = None
        elif start is None:
            start = step
            stretches.append([step, 1])
        else:
            stretches[-1][1] += 1
    known = any(not np.isnan(value) for value in loss)
    ends_so = start is not None and all(length < stretches[-1][1] for _, length in stretches[:-1])
    return start if known and ends_so else None


@pytest.mark.slow
@settings(deadline=None)
@given(losses)
def test_the_step_since_which_there_is_no_finite_loss_equals_a_loop(loss):
    ds = simulate.with_last_motion([1, -1], total_steps=len(loss))
    ds = ds.assign(loss=("step", np.array([np.nan, *loss], np.float32)))
    assert analysis.plain(divergence(ds))["loss_from"] == loss_from_by_a_loop(loss)
    assert analysis.plain(divergence(ds))["diverged"] == (loss_from_by_a_loop(loss) is not None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([(np.s_[2:], NAN)], "Diverged at step 2: at step 50, 24 of 24 weights are NaN or infinite, in 6 of 6 tokens"),
        ([(np.s_[30:, 1], NAN)], "Diverged at step 30: at step 50, 4 of 24 weights are NaN or infinite, in 1 of 6"),
        ([(np.s_[30:, 1, 2], INFINITE)], "Diverged at step 30: at step 50, 1 of 24 weights is NaN or infinite, in 1"),
        ([(np.s_[0:, 5], NAN)], "Diverged at step 0, the first state: at step 50, 4 of 24 weights are NaN or infinite"),
        ([(np.s_[50:], INFINITE)], "Diverged at step 50: at step 50, 24 of 24 weights are NaN or infinite, in 6 of 6"),
        ([(np.s_[9:], NAN), (np.s_[20:], 0x3FC0)], "Diverged at step 9: weights were NaN or infinite, though at step"),
    ],
    ids=["all", "one token", "one weight", "from the first state", "at the last step", "gone again"],
)  # fmt: skip
def test_the_sentence_says_the_step_and_how_many(changes, says):
    told = record(divergence(with_weights([1, 2, 3, 4, 5, 6], changes, total_steps=50)))
    assert told["sentence"].startswith(says)
    assert "not when it froze" in told["sentence"]


def test_weights_that_are_fine_and_a_loss_that_is_not():
    ds = simulate.with_last_motion([3, 9], total_steps=20).load()
    ds.loss[12:] = np.nan
    told = record(divergence(ds))
    assert (told["step"], told["loss_from"], told["weights"], told["tokens"]) == (12, 12, 0, 0)
    assert told["sentence"].startswith("Diverged at step 12, by the loss alone: from there on it is NaN")
    ds.W[15:] = NAN
    told = record(divergence(ds[["W", "loss"]]))
    assert (told["step"], told["loss_from"], told["tokens"]) == (12, 12, 2)
    assert "There is no finite loss from step 12 on." in told["sentence"]


@pytest.mark.parametrize("logged", [[], [10, 20], range(1, 26)], ids=["never", "now and then", "always"])
def test_a_loss_that_was_not_logged_is_no_divergence(logged):
    loss = np.full(26, np.nan, np.float32)
    loss[list(logged)] = 2.5
    assert record(divergence(simulate.with_last_motion([3, 9], total_steps=25).assign(loss=("step", loss)))) is None


def test_a_healthy_run_has_no_record_and_a_slice_has_its_own():
    ds = with_weights([3, 9], [(np.s_[12:, 0], NAN)], total_steps=20)
    assert record(divergence(ds.sel(step=slice(0, 11)))) is None
    assert record(divergence(ds.sel(token=[1]))) is None
    told = record(divergence(ds.sel(step=slice(15, 18))))
    assert (told["step"], told["last_step"], told["tokens"], told["of_tokens"]) == (15, 18, 1, 2)
    assert record(divergence(ds.sel(step=[20])))["weights"] == 4


def test_a_loss_with_steps_of_its_own_is_that_of_the_steps_that_were_selected():
    """Selecting along `step` leaves such a loss as long as it was."""
    own = np.arange(2, 21, 2)
    loss = xr.DataArray(np.where(own < 16, 1.0, np.nan).astype(np.float32), {"step_loss": own}, ("step_loss",))
    ds = simulate.with_last_motion([3, 9], total_steps=20).assign(loss=loss)
    assert record(divergence(ds))["step"] == 16
    assert record(divergence(ds.sel(step=slice(10, 18))))["loss_from"] == 16
    for part in (slice(0, 11), slice(4, 15), slice(17, 20)):
        assert record(divergence(ds.sel(step=part))) is None


def test_without_weights_the_moves_tell():
    ds = with_weights([3, 9], [(np.s_[12:, 0], NAN)], total_steps=20)
    norms = inputs.arrays(trajectory_of(ds), ["displacement_l2"])
    told = record(divergence(xr.Dataset(norms)))
    assert (told["step"], told["weights"], told["of_weights"], told["tokens"]) == (12, None, None, 1)
    assert "at step 20 the moves of 1 of 2 tokens are NaN" in told["sentence"]


@pytest.mark.parametrize("step", [0, 3])
def test_of_a_single_state_without_weights_no_token_is_said_to_have_diverged(step):
    ds = simulate.with_last_motion([5, 3], total_steps=5)[["displacement_l2"]].load()
    ds.displacement_l2[3:] = np.nan
    told = analysis.plain(divergence(ds.sel(step=[step])))
    assert (told["diverged"], told["nonfinite"], told["tokens_now"], told["weights_now"]) == (False, 0, 0, None)
    assert analysis.plain(divergence(ds))["tokens_now"] == 2

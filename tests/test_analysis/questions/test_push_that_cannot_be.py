"""A push that what moved contradicts, or of which too little is known: there is no verdict by it, and it is said."""

import numpy as np
import pytest

import analysis
from analysis import simulate
from analysis.answers import plain
from analysis.questions.endstate import no_verdict, sentence

MOVING = [20, 40, 60, 80, 100, 120]
TOTAL = 3_000


def pushed(*, level=-2.0, moving=MOVING, seed=1, **changes):
    """One token that moves at these steps, two that do not; the push fluctuates around e^level half cells."""
    random = np.random.default_rng(seed)
    pushes = np.exp(random.normal(level, 0.05, (TOTAL, 3)))
    pushes[[step - 1 for step in moving], 0] = 1.5
    return simulate.with_pushes(pushes, **changes).load()


def with_push(ds, change):
    """The Dataset with other pushes, as half cells."""
    told = analysis.push(ds).values
    change(told)
    wide = np.where(np.isnan(told), np.float32(np.nan), told).view(np.uint32)
    bits = (np.minimum(wide, np.uint32(0x7FC00000)) >> np.uint32(16)).astype(np.uint16)
    return ds.assign(push=(("step", "token"), bits, ds.push.attrs))


def too_weak(told):
    told[100, 0] = 0.25


def too_strong(told):
    told[2_998, 1] = 4.0


WRONG = {"a move without a push": (too_weak, 100), "a push that moves nothing": (too_strong, 2_998)}


@pytest.mark.parametrize(("change", "step"), WRONG.values(), ids=WRONG)
def test_a_push_that_the_moves_contradict_is_not_judged_by(change, step):
    ds = with_push(pushed(), change)
    answer = analysis.end_state(ds)
    told = plain(answer)
    assert (told["unexplained"], told["last_unexplained"]) == (1, step)
    assert (told["frozen"], told["frozen_by_push"], told["E"], told["push"], told["headroom"]) == (
        False, False, None, None, None,
    )  # fmt: skip
    assert no_verdict(answer).startswith("once a token moved, or stayed, against what its push says")
    assert sentence(answer).startswith("No verdict at step 3000")
    assert f"at step {step}" in sentence(answer)
    assert plain(analysis.end_state(pushed()))["frozen"] is True
    history = analysis.verdicts(ds, every=1_000).load()
    assert not history.frozen.values[history.asked.values >= step].any()


def test_a_contradiction_of_before_the_slice_does_not_count():
    ds = with_push(pushed(), lambda told: told.__setitem__((20, 0), 0.25))
    assert plain(analysis.end_state(ds))["unexplained"] == 1
    assert plain(analysis.end_state(ds.sel(step=slice(30, None))))["unexplained"] == 0


def test_pushes_of_about_1_and_unknown_ones_contradict_nothing():
    def change(told):
        told[500, 1], told[501, 1], told[20, 0], told[40, 0], told[502, 1] = 1.05, np.nan, 0.95, np.nan, 1.0

    answer = analysis.end_state(with_push(pushed(), change))
    assert (plain(answer)["unexplained"], plain(answer)["nearly"]) == (0, 2)
    ds = with_push(pushed(), change).drop_isel(step=[501])
    judged = ds.assign_coords(step=("step", np.arange(TOTAL), ds.step.attrs))
    said = "The push is approximate here: 2 times a token moved, or stayed, against a push of about 1"
    assert said in sentence(analysis.end_state(judged))


UNKNOWN = {
    "nothing": ({}, "the attribute optimizer_update is not there"),
    "another optimizer": ({"variant": "lion", "beta1": 0.9}, "names the variant 'lion'"),
    "no beta2": ({"variant": "adamw", "beta1": 0.9}, "lacks beta2"),
}


@pytest.mark.parametrize(("update", "reason"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_run_that_does_not_tell_of_its_optimizer_is_judged_by_the_silence_alone(update, reason):
    answer = analysis.end_state(pushed().assign_attrs(optimizer_update=update))
    told = plain(answer)
    assert (told["E"], told["frozen_by_push"]) == (None, False)
    assert reason in answer.attrs["no_push"]
    assert "This is the weaker verdict" in sentence(answer)


def test_of_no_token_nothing_is_said():
    told = plain(analysis.end_state(pushed().isel(token=[])))
    assert (told["E"], told["push"], told["frozen_by_push"], told["frozen"]) == (None, None, False, False)


def test_a_count_that_was_not_recorded_is_named():
    said = no_verdict(analysis.end_state(pushed().drop_vars("optimizer_step")))
    assert said.startswith("the silence holds 0 of the 20 blocks of steps that are needed; steps do not count")
    assert "the optimizer's own count (optimizer_step) last began anew or was not known" in said

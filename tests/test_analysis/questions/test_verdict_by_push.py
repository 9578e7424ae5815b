"""The verdict by silence and push together, by each alone, and what is said where one of them is missing."""

import re

import numpy as np
import pytest
import xarray as xr

import analysis
from analysis import simulate
from analysis.answers import plain
from analysis.optimizers.expected_moves import expected_moves
from analysis.questions.endstate import no_verdict, sentence

MOVING = [20, 40, 60, 80, 100, 120]


def silent(total=9_000, *, level=-2.0, spread=0.05, moving=MOVING, rate=1e-3, seed=1, **changes):
    """One token that moves at these steps; between them the push fluctuates around e^level half cells."""
    random = np.random.default_rng(seed)
    pushes = np.exp(random.normal(level, spread, (total, 1)))
    pushes[[step - 1 for step in moving]] = 1.5
    return simulate.with_pushes(pushes, learning_rate=rate, **changes)


def test_both_parts_together_say_frozen_earlier_than_the_silence_alone():
    ds = silent(3_000)
    told = plain(analysis.end_state(ds))
    assert 0.01 < told["p"] <= 0.05
    assert told["E"] <= 0.01
    assert (told["frozen"], told["frozen_by_push"], told["frozen_by_silence"]) == (True, True, False)
    alone = plain(analysis.end_state(ds.drop_vars("push")))
    assert (alone["frozen"], alone["E"], alone["push"], alone["frozen_by_silence"]) == (False, None, None, False)


@pytest.mark.slow
def test_a_push_too_near_keeps_a_silent_run_from_being_frozen():
    told = plain(analysis.end_state(silent(16_000, level=-0.2)))
    assert told["p"] <= 0.01
    assert told["E"] > 0.01
    assert (told["frozen"], told["frozen_by_silence"], told["frozen_by_push"]) == (False, True, False)
    assert "too near half a cell" in sentence(analysis.end_state(silent(16_000, level=-0.2)))


def test_a_push_that_fell_to_0_is_not_said_to_be_too_near():
    pushes = np.zeros((3_000, 1))
    for step in (0, 100, 250, 450, 700, 1000):
        pushes[step : step + 5] = 1.5
    fading = np.arange(400)
    pushes[1005:1405, 0] = 0.95 * np.exp(-fading / 70) * np.random.default_rng(0).uniform(0.5, 1, len(fading))
    answer = analysis.end_state(analysis.simulate.with_pushes(pushes))
    told = plain(answer)
    assert told["push"] == 0 < told["E"]
    assert not told["frozen_by_push"]
    assert "too near half a cell" not in sentence(answer)
    assert "push fell to 0 within this silence, unevenly, from near half a cell" in sentence(answer)
    assert "A push of 0 pushes nowhere" in sentence(answer)


def test_a_silence_too_short_keeps_a_far_push_from_being_frozen():
    told = plain(analysis.end_state(silent(500)))
    assert told["p"] > 0.05
    assert told["frozen_by_push"] is True
    assert told["frozen"] is False


def test_E_is_that_of_the_plain_estimate_on_the_steps_of_the_slice():
    ds = silent(2_000)
    pushes, rates, counts = (np.asarray(array, np.float64)[1:] for array in (
        analysis.push(ds).values.max(axis=1), ds.learning_rate, ds.optimizer_step))  # fmt: skip
    for first in (0, 50, 700):
        moved = [step for step in MOVING if step > first]
        expected = expected_moves(
            pushes[first:], rates[first:], counts[first:], last_motion=moved[-1] - first if moved else 0,
            beta1=0.9, beta2=0.999,
        )  # fmt: skip
        told = plain(analysis.end_state(ds.sel(step=slice(first, None)).chunk({"step": 300})))
        assert told["E"] == pytest.approx(expected.expected)
        assert told["headroom"] == pytest.approx(expected.headroom)
        assert told["push"] == pytest.approx(1 / expected.headroom)
        assert told["blocks"] == expected.blocks


@pytest.mark.slow
def test_a_larger_reference_learning_rate_is_asked_for_by_name():
    ds = silent(level=-2)
    usual, larger = (analysis.end_state(ds, reference_learning_rate=rate) for rate in (None, 1e-2))
    assert (plain(usual)["reference_learning_rate"], plain(usual)["frozen"]) == (1e-3, True)
    assert (plain(larger)["reference_learning_rate"], plain(larger)["frozen"]) == (1e-2, False)
    assert "at a learning rate of 0.01" in sentence(larger)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="reference_learning_rate must be above 0"):
            analysis.end_state(ds, reference_learning_rate=wrong)


@pytest.mark.slow
def test_a_learning_rate_that_ended_at_0_has_no_verdict_and_says_why():
    rate = np.full(16_000, 1e-3)
    rate[4_000:] = 0
    ds = silent(16_000, rate=rate)
    answer = analysis.end_state(ds)
    assert plain(answer)["frozen"] is False
    assert plain(answer)["reference_learning_rate"] == 0
    assert no_verdict(answer).startswith("the learning rate is 0 at the end, so nothing can move")
    assert sentence(answer).startswith("No verdict at step 16000")
    assert plain(analysis.end_state(ds, reference_learning_rate=1e-3))["frozen"] is True
    alone = analysis.end_state(ds.drop_vars("push"))
    assert plain(alone)["frozen"] is True
    assert "The learning rate is 0 at the end, so nothing can move, frozen or not." in sentence(alone)


def test_a_silence_of_too_few_blocks_or_of_unknown_pushes_says_so():
    few = analysis.end_state(silent(9_000).assign_attrs(
        optimizer_update={"variant": "adamw", "beta1": 0.999, "beta2": 0.999, "exact": True}))  # fmt: skip
    assert no_verdict(few).endswith("8 of the 20 blocks of steps that are needed")
    ds = silent(9_000)
    ds["push"] = ds.push.where(ds.step != 5_000, 0x7FC0).astype(np.uint16).assign_attrs(bits_of="bfloat16")
    unknown = analysis.end_state(ds)
    assert no_verdict(unknown) == "it is not known at every step of the silence"
    assert plain(unknown)["frozen"] is False


def test_weights_that_are_not_finite_are_never_frozen():
    ds = silent(9_000)
    bits = ds.W.values
    bits[5_000:, 0] = 0x7FC0
    told = plain(analysis.end_state(ds[["W", "push", "learning_rate", "optimizer_step"]].assign(W=(ds.W.dims, bits))))
    assert (told["frozen"], told["frozen_by_push"], told["frozen_by_silence"]) == (False, False, False)


def test_the_sentence_of_a_frozen_run_says_what_a_student_needs():
    said = sentence(analysis.end_state(silent(9_000)))
    assert said.startswith(
        "Frozen at step 9000: 8880 still steps since the last motion at step 120 (by L2 >= 0.1 cells)"
    )
    for words in (
        "This silence is unusually long for this run (p = ",
        "The optimizer's strongest push is so far below half a cell by now, from where a weight moves (at most 0.1",
        "of it in the last 200 steps, ",
        "times its usual fluctuation away at the end), that it would move nothing in as many steps again (E = ",
        "at a learning rate no larger than 0.001. In these 200 steps the learning rate could have been ",
        " times as high before anything moved.",
    ):
        assert words in said
    assert "onfidence" not in said
    assert "weaker" not in said


@pytest.mark.parametrize(
    ("push", "total"), [(True, 3_000), pytest.param(False, 16_000, marks=pytest.mark.slow)], ids=["push", "none"]
)
def test_a_learning_rate_that_was_higher_at_the_last_motion_is_named(push, total):
    rate = np.full(total, 1e-3)
    rate[120:] = 1e-9
    ds = silent(total, rate=rate)
    answer = analysis.end_state(ds if push else ds.drop_vars("push"))
    assert plain(answer)["frozen"] is True
    assert plain(answer)["rate_at_last_motion"] == 1e-3
    assert "1e-09; at the last motion it was 0.001." in sentence(answer)
    same = analysis.end_state(silent(total) if push else silent(total).drop_vars("push"))
    assert "at the last motion it was" not in sentence(same)


def test_of_some_of_the_tokens_it_is_said_of_how_many():
    ds = simulate.with_pushes(np.full((50, 3), 0.5)).assign_attrs(tokens=3)
    assert "This is said of" not in sentence(analysis.end_state(ds))
    assert sentence(analysis.end_state(ds.isel(token=[1]))).endswith(" This is said of 1 of the 3 recorded tokens.")
    said = {
        "2 of the 3 recorded tokens, some of them more than once": [0, 1, 1],
        "3 of the 3 recorded tokens, some of them more than once": [0, 1, 2, 2],
        "4 tokens, more than the 3 that one run recorded": None,
    }
    more = xr.concat([ds, ds.isel(token=[0]).assign_coords(token=[9])], "token", data_vars="minimal")
    for words, places in said.items():
        part = more if places is None else ds.isel(token=places)
        assert sentence(analysis.end_state(part)).endswith(f" This is said of {words}."), words


def test_of_some_of_the_steps_or_hidden_dimensions_it_is_said_of_which():
    ds = simulate.with_moving_steps([5, 40], total_steps=60, size=2)
    ds = ds.assign_attrs(committed_steps=60, hidden=4, tokens=2)
    assert "This is said of" not in sentence(analysis.end_state(ds))
    said = {
        "steps 10 to 30": {"step": slice(10, 31)},
        "steps 0 to 59": {"step": slice(60)},
        "step 20": {"step": [20]},
        "2 of the 4 recorded hidden dimensions": {"hidden": slice(2)},
        "2 of the 4 recorded hidden dimensions at steps 41 to 60": {"hidden": slice(2), "step": slice(41, None)},
    }
    for words, part in said.items():
        assert sentence(analysis.end_state(ds.isel(part))).endswith(f" This is said of {words}."), words


def test_of_a_single_state_it_is_not_said_that_nothing_moved():
    answer = analysis.end_state(simulate.with_moving_steps([5, 40], total_steps=60).isel(step=[40]))
    assert "nothing moved" not in sentence(answer)
    assert sentence(answer).startswith("No verdict at step 40: no move is looked at, but a single state,")
    assert no_verdict(answer) == "no move is looked at, but a single state"


def test_a_push_of_0_is_said_to_be_none():
    ds = silent(9_000)
    ds["push"] = ds.push.where(ds.step <= 120, 0).astype(np.uint16).assign_attrs(bits_of="bfloat16")
    assert "no gradient has reached these tokens" in sentence(analysis.end_state(ds))


def test_an_approximate_push_and_a_missing_one_are_said():
    ds = silent(9_000)
    near = ds.assign_attrs(
        optimizer_update=ds.attrs["optimizer_update"] | {"exact": False, "inexact": "on cuda it rounds"}
    )
    assert "The push is approximate here: on cuda it rounds." in sentence(analysis.end_state(near))
    none = sentence(analysis.end_state(ds.drop_vars("push").assign_attrs(no_push="the weights are float32")))
    assert "the weaker verdict, by the silence alone, since the push is not known: the weights are float32." in none


def test_a_run_of_too_few_episodes_has_no_verdict_but_its_push_is_told():
    told = analysis.end_state(silent(9_000, moving=[5]))
    assert no_verdict(told) == "too few episodes of motion"
    assert "1 episode of motion so far" in sentence(told)
    assert "the learning rate could have been" in sentence(told)
    assert plain(told)["frozen"] is False


def test_SGD_keeps_no_count_and_is_judged_by_its_momentum():
    ds = (
        silent(9_000)
        .drop_vars("optimizer_step")
        .assign_attrs(optimizer_update={"variant": "sgd_momentum", "momentum": 0.8, "exact": True})
    )
    told = plain(analysis.end_state(ds))
    assert told["blocks"] == (9_000 - 120) // 5
    assert told["E"] is not None


def test_a_long_last_episode_is_no_part_of_the_gaps_before_it():
    brief = [20, 40, 60, 80, 100, 120]
    long = [*brief, *range(121, 1_000)]
    from analysis.episodes import moments

    assert moments(long).span(4)[-1] == moments(brief).span(4)[-1]


def test_it_stays_lazy_with_a_push():
    answer = analysis.end_state(silent(300))
    assert isinstance(answer, xr.Dataset)
    assert all(array.chunks is not None for array in answer.data_vars.values())


def test_without_a_push_a_learning_rate_that_was_asked_for_is_never_told_as_that_of_the_run():
    rate = np.full(500, 1e-3)
    rate[300:] = 1e-4
    ds = silent(500, rate=rate).drop_vars("push")
    alone, asked = (analysis.end_state(ds, reference_learning_rate=each).load() for each in (None, 0.5))
    assert plain(asked) == plain(alone)
    assert plain(asked)["reference_learning_rate"] == 1e-4
    changes_nothing = "The learning rate of 0.5 that was asked for changes nothing: no push is known."
    assert " The learning rate is 0.0001; at the last motion it was 0.001. " + changes_nothing in sentence(asked)
    assert sentence(asked).replace(f" {changes_nothing}", "") == sentence(alone)


def test_of_several_runs_only_those_without_a_push_are_said_to_have_been_asked_in_vain():
    runs = {"known": silent(500), "unknown": silent(500).drop_vars("push")}
    for each in (runs, dict(reversed(runs.items()))):
        both = analysis.over(each, analysis.end_state, reference_learning_rate=0.5)
        assert "asked_in_vain" not in both.attrs
        assert both.sel(run=["known", "unknown"]).asked_in_vain.values.tolist() == ["", "0.5"]


@pytest.mark.parametrize("reference", [None, 0.5])
def test_without_a_push_a_learning_rate_of_0_is_named_whatever_was_asked_for(reference):
    rate = np.full(500, 1e-3)
    rate[300:] = 0
    told = analysis.end_state(silent(500, rate=rate).drop_vars("push"), reference_learning_rate=reference)
    assert "The learning rate is 0 at the end, so nothing can move" in sentence(told)


def test_an_adam_without_memory_of_squares_is_judged_as_any_other():
    ds = silent(3_000)
    without = ds.assign_attrs(optimizer_update=ds.attrs["optimizer_update"] | {"beta2": 0.0})
    told, usual = (plain(analysis.end_state(each)) for each in (without, ds))
    assert told["frozen"]
    assert told["blocks"] == usual["blocks"]


@pytest.mark.parametrize("level", [-2.0, -2.1, -2.2])
def test_what_a_push_is_at_most_and_what_it_leaves_are_not_rounded_over(level):
    answer = analysis.end_state(silent(3_000, level=level))
    most, room = (float(re.search(rf"{words} ([0-9.]+) ", sentence(answer))[1]) for words in ("at most", "have been"))
    told = plain(answer)
    assert told["push"] <= most < told["push"] + 0.01
    assert told["headroom"] - 0.1 < room <= told["headroom"]

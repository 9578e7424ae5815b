"""The short verdicts of the report, the terminal and the pictures: each says which of the two parts is why."""

import contextlib

import numpy as np
import pytest

import analysis
from analysis import simulate
from analysis.plots.movement import verdict as title
from crucible.inspection.analyze import ask
from crucible.inspection.report.asking import story_of
from crucible.inspection.report.captions import caption_of
from crucible.inspection.report.several import body_of_several
from crucible.inspection.report.several import verdict as verdict_of_several
from crucible.inspection.report.words import key_figures, verdict
from crucible.inspection.runs import table
from crucible.inspection.watch import line, screen

MOVING, TOTAL = [20, 40, 60, 80, 100, 120], 4_000


def run(level=-2.0, total=TOTAL, **changes):
    random = np.random.default_rng(1)
    pushes = np.exp(random.normal(level, 0.05, (total, 1)))
    pushes[[step - 1 for step in MOVING]] = 1.5
    return simulate.with_pushes(pushes, **changes).load()


def seen(told):
    return " ".join(str(each) for each in screen._verdict(told))


def level_of(told):
    return key_figures(told)[2][2]


def test_a_push_too_near_is_named_and_not_the_silence():
    ds = run(level=-0.25)
    told = ask(ds)
    assert told["end_state"]["p"] <= 0.05
    assert "the optimizer still comes near to moving something" in verdict(told)
    assert "not long enough" not in verdict(told)
    assert title(analysis.cooling(ds).load()).endswith(" moves are still to be expected")


def test_a_silence_too_short_is_named():
    ds = run(total=600)
    told = ask(ds)
    assert "which is not long enough" in verdict(told)
    assert title(analysis.cooling(ds).load()).endswith("p would do if nothing moves")


def test_a_silence_without_what_the_push_says_never_counts_as_the_end():
    told = ask(run().drop_vars("optimizer_step"))
    assert told["end_state"]["no_push"] is None
    assert "counts as the end" not in seen(told)
    assert level_of(told) == "0.05 with E ≤ 0.01; there is no E"


def test_without_a_push_the_stricter_level_is_named():
    told = ask(run().drop_vars("push"))
    assert "it was not recorded" in told["end_state"]["no_push"]
    assert "At p ≤ 0.01 it counts as the end." in seen(told)
    assert level_of(told) == "0.01 counts as the end"


@pytest.mark.parametrize("total", [TOTAL, pytest.param(16_000, marks=pytest.mark.slow)])
def test_a_lower_learning_rate_than_at_the_last_motion_is_named(total):
    rates = np.full(total, 1e-3)
    rates[120:] = 1e-8
    ds = run(total=total, learning_rate=rates)
    for each in (ds, ds.drop_vars("push")) if total > TOTAL else (ds,):
        assert verdict(ask(each)).endswith(" The learning rate fell from 0.001 to 1e-08 meanwhile.")
    assert "The learning rate fell" not in verdict(ask(run()))


@pytest.mark.slow
def test_a_report_for_a_learning_rate_that_was_asked_for_says_so_in_every_part():
    ds = run()
    story = story_of(ds, reference_learning_rate=4e-3)
    end = ask(ds, reference_learning_rate=4e-3)["end_state"]
    assert story.told["end_state"] == end
    assert end["E"] != ask(ds)["end_state"]["E"]
    last = {name: float(answer["E"].values.flat[-1]) for name, answer in story.answers.items() if "E" in answer}
    assert last == dict.fromkeys(("cooling", "end_state", "verdicts"), end["E"])
    assert verdict(story.told, story.reference).endswith(". Judged for a learning rate of 0.004.")
    assert "Judged for" not in verdict(ask(ds))


def test_no_end_is_judged_for_a_learning_rate_where_no_push_is_known():
    """The silence alone is judged there, and the run's own learning rates are what is told."""
    rates = np.full(TOTAL, 1e-3)
    rates[120:] = 1e-8
    known, unknown = (
        story_of(ds, reference_learning_rate=4e-3, brief=True)
        for ds in (run(), run(learning_rate=rates).drop_vars("push"))
    )
    assert "Judged for" not in verdict(unknown.told, unknown.reference)
    said = {
        "Judged for a learning rate of 0.004.": [known, known],
        "Judged for a learning rate of 0.004 where the push is known: run (1).": [known, unknown],
        "The learning rate of 0.004 that was asked for changes nothing: no push is known.": [unknown, unknown],
    }
    for words, stories in said.items():
        assert f"<p>{words}</p>" in "".join(body_of_several(stories, "", {})[1])


def test_a_p_and_an_e_just_above_their_level_are_not_told_as_the_level():
    """0.0502 is 0.05 in two digits, which would count as the end."""
    told = ask(run())
    end = {**told["end_state"], "p": 0.0502, "E": 0.010004, "frozen": False}
    story = {**told, "end_state": end}
    assert key_figures(story)[2][1:] == ("0.0502", "0.05 with E ≤ 0.01; E is 0.010004")
    assert "p = 0.0502" in seen(story)
    assert "E = 0.010004" in seen(story)
    assert "p 0.0502, E 0.010004, not frozen yet" in line(story)
    assert table([{**story, "end_state": {**end, "p": 0.050004}}])[1][0][7] == "0.050004"


def test_the_caption_of_the_silences_says_what_counts_as_the_end_of_this_run():
    """With a push p alone is not enough: the run is not frozen, though its p is below the line."""
    known, unknown = (story_of(ds, brief=True) for ds in (run(level=-0.25), run().drop_vars("push")))
    assert known.told["end_state"]["p"] <= 0.05
    assert not known.told["end_state"]["frozen"]
    assert "A silence counts as the end where both are at or below their dashed lines." in caption_of("silences", known)
    assert "At or below the dashed line a silence counts as the end." in caption_of("silences", unknown)
    assert "*E*" not in caption_of("silences", unknown)


def test_the_caption_of_an_e_names_the_learning_rate_that_was_asked_for_also_without_a_verdict():
    story = story_of(run(total=400), threshold=0.8, reference_learning_rate=4e-3)
    assert story.told["end_state"]["no_verdict"]
    assert "E is that of a learning rate of 0.004." in caption_of("silences", story)
    assert "E is that of" not in caption_of("silences", story_of(run(total=400)))


def test_the_last_motions_of_several_runs_are_those_of_the_runs_that_moved():
    moved = {name: simulate.with_moving_steps([last], total_steps=30) for name, last in (("a", 12), ("b", 20))}
    still = simulate.with_moving_steps([], total_steps=30)

    def said(*runs):
        with pytest.warns(match="no token moved") if any(ds is still for ds in runs) else contextlib.nullcontext():
            return verdict_of_several([story_of(ds, brief=True) for ds in runs]).split("; ")[1:]

    assert said(moved["a"], moved["b"]) == ["the last motion came between steps 12 and 20."]
    assert said(moved["a"], moved["a"]) == ["the last motion came at step 12."]
    assert said(moved["a"], still) == ["the last motion came at step 12 where anything moved."]
    assert said(still, still) == []

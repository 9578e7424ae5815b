"""What a report says of its pictures, at the edges of what a run may be: it is true of the numbers."""

from dataclasses import replace

import numpy as np
import xarray as xr

from analysis import plots, simulate
from crucible.inspection.analyze import ask
from crucible.inspection.report.alternatives import ALTERNATIVES
from crucible.inspection.report.asking import story_of
from crucible.inspection.report.captions import caption_of
from crucible.inspection.report.words import key_figures, verdict
from crucible.inspection.summary import tell_answers
from crucible.inspection.watch.looking import Look
from crucible.inspection.watch.screen import _rows


def said_of_pushes(strongest, room=()):
    answer = xr.Dataset({"strongest": ("step", np.float32(strongest)), "headroom": ("token", np.asarray(room, float))})
    story = {"headroom": answer}
    return ALTERNATIVES["push"](story), ALTERNATIVES["headroom"](story)


def test_a_push_that_is_unknown_or_infinite_at_the_last_step_is_said_to_be_so():
    assert said_of_pushes([np.nan, 0.5, np.nan])[0].endswith("at 0 steps; at the last step it is unknown.")
    assert said_of_pushes([np.nan, 0.5, np.inf])[0].endswith("at 1 step; at the last step it is infinite.")
    assert said_of_pushes([np.nan, 2, 0.25])[0].endswith("at 1 step; at the last step it is 0.25 of it.")


def test_a_headroom_that_is_not_known_is_told_from_none():
    nothing = [np.nan, 0.5]
    assert said_of_pushes(nothing, [2, 4, np.inf, np.nan])[1] == (
        "Of 4 tokens 2 have a push in the last steps; their headroom is at least 2, 3 in the median; 1 have none, and "
        "of 1 it is not known."
    )
    assert said_of_pushes(nothing, [np.nan])[1] == (
        "Of 1 token 0 have a push in the last steps; 0 have none, and of 1 it is not known."
    )


def test_weights_of_zero_lie_between_no_powers_of_two():
    W = np.array([[[0], [0], [0x3F80]], [[0], [0], [0]]], np.uint16)
    story = story_of(xr.Dataset({"W": (("step", "token", "hidden"), W)}, attrs={"completed": True}))
    assert ALTERNATIVES["lattice"](story).endswith("100% of the weights are 0 or nearer to it than 2⁻¹²⁶.")


def test_a_run_that_moved_at_its_last_step_is_not_said_to_be_silent():
    story = story_of(simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=120))
    assert verdict(story.told) == "Not frozen yet: something moved at the last step, 120."
    assert "None goes on at the end." in ALTERNATIVES["silences"](story)


def test_tokens_that_move_until_the_last_step_have_left_no_phase_and_are_not_frozen():
    """The last step of a phase was told as that by which half have left it, also where the run just ends there."""
    story = story_of(simulate.with_phases([(1, 3, 6), (2, 6, 6), (2, 4, 6)], total_steps=6))
    assert ALTERNATIVES["lifecycle"](story).startswith(
        "Half of the tokens have left the phases: supernova by step 2, cooling by step 4. "
        "Half or more are in them at the last step: stumbling."
    )
    assert key_figures(story.told)[3] == (
        "half were frozen by", "not yet", "half of the tokens or more moved at the last step"
    )  # fmt: skip
    axes = plots.lifecycle(story["lifecycle"])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "supernova, half by 2", "cooling, half by 4", "stumbling, half still in it"
    ]  # fmt: skip
    assert [line.get_xdata()[0] for line in axes.lines if line.get_gid() == "median"] == [2, 4]
    one_less = story_of(simulate.with_last_motion([5, 5, 6], total_steps=6))
    assert key_figures(one_less.told)[3] == ("half were frozen by", "5", "the last one at 6")


def test_a_single_state_that_is_not_finite_is_told_without_a_path():
    """Its path is 0 long, and how far it ends from its start is not known."""
    W = np.array([[[0x7FC0]], [[0x7FC0]]], np.uint16)
    ds = xr.Dataset({"W": (("step", "token", "hidden"), W)}, attrs={"completed": True}).isel(step=[1])
    story, lines = story_of(ds), []
    tell_answers(story.told, lines.append)
    assert lines[0].startswith("Diverged at step 0, the first state")
    assert not any("centroid" in line for line in lines)
    assert ALTERNATIVES["drift"](story) == "The path of the centroid is unknown."


def test_the_states_of_a_run_with_gaps_are_counted_and_not_its_steps():
    sparse = simulate.with_moving_steps([300, 120], total_steps=1000, size=2).isel(step=slice(None, None, 250))
    assert "of 5 states" in caption_of("cloud", story_of(sparse))


def test_a_run_that_goes_on_is_never_at_100_percent():
    told = ask(simulate.with_moving_steps([5, 9], total_steps=999))
    rows = {
        planned: next(_rows(Look("run", "recording", committed=999, planned=planned), told, 20))[2]
        for planned in (999, 1000)
    }
    assert rows == {999: "of 999 (100%)", 1000: "of 1,000 (99%)"}


def test_of_a_single_state_no_half_of_the_tokens_is_frozen():
    told = ask(simulate.with_moving_steps([5, 9], total_steps=20).isel(step=[10]))
    last, _, _, half = key_figures(told)
    assert last == ("last motion", "never", "of a single state, step 10")
    assert half == ("half were frozen by", "none", "no move is looked at")


def with_own_losses(last, every):
    """A trajectory whose loss was recorded at some steps only."""
    ds = simulate.with_last_motion([12, last], total_steps=last)
    steps = np.arange(0, last + 1, every)
    loss = ("step_loss", np.append(np.nan, np.float32(9.0) / steps[1:]).astype(np.float32))
    return ds.drop_vars("loss").assign(loss=loss).assign_coords(step_loss=steps)


def test_a_loss_that_was_recorded_at_some_steps_only_is_drawn_and_told():
    story = story_of(with_own_losses(20, 3))
    assert "The loss went from 3 to 0.5." in ALTERNATIVES["lifecycle"](story)
    assert "Below, the *loss* of each step that has one" in caption_of("lifecycle", story)
    line = plots.loss(story["loss"]).lines[0]
    assert line.get_xdata().tolist() == [3, 6, 9, 12, 15, 18]


def test_of_a_part_only_its_losses_are_told():
    ds = with_own_losses(20, 3)
    story = story_of(ds.sel(step=slice(5, 13)))
    assert "The loss went from 1.5 to 0.75." in ALTERNATIVES["lifecycle"](story)
    assert (story["loss"].attrs["first_step"], story["loss"].attrs["last_step"]) == (5, 13)
    nothing = story_of(ds.sel(step=slice(4, 5)))
    assert "No step has a loss" in caption_of("lifecycle", nothing)
    assert "loss" not in ALTERNATIVES["lifecycle"](nothing)


def test_a_loss_that_is_infinite_is_not_said_to_be_unknown():
    ds = simulate.with_last_motion([3, 5], total_steps=6).load()
    for last, word in ((np.inf, "infinite"), (-np.inf, "infinite"), (np.nan, "unknown")):
        ds.loss[6] = last
        assert ALTERNATIVES["lifecycle"](story_of(ds)).endswith(f"At the last step it is {word}.")
        look = Look("run", "recording", committed=6, losses=[5.0], loss=last)
        assert {name: number for name, number, _ in _rows(look, ask(ds), 20)}["loss"] == word


def test_a_centroid_that_is_not_known_is_not_said_to_stand_still():
    ds = simulate.with_last_motion([5, 5], total_steps=6).load()
    ds = ds.assign_attrs(tokens=2)  # all: the stored centroid is theirs
    ds.centroid[:] = np.inf
    assert ALTERNATIVES["autocorrelation"](story_of(ds)) == "No two moves of the centroid in a row are known."


def test_pictures_of_some_states_show_when_they_changed():
    """Of two moves far apart, nothing changes on the way from the one to the other."""
    story = story_of(simulate.with_moving_steps([10, 90], total_steps=100, size=2))
    assert story["cloud"]["step"].values.tolist() == [0, 9, 10, 89, 90, 99, 100]
    radii = story["cloud"]["radius_rms"].values
    assert radii[2] == radii[3] != radii[4]
    motion = story["cloud"]["thermal_motion"].values
    assert np.isfinite(motion).tolist() == [False, False, True, False, True, False, True]
    assert (motion[2], motion[6]) == (motion[4], 0)
    rows = story["identical_rows"]
    assert rows["step"].values.tolist() == story["cloud"]["step"].values.tolist()
    assert rows["distinct"].values.tolist() == [1, 1, 2, 2, 1, 1, 1]
    assert plots.exponents(story["exponents"]).get_xlim() == plots.cloud(story["cloud"]).get_xlim()


def test_nearly_all_and_nearly_none_are_not_told_as_all_and_none():
    story = story_of(simulate.with_moving_steps([20, 40, 4_998], total_steps=5_000))
    lines = []
    tell_answers(story.told, lines.append)
    assert "  Fimbulwinter: 2 steps, < 0.1% of the run" in lines
    axes = xr.Dataset({"share": ("axis", [0.9, 0.096, 0.004])})
    assert "(they hold > 99%)" in caption_of("sky", replace(story, answers={**story.answers, "snapshots": axes}))
    axes = xr.Dataset({"share": ("axis", [0.7, 0.3])})  # whose sum is a little below 1
    assert "(they hold 100%)" in caption_of("sky", replace(story, answers={**story.answers, "snapshots": axes}))
    story.told["drift"]["efficiency"] = 0.9996
    assert "an efficiency of > 99.9%." in ALTERNATIVES["drift"](story)


def test_the_norm_of_a_displacement_is_named():
    ds = simulate.trajectory([[[3, 4]], [[1, 0]]])
    for norm, said in (("l1", "7 cells by L1."), ("l2", "5 cells by L2."), ("linf", "4 cells by L∞.")):
        assert f"largest displacement was {said}" in ALTERNATIVES["cooling"](story_of(ds, norm=norm))

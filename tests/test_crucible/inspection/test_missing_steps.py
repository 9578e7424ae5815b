"""What is said of a run whose recorded states are some steps apart, as those of an imported file may be."""

import json

import pytest

from analysis import simulate
from crucible.inspection.analyze import ask
from crucible.inspection.report.asking import story_of
from crucible.inspection.report.captions import caption_of
from crucible.inspection.report.facts import body_of
from crucible.inspection.report.pictures import of_story
from crucible.inspection.report.words import verdict
from crucible.inspection.summary import tell_answers
from crucible.inspection.watch import line


@pytest.fixture(scope="module")
def sparse():
    return simulate.with_moving_steps([300, 120], total_steps=1000, size=2).isel(step=slice(None, None, 250))


def test_what_counts_single_steps_is_null_and_the_rest_says_its_resolution(sparse):
    answers = ask(sparse)
    assert json.loads(json.dumps(answers)) == answers
    assert answers["resolution_steps"] == 250
    assert (answers["stillness"], answers["end_state"], answers["lifecycle"]) == (None, None, None)
    assert answers["freeze"] == {"earliest": 250, "median": 250, "latest": 500}
    assert answers["fimbulwinter_duration"] == 500
    assert answers["drift"]["path"] > 0
    assert ask(simulate.with_last_motion([3, 5], total_steps=9))["resolution_steps"] == 1


def test_the_words_say_how_exact_they_are_and_what_was_not_asked(sparse):
    lines = []
    tell_answers(ask(sparse), lines.append)
    told = "\n".join(lines)
    assert "last motion of any token: step 500 of 1,000" in told
    assert "up to 250 steps apart: a motion came up to 249 steps before" in told
    assert "not asked, since they count single steps: stillness, end state, life cycle" in told
    assert "centroid: net" in told
    assert line(ask(sparse)).endswith("last motion 500, median freeze 250, states up to 250 steps apart")


def test_pictures_that_count_single_steps_are_left_out(sparse):
    story = story_of(sparse)
    drawn = [picture.name for picture in of_story(story)]
    assert drawn == ["survival", "drift", "autocorrelation", "cloud", "sky", "lattice"]
    assert verdict(story.told).startswith("No verdict: steps are missing")


def test_a_report_of_a_run_with_gaps_says_it_in_whole_sentences_and_names_no_colours(tmp_path, monkeypatch):
    ds = simulate.with_last_motion([5, 9, 2], total_steps=20)
    gaps = story_of(ds.isel(step=slice(None, None, 5)))
    assert "Colours" not in caption_of("sky", gaps)
    assert "that keeps areas. Colours are the phases. See" in caption_of("sky", story_of(ds))
    monkeypatch.setattr("crucible.inspection.report.facts.date_of_files", lambda _: "today")
    known = {"config": {}, "provenance": {}, "arrays": [], "raw_bytes": 0, "stored_bytes": 0}
    page = " ".join(body_of(tmp_path, known, gaps, "", {})[1])
    assert "a motion came up to 4 steps before the step that is named, and one that was undone between two " in page

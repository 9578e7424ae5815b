"""Colours and lines can be told apart, also by the colour-blind, on light ground and on dark."""

import itertools

import numpy as np
import pytest
import xarray as xr
from colours import SEEN_BY, contrast, lab, linear

import analysis
from analysis import plots, simulate
from analysis.plots.style import PALETTE, PHASES, SERIES

GROUNDS = ("#ffffff", "#0c0f15")
BESIDE = (
    ("supernova", "cooling", "stumbling", "frozen"),
    ("blue", "rust"),
    ("blue", "rust", "green"),
    ("teleporting", "multicell", "face", "none"),
)
"""Colours that stand beside each other in one picture."""


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("dark", [0, 1])
def test_colours_beside_each_other_differ_to_all_eyes(dark, eyes):
    for group in BESIDE:
        for one, other in itertools.combinations(group, 2):
            seen = [lab(np.array(SEEN_BY[eyes]) @ linear(PALETTE[name][dark])) for name in (one, other)]
            assert np.linalg.norm(seen[0] - seen[1]) > 16, (one, other)


@pytest.mark.parametrize("dark", [0, 1])
def test_words_and_lines_stand_out_from_the_ground(dark):
    for name in ("ink", "soft", "alarm", "blue", "rust", "green"):
        assert contrast(PALETTE[name][dark], GROUNDS[dark]) >= 4.5, name
    for name in ("supernova", "cooling", "stumbling"):
        assert contrast(PALETTE[name][dark], GROUNDS[dark]) >= 3, name


def test_every_colour_has_one_name():
    light = [light for light, _ in PALETTE.values()]
    assert len(set(light)) == len(light)


def test_lines_and_marks_differ_without_any_colour():
    for table in (SERIES, PHASES.values()):
        assert len({str(dashes) for _, dashes, _ in table}) == len(table)
        assert len({mark for _, _, mark in table}) == len(table)


LIVED = simulate.with_phases([(3, 5, 20), (2, 8, 45), (4, 4, 11)], total_steps=60)


@pytest.mark.parametrize(
    ("draw", "pairs"),
    [
        (
            lambda: plots.lifecycle(analysis.lifecycle(LIVED)),
            [("supernova, half by 3", "cooling, half by 5"), ("supernova, half by 3", "stumbling, half by 20")],
        ),
        (lambda: plots.drift(analysis.drift(LIVED)), [("path", "distance from the start")]),
        (lambda: plots.cloud(analysis.cloud(LIVED)), [("largest", "RMS"), ("RMS", "mean")]),
    ],
)
def test_two_lines_of_a_picture_differ_in_their_dashes(draw, pairs):
    lines = {line.get_label(): str(line._dash_pattern) for line in draw().lines}
    for one, other in pairs:
        assert lines[one] != lines[other]


def test_runs_that_ended_and_one_that_goes_on_have_marks_of_their_own():
    axes = plots.stillness(analysis.stillness(simulate.with_moving_steps([2, 9, 20], total_steps=60)))
    marks = {line.get_label(): line.get_marker() for line in axes.lines}
    assert marks["ended"] != marks["goes on at the last step"]


def test_several_runs_have_a_mean_and_a_band():
    runs = {f"run {i}": simulate.with_last_motion([2 + i, 5 + i], total_steps=12 - i) for i in range(3)}
    axes = plots.overlay({name: analysis.freeze_times(ds).survival for name, ds in runs.items()}, words="still move")
    mean = next(line for line in axes.lines if line.get_label() == "mean of 3 runs")
    assert mean.get_xdata()[[0, -1]].tolist() == [0, 10]  # the steps that all have
    together = [analysis.freeze_times(ds).survival.values[:11] for ds in runs.values()]
    np.testing.assert_allclose(np.interp(range(11), *mean.get_data()), np.mean(together, axis=0))
    (band,) = axes.collections
    top = max(y for path in band.get_paths() for _, y in path.vertices)
    assert top == pytest.approx((np.mean(together, axis=0) + np.std(together, axis=0)).max())


def test_on_a_logarithmic_axis_the_mean_is_called_what_it_is():
    """The mean of 1 and 100 is 50.5, their geometric mean 10; and there is none where one run is left out."""
    curves = {name: xr.DataArray(values, {"step": [0, 1, 2]}, ("step",)) for name, values in
              (("a", [1.0, 4.0, 0.0]), ("b", [100.0, 1.0, 2.0]))}  # fmt: skip
    for log, expected, label in (
        (False, [50.5, 2.5, 1], "mean of 2 runs"),
        (True, [10, 2, np.nan], "geometric mean of 2 runs"),
    ):
        mean = plots.overlay(curves, words="cells", log=log).lines[-1]
        np.testing.assert_allclose(mean.get_ydata(), expected)
        assert mean.get_label() == label


def test_many_runs_are_grey_lines_behind_their_mean():
    runs = {f"run {i}": simulate.with_last_motion([2 + i], total_steps=20) for i in range(8)}
    axes = plots.overlay({name: analysis.freeze_times(ds).survival for name, ds in runs.items()}, words="still move")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean of 8 runs"]
    with pytest.raises(ValueError, match="at least one DataArray along 'step'"):
        plots.overlay({}, words="nothing")


CALM = simulate.with_moving_steps([1, 2, 3, 20, 40, 60, 80, 100, 101, 120], total_steps=400)
PUSHED = simulate.with_pushes([[1.5, 2.0], [0.4, 1.5], [0.3, 0.2], [0.2, 0.1]])
WITH_LEGENDS = {
    "census": lambda ax: plots.census(analysis.census(CALM), ax=ax),
    "cloud": lambda ax: plots.cloud(analysis.cloud(LIVED), ax=ax),
    "cooling": lambda ax: plots.cooling(CALM, analysis.cooling(CALM, norm="l1"), ax=ax),
    "distinct_rows": lambda ax: plots.distinct_rows(analysis.identical_rows(LIVED), ax=ax),
    "drift": lambda ax: plots.drift(analysis.drift(LIVED), ax=ax),
    "headroom": lambda ax: plots.headroom(PUSHED, ax=ax),
    "lifecycle": lambda ax: plots.lifecycle(analysis.lifecycle(LIVED), ax=ax),
    "motion_of_cloud": lambda ax: plots.motion_of_cloud(analysis.cloud(LIVED), ax=ax),
    "overlay": lambda ax: plots.overlay(
        {name: analysis.freeze_times(LIVED).survival for name in "ab"}, words="", ax=ax
    ),
    "push": lambda ax: plots.push(PUSHED, ax=ax),
    "stillness": lambda ax: plots.stillness(analysis.stillness(CALM), ax=ax),
    "stratigraphy": lambda ax: plots.stratigraphy(LIVED, ax=ax),
    "survival": lambda ax: plots.survival(analysis.freeze_times(LIVED), ax=ax),
    "verdicts": lambda ax: plots.verdicts(CALM, ax=ax),
}


@pytest.mark.default_cases(8)
@pytest.mark.parametrize("width", [7.6, 4.1])
@pytest.mark.parametrize("name", WITH_LEGENDS)
def test_nothing_that_is_drawn_crosses_a_legend_and_all_words_are_inside(name, width):
    figure, (axes,) = plots.stack((3.2,), width=width)
    WITH_LEGENDS[name](axes)
    figure.draw_without_rendering()
    box, whole = axes.get_legend().get_window_extent(), figure.bbox
    assert box.y0 >= axes.bbox.y1 - 0.5
    assert (box.x0, box.x1, box.y1) == pytest.approx((box.x0, min(box.x1, whole.x1), min(box.y1, whole.y1)))
    for text in (title for title in (axes._left_title, axes._right_title) if title.get_text()):
        said = text.get_window_extent()
        assert said.y0 >= box.y1 - 1
        assert said.y1 <= whole.y1 + 1
        assert said.x1 <= whole.x1 + 1


def test_no_line_leads_over_steps_that_were_not_asked():
    told = analysis.cloud(simulate.with_motion(np.ones((30, 3), int))).isel(step=[1, 2, 10, 11, 29])
    for line in plots.motion_of_cloud(told).lines:
        steps, values = line.get_data()
        pairs = np.isfinite(values[1:]) & np.isfinite(values[:-1])
        if line.get_gid() != "alone":
            assert (np.diff(steps)[pairs] == 1).all()

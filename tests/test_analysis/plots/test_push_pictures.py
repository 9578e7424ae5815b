"""Pictures of the push: what stands in them, and that they are asked of a trajectory."""

import numpy as np
import pytest

import analysis
from analysis import plots, simulate

MOVING = [20, 40, 60, 80, 100, 120]


@pytest.fixture(scope="module")
def ds():
    pushes = np.exp(np.random.default_rng(1).normal(-2, 0.1, (3_000, 3)))
    pushes[[step - 1 for step in MOVING], 0] = 1.5
    pushes[:, 2] = 0
    return simulate.with_pushes(pushes)


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def test_the_push_has_its_line_at_1_and_a_tick_for_each_step_with_motion(ds):
    axes = plots.push(ds)
    lines = lines_of(axes)
    assert set(lines["from here on a weight moves"].get_ydata()) == {1}
    assert {*MOVING} <= set(lines["the strongest"].get_xdata().tolist())
    assert [line.get_xdata()[::3].tolist() for line in axes.lines if line.get_gid() == "rug"] == [MOVING]
    assert axes.get_yscale() == "log"
    answered = plots.push(analysis.headroom(ds), analysis.stillness(ds))
    assert answered.get_title(loc="left") == axes.get_title(loc="left")


def test_the_quantiles_are_named_that_were_asked_for(ds):
    told = analysis.headroom(ds, quantiles=[0.25, 0.6, 0.75])
    axes = plots.push(told)
    assert axes.get_legend_handles_labels()[1][:2] == ["25-75 % of tokens", "60 %"]
    np.testing.assert_array_equal(lines_of(axes)["60 %"].get_ydata()[-1], told.push[-1, 1])
    assert plots.push(ds).get_legend_handles_labels()[1][:2] == ["5-95 % of tokens", "median"]
    with pytest.raises(ValueError, match=r"plots\.push needs an answer with at least one quantile"):
        plots.push(analysis.headroom(ds, quantiles=[]))


def test_moves_over_several_steps_are_not_said_to_be_of_one():
    ds = simulate.with_last_motion([5, 9], total_steps=12)
    for part, words in ((ds, "a step"), (ds.isel(step=slice(None, None, 3)), "from one recorded step to the next")):
        assert plots.speed(analysis.drift(part)).get_ylabel() == f"speed, {words}"
        assert plots.motion_of_cloud(analysis.cloud(part)).get_ylabel() == f"{words}, units of the weights"


def test_the_step_from_which_a_run_is_frozen_is_told_exactly_only_where_every_step_was_asked():
    """Of those between two asked steps nobody knows: it is frozen by the second, and perhaps before."""
    ds = simulate.with_moving_steps([20, 23, 26, 29, 32, 35], total_steps=400).assign_attrs(beta1=0.5)
    exact = int(analysis.end_state(ds).frozen_from)
    assert f"frozen from step {exact:,}" in lines_of(plots.verdicts(analysis.verdicts(ds, every=1)))
    later = exact - exact % 100 + 100
    assert f"frozen by step {later:,}" in lines_of(plots.verdicts(analysis.verdicts(ds, every=100)))


def test_the_learning_rate_is_drawn_as_it_was(ds):
    line = plots.learning_rate(analysis.headroom(ds)).lines[0]
    assert set(line.get_ydata()[np.isfinite(line.get_ydata())]) == {1e-3}


def test_p_and_E_share_an_axis_with_the_levels_and_the_moments(ds):
    axes = plots.verdicts(ds)
    told = analysis.verdicts(ds).load()
    first = int(told.asked[told.frozen.values][0])
    assert {"p of the silence", "E, moves expected by the push", f"frozen by step {first:,}"} <= set(lines_of(axes))
    assert sorted(line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1) == [0.01, 0.05]
    alone = plots.verdicts(ds.drop_vars("push"))
    assert "E, moves expected by the push" not in lines_of(alone)
    assert alone.get_title(loc="left").endswith("by the silence alone")
    assert plots.verdicts(told).get_title(loc="left") == axes.get_title(loc="left")


def test_the_headroom_of_each_token_stands_against_its_last_motion(ds):
    axes = plots.headroom(ds)
    dots = lines_of(axes)["a token"]
    assert dots.get_xdata().tolist() == [120, 0], "one that never moved stands at the first step"
    np.testing.assert_array_equal(dots.get_ydata(), analysis.headroom(ds).headroom.values[:2])
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_gid() == "infinite"] == [[0]]


def test_tokens_that_never_moved_are_seen_whatever_the_first_step(ds):
    part = ds.sel(step=slice(1000, 1040))
    axes = plots.headroom(part)
    low, high = axes.get_xlim()
    dots = lines_of(axes)["a token"].get_xdata()
    assert len(dots) == 2
    assert low < min(dots) <= max(dots) < high


def test_pushes_beyond_the_axis_are_named_and_infinite_ones_are_triangles():
    pushes = np.full((40, 2), 0.5)
    pushes[3], pushes[7, 0] = 0, 1e30
    pushes[9, 0] = np.inf
    axes = plots.push(analysis.headroom(simulate.with_pushes(pushes)))
    text = axes.yaxis.get_major_formatter()
    assert [text(value, 0) for value in (1e-6, 1, 1e6)] == ["≤10⁻⁶", "1", "≥10⁶"]
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_gid() == "infinite"] == [[10]]
    within = plots.push(simulate.with_pushes(np.full((40, 2), 0.5))).yaxis.get_major_formatter()
    assert [within(value, 0) for value in (1e-6, 1e6)] == ["10⁻⁶", "10⁶"]


@pytest.mark.parametrize("picture", [plots.push, plots.headroom])
def test_without_a_push_the_reason_is_said(picture, ds):
    with pytest.raises(ValueError, match="no push is known of this run"):
        picture(ds.drop_vars("push"))

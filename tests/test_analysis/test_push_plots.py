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


def test_the_push_has_its_line_at_1_and_the_learning_rate_below(ds):
    figure = plots.push(ds)
    above, below = figure.axes
    lines = {line.get_label(): line for line in above.lines}
    assert set(lines["from here on a weight moves"].get_ydata()) == {1}
    assert lines["strongest, something moved"].get_xdata().tolist() == MOVING
    assert [line.get_xdata().tolist() for line in above.lines if line.get_gid() == "rug"] == [MOVING]
    np.testing.assert_array_equal(below.lines[0].get_ydata(), 1e-3)
    assert above.get_yscale() == "log"


def test_p_and_E_share_an_axis_with_the_levels_and_the_moments(ds):
    axes = plots.verdicts(ds).axes[0]
    labels = [line.get_label() for line in axes.lines]
    told = analysis.verdicts(ds).load()
    first = int(told.asked[told.frozen.values][0])
    assert {"p of the silence", "E, moves expected by the push", f"frozen from step {first:,}"} <= set(labels)
    assert sorted(line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1) == [0.01, 0.05]
    alone = plots.verdicts(ds.drop_vars("push")).axes[0]
    assert "E, moves expected by the push" not in [line.get_label() for line in alone.lines]
    assert alone.get_title(loc="left").endswith("by the silence alone")
    assert plots.verdicts(told).axes[0].get_title(loc="left") == axes.get_title(loc="left")


def test_the_headroom_of_each_token_stands_against_its_last_motion(ds):
    axes = plots.headroom(ds).axes[0]
    dots = next(line for line in axes.lines if line.get_label() == "token")
    assert dots.get_xdata().tolist() == [120, -1]
    np.testing.assert_array_equal(dots.get_ydata(), analysis.headroom(ds).headroom.values[:2])
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_gid() == "infinite"] == [[-1]]


@pytest.mark.parametrize("picture", [plots.push, plots.headroom])
def test_without_a_push_the_reason_is_said(picture, ds):
    with pytest.raises(ValueError, match="no push is known of this run"):
        picture(ds.drop_vars("push"))

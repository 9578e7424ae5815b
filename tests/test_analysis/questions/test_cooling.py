"""The cooling curve against a plain loop: quantiles of the norms, and how many tokens move."""

import math

import pytest
from analysis_loops import loop_stratigraphy
from analysis_oracles import cut, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import simulate
from analysis.questions.cooling import cooling, stratigraphy


@pytest.mark.slow
@given(trajectories(), st.data(), st.sampled_from(["l1", "l2", "linf"]), st.sampled_from([0.1, 1.0, 2.0, math.inf]))
@settings(max_examples=20, deadline=None)
def test_cooling_is_the_loop(known, data, norm, threshold):
    ds = data.draw(cut(known.dataset(junk=99)))
    told = cooling(ds, norm=norm, threshold=threshold, quantiles=[0, 0.5, 0.9]).load()
    assert told.step.values.tolist() == known.steps
    count = len(known.tokens)
    for step in known.moves:
        ordered = sorted(0.0 if math.isnan(x) else float(x) for x in known.norms[norm][step])
        expected = [ordered[math.floor(q * (count - 1))] for q in (0, 0.5, 0.9)]
        assert told.displacement.sel(step=step).values.tolist() == expected
        moving = sum(known.moved(step, i, norm, threshold) for i in range(count)) / count
        assert float(told.moving.sel(step=step)) == pytest.approx(moving)


def test_a_norm_that_equals_the_threshold_is_motion():
    ds = simulate.with_motion([[1, 0], [0, 0]], cells=2)
    for threshold, moving in ((2, 0.5), (2.5, 0.0)):
        assert cooling(ds, threshold=threshold).moving.values[1:].tolist() == [moving, 0.0]


@pytest.mark.slow
@given(trajectories(), st.data(), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_the_raster_of_all_tokens_is_the_loop(known, data, columns):
    told = stratigraphy(data.draw(cut(known.dataset(junk=99))), columns=columns).load()
    expected = loop_stratigraphy(known, columns)
    shape = (len(known.tokens), -(-len(known.moves) // told.attrs["steps_of_column"]))
    assert told.moved_within.values.tolist() == [row[: shape[1]] for row in expected["moved_within"]]
    assert told.last_motion.values.tolist() == expected["last_motion"]
    assert told.column.values.tolist() == known.moves[:: told.attrs["steps_of_column"]]
    assert len(told.column) <= columns


def test_a_raster_needs_a_column():
    with pytest.raises(ValueError, match="columns must be at least 1, not 0"):
        stratigraphy(simulate.with_motion([[1, 0]]), columns=0)

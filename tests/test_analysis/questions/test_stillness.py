import statistics

import numpy as np
import pytest
from analysis_oracles import Trajectory, cut, runs_of_still_steps, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis


@given(trajectories(), st.data(), st.sampled_from(["l1", "l2", "linf"]), st.sampled_from([0.1, 1.0, 2.0]))
@settings(max_examples=25, deadline=None)
def test_stillness_is_the_loop(known, data, norm, threshold):
    ds = data.draw(cut(known.dataset(junk=99)))
    found = analysis.stillness(ds, norm=norm, threshold=threshold).compute()
    moving = known.any_moved(norm, threshold)
    assert found.any_motion.values.tolist() == moving
    runs = [(known.moves[at], length) for at, length in runs_of_still_steps(moving[1:])]
    by_step = dict.fromkeys(known.steps, 0) | dict(runs)
    assert found.run_length.values.tolist() == list(by_step.values())
    ranked = sorted(runs, key=lambda run: (-run[1], run[0]))
    missing = 10 - len(ranked)
    assert found.longest.values.tolist() == [length for _, length in ranked] + [-1] * missing
    assert found.start.values.tolist() == [start for start, _ in ranked] + [-1] * missing
    finals = [start + length - 1 == known.steps[-1] for start, length in ranked]
    assert found.final.values.tolist() == finals + [False] * missing
    lengths = sorted(length for _, length in runs)
    told = analysis.plain(found)
    assert told["run_count"] == len(runs)
    assert told["mean_length"] == (statistics.fmean(lengths) if runs else None)
    assert told["median_length"] == (lengths[len(lengths) // 2] if runs else None)
    assert told["final_vs_second"] == (lengths[-1] / lengths[-2] if len(runs) > 1 else None)
    assert (told["nonfinite"], told["first_nonfinite"] or -1) == (known.nonfinite()[0], known.nonfinite()[1] or -1)


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=25, deadline=None)
def test_stillness_of_each_token_is_the_loop(known, data):
    ds = data.draw(cut(known.dataset(junk=99)))
    found = analysis.token_stillness(ds).compute()
    for i, token in enumerate(known.tokens):
        moving = [known.moved(step, i) for step in known.moves]
        lengths = [length for _, length in runs_of_still_steps(moving)]
        here = found.sel(token=token)
        assert int(here.longest) == max(lengths, default=0)
        assert int(here.run_count) == len(lengths)
        assert int(here.current) == (lengths[-1] if moving and not moving[-1] else 0)


@pytest.mark.parametrize("steps_in_a_chunk", [1, 2, 3, 4, 7])
def test_every_pattern_of_eight_moves_is_counted_across_chunks(steps_in_a_chunk):
    patterns = [[token >> t & 1 for t in range(8)] for token in range(256)]
    ds = analysis.simulate.with_motion(np.array(patterns).T).chunk(step=steps_in_a_chunk, token=100)
    found = analysis.token_stillness(ds).compute()
    for token, moving in enumerate(patterns):
        lengths = [length for _, length in runs_of_still_steps(moving)]
        current = 0 if moving[-1] else lengths[-1]
        here = (found["longest"].values[token], found["run_count"].values[token], found["current"].values[token])
        assert here == (max(lengths, default=0), len(lengths), current)


def test_more_than_ten_runs_are_all_in_run_length():
    bits = np.full((60, 1, 1), 0x3F80, np.uint16)
    for t in range(0, 60, 4):
        bits[t:] ^= 1
    found = analysis.stillness(Trajectory(bits).dataset().chunk(step=7))
    assert found.longest.values.tolist() == [3] * 10
    assert int(found.run_count) == 15
    assert int((found.run_length > 0).sum()) == 15


def test_motion_at_every_step_is_no_run_and_no_division():
    bits = np.array([0x3F80 + t % 2 for t in range(6)], np.uint16)[:, None, None]
    told = analysis.plain(analysis.stillness(Trajectory(bits).dataset()))
    assert told["run_count"] == 0
    assert told["final_vs_second"] is told["mean_length"] is told["median_length"] is None
    assert told["longest"] == [None] * 10

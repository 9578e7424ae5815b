"""The verdict on a sorted list of moving steps, against plain loops and against known answers."""

import math

import moving_processes as processes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_run_moving import real_run_moving_steps

from analysis.episodes import Rule, frozen_from, moments, p_value
from analysis.questions.endstate import verdict


def told_by_a_loop(moving, last_step, *, first_step=1, memory=10, most=10, fewest=4, level=0.01):
    """analysis.md, word by word."""
    episodes, still_runs, previous = [], [], None
    for t in moving:
        if previous is None:
            episodes.append([t, t])
            still_runs.append(t - first_step)
        else:
            still_runs.append(t - previous - 1)
            if t - previous - 1 < memory:
                episodes[-1][1] = t
            else:
                episodes.append([t, t])
        previous = t
    used = episodes[-(most + 1) :]
    e0 = used[0][1] if len(used) == len(episodes) else used[0][0]
    n, g, m = len(used) - 1, moving[-1], sum(run >= memory for run in still_runs) + 1
    p = None if n < fewest else min(1.0, m * (1 + math.log((last_step + 1) / g) / math.log(used[-1][0] / e0)) ** -n)
    longest = max(still_runs)
    return {
        "gap": last_step - g,
        "longest_earlier": longest,
        "ratio": (last_step - g) / longest if longest else None,
        "episodes": n + 1,
        "looks": m,
        "p": p,
        "frozen": p is not None and p <= level,
    }


moving_steps = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda gaps: np.cumsum(gaps).tolist())


@settings(deadline=None)
@given(moving_steps, st.integers(0, 100_000), st.integers(1, 12), st.integers(1, 12), st.integers(0, 30))
def test_every_number_equals_the_loop(moving, silence, memory, most, before):
    first = max(1, moving[0] - before)
    rule = Rule(memory=memory, gaps=max(most, 4))
    told = verdict(moving, last_step=moving[-1] + silence, first_step=first, rule=rule)
    expected = told_by_a_loop(moving, moving[-1] + silence, first_step=first, memory=memory, most=max(most, 4))
    for name, value in expected.items():
        assert told[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


@settings(deadline=None)
@given(moving_steps)
def test_every_moment_of_a_run_equals_a_verdict_asked_then(moving):
    known = moments(moving)
    until = np.array([*[later - 1 for later in moving[1:]], moving[-1] + 777])
    at_every_moment = p_value(known, until)
    for index, last_step in enumerate(until):
        told = verdict(moving[: index + 1], last_step=int(last_step))
        assert (known.gaps[index] + 1, known.looks[index]) == (told["episodes"], told["looks"])
        assert told["p"] == (None if np.isnan(at_every_moment[index]) else pytest.approx(at_every_moment[index]))


@settings(deadline=None)
@given(moving_steps)
def test_frozen_from_is_the_first_step_at_which_p_reaches_the_level(moving):
    known = moments(moving)
    step = frozen_from(known)[-1]
    if math.isnan(step):
        assert verdict(moving, last_step=10**15)["frozen"] is False
    elif step < 1e12:  # beyond, float64 has no single steps left in T + 1
        assert verdict(moving, last_step=int(step * (1 + 1e-12)) + 1)["frozen"]
        assert not verdict(moving, last_step=max(moving[-1], int(step * (1 - 1e-12)) - 1))["frozen"]


def test_the_real_run_at_its_last_step():
    told = verdict(real_run_moving_steps(), last_step=5000)
    assert (told["last_motion"], told["since"], told["looks"]) == (3517, 2318, 35)
    assert told["p"] == pytest.approx(0.0768, abs=5e-5)
    assert (told["frozen"], told["frozen_from"]) == (False, 5950)
    assert verdict(real_run_moving_steps(), last_step=5950)["frozen"]


def test_the_real_run_is_never_called_frozen_too_early():
    known = moments(real_run_moving_steps())
    assert not (p_value(known, [*known.motion[1:] - 1, 5000]) <= 0.01).any()


@pytest.mark.parametrize("process", [processes.constant(0.02), processes.power(1, 10), processes.bursts(10, 5, 3)])
def test_it_is_hardly_ever_wrong_where_its_assumption_holds(process):
    moved, _ = process.draw(np.random.default_rng(11), 200, 3000)
    wrong = 0
    for run in moved:
        known = moments(np.flatnonzero(run) + 1)
        wrong += (p_value(known, [*known.motion[1:] - 1, 3000]) <= 0.01).any()
    assert wrong <= 4


def test_what_really_ends_is_called_frozen_and_not_before():
    moved, _ = processes.ending(processes.constant(0.02), 1000, 2000).draw(np.random.default_rng(11), 100, 5000)
    told = [verdict(np.flatnonzero(run) + 1, last_step=5000)["frozen"] for run in moved]
    assert sum(told) > 90


def test_no_motion_and_too_few_episodes_have_no_p():
    still = verdict([], last_step=50)
    assert (still["gap"], still["longest_earlier"], still["episodes"], still["looks"]) == (50, 0, 0, 1)
    assert still["p"] is None
    assert still["last_motion"] is None
    assert still["frozen"] is False
    few = verdict([1, 2, 30, 60, 90], last_step=10**9)
    assert (few["episodes"], few["p"], few["confidence"], few["frozen"]) == (4, None, None, False)
    assert "5 are needed" in few["sentence"]


def test_motion_at_every_step_has_no_ratio():
    told = verdict(range(1, 101), last_step=100)
    assert (told["gap"], told["longest_earlier"], told["ratio"], told["episodes"]) == (0, 0, None, 1)


def test_weights_that_are_not_finite_are_never_frozen_and_the_sentence_says_so():
    moving = [20, 40, 60, 80, 100, 120]
    assert verdict(moving, last_step=20_000)["frozen"] is True
    told = verdict(moving, last_step=20_000, finite=False)
    assert told["frozen"] is False
    assert "NaN or infinite" in told["sentence"]


def test_the_sentence_names_its_assumption_and_that_it_is_the_weaker_verdict():
    told = verdict([20, 40, 60, 80, 100, 120], last_step=20_000, no_push="it was not recorded")
    assert "falls like 1/t" in told["sentence"]
    assert "weaker verdict, by the silence alone, since the push is not known: it was not recorded." in told["sentence"]
    assert "onfidence" not in told["sentence"]
    waiting = verdict([20, 40, 60, 80, 100, 120], last_step=400)
    assert "step 15332" in waiting["sentence"]


@pytest.mark.parametrize("threshold", [0.500001, 0.75, 1.0, 3, math.inf])
def test_a_threshold_that_misses_moves_gives_no_verdict(threshold):
    told = verdict([20, 40, 60, 80, 100, 120], last_step=20_000, threshold=threshold, norm="linf")
    assert (told["frozen"], told["p"], told["confidence"], told["frozen_from"]) == (False, None, None, None)
    assert (told["gap"], told["last_motion"], told["episodes"]) == (19_880, 120, 6)  # what was seen stays
    assert told["sentence"].startswith(f"No verdict at step 20000: by a threshold of {threshold:.7g} cells (Linf) ")
    assert "at most 0.5" in told["sentence"]
    assert verdict([], last_step=9, threshold=threshold)["sentence"].startswith("No verdict at step 9: by a threshold")


@pytest.mark.parametrize("threshold", [1e-30, 0.1, 0.5, 0.5 + 1e-9])
def test_every_other_threshold_is_named(threshold):
    told = verdict([20, 40, 60, 80, 100, 120], last_step=20_000, threshold=threshold, norm="l1")
    assert told["frozen"] is True
    assert f"by L1 >= {threshold:.7g} cells" in told["sentence"]


@pytest.mark.parametrize("moving", [[], [5], [20, 40, 60, 80, 100, 120]])
def test_every_sentence_says_that_weights_are_not_finite(moving):
    assert "NaN or infinite" in verdict(moving, last_step=400, finite=False)["sentence"]


@pytest.mark.parametrize(
    ("moving", "first", "last"),
    [([3, 3], 1, 9), ([5, 4], 1, 9), ([0, 4], 1, 9), ([4], 5, 9), ([4], 0, 9), ([10], 1, 9)],
)
def test_labels_that_cannot_be_are_refused(moving, first, last):
    with pytest.raises(ValueError, match=r"step|label"):
        verdict(moving, first_step=first, last_step=last)


def test_a_rule_that_cannot_be_is_refused():
    for bad in ({"memory": 0}, {"gaps": 3}, {"level": 0.0}, {"fewest": 0}):
        with pytest.raises(ValueError, match="need memory"):
            Rule(**bad)
    assert [Rule.for_beta1(b).memory for b in (0.0, 0.9, 0.99)] == [1, 10, 100]
    with pytest.raises(ValueError, match="beta1"):
        Rule.for_beta1(1.0)


def test_a_p_is_told_on_its_side_of_the_level():
    """At the steps at which p passes the level, two digits would say that it is there already."""
    moving, level = [20, 40, 60, 80, 100, 120], 0.01
    at = verdict(moving, last_step=400)["frozen_from"]
    for last_step in range(at - 60, at + 1):
        told = verdict(moving, last_step=last_step)
        shown = float(told["sentence"].split("(p = ")[1].split(",")[0])
        assert (shown <= level) == (told["p"] <= level) == told["frozen"]

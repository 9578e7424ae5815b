"""The expected moves of a silence against plain loops, and what they must never do."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.optimizers.expected_moves import Limits, _expected, expected_moves

STEADY = {"beta1": 0.9, "last_motion": 0}


def plain(pushes, rates, counts, *, last_motion, beta1, beta2=None, reference=None, horizon=None):
    """Step by step, as the rule is told, on Python's own numbers; None where there is no estimate."""
    total, r = len(pushes), max(1, round(1 / (1 - beta1)))
    reference = rates[-1] if reference is None else reference
    horizon = total if horizon is None else horizon
    start = last_motion
    for t in range(1, total):
        if counts is not None and counts[t] != counts[t - 1] + 1:
            start = max(start, t)
    y = []
    for block_start in range(0, total, r):
        if block_start < start or block_start + r > total:
            continue
        levels = []
        for t in range(block_start, block_start + r):
            if rates[t] == 0:
                continue
            level = math.log(max(pushes[t], 1e-30) / rates[t]) + math.log(reference)
            if beta2 is not None:
                level -= 0.5 * math.log(1 - beta2 ** counts[t])
            levels.append(level)
        if levels:
            y.append(max(levels))
    count = len(y)
    if count < 20:
        return None, count
    x = list(range(1, count + 1))
    x_mean, y_mean = sum(x) / count, sum(y) / count
    sxx = sum((a - x_mean) ** 2 for a in x)
    b = sum((a - x_mean) * (c - y_mean) for a, c in zip(x, y, strict=True)) / sxx
    residuals = [c - (y_mean + b * (a - x_mean)) for a, c in zip(x, y, strict=True)]
    s = math.sqrt(sum(e * e for e in residuals) / (count - 2))
    rho = sum(e * f for e, f in itertools.pairwise(residuals)) / sum(e * e for e in residuals)
    rho = min(max(rho, 0), 0.9)
    f = (1 + rho) / (1 - rho)
    se = s * math.sqrt(1 / count + (count - x_mean) ** 2 / sxx)
    b_plus = max(0, b + 2 * s / math.sqrt(sxx) * math.sqrt(f))
    level = y_mean + b * (count - x_mean) + 2 * se * math.sqrt(f)
    expected = 0.0
    for k in range(1, horizon // r + 1):
        z = -(level + b_plus * k) / (s * math.sqrt(6) / math.pi) + 0.57721566490153286
        expected += 1 - math.exp(-math.exp(-z)) if z > -30 else 1.0
    return (expected, level, b, b_plus, s, rho), count


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(60, 900),
    st.tuples(st.sampled_from([0.0, 0.5, 0.8, 0.9]), st.sampled_from([None, 0.95, 0.999])),
    st.booleans(),
    st.data(),
)
def test_it_is_what_the_plain_loop_says(seed, total, betas, restart, data):
    random = np.random.default_rng(seed)
    pushes = np.exp(random.normal(-3, 1, total) * 3 * random.random() - random.random() * np.arange(total) / total)
    pushes[random.random(total) < 0.01] = 0
    rates = np.where(random.random(total) < 0.1, 0.0, 1e-3 * random.random(total) + 1e-4)
    rates[-1] = 1e-3
    counts = np.arange(1, total + 1)
    if restart:
        counts[random.integers(1, total) :] -= 1
        counts = np.maximum(counts, 1)
    options = {"last_motion": data.draw(st.integers(0, total)), "beta1": betas[0], "beta2": betas[1]}
    reference = data.draw(st.sampled_from([None, 1e-4, 0.3]))
    horizon = data.draw(st.sampled_from([None, 0, 7, 5000]))
    told = expected_moves(pushes, rates, counts, reference_learning_rate=reference, horizon=horizon, **options)
    true, blocks = plain(
        pushes.tolist(), rates.tolist(), counts.tolist(), reference=reference, horizon=horizon, **options
    )
    assert told.blocks == blocks
    if true is None:
        assert math.isnan(told.expected)
    else:
        found = (told.expected, told.level, told.slope, told.highest_slope, told.spread, told.correlation)
        assert found == pytest.approx(true, rel=1e-6, abs=1e-9)
    assert told.reference_learning_rate == (1e-3 if reference is None else reference)


def steady(total=600, rate=1e-3, seed=0, level=-2.0, spread=0.1):
    return np.exp(np.random.default_rng(seed).normal(level, spread, total)), np.full(total, rate)


def test_blocks_are_whole_begin_after_the_last_motion_and_end_at_multiples_of_the_memory():
    pushes, rates = steady(607)
    for last_motion, blocks in [(0, 60), (1, 59), (10, 59), (11, 58), (399, 20), (400, 20), (401, 0), (607, 0)]:
        told = expected_moves(pushes, rates, beta1=0.9, last_motion=last_motion)
        if blocks < 20:
            assert math.isnan(told.expected)
        else:
            assert told.blocks == blocks
            assert told.expected >= 0


def test_fewer_than_20_blocks_are_no_estimate():
    for total, known in [(199, False), (200, True), (209, True)]:
        told = expected_moves(*steady(total), **STEADY)
        assert math.isfinite(told.expected) is known
        assert told.blocks == total // 10


def test_the_window_begins_anew_where_the_optimizers_count_does():
    pushes, rates = steady()
    pushes[:300] = 1e6
    counts = np.concatenate([np.arange(1, 301), np.arange(1, 301)])
    told = expected_moves(pushes, rates, counts, beta2=0.999, **STEADY)
    alone = expected_moves(pushes[300:], rates[300:], counts[300:], beta2=0.999, horizon=600, **STEADY)
    assert told.blocks == 30
    assert told.expected == alone.expected


def test_what_the_bias_correction_will_still_add_is_counted_now():
    pushes, rates = steady()
    early = expected_moves(pushes, rates, np.arange(1, 601), beta2=0.999, **STEADY)
    late = expected_moves(pushes, rates, np.arange(100_001, 100_601), beta2=0.999, **STEADY)
    assert early.level > late.level
    assert late.level == pytest.approx(expected_moves(pushes, rates, **STEADY).level)


def test_the_estimate_holds_at_the_reference_learning_rate():
    pushes, rates = steady()
    halved = np.concatenate([pushes[:300], pushes[300:] / 2]), np.concatenate([rates[:300], rates[300:] / 2])
    at_last = expected_moves(*halved, **STEADY)
    at_first = expected_moves(*halved, reference_learning_rate=1e-3, **STEADY)
    assert at_first.expected == pytest.approx(expected_moves(pushes, rates, **STEADY).expected)
    assert at_last.level == pytest.approx(at_first.level - math.log(2))
    assert (at_last.reference_learning_rate, at_first.reference_learning_rate) == (5e-4, 1e-3)


@pytest.mark.parametrize("reference", [0.0, math.nan, math.inf])
def test_an_unknown_reference_is_no_estimate(reference):
    told = expected_moves(*steady(), reference_learning_rate=reference, **STEADY)
    assert math.isnan(told.expected)
    assert told.headroom > 1


def test_a_run_whose_learning_rate_ended_at_0_needs_a_reference():
    pushes, rates = steady()
    pushes[500:], rates[500:] = 0, 0
    assert math.isnan(expected_moves(pushes, rates, **STEADY).expected)
    told = expected_moves(pushes, rates, reference_learning_rate=1e-3, **STEADY)
    assert told.blocks == 50
    assert told.expected < 0.01


def test_decline_gives_no_credit_and_a_rise_counts():
    pushes, rates = steady(level=-1.0)
    falling, rising = (pushes * np.exp(sign * np.arange(600) / 600) for sign in (-1, 1))
    assert expected_moves(falling, rates, **STEADY).highest_slope == 0
    assert expected_moves(falling, rates, **STEADY).slope < 0
    assert expected_moves(rising * math.exp(-1), rates, **STEADY).expected > 1
    assert expected_moves(pushes, rates, **STEADY).expected < expected_moves(rising, rates, **STEADY).expected


def test_pushes_without_any_spread():
    rates = np.full(600, 1e-3)
    assert expected_moves(np.full(600, 0.3), rates, **STEADY).expected == 0
    assert expected_moves(np.zeros(600), rates, **STEADY).expected == 0
    assert expected_moves(np.full(600, 1.0), rates, **STEADY).expected == 60
    assert expected_moves(np.full(600, 3.0), rates, **STEADY, horizon=1000).expected == 100


def test_a_rise_without_any_spread_is_expected_to_move_everything():
    assert [_expected(-1.0, slope, 0.0, 7) for slope in (0.0, 0.1)] == [0, 7]


def test_the_expected_moves_never_pass_the_blocks_of_the_future():
    told = expected_moves(*steady(level=5.0), **STEADY, horizon=10_000)
    assert told.expected == pytest.approx(1000)
    assert expected_moves(*steady(level=5.0), **STEADY, horizon=9).expected == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_unknown_push_in_the_window_is_no_estimate_and_before_it_no_matter(bad):
    pushes, rates = steady()
    pushes[100] = bad
    assert math.isnan(expected_moves(pushes, rates, **STEADY).expected)
    assert math.isfinite(expected_moves(pushes, rates, beta1=0.9, last_motion=101).expected)


def test_headroom_is_one_over_the_strongest_push_of_the_last_20_memories():
    pushes, rates = np.full(600, 0.1), np.full(600, 1e-3)
    pushes[399], pushes[400], pushes[599] = 0.8, 0.5, 0.2
    assert expected_moves(pushes, rates, **STEADY).headroom == 2
    rates[400] = 0
    assert expected_moves(pushes, rates, **STEADY).headroom == 5
    assert expected_moves(np.zeros(600), rates, **STEADY).headroom == math.inf
    assert math.isnan(expected_moves(pushes, np.zeros(600), **STEADY).headroom)
    pushes[599] = math.nan
    assert math.isnan(expected_moves(pushes, rates, **STEADY).headroom)


@pytest.mark.parametrize("push", [math.nan, math.inf])
def test_an_infinite_learning_rate_is_met_without_a_word(push):
    """NumPy's own warning of it was printed as a note of `crucible analyze`."""
    pushes, rates = np.full(600, 0.1), np.full(600, 1e-3)
    pushes[-1], rates[-1] = push, math.inf
    told = expected_moves(pushes, rates, **STEADY)
    assert math.isnan(told.expected)
    assert told.headroom == 0 if push == math.inf else math.isnan(told.headroom)


def test_nothing_recorded_is_no_answer():
    told = expected_moves([], [], beta1=0.9, last_motion=0)
    assert math.isnan(told.expected)
    assert math.isnan(told.headroom)
    assert (told.blocks, told.memory, told.horizon) == (0, 10, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "why"),
    [
        (([1.0], [1.0, 2.0]), {}, "one for each step"),
        (([[1.0]], [[1.0]]), {}, "one for each step"),
        (([1.0], [1.0]), {"last_motion": 2}, r"in 0 \.\. 1"),
        (([1.0], [1.0]), {"beta1": 1.0}, r"in \[0, 1\)"),
        (([1.0], [1.0]), {"beta2": 0.999}, "needs optimizer_step"),
    ],
)
def test_what_cannot_be_is_refused(arguments, options, why):
    with pytest.raises(ValueError, match=why):
        expected_moves(*arguments, **(STEADY | options))


def test_limits_that_make_no_sense_are_refused():
    for options in ({"fewest_blocks": 2}, {"errors": -1}, {"highest_correlation": 1}, {"lowest_push": 0}):
        with pytest.raises(ValueError, match="need"):
            Limits(**options)

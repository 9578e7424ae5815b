"""What a run tells of its optimizer's numbers, and how long a memory its silence is judged by."""

import pytest

from analysis.questions.endstate import rule_for
from crucible.updates.numbers import MOST_TOLD_BEFORE, longer_memory, told_from, told_until

TOLD = [{}, {"beta1": 0.5}, {"momentum": 0.99}, {"optimizer_update": {"variant": "sgd_momentum", "momentum": 0.99}}]
"""The last as runs had it before they had an attribute for the momentum."""


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("now", [{"momentum": 0.95}, {"momentum": 0.0}, {"betas": (0.98, 0.999)}, {"momentum": 0.995}])
def test_a_run_that_goes_on_with_another_momentum_is_never_judged_by_a_shorter_memory(told, now):
    assert rule_for({**told, **longer_memory(told, now)}).memory >= rule_for(told).memory


def test_a_momentum_that_rises_at_every_step_leaves_a_short_list_and_no_cut_a_shorter_memory():
    attributes = {"beta1": 0.9}
    betas = [0.9 + 0.09 * step / 1000 for step in range(1001)]
    for step, beta1 in enumerate(betas[1:], start=1):
        attributes |= told_from(step - 1, attributes, {"beta1": beta1})
    attributes |= told_from(500, attributes, {"no_push": "it changed"})
    assert len(attributes["told_before"]) == MOST_TOLD_BEFORE + 1
    for step in (0, 1, 20, MOST_TOLD_BEFORE - 1):
        assert told_until(step, attributes)["beta1"] == betas[step]
    for step in (MOST_TOLD_BEFORE, 500, 1000):
        assert told_until(step, attributes)["beta1"] >= betas[step]
    assert ["no_push" in told_until(step, attributes) for step in (20, 500, 501)] == [False, False, True]

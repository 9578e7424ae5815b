"""What a run tells of its optimizer's numbers, and how long a memory its silence is judged by."""

import pytest

from analysis.questions.endstate import rule_for
from crucible.updates.numbers import longer_memory

TOLD = [{}, {"beta1": 0.5}, {"momentum": 0.99}, {"optimizer_update": {"variant": "sgd_momentum", "momentum": 0.99}}]
"""The last as runs had it before they had an attribute for the momentum."""


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("now", [{"momentum": 0.95}, {"momentum": 0.0}, {"betas": (0.98, 0.999)}, {"momentum": 0.995}])
def test_a_run_that_goes_on_with_another_momentum_is_never_judged_by_a_shorter_memory(told, now):
    assert rule_for({**told, **longer_memory(told, now)}).memory >= rule_for(told).memory

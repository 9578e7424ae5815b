"""What is told of rounding when recording begins is true of the optimizer that it is told of."""

import pytest
import torch

from crucible.recording.provenance import dtypes
from crucible.updates.precision import notices

NO_EFFECT, ONLY_RISES = "weight decay has no effect", "can only rise"


def trained(weight_decay, dtype, **options):
    """Bits of a parameter after some steps of AdamW, and what is told of that optimizer."""
    numbers = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(100, 64, generator=numbers).to(dtype))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, betas=(0.9, 0.99), weight_decay=weight_decay, **options)
    told = notices(optimizer, parameter)
    for _ in range(20):
        parameter.grad = torch.randn(100, 64, generator=numbers).to(dtype)
        optimizer.step()
    return parameter.detach(), told


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}])
@pytest.mark.parametrize("weight_decay", [1.0, 1e-5])
def test_decay_is_said_to_have_no_effect_only_where_it_has_none(weight_decay, options, dtype):
    with_decay, told = trained(weight_decay, dtype, **options)
    without, _ = trained(0.0, dtype, **options)
    if any(NO_EFFECT in each for each in told):
        assert torch.equal(with_decay, without)
    is_rounded_alone = weight_decay < 1e-3 if dtype == torch.float32 else "fused" not in options
    assert any(NO_EFFECT in each for each in told) == is_rounded_alone


class InFloat32(torch.optim.AdamW):
    """Keeps its moments in float32, whatever the weights are."""

    @torch.no_grad()
    def step(self, _closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                state = self.state[each]
                state.setdefault("exp_avg", torch.zeros_like(each, dtype=torch.float32)).lerp_(each.grad.float(), 0.1)
                state.setdefault("exp_avg_sq", torch.zeros_like(each, dtype=torch.float32))


def test_nothing_is_said_of_the_moments_that_a_subclass_has_not_made_yet():
    parameter = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    own = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0)
    assert [ONLY_RISES in each for each in notices(own, parameter)] == [True]
    subclass = InFloat32([parameter], lr=1e-3, weight_decay=0)
    assert notices(subclass, parameter) == []
    assert dtypes([parameter.dtype], "bfloat16", subclass)["optimizer_state"] == "none yet"
    parameter.grad = torch.ones_like(parameter)
    subclass.step()
    assert notices(subclass, parameter) == []
    assert dtypes([parameter.dtype], "bfloat16", subclass)["optimizer_state"] == "float32"

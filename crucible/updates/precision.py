"""What an optimizer cannot do at its precision: said once, when recording begins."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from crucible.channels.sources import group_of
from crucible.channels.table import SECOND_MOMENT
from crucible.channels.tensors import dtype_name


def notices(optimizer: Optimizer | None, parameter: Tensor) -> list[str]:
    """One sentence for each thing that rounding makes impossible for this parameter.

    A product w (1 - x) rounds back to w for every w when x is below half a cell relative to the largest number of a
    binade: a quarter of the dtype's epsilon, 2^-9 for bfloat16.
    """
    if optimizer is None:
        return []
    group = group_of(optimizer, parameter)
    return [
        *_learning_rate(optimizer, group),
        *_weight_decay(group, parameter.dtype),
        *_second_moment(optimizer, group, parameter),
    ]


def makes_state_alike(optimizer: Optimizer) -> bool:
    """Whether it is torch's own Adam or a relative of it: these make their moments in the dtype of the parameter."""
    adams = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.SparseAdam)
    return type(optimizer) in adams  # a subclass may keep moments of float32 beside weights of bfloat16


def _quarter(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 4


def _learning_rate(optimizer: Optimizer, group: dict[str, Any]) -> list[str]:
    if group.get("lr") is not None:
        return []
    return [
        f"this {type(optimizer).__name__} has no learning rate (lr=None): it makes one of its own in each step, which "
        "nobody sees, so the channel learning_rate keeps NaN"
    ]


def _weight_decay(group: dict[str, Any], dtype: torch.dtype) -> list[str]:
    decay = float(group.get("lr") or 0) * float(group.get("weight_decay") or 0)
    if group.get("fused") and dtype != torch.float32:
        return []  # a fused kernel does not round the product: it adds the step first
    if not group.get("decoupled_weight_decay", False) or not 0 < decay < _quarter(dtype):
        return []
    return [
        f"weight decay has no effect: lr x weight_decay = {decay:.3g} is below {_quarter(dtype):.3g}, "
        f"so the product rounds back to every {dtype_name(dtype)} weight; raise either, or train float32 weights"
    ]


def _second_moment(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> list[str]:
    state = optimizer.state.get(parameter, {}).get(SECOND_MOMENT, parameter if makes_state_alike(optimizer) else None)
    if state is None or 1 - float(group["betas"][1]) >= _quarter(state.dtype):
        return []
    return [
        f"Adam's second moment can only rise: 1 - beta2 = {1 - float(group['betas'][1]):.3g} is below "
        f"{_quarter(state.dtype):.3g}, so its decay rounds away in {dtype_name(state.dtype)}; set beta2 to "
        f"{math.floor((1 - _quarter(state.dtype)) * 1e4) / 1e4:g} or less, or keep the optimizer's state in float32"
    ]

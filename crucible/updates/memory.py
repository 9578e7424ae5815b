"""How long the momentum of an optimizer remembers: by that the silence of a run without a push is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from analysis.episodes import LEAST_BETA1

BETA1, MOMENTUM = "beta1", "momentum"
"""Attributes of a run, which tell it to `analysis.end_state`."""


def memory_attributes(group: Mapping[str, Any]) -> dict[str, float]:
    """What a run tells of the momentum of an optimizer's group.

    Examples
    --------
    >>> memory_attributes({"betas": (0.95, 0.999)}), memory_attributes({"momentum": 0.5}), memory_attributes({})
    ({'beta1': 0.95}, {'momentum': 0.5}, {})
    """
    if "betas" in group:
        return {BETA1: float(group["betas"][0])}
    return {MOMENTUM: float(group["momentum"])} if "momentum" in group else {}


def longer_memory(attributes: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
    """What the attributes of a run must tell from now on, where this group remembers for longer than they say.

    Examples
    --------
    >>> longer_memory({"beta1": 0.9}, {"momentum": 0.99}), longer_memory({"beta1": 0.9}, {"betas": (0.8, 0.9)})
    ({'beta1': 0.99}, {})
    """
    now = memory_attributes(group)
    decay = max(now.values(), default=0.0)
    if decay <= float(attributes.get(BETA1, max(LEAST_BETA1, float(attributes.get(MOMENTUM, 0.0))))):
        return {}
    return {BETA1 if BETA1 in attributes else next(iter(now)): decay}


class Memory:
    """Says whether the momentum remembers for longer than the run tells.

    Parameters
    ----------
    group : mapping
        The parameter's group of the optimizer, when recording begins.
    """

    def __init__(self, group: Mapping[str, Any]) -> None:
        self._told = memory_attributes(group)

    def words(self, update: int, group: Mapping[str, Any]) -> str | None:
        """That it does, if so. Numbers that are tensors are not looked at: they may lie on a device."""
        betas = group.get("betas")
        if isinstance(group.get("momentum") if betas is None else betas[0], Tensor):
            return None
        found = longer_memory(self._told, group)
        for name, decay in found.items():
            told = max(LEAST_BETA1, *self._told.values()) if self._told else LEAST_BETA1
            return (
                f"update {update}: the optimizer's {name} is {decay:g} now, and the run tells of {told:g}: its silence "
                f"is judged by a memory of {round(1 / (1 - told))} steps, which is too short: ask "
                f"analysis.end_state(ds, rule=analysis.Rule.for_beta1({decay:g})), and attach after a scheduler is made"
            )
        return None

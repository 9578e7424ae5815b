"""The numbers of one optimizer step, and the scalars that torch makes of them in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from analysis.episodes import LEAST_BETA1


class Variant(NamedTuple):
    """What an optimizer's step is computed from.

    `adam`: from a first and a second moment, else `m` is what the learning rate multiplies. `decays_weights`: weights
    are multiplied by 1 - lr x weight_decay first. `takes_gradient`: the gradient is added to the momentum again.
    """

    adam: bool
    decays_weights: bool = False
    takes_gradient: bool = False


VARIANTS = {
    "adam": Variant(adam=True),
    "adam_amsgrad": Variant(adam=True),
    "adamw": Variant(adam=True, decays_weights=True),
    "adamw_amsgrad": Variant(adam=True, decays_weights=True),
    "sgd": Variant(adam=False, takes_gradient=True),
    "sgd_momentum": Variant(adam=False),
    "sgd_nesterov": Variant(adam=False, takes_gradient=True),
}
"""With amsgrad, v is the running maximum that torch calls max_exp_avg_sq."""

UPDATE, NO_PUSH = "optimizer_update", "no_push"
"""Attributes of a trajectory: the numbers of its optimizer, those of `Update` that stay and ``exact``; or why a push is
not known of it."""
GRADIENT_IS_DIRECTION = "gradient_is_direction"
"""Among the numbers of an optimizer: it writes the direction of its step into the gradient, which is recorded so."""
MADE_OF = {
    "adam": {"m": "adam_m", "v": "adam_v"},
    "adam_amsgrad": {"m": "adam_m", "v": "max_exp_avg_sq"},
    "adamw": {"m": "adam_m", "v": "adam_v"},
    "adamw_amsgrad": {"m": "adam_m", "v": "max_exp_avg_sq"},
    "sgd": {"m": "gradient"},
    "sgd_momentum": {"m": "momentum_buffer"},
    "sgd_nesterov": {"m": "momentum_buffer", "gradient": "gradient"},
}
"""By variant: the arrays of which a push can be computed, by the argument of `lattice.push`. What has no name of its
own in the recorder's table is called as torch calls it in the optimizer's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The numbers of one optimizer step.

    Parameters
    ----------
    variant : str
        A name of `VARIANTS`.
    lr : float
        The learning rate of this step. A learning rate that torch holds as a float32 tensor is a ``numpy.float32``:
        the scalars are then computed in float32, as torch does.
    optimizer_step : int, optional
        t, the optimizer's own count with this step. Adam needs it.
    beta1, beta2, eps : float
        Adam's constants.
    weight_decay : float
        Adam's is in m and v already, and SGD's in a momentum.
    momentum : float
        SGD's, where it is Nesterov's.
    maximize : bool
        SGD uses the gradient with the other sign.
    fused : bool
        Adam's kernel keeps float32 between its operations and multiplies the weight by 1 - lr x weight_decay without
        rounding it. It uses m and v before they are rounded, which nobody has: an approximation.

    Raises
    ------
    ValueError
        For an unknown variant, and for Adam without `optimizer_step` or with one below 1.

    Examples
    --------
    >>> step_size, correction = Update(variant="adamw", lr=1e-3, optimizer_step=1).scalars()
    >>> round(step_size, 6), round(correction, 6)
    (0.01, 0.031623)
    """

    variant: str
    lr: float | np.float32
    optimizer_step: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    maximize: bool = False
    fused: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"the arithmetic of {self.variant!r} is not known; known are {', '.join(VARIANTS)}")
        if VARIANTS[self.variant].adam and not (self.optimizer_step or 0) >= 1:
            raise ValueError(
                f"optimizer_step must be the optimizer's own count, 1 at its first step, not {self.optimizer_step}: "
                f"the bias correction of {self.variant} depends on it"
            )

    def scalars(self) -> tuple[float | np.float32, float]:
        """Adam's lr / (1 - beta1^t) and sqrt(1 - beta2^t), as torch computes them in Python."""
        assert self.optimizer_step is not None
        first, second = 1 - self.beta1**self.optimizer_step, 1 - self.beta2**self.optimizer_step
        return self.lr / first, second**0.5

    def kept_weight(self) -> float | None:
        """What a fused kernel multiplies the weight by in the same sum; None where weights are taken as they are."""
        if not (self.fused and self.weight_decay and VARIANTS[self.variant].decays_weights):
            return None
        return 1 - float(self.lr) * self.weight_decay

    def refusal(self, mantissa_bits: int) -> str | None:
        """Why the push does not say, with these numbers, whether a weight moves; None where it does.

        Decoupled weight decay first multiplies the weight. Below lr x weight_decay = 2^-9 in bfloat16 (2^-12 in
        float16) the product rounds back to every weight; from there on decay and Adam's step may cancel.
        """
        bound = smallest_decay(mantissa_bits)
        decay = float(self.lr) * self.weight_decay
        if not VARIANTS[self.variant].decays_weights or self.fused or decay < bound:
            return None
        return (
            f"lr x weight_decay = {decay:.3g} is not below {bound:.3g}: weight decay alone can move a weight here, and "
            "with the step it may cancel, so the push of the step does not tell what moves"
        )


def smallest_decay(mantissa_bits: int) -> float:
    """The smallest lr x weight_decay by which decoupled weight decay alone can move a weight.

    Examples
    --------
    >>> smallest_decay(7) == 2**-9
    True
    """
    return 2.0 ** -(mantissa_bits + 2)


def update_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the optimizer that stay, from a mapping or its JSON text; empty where they are not known."""
    found = attributes.get(UPDATE) or {}
    return dict(json.loads(found) if isinstance(found, str) else found)


def memory_decay(attributes: Mapping[str, Any]) -> float:
    """By which decay the silence of a run with these attributes is judged: of its momentum, of SGD 0.9 at least.

    Examples
    --------
    >>> [memory_decay(each) for each in ({"beta1": 0.5}, {"momentum": 0.99}, {UPDATE: {"momentum": 0.99}}, {})]
    [0.5, 0.99, 0.99, 0.9]
    """
    momentum = float(attributes.get("momentum", update_of(attributes).get("momentum", 0.0)))
    return float(attributes.get("beta1", max(LEAST_BETA1, momentum)))

"""By which arithmetic an optimizer moves a parameter, or why no push is known for it.

A push says how near a step comes to moving a weight: `analysis.optimizers.push_arithmetic` has its definition,
`crucible.channels.push_rows` computes it from torch's tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import _default_to_fused_or_foreach

from analysis.lattice import LATTICES
from analysis.optimizers.update_rules import GRADIENT_IS_DIRECTION, VARIANTS, Update
from crucible.channels.tensors import SHARE_ELEMENTS, dtype_name

OPTIMIZERS: dict[type[Optimizer], str] = {
    torch.optim.AdamW: "adamw",
    torch.optim.Adam: "adam",
    torch.optim.SGD: "sgd",
}
"""By the exact class: a subclass may compute anything."""

SOURCES = {
    "adam": ("exp_avg", "exp_avg_sq", None),
    "adam_amsgrad": ("exp_avg", "max_exp_avg_sq", None),
    "adamw": ("exp_avg", "exp_avg_sq", None),
    "adamw_amsgrad": ("exp_avg", "max_exp_avg_sq", None),
    "sgd": ("grad", None, None),
    "sgd_momentum": ("momentum_buffer", None, None),
    "sgd_nesterov": ("momentum_buffer", None, "grad"),
}
"""Where m, v and the gradient of a variant stand: "grad" is the parameter's, the others the optimizer's state."""

DTYPES = {torch.bfloat16: LATTICES[np.dtype(np.uint16)], torch.float16: LATTICES[np.dtype(np.float16)]}
VECTOR_ELEMENTS = 64
"""torch adds so many at once; the last few of a thread's share one by one."""


class StepTaken(NamedTuple):
    """The step that an optimizer has just taken: the tensors it was computed from, and its numbers.

    Of nesterov's momentum without a gradient m is the whole direction.
    """

    m: Tensor
    v: Tensor | None
    gradient: Tensor | None
    update: Update


@dataclass(frozen=True, slots=True)
class Refused:
    """Why no push is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """By which arithmetic an optimizer moves a parameter.

    Parameters
    ----------
    variant : str
        A name of `analysis.optimizers.update_rules.VARIANTS`.
    group : int
        The parameter's place in ``optimizer.param_groups``.
    inexact : str
        Why the push may differ from the optimizer's own in its last digits; "" where it is exact.
    """

    variant: str
    group: int
    inexact: str = ""

    @property
    def exact(self) -> bool:
        """Whether the push tells to the bit what moves."""
        return not self.inexact

    def attributes(self, optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
        """What a reader needs to know of the updates of a run, as JSON values."""
        known, group = asdict(self.numbers(optimizer, parameter)), optimizer.param_groups[self.group]
        takes_both = "grad" in SOURCES[self.variant][1:]
        return {
            **{name: value for name, value in known.items() if name not in ("lr", "optimizer_step")},
            "exact": self.exact,
            **({"inexact": self.inexact} if self.inexact else {}),
            **({"lr_is_float32": True} if isinstance(_number(group["lr"]), np.float32) else {}),
            **({GRADIENT_IS_DIRECTION: True} if takes_both and _leaves_direction(group) else {}),
        }

    def change(self, told: Mapping[str, Any], now: Update) -> str | None:
        """In what this differs from what the attributes of a run tell of its optimizer; None where they hold.

        What else may change, as eps, each push is computed with; only `told` of it would be false. So it is with a
        momentum that decays sooner than before; one that decays later has a longer memory than who judges the run
        takes it to have.
        """
        if now.variant != told["variant"]:
            return f"the optimizer computes as {now.variant} now, and the run is one of {told['variant']}"
        if now.beta2 != told["beta2"]:
            return f"the optimizer's beta2 is {now.beta2} now, and the run's is {told['beta2']}"
        for name in ("beta1", "momentum"):
            if getattr(now, name) > told.get(name, 0.0):
                return f"the optimizer's {name} is {getattr(now, name)} now, and the run's is {told.get(name, 0.0)}"
        if now.weight_decay > told["weight_decay"] and VARIANTS[now.variant].decays_weights:
            return f"the optimizer's weight_decay is {now.weight_decay} now, and the run's is {told['weight_decay']}"
        return self.inexact if told["exact"] and self.inexact else None

    def step_taken(self, optimizer: Optimizer, parameter: Tensor, update: Update | None = None) -> StepTaken | None:
        """What the step just taken was made of; None where that is not there, and where the gradient is sparse.

        To be asked inside the optimizer's hook after the step, before a scheduler changes the learning rate. `update`
        are its numbers, where they are known.
        """
        group, state = optimizer.param_groups[self.group], optimizer.state.get(parameter, {})
        names = SOURCES[self.variant]
        found = [parameter.grad if name == "grad" else state.get(name) if name else None for name in names]
        for name, tensor in zip(names, found, strict=True):
            if name and (tensor is None or tensor.is_sparse):
                return None
        m, v, gradient = found
        if gradient is not None and _leaves_direction(group):
            m, gradient = gradient, None
        assert m is not None
        return StepTaken(m, v, gradient, update or _numbers(self.variant, group, state))

    def numbers(self, optimizer: Optimizer, parameter: Tensor) -> Update:
        """The optimizer's numbers as they are now; before its first step as they would be at it."""
        return _numbers(self.variant, optimizer.param_groups[self.group], optimizer.state.get(parameter, {}))


def arithmetic_of(optimizer: Optimizer, parameter: Tensor) -> Arithmetic | Refused:
    """By which arithmetic this optimizer moves this parameter, or why no push is known.

    Parameters
    ----------
    optimizer : Optimizer
        torch's own, not a wrapper.
    parameter : Tensor
        One that it holds.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(4, 64, dtype=torch.bfloat16))
    >>> arithmetic_of(torch.optim.AdamW([weight], amsgrad=True), weight)
    Arithmetic(variant='adamw_amsgrad', group=0, inexact='')
    >>> arithmetic_of(torch.optim.RMSprop([weight]), weight).reason.split(":")[0]
    "push is known for torch's own AdamW, Adam and SGD, not for RMSprop"
    """
    found = _found(optimizer, parameter)
    return found if isinstance(found, Refused) else found[0]


def now_taken(optimizer: Optimizer, parameter: Tensor) -> tuple[Arithmetic, StepTaken | None] | Refused:
    """`arithmetic_of` and what `Arithmetic.step_taken` tells of it: flags and groups may change at any step."""
    found = _found(optimizer, parameter)
    if isinstance(found, Refused):
        return found
    arithmetic, update = found
    return arithmetic, arithmetic.step_taken(optimizer, parameter, update)


def _found(optimizer: Optimizer, parameter: Tensor) -> tuple[Arithmetic, Update] | Refused:
    kind = OPTIMIZERS.get(type(optimizer))
    if kind is None:
        return Refused(
            f"push is known for torch's own AdamW, Adam and SGD, not for {type(optimizer).__name__}: Kahan sums, "
            "stochastic rounding and float32 masters add up what falls below a cell, and others compute otherwise"
        )
    place = place_of(optimizer, parameter)
    if place is None:
        return Refused("the optimizer does not hold this parameter")
    group, state = optimizer.param_groups[place], optimizer.state.get(parameter, {})
    variant = _variant(kind, group)
    update = _numbers(variant, group, state)
    for reason in _reasons(update, state, parameter):
        return Refused(reason)
    return Arithmetic(variant, place, "; ".join(_inexact(kind, group, state, parameter))), update


def place_of(optimizer: Optimizer, parameter: Tensor) -> int | None:
    """The place of the parameter's group among the optimizer's."""
    for k, group in enumerate(optimizer.param_groups):
        for each in group["params"]:
            if each is parameter:
                return k
    return None


def _numbers(variant: str, group: Mapping[str, Any], state: Mapping[str, Any]) -> Update:
    beta1, beta2 = group.get("betas", (0.0, 0.0))
    return Update(
        variant=variant,
        lr=_number(group["lr"]),
        optimizer_step=max(float(state.get("step", 1)), 1.0),
        beta1=float(beta1),
        beta2=float(beta2),
        eps=float(group.get("eps", 0.0)),
        weight_decay=float(group["weight_decay"]),
        momentum=float(group.get("momentum", 0.0)),
        maximize=bool(group["maximize"]),
        fused=bool(group["fused"]),
    )


def _variant(kind: str, group: Mapping[str, Any]) -> str:
    if kind == "sgd":
        return "sgd_nesterov" if group["nesterov"] else "sgd_momentum" if group["momentum"] else "sgd"
    kind = "adamw" if group.get("decoupled_weight_decay", False) else kind
    return f"{kind}_amsgrad" if group["amsgrad"] else kind


def _reasons(update: Update, state: Mapping[str, Any], parameter: Tensor) -> Iterator[str]:
    """Why no push is known, where the optimizer's class is."""
    if parameter.dtype not in DTYPES:
        dtype = dtype_name(parameter.dtype)
        yield (
            f"the weights are {dtype}: push is known for bfloat16 and float16. In float32 weights updates far below a "
            "cell of bfloat16 add up, so silence behind their rounding has no such cause"
        )
        return
    if parameter.grad is not None and parameter.grad.dtype != parameter.dtype:  # as `Tensor.grad_dtype` allows
        yield f"the gradient is {parameter.grad.dtype}, the weights are {parameter.dtype}"
    for name, tensor in state.items():
        if name in SOURCES[update.variant] and isinstance(tensor, Tensor) and tensor.dtype != parameter.dtype:
            yield f"the optimizer's {name} is {tensor.dtype}, the weights are {parameter.dtype}"
    if update.fused and update.variant.startswith("sgd") and parameter.device.type == "cpu":
        dtype = dtype_name(parameter.dtype)
        yield f"fused SGD on the CPU leaves most {dtype} weights as they are (in torch 2.13, pytorch issue 191763)"
    decay = update.refusal(DTYPES[parameter.dtype].mantissa_bits)
    if decay:
        yield decay


def _inexact(kind: str, group: Mapping[str, Any], state: Mapping[str, Any], parameter: Tensor) -> Iterator[str]:
    """Why the last digits of a push may differ from the optimizer's own."""
    if parameter.device.type != "cpu":
        yield f"on {parameter.device.type} the optimizer rounds at other places than on the CPU"
    for flag in ("fused", "capturable", "differentiable"):
        if group.get(flag):
            yield f"with {flag}=True the optimizer rounds at other places"
    if any(isinstance(beta, Tensor) for beta in group.get("betas", ())):
        yield "betas that are tensors are rounded to float32"
    rate = group["lr"]
    if isinstance(rate, Tensor) and (rate.requires_grad or rate.dtype not in (torch.float32, torch.float64)):
        yield f"a learning rate that is a tensor of {rate.dtype} is multiplied otherwise"
    if kind != "sgd" and isinstance(rate, np.float16 | np.longdouble):
        yield f"a learning rate that is NumPy's {rate.dtype} is divided otherwise: make a float of it"
    if kind != "sgd" or parameter.dtype not in DTYPES:
        return
    if parameter.device.type == "cpu" and not _adds_with_one_rounding(parameter.dtype):
        capability = torch.backends.cpu.get_cpu_capability()
        yield f"on a CPU like this one ({capability}) torch rounds the updates of SGD once more"
        return
    if not _adds_whole_vectors(parameter):
        yield "torch rounds the updates of SGD once more for the last few elements of each thread's share"
    added = {"gradient": parameter.grad, "momentum": state.get("momentum_buffer")}
    for name, tensor in added.items():
        if tensor is not None and tensor.layout == torch.strided and not tensor.is_contiguous():
            yield f"torch rounds the updates of SGD once more where the {name} is not contiguous: call its contiguous()"


def _leaves_direction(group: Mapping[str, Any]) -> bool:
    """Whether SGD with nesterov writes the direction into the gradient: where foreach computes on it and on no copy."""
    if group["maximize"] or group["weight_decay"]:
        return False
    if group["foreach"] is None and group["fused"] is None:
        _, foreach = _default_to_fused_or_foreach(group["params"], differentiable=False)
        return foreach
    return bool(group["foreach"])


def _adds_whole_vectors(parameter: Tensor) -> bool:
    """Whether torch's a + alpha b rounds each element of such a tensor once: in whole vectors, not in the tail."""
    count = parameter.numel()
    threads = min(torch.get_num_threads(), -(-count // SHARE_ELEMENTS))
    whole = count % VECTOR_ELEMENTS == 0 and -(-count // max(threads, 1)) % VECTOR_ELEMENTS == 0
    return whole and parameter.is_contiguous()


@functools.cache
def _adds_with_one_rounding(dtype: torch.dtype) -> bool:
    """Whether this machine's vectors do: tried on 4,096 pairs."""
    a, b = (torch.linspace(low, high, 4096, dtype=dtype, device="cpu") for low, high in ((-1, 1), (0.1, 0.9)))
    once = round_to(torch.add(a.float(), b.float(), alpha=as_factor(-0.51, dtype)), dtype)
    return torch.equal(torch.add(a, b, alpha=-0.51).float(), once)


def _number(rate: float | np.float32 | Tensor) -> float | np.float32:
    """A learning rate as torch's scalar arithmetic takes it: float32, a tensor or NumPy's, keeps that precision."""
    if not isinstance(rate, Tensor):
        return rate if isinstance(rate, np.float32) else float(rate)
    return rate.item() if rate.dtype == torch.float64 else np.float32(rate.item())


def as_factor(number: float | np.float32, dtype: torch.dtype) -> float:
    """A scalar as torch's addition takes it: rounded to the weights' dtype."""
    return torch.tensor(float(number), dtype=dtype, device="cpu").item()


def round_to(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 numbers rounded to a dtype, as float32 again."""
    return sums.to(dtype).float()

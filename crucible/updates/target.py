"""From what somebody hands over to the parameter that is recorded; what cannot be one is named, with what to call."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from crucible.channels.sources import group_of
from crucible.ranks.part import is_spread
from crucible.units import a_or_an
from crucible.updates.steps import together
from crucible.updates.subject import Find

CANDIDATES = 4
"""So many parameters of a module are named in a message."""


class Target(NamedTuple):
    """A parameter, the optimizers that update it together, and where the model has it (None: not known)."""

    parameter: Tensor
    optimizers: list[Optimizer]
    find: Find | None

    @property
    def optimizer(self) -> Optimizer | None:
        """The one that has the parameter's state; None in a loop without one."""
        return self.optimizers[-1] if self.optimizers else None


def find_target(target: object, optimizer: object, *, name: str | None = None) -> Target:
    """The parameter of two dimensions that this optimizer updates; without optimizers where that is None.

    Parameters
    ----------
    target : Module or Tensor
        A module with a weight, or a parameter.
    optimizer : Optimizer or None
        Wrappers are looked through.
    name : str, optional
        Of the parameter in the module, also its second name where it is tied ("lm_head.weight").

    Raises
    ------
    TypeError
        Something that is no parameter, no module and no optimizer.
    ValueError
        A parameter that this optimizer does not update, or of other dimensions.
    """
    if name is not None:
        target, find = _named(target, name), partial(attrgetter(name), target)
    elif isinstance(target, Tensor):
        find = None
    else:
        find = partial(getattr, target, "weight", None)
    parameter = _parameter(target)
    if optimizer is None:
        return Target(parameter, [], find)
    held = _optimizer(optimizer, parameter)
    if not group_of(held, parameter):
        raise ValueError(_not_held(target, parameter, held))
    if not (optimizers := together(held, parameter)):
        raise TypeError(
            f"this {type(held).__name__} calls no hooks (its __init__ does not call that of Optimizer), so its steps "
            "cannot be seen: call attach(target, None, run), and recorder.record() after each step"
        )
    return Target(parameter, optimizers, find)


def _named(model: object, name: str) -> Tensor:
    """The parameter of this name, or the sentence that says which there are."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"parameter={name!r} is looked for in a module, not in {_what(model)}: give the model")
    known = dict(model.named_parameters(remove_duplicate=False))
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1) or [each for each in known if each.startswith(name)][:1]
    meant = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(list(known)[:CANDIDATES])}, ..."
    raise ValueError(f"this {type(model).__name__} has no parameter {name!r}{meant}")


def _parameter(target: object) -> Tensor:
    if not isinstance(target, (Tensor, nn.Module)):
        raise TypeError(
            f"attach records an embedding or a parameter, not {_what(target)}: call attach(model.embedding, ...)"
        )
    if isinstance(target, nn.Module) and (how := _computed(target)):
        raise ValueError(how)
    parameter = target if isinstance(target, Tensor) else getattr(target, "weight", None)
    if not isinstance(parameter, Tensor):
        raise ValueError(_no_weight(target))
    if _is_part_of_a_flat_one(target, parameter):
        raise ValueError(
            "FullyShardedDataParallel (FSDP1) keeps this parameter as a part of a flat one, which has no rows: shard "
            "the model by torch.distributed.fsdp.fully_shard (FSDP2), whose parts are gathered, and attach after it"
        )
    if parameter.ndim != 2:
        raise ValueError(
            f"attach records a parameter of two dimensions, (row, hidden), not one of shape {tuple(parameter.shape)}"
        )
    return parameter


def _is_part_of_a_flat_one(target: object, parameter: Tensor) -> bool:
    """Whether FSDP1 has taken the parameter; FSDP2 marks its modules the same, and its parameters keep their rows."""
    if hasattr(parameter, "_fsdp_flattened"):
        return True
    is_whole = isinstance(parameter, nn.Parameter) and parameter.ndim == 2
    return getattr(target, "_is_fsdp_managed_module", False) and not is_whole


def _no_weight(target: object) -> str:
    """What to call instead of a module that has no weight of its own."""
    assert isinstance(target, nn.Module)
    modules = dict(target.named_modules())
    found = [name for name, module in modules.items() if name and isinstance(module, nn.Embedding)]
    found = found or [name.rpartition(".")[0] for name, each in target.named_parameters() if each.ndim == 2]
    calls = " or ".join(f"attach(model, ..., parameter='{name}.weight')" for name in found[:CANDIDATES])
    return (
        f"attach records an embedding or a parameter of two dimensions (row, hidden), and this "
        f"{type(target).__name__} has no weight of its own"
        + (f": call {calls}" if calls else ", nor has any module in it")
    )


def _computed(module: nn.Module) -> str | None:
    """That the module's weight is computed of other parameters, and which; None where it is one itself."""
    if parametrize.is_parametrized(module, "weight"):
        made = module.get_submodule("parametrizations.weight")
        how = ", ".join(type(each).__name__ for each in made.children())
        parts = [f"parametrizations.weight.{name}" for name, _ in made.named_parameters()]
    else:
        how = "weight_norm, spectral_norm or pruning"
        parts = [name for name, _ in module.named_parameters(recurse=False) if name.startswith("weight_")]
    if not parts or "weight" in dict(module.named_parameters(recurse=False)):
        return None
    return (
        f"the weight of this {type(module).__name__} is no parameter: {how} computes it in each forward pass of "
        f"{', '.join(parts)}. Call attach(module.{parts[-1]}, ...) to record what the optimizer updates; the computed "
        "weight can go with it as a channel of yours, Recorded(Channel(...), lambda moment: module.weight[rows])"
    )


def _optimizer(optimizer: object, parameter: Tensor) -> Optimizer:
    """The optimizer itself; the wrappers of accelerate and others are looked through."""
    if isinstance(optimizer, (list, tuple, dict)):
        each = list(optimizer.values() if isinstance(optimizer, dict) else optimizer)
        held = [k for k, one in enumerate(each) if isinstance(one, Optimizer) and group_of(one, parameter)]
        place = f"; number {held[0]} of these, {a_or_an(type(each[held[0]]).__name__)}, holds it" if held else ""
        raise TypeError(
            f"attach takes the one optimizer that updates the parameter, not {a_or_an(type(optimizer).__name__)} of "
            f"{len(each)}{place}: call attach(target, optimizers[{held[0] if held else 0}], ...)"
        )
    inner = optimizer if isinstance(optimizer, Optimizer) else getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, Optimizer):
        raise TypeError(
            f"attach needs the torch.optim.Optimizer that updates the parameter, not {_what(optimizer)}: call "
            "attach(target, optimizer, run), or attach(target, None, run) for a loop without one"
        )
    return inner


def _not_held(target: object, parameter: Tensor, optimizer: Optimizer) -> str:
    """Why the optimizer does not hold the parameter, as far as one can see."""
    kind = type(optimizer).__name__
    if adapters := _adapters(target):
        return (
            f"this {type(target).__name__} is an adapter's (LoRA): its weight is frozen, and what the {kind} updates "
            f"are {', '.join(adapters)}: call attach(module.get_parameter({adapters[0]!r}), ...)"
        )
    others = [each for group in optimizer.param_groups for each in group["params"] if each.shape == parameter.shape]
    if any(each.data_ptr() == parameter.data_ptr() for each in others if not is_spread(each)):
        return (
            f"the tensor shares its memory with a parameter that this {kind} updates, and is another object (.data, "
            "detach()): pass the parameter itself, or the module that has it"
        )
    if not parameter.is_leaf:
        return "the tensor is computed from others, and no optimizer updates it: pass the parameter that it is made of"
    if not parameter.requires_grad:
        return (
            f"the parameter is frozen (requires_grad=False), and this {kind} does not hold it: there is nothing to "
            "record; pass a parameter that is trained"
        )
    return (
        f"this {kind} does not update the parameter: pass the optimizer that holds it, made after the model was moved "
        "or resized, and attach after it"
    )


def _adapters(target: object) -> list[str]:
    if not isinstance(target, nn.Module):
        return []
    return [name for name, each in target.named_parameters() if "lora_" in name and each.requires_grad]


def _what(given: object) -> str:
    return "None" if given is None else a_or_an(type(given).__name__)

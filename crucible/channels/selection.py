"""Which channels a recorder keeps, with the sources of their rows, in the dtypes of one parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from crucible.channels import table as tables
from crucible.channels.push import Arithmetic, Refused, arithmetic_of
from crucible.channels.push_source import PushOf, known_of
from crucible.channels.sources import SOURCES, ChannelLike, OptimizerState, Recorded, group_of, logged
from crucible.channels.tensors import dtype_name
from crucible.ranks.part import is_spread
from store.format.schema import Channel

DEFAULT: tuple[Channel, ...] = (
    tables.W, tables.DELTA, *tables.NORMS, tables.CENTROID, tables.LOSS, tables.LEARNING_RATE, tables.LAST_MOTION,
    tables.PUSH, tables.OPTIMIZER_STEP,
)  # fmt: skip
"""What is kept unless `channels` says otherwise: the notebook's table, the learning rate, and how near each update came
to moving a weight, where that is known of the optimizer and the weights."""


MOMENTS = frozenset({tables.FIRST_MOMENT, tables.SECOND_MOMENT})
STATES: dict[type[Optimizer], tuple[frozenset[str], dict[str, str]]] = {
    torch.optim.SGD: (frozenset(), {"momentum": "momentum_buffer"}),
    torch.optim.Muon: (frozenset({"momentum_buffer"}), {}),
    torch.optim.Adam: (MOMENTS, {"amsgrad": "max_exp_avg_sq"}),
    torch.optim.AdamW: (MOMENTS, {"amsgrad": "max_exp_avg_sq"}),
    torch.optim.NAdam: (MOMENTS, {}),
    torch.optim.RAdam: (MOMENTS, {}),
    torch.optim.SparseAdam: (MOMENTS, {}),
    torch.optim.Adamax: (frozenset({"exp_avg", "exp_inf"}), {}),
    torch.optim.Adadelta: (frozenset({"square_avg", "acc_delta"}), {}),
    torch.optim.RMSprop: (frozenset({"square_avg"}), {"momentum": "momentum_buffer", "centered": "grad_avg"}),
    torch.optim.Rprop: (frozenset({"prev", "step_size"}), {}),
    torch.optim.ASGD: (frozenset({"ax"}), {}),
    torch.optim.Adafactor: (frozenset({"row_var", "col_var"}), {}),
}
"""What torch's own optimizers keep of a parameter of two dimensions: always, and where an option of its group is set.
Adagrad makes its state when it is made itself. A subclass may keep something else."""


class Selection(NamedTuple):
    """What is recorded.

    Parameters
    ----------
    given : list of Recorded
        The channels that a recorder hands over, each with its source.
    table : tuple of Channel
        These and those that are derived of them.
    """

    given: list[Recorded]
    table: tuple[Channel, ...]


def push_here(optimizer: Optimizer | None, parameter: Tensor, axis: int) -> Arithmetic | Refused:
    """By which arithmetic the optimizer moves the parameter as it lies here, or why no push is known."""
    if optimizer is None:
        return Refused("there is no optimizer whose step could be followed")
    if axis or is_spread(parameter):
        return Refused("it is computed of rows that lie together, not of a transposed parameter or a DTensor's parts")
    held = [each for group in optimizer.param_groups for each in group["params"]]
    if sum(each is parameter for each in held) > 1:
        return Refused("the optimizer holds this parameter twice, and moves it twice in a step: hand it over once")
    others = (each for each in held if each is not parameter)
    if any(each.data_ptr() == parameter.data_ptr() for each in others if not is_spread(each)):
        return Refused("the optimizer moves the same memory by a second parameter, too: tie them by one and the same")
    return arithmetic_of(optimizer, parameter)


def default_of(optimizer: Optimizer | None, push: Arithmetic | Refused) -> tuple[Channel, ...]:
    """The channels of a new run whose channels nobody has named."""
    known = known_of(DEFAULT, push)
    return known if optimizer else tuple(each for each in known if each != tables.LEARNING_RATE)


def without_push(given: Iterable[Recorded], resume: int | None) -> list[str]:
    """That a resumed run gets no push any more; ValueError where a new run should keep one that is not known."""
    reason = next((each.source.refused for each in given if isinstance(each.source, PushOf)), None)
    if reason and resume is None:
        raise ValueError(f"push: {reason}; leave the channel out, and the silence alone is judged")
    return [f"push is not known of this run from step {resume} on: {reason}"] if reason else []


def select(
    channels: Iterable[ChannelLike],
    parameter: Tensor,
    optimizer: Optimizer | None,
    *,
    lattice: str,
    push: Arithmetic | Refused,
    rounds: bool = False,
    ids: Tensor | None = None,
) -> Selection:
    """The channels with their sources, in the dtypes of this parameter, the displacement on this lattice.

    With `rounds`, float32 weights are kept rounded to bfloat16. `push` and `ids` are what a channel of it is made with.

    Raises
    ------
    TypeError
        One of them is no channel.
    ValueError
        They cannot be recorded: nothing given, parts missing, or a state that the optimizer does not keep.
    """
    given, rest = _split(channels, parameter, optimizer)
    given = [_with_push(e, push, parameter, optimizer, ids) if e.channel.name == tables.PUSH.name else e for e in given]
    given = _as_rounded(given) if rounds else given
    _refuse_unfit_states(given, parameter, optimizer)
    table = tables.on_lattice((*(each.channel for each in given), *rest), lattice)
    tables.check_table(table)
    return Selection(given, table)


def _as_rounded(given: list[Recorded]) -> list[Recorded]:
    """The channels, of which W says that it is rounded; where it is not kept, the centroid that it is of such rows."""
    weights, mean = (SOURCES[channel.name] for channel in (tables.W, tables.CENTROID))
    if any(each.source is weights for each in given):
        return [Recorded(tables.rounded(e.channel), weights) if e.source is weights else e for e in given]
    return [Recorded(tables.of_rounded(e.channel), mean) if e.source is mean else e for e in given]


def _split(
    channels: Iterable[ChannelLike], parameter: Tensor, optimizer: Optimizer | None
) -> tuple[list[Recorded], list[Channel]]:
    """Given channels with their sources, in the dtypes of this parameter; and the others."""
    given, rest = [], []
    for each in [channels] if isinstance(channels, Channel | Recorded | str) else channels:
        if not isinstance(each, Channel | Recorded):
            raise TypeError(
                f"channels= holds {each!r}, which is no channel; name those of a table, as in channels=[crucible.W, "
                "crucible.LOSS], or make one with crucible.Channel or crucible.Recorded"
            )
        if isinstance(each, Recorded):
            given.append(each)
        elif each.role == "given":
            given.append(_given(each, parameter, optimizer))
        else:
            rest.append(each)
    if not any(each.channel.name == "W" for each in given):
        rest = [channel for channel in rest if channel.role not in ("derived", "final")]
    return given, rest


def _given(channel: Channel, parameter: Tensor, optimizer: Optimizer | None) -> Recorded:
    """The channel with its source, in the dtype of the tensor that a row is taken from."""
    source, tensor = SOURCES.get(channel.name, logged(channel.name)), parameter
    if optimizer is None and channel.name == tables.LEARNING_RATE.name:
        return Recorded(channel, logged(channel.name))
    if isinstance(source, OptimizerState):
        if optimizer is None:
            raise ValueError(
                f"{channel.name} is the state of an optimizer, and there is none (optimizer=None): record your own by "
                f"Recorded({channel.name.upper()}, lambda moment: moment.take(yours))"
            )
        tensor = parameter if (state := source.find(optimizer, parameter)) is None else state
    elif channel.name not in ("W", "gradient"):
        return Recorded(channel, source)
    name = dtype_name(tensor.dtype)
    return Recorded(tables.in_dtype(channel, name), source)


def _with_push(
    recorded: Recorded, push: Arithmetic | Refused, parameter: Tensor, optimizer: Optimizer | None, ids: Tensor | None
) -> Recorded:
    """The push with its source; one that somebody makes by a function of theirs stays."""
    if recorded.source != logged(tables.PUSH.name):
        return recorded
    if optimizer is None:
        raise ValueError("push is that of an optimizer's step, and there is none (optimizer=None)")
    source = PushOf(push, optimizer, parameter, ids)
    return Recorded(recorded.channel, source, source.begin)


def _refuse_unfit_states(given: Iterable[Recorded], parameter: Tensor, optimizer: Optimizer | None) -> None:
    """Raise ValueError where it is known already that the optimizer does not keep what a channel says.

    It is known where the optimizer has made its state, and of torch's own kinds; else the first update shows it.
    """
    for each in given:
        if optimizer is None or not isinstance(each.source, OptimizerState):
            continue
        if optimizer.state.get(parameter):
            each.source.refuse_unfit(each.channel, optimizer, parameter)
        elif (names := _will_keep(optimizer, parameter)) is not None and each.source.name not in names:
            raise ValueError(each.source.not_kept(each.channel, type(optimizer).__name__, names))


def _will_keep(optimizer: Optimizer, parameter: Tensor) -> frozenset[str] | None:
    """Names of the states that the optimizer will make of the parameter; None where its class does not say."""
    always, by_option = STATES.get(type(optimizer), (None, {}))
    if always is None:
        return None
    group = group_of(optimizer, parameter)
    return always | {name for option, name in by_option.items() if group.get(option)}

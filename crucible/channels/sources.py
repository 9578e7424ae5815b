"""Where the rows of a given channel come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.channels.push import place_of
from crucible.channels.push_source import PushOf
from crucible.channels.table import ADAM_M, ADAM_V, CENTROID, FIRST_MOMENT, SECOND_MOMENT, W
from crucible.channels.tensors import TORCH_DTYPES, Value, dtype_name, mean_of, numpy_of, take_rows
from crucible.ranks.part import is_spread
from store.format.schema import Channel
from store.writing.ring import words

Source = Callable[["Moment"], Value]
LastRow = Callable[[str], NDArray[Any] | None]
AT_FIRST = 16
"""Rows that are compared before all are: where weights move, most do."""


@dataclass(frozen=True)
class Moment:
    """What a source may look at, right after update `step`.

    Parameters
    ----------
    step : int
        Label of the update; `first` before the first.
    parameter : Tensor
        The recorded parameter, (row, ...).
    rows : Tensor or None
        Ids of the recorded rows on the parameter's device; None when all are.
    optimizer : Optimizer or None
        The one that updates it, with its state; its gradients are still there. None in a loop without one.
    logged : mapping
        What `Recorder.log` was given since the update before, one value for each name.
    axis : int
        Where the parameter's rows are counted: 0, or 1 where it is (hidden, row).
    gather : callable, optional
        Brings together the recorded rows of a tensor that is spread over several processes.
    first : int
        Label of the state with which the run begins, to which no update leads.
    rounds : bool
        Whether the weights are recorded rounded to bfloat16.
    room : array, shape (row, hidden), optional
        Memory for the weights, where they may lie until the writer is given them.
    last : callable, optional
        Answers with the row of a channel that was recorded last, or None. Given behind an update, where
        all sources are these here.
    taken : list of Tensor
        What `take` was asked for: a recorder looks whether somebody writes to these before the next update.
    """

    step: int
    parameter: Tensor
    rows: Tensor | None
    optimizer: Optimizer | None
    logged: Mapping[str, Value]
    axis: int = 0
    gather: Callable[[Tensor], Tensor] | None = None
    first: int = 0
    rounds: bool = False
    room: NDArray[Any] | None = field(default=None, repr=False)
    last: LastRow | None = field(default=None, repr=False)
    taken: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether no update was made yet."""
        return self.step <= self.first

    @cached_property
    def weights(self) -> Tensor:
        """The recorded rows of the parameter, gathered once."""
        return self.take(self.parameter, self.room)

    @cached_property
    def recorded(self) -> Tensor:
        """The rows as they are recorded: `weights`, rounded once if they are kept so (to nearest, ties to even)."""
        return self.weights.bfloat16() if self.rounds else self.weights

    def take(self, tensor: Tensor, room: NDArray[Any] | None = None) -> Tensor:
        """The recorded rows of a tensor that is shaped like the parameter, (row, hidden) in any case.

        They lie in `room` where that is given and fits.
        """
        self.taken.append(tensor)
        tensor = tensor.detach()
        if self.gather is not None and is_spread(tensor):
            taken = self.gather(tensor)
        else:
            taken = tensor if self.rows is None else take_rows(tensor, self.axis, self.rows, room)
        return taken if self.axis == 0 else taken.t()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A given channel with a function of yours that makes its rows.

    Parameters
    ----------
    channel : Channel
        Its name, dims, dtype and meaning.
    source : callable
        `Moment` to a tensor of the channel's shape (on any device), a number, or None for "no such row".
    begin : callable, optional
        Called when recording begins; the hook that it answers is removed when recording ends.
    forget : callable, optional
        Called where an update was skipped: drop what was gathered for it.
    """

    channel: Channel
    source: Source
    begin: Callable[[], RemovableHandle] | None = None
    forget: Callable[[], None] | None = None


ChannelLike: TypeAlias = Channel | Recorded
"""What a table for `crucible.attach` is made of: rows of `crucible.channels.table`, and channels of yours."""


class MeanOutput:
    """The mean of a module's output over everything but its last axis, gathered by a forward hook.

    Several forward passes before an update are one mean over all their positions. Passes without gradients
    (evaluation) do not count. Nothing is copied to the host here.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._sum: Tensor | None = None
        self._count = 0

    def begin(self) -> RemovableHandle:
        """Hook into the module."""
        return self._module.register_forward_hook(self._take)

    def __call__(self, moment: Moment) -> Value:
        """The mean since the update before; None if there was no pass."""
        mean = None if self._sum is None or moment.is_first else self._sum / self._count
        self.forget()
        return mean

    def forget(self) -> None:
        """Begin the next update."""
        self._sum, self._count = None, 0

    def _take(self, module: nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401, ARG002 - torch's hook
        if torch.is_grad_enabled():
            states = (output[0] if isinstance(output, tuple) else output).detach()
            rows = states.reshape(-1, states.shape[-1]).float()
            self._sum = rows.sum(dim=0) if self._sum is None else self._sum + rows.sum(dim=0)
            self._count += len(rows)


def hidden_mean(module: nn.Module, name: str = "h_mean") -> Recorded:
    """A channel: the mean of a module's output over batch and positions, as wide as the embedding.

    Examples
    --------
    >>> hidden_mean(nn.Linear(4, 4)).channel.meaning
    'mean of the hidden state over batch and positions in update t, computed with W[t-1]'
    """
    mean = MeanOutput(module)
    channel = Channel(
        name, ("hidden",), "float32", belongs_to="move", exported=False, long_name="mean hidden state",
        meaning="mean of the hidden state over batch and positions in update t, computed with W[t-1]",
    )  # fmt: skip
    return Recorded(channel, mean, mean.begin, mean.forget)


def weights(moment: Moment) -> Tensor:
    """The rows themselves."""
    return moment.recorded


def centroid(moment: Moment) -> Tensor:
    """Their mean in float32. torch's own: another order of summation has other bits. That of the row before where no
    weight has changed since: in most steps, once a run has come to rest.
    """
    last = moment.last
    before = last(CENTROID.name) if last and _are_the_same(moment.recorded, last(W.name)) else None
    return mean_of(moment.recorded) if before is None else torch.from_numpy(before)


def _are_the_same(rows: Tensor, last: NDArray[Any] | None) -> bool:
    """Whether these rows are those that were recorded last, to the bit; no where that takes longer to see."""
    if last is None or not rows.is_cpu or not rows.is_contiguous():
        return False
    now = numpy_of(rows)
    if now.dtype != last.dtype or now.shape != last.shape:
        return False
    now, last = words(now), words(last)
    return np.array_equal(now[:AT_FIRST], last[:AT_FIRST]) and np.array_equal(now, last)


def gradient(moment: Moment) -> Value:
    """The gradient that drove the update; None before the first and where there was none."""
    grad = None if moment.is_first else moment.parameter.grad
    if grad is None:
        return None
    return moment.take(grad.to_dense() if grad.is_sparse else grad)


def learning_rate(moment: Moment) -> Value:
    """The learning rate of the parameter's group, before a scheduler moves it on."""
    rate: Value = None if moment.is_first else group_of(moment.optimizer, moment.parameter).get("lr")
    return rate


def optimizer_step(moment: Moment) -> Value:
    """The optimizer's own count of its steps on the parameter; None before the first, and where it keeps none."""
    if moment.optimizer is None or moment.is_first:
        return None
    count: Value = moment.optimizer.state.get(moment.parameter, {}).get("step")
    return count


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """A source: what the optimizer keeps of the parameter under this name; zeros before the first update has made it.

    Parameters
    ----------
    name : str
        In ``optimizer.state[parameter]``, e.g. "exp_avg" or "momentum_buffer". The tensor is shaped like the parameter.
    """

    name: str

    def __call__(self, moment: Moment) -> Tensor:
        """The recorded rows of it."""
        found = None if moment.optimizer is None else self.find(moment.optimizer, moment.parameter)
        return moment.take(torch.zeros_like(moment.parameter) if found is None else found)

    def find(self, optimizer: Optimizer, parameter: Tensor) -> Tensor | None:
        """The whole tensor, if it is there."""
        found: Tensor | None = optimizer.state.get(parameter, {}).get(self.name)
        return found

    def not_kept(self, channel: Channel, kind: str, names: Iterable[str]) -> str:
        """That this kind of optimizer keeps these of the parameter, and not what the channel says."""
        return (
            f"{channel.name}: this {kind} keeps {', '.join(sorted(names)) or 'no state'} of the parameter, and no "
            f"{self.name}; leave the channel out, or record another state by "
            "Recorded(Channel(...), OptimizerState(name))"
        )

    def refuse_unfit(self, channel: Channel, optimizer: Optimizer, parameter: Tensor) -> None:
        """Raise ValueError unless this optimizer, whose state is made, keeps what the channel says."""
        kept, kind = optimizer.state.get(parameter, {}), type(optimizer).__name__
        found = kept.get(self.name)
        if not isinstance(found, Tensor):
            raise ValueError(self.not_kept(channel, kind, (str(name) for name in kept if name != "step")))
        if found.shape != parameter.shape:
            raise ValueError(
                f"{channel.name}: {self.name} of this {kind} has the shape {tuple(found.shape)}, and not the "
                f"parameter's, {tuple(parameter.shape)}, so it has no rows to record; leave the channel out"
            )
        stored = torch.bfloat16 if channel.bits_of == "bfloat16" else TORCH_DTYPES[channel.dtype]
        is_float = found.dtype.is_floating_point == stored.is_floating_point
        if not is_float or torch.promote_types(found.dtype, stored) != stored:
            raise ValueError(
                f"{channel.name}: {self.name} of this {kind} is {dtype_name(found.dtype)}, and the channel keeps "
                f"{dtype_name(stored)}; leave it out, or attach after the optimizer's first step, when its dtype is "
                "known"
            )


@dataclass(frozen=True, slots=True)
class Logged:
    """A source: what the loop logged under this name."""

    name: str

    def __call__(self, moment: Moment) -> Value:
        """The mean of it; None if there was nothing."""
        return moment.logged.get(self.name)


def logged(name: str) -> Source:
    """What the loop logged under this name."""
    return Logged(name)


def names_taken(recorded: Iterable[Recorded]) -> frozenset[str] | None:
    """Names of what is recorded of `Recorder.log`; None where a source of the user's may take any."""
    ours = (Logged, OptimizerState, MeanOutput, PushOf)
    each = list(recorded)
    # the very class: one that the user makes of it may look at anything
    if any(type(one.source) not in ours and one.source not in SOURCES.values() for one in each):
        return None
    return frozenset(one.source.name for one in each if isinstance(one.source, Logged))


SOURCES: dict[str, Source] = {
    "W": weights,
    "centroid": centroid,
    "gradient": gradient,
    "learning_rate": learning_rate,
    "optimizer_step": optimizer_step,
    ADAM_M.name: OptimizerState(FIRST_MOMENT),
    ADAM_V.name: OptimizerState(SECOND_MOMENT),
}
"""Where the rows of the channels in crucible.channels.table come from; any other name is one of `Recorder.log`."""


def group_of(optimizer: Optimizer | None, parameter: Tensor) -> dict[str, Any]:
    """The optimizer's group that holds this very parameter; empty if none does."""
    place = None if optimizer is None else place_of(optimizer, parameter)
    return {} if optimizer is None or place is None else optimizer.param_groups[place]

"""Makes a step's rows: asks each channel's source, and brings what it answers to the host in one copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from crucible.channels import sources
from crucible.channels.push_source import PushOf
from crucible.channels.sources import LastRow, Moment, OptimizerState, Recorded
from crucible.channels.table import ROUNDED_FROM, W
from crucible.channels.tensors import Value, numpy_of, to_host
from crucible.ranks.part import ALONE, Part
from crucible.updates.subject import writes_to
from store.format.schema import Channel

Room = Callable[[str], NDArray[Any] | None]
GLANCED = 4
"""So many rows are compared with those recorded last before every update: some microseconds a step."""


class Gathering:
    """The channels of a recorder, and where their rows are taken from.

    Parameters
    ----------
    parameter, optimizer, rows, axis, first
        As of `crucible.channels.sources.Moment`.
    recorded : sequence of Recorded
        The given channels.
    part : Part
        What this process has to do with the run. Where another one writes it, no rows are made here; the sources are
        asked all the same where that one needs a part of the weights from here.

    Attributes
    ----------
    unseen : str or None
        Name of a channel of which an update had no row, since its module was not called; None until then.
    """

    def __init__(
        self,
        parameter: Tensor,
        optimizer: Optimizer | None,
        rows: Tensor | None,
        recorded: Sequence[Recorded],
        *,
        axis: int = 0,
        part: Part = ALONE,
        first: int = 0,
    ) -> None:
        self.recorded: tuple[Recorded, ...] = ()
        self.channels: dict[str, Channel] = {}
        self._parameter, self._optimizer, self._rows, self._axis = parameter, optimizer, rows, axis
        self._looks, self._writes, self._gather, self._first = part.looks, part.writes, part.gather, first
        self.add(recorded)
        self._rounds = any(ROUNDED_FROM in each.channel.attributes for each in recorded)
        users = [each.channel.name for each in recorded if part.gather is None and _is_of_a_user(each)]
        self._of_users = frozenset(users)
        self.can_glance = parameter.is_cpu and axis == 0 and not self._rounds and part.gather is None
        self._glanced = _spread_out(len(parameter) if rows is None else len(rows), rows) if self.can_glance else []
        self._view: tuple[tuple[int, tuple[int, ...]], NDArray[Any]] = ((0, ()), np.empty(0))
        self.unseen: str | None = None
        self._held: dict[str, Value] | None = None
        self._of_first_call: dict[str, Value] = {}
        self._kept: list[tuple[str, Tensor, int]] = []

    def add(self, recorded: Sequence[Recorded]) -> None:
        """Record these too, from the next row on."""
        self.recorded += tuple(recorded)
        self.channels |= {each.channel.name: each.channel for each in recorded}
        self._have_schedules = any(each.channel.on_own_axis for each in self.recorded)
        # a function of the user's may keep the weights that it was given
        are_ours = sources.names_taken(self.recorded) is not None
        self._fills_room = are_ours and self.keeps_weights and self._writes and self._gather is None

    @property
    def keeps_weights(self) -> bool:
        """Whether the weights themselves are recorded at every step."""
        own = next((each for each in self.recorded if each.channel.name == W.name), None)
        return own is not None and own.source is sources.SOURCES[W.name] and not own.channel.on_own_axis

    @property
    def is_holding(self) -> bool:
        """Whether an update was looked at whose state is still to be taken."""
        return self._held is not None

    def hold(self, step: int, logged: Mapping[str, Value]) -> None:
        """Take what describes the update itself, before the loop goes on: gradient, learning rate, moments."""
        self._hold(self._moment(step, logged), (each for each in self._due(step) if _is_of_the_update(each)))

    def hold_of_optimizer(self, step: int) -> None:
        """Take what the optimizer alone says of the update, before hooks of others change it."""
        self._hold(self._moment(step, {}), (each for each in self._due(step) if _is_of_the_optimizer(each)))

    def hold_of_first_call(self, step: int) -> None:
        """Take what the first call of a step's closure has made, before another call makes it anew."""
        moment, due = self._moment(step, {}), self._due(step) if self._looks else ()
        self._of_first_call = {e.channel.name: _copied(e.source(moment)) for e in due if _is_of_the_closure(e)}

    def drop(self) -> None:
        """Forget what was gathered for an update that was skipped."""
        _forget(self.recorded)

    def let_go(self) -> None:
        """Forget what was held: of an update that was broken off, or of one that has its row."""
        self._held, self._of_first_call = None, {}

    def rows(self, step: int, logged: Mapping[str, Value], room: Room, last: LastRow) -> dict[str, Any]:
        """The rows of a step, as the store takes them; what was held stands as it was then.

        `room` answers with memory where the row of a channel may be made, or None; `last` with its row of the step
        before.
        """
        if not self._looks:
            self.let_go()
            return {}
        moment, held = self._moment(step, logged, room, last), (self._held or {}) | self._of_first_call
        due = self.recorded
        if self._have_schedules:
            due = self._due(step)
            _forget(each for each in self.recorded if each not in due)
        values: dict[str, Value] = {}
        self._kept = []
        for each in due:
            name = each.channel.name
            is_of_a_user = name in self._of_users
            if is_of_a_user:
                moment.taken.clear()
            values[name] = value = held[name] if name in held else each.source(moment)
            if isinstance(each.source, sources.MeanOutput):
                if name in held:
                    each.source.forget()  # passes since then are of no update
                if value is None and not moment.is_first:
                    self.unseen = name
            if is_of_a_user:
                self._keep(name, [*moment.taken, *([value] if isinstance(value, Tensor) else [])])
        self._held, self._of_first_call = None, {}  # as `let_go`, without its call
        return to_host(values, self.channels) if self._writes else {}

    def row_of(self, name: str) -> Any:  # noqa: ANN401 - an array or a number
        """What the source of a channel says at this moment, on the host."""
        each = next(each for each in self.recorded if each.channel.name == name)
        return to_host({name: each.source(self._moment(0, {}))}, self.channels)[name]

    def differ_at_a_glance(self, last: NDArray[Any]) -> bool:
        """Whether `GLANCED` of the weights' rows are others than in the last row of the run, bit for bit."""
        place = self._parameter.data_ptr(), self._parameter.stride()
        if self._view[0] != place:  # while it is held, no other weights can come to lie there
            self._view = place, numpy_of(self._parameter.detach())
        now = self._view[1]
        for row, token in self._glanced:  # noqa: SIM110 - a generator takes twice as long, in every step
            if now[token].tobytes() != last[row].tobytes():
                return True
        return False

    def written_since(self) -> str | None:
        """Name of a channel whose own tensor somebody has written to since its row was taken."""
        for name, tensor, writes in self._kept:
            if writes_to(tensor) != writes:
                return name
        return None

    def _moment(
        self, step: int, logged: Mapping[str, Value], room: Room | None = None, last: LastRow | None = None
    ) -> Moment:
        return Moment(
            step, self._parameter, self._rows, self._optimizer, logged, self._axis, self._gather, self._first,
            self._rounds, None if room is None or not self._fills_room else room(W.name),
            last if self._fills_room and step > self._first else None,
        )  # fmt: skip

    def _hold(self, moment: Moment, some: Iterable[Recorded]) -> None:
        held = (self._held or {}) | self._of_first_call
        now = [each for each in some if self._looks and each.channel.name not in held]
        self._held = held | {each.channel.name: _copied(each.source(moment)) for each in now}

    def _due(self, step: int) -> tuple[Recorded, ...]:
        if not self._have_schedules:
            return self.recorded
        return tuple(each for each in self.recorded if each.channel.records(step))

    def _keep(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Remember what the source of a user is made of: an average of the weights may be updated after the step."""
        own = self._parameter.untyped_storage().data_ptr()
        others = (tensor for tensor in tensors if tensor.untyped_storage().data_ptr() != own)
        self._kept += [(name, tensor, writes_to(tensor)) for tensor in others]


def _spread_out(count: int, ids: Tensor | None) -> list[tuple[int, int]]:
    """Some of the recorded rows, from the first to the last, each with its place in the parameter."""
    some = sorted({(count - 1) * k // (GLANCED - 1) for k in range(GLANCED)} if count else ())
    return [(row, row if ids is None else int(ids[row])) for row in some]


def _is_of_a_user(each: Recorded) -> bool:
    """Whether a function of the user's makes the rows of a state."""
    return each.channel.belongs_to == "state" and each.source not in sources.SOURCES.values()


def _is_of_the_update(each: Recorded) -> bool:
    """Whether it changes before the loop says that its update is over; what is logged until then counts for it."""
    is_logged = isinstance(each.source, sources.Logged)
    return isinstance(each.source, OptimizerState) or (each.channel.belongs_to == "move" and not is_logged)


def _is_of_the_closure(each: Recorded) -> bool:
    return each.source is sources.gradient or isinstance(each.source, sources.MeanOutput)


def _is_of_the_optimizer(each: Recorded) -> bool:
    own = (sources.gradient, sources.learning_rate, sources.optimizer_step)
    return each.source in own or isinstance(each.source, OptimizerState | PushOf)


def _copied(value: Value) -> Value:
    """Of its own: the loop may zero the gradient before the state is taken."""
    return value.clone() if isinstance(value, Tensor) else value


def _forget(recorded: Iterable[Recorded]) -> None:
    """Drop what these have gathered for an update whose rows they do not keep."""
    for each in recorded:
        if each.forget:
            each.forget()

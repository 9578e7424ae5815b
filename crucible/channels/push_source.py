"""Where the rows of the channel `push` come from: a hook before each step keeps the weights, a source after it asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.compiler import disable
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.channels.push import Arithmetic, Refused, now_taken
from crucible.channels.push_rows import pushes_of
from crucible.channels.table import OPTIMIZER_STEP, PUSH
from crucible.channels.tensors import one_thread
from store.format.schema import Channel

if TYPE_CHECKING:
    from crucible.channels.sources import Moment


class PushOf:
    """A source: how near the update came to moving each recorded row, in half cells.

    Parameters
    ----------
    arithmetic : Arithmetic or Refused
        By which the optimizer moves the parameter; where that is not known, there is no row.
    optimizer, parameter
        Of the run.
    rows : Tensor, optional
        Ids of the recorded rows on the parameter's device; all unless given.

    Notes
    -----
    The rows are looked at right before each step, so that what else writes to them (a constraint, ``weight.data``, a
    restored checkpoint) is not taken for the optimizer's work. Beside what `pushes_of` keeps, 24 bytes an element, only
    `last` is kept: the pushes of the last update, for who judges them while the recorder stores them.

    Attributes
    ----------
    last : Tensor or None
        The pushes of the last update.
    lost : str
        Why that has none, where the optimizer is no longer the one that the run tells of; else "".
    """

    def __init__(
        self, arithmetic: Arithmetic | Refused, optimizer: Optimizer, parameter: Tensor, rows: Tensor | None = None
    ) -> None:
        self._arithmetic, self._optimizer = arithmetic, optimizer
        self._parameter = parameter
        self._pushes = pushes_of(parameter, rows) if isinstance(arithmetic, Arithmetic) else None
        self._told: Mapping[str, Any] = {}
        if isinstance(arithmetic, Arithmetic):
            self._told = arithmetic.attributes(optimizer, parameter)
        self.last: Tensor | None = None
        self.lost = ""

    @property
    def refused(self) -> str | None:
        """Why no push is known; None where it is."""
        return self._arithmetic.reason if isinstance(self._arithmetic, Refused) else None

    def begin(self) -> RemovableHandle:
        """Look at the rows before each step of the optimizer."""
        keep = disable(lambda *_: self.keep())  # type: ignore[no-untyped-call] # torch: no part of a step that is compiled
        return self._optimizer.register_step_pre_hook(keep)

    def __call__(self, moment: Moment) -> Tensor | None:
        """The push of each row; None before the first update, and where the parameter was left out of this one."""
        self.last, self.lost = None, ""
        if self._pushes is None or moment.is_first or moment.parameter.grad is None:
            return None
        found = now_taken(self._optimizer, self._parameter)
        if isinstance(found, Refused):
            self.lost = found.reason
            return None
        arithmetic, step = found
        self.lost = (step and arithmetic.change(self._told, step.update)) or ""
        if self.lost:
            return None
        with one_thread(self._pushes.before):
            self.last = self._pushes.of(step)
        return self.last

    def keep(self) -> None:
        """Look at the rows: they are what the optimizer is about to move."""
        if self._pushes is not None:
            with one_thread(self._pushes.before):
                self._pushes.keep(self._parameter)


def known_of(channels: Iterable[Channel], arithmetic: Arithmetic | Refused) -> tuple[Channel, ...]:
    """The channels without the push, and the count that goes with it, where it is not known.

    Examples
    --------
    >>> from crucible.channels.table import EXPERIMENT, NOTEBOOK
    >>> [each.name for each in known_of(EXPERIMENT, Refused("float32 weights")) if each not in NOTEBOOK]
    ['learning_rate']
    """
    if isinstance(arithmetic, Arithmetic):
        return tuple(channels)
    return tuple(each for each in channels if each.name not in (PUSH.name, OPTIMIZER_STEP.name))

"""Updates that a gradient scaler skips, and the scale that it puts on losses.

torch's GradScaler calls an optimizer, or leaves it out where gradients overflowed, and tells nobody. While somebody
listens its `step` is looked at; nothing it does is changed, and the last who stops listening gives it back as it was.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol
from weakref import WeakSet

from torch.amp import GradScaler
from torch.optim import Optimizer


class Listener(Protocol):
    """Who wants to know of a scaler's steps."""

    def scaler_begins(self, optimizer: Optimizer, scaler: GradScaler) -> None:
        """A scaler has been asked for a step of this optimizer."""

    def scaler_ended(self, optimizer: Optimizer) -> None:
        """It has called the optimizer, or has left it out."""


_listeners: WeakSet[Listener] = WeakSet()
_own = GradScaler.step


@functools.wraps(_own)
def _step(self: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:  # noqa: ANN401 - as torch's
    for each in list(_listeners):
        each.scaler_begins(optimizer, self)
    answer = _own(self, optimizer, *args, **kwargs)
    for each in list(_listeners):
        each.scaler_ended(optimizer)
    return answer


def listen(listener: Listener) -> None:
    """Tell this listener of every step of every scaler, until `let_go`, or until nobody holds it any more."""
    _listeners.add(listener)
    GradScaler.step = _step  # type: ignore[method-assign] # given back by `let_go`


def let_go(listener: Listener) -> None:
    """Tell it nothing any more."""
    _listeners.discard(listener)
    if not _listeners:
        GradScaler.step = _own  # type: ignore[method-assign]


def found_overflow(optimizer: Optimizer) -> bool:
    """Whether a fused optimizer, which a scaler always calls, has done nothing since gradients overflowed."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf.item())

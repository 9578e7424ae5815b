"""The steps of the optimizers that hold a parameter, as torch's hooks show them: each update once, and strangers named.

One update may pass several hooks. A subclass whose `step` calls that of its base passes its own twice, and a wrapper
(SAM, Lookahead) calls another optimizer in its own step, or outside of any. An update is the outermost step of one of
the optimizers that belong together. Any other optimizer of this process that holds the parameter is a stranger: its
updates would be missing from the run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol, cast
from weakref import WeakKeyDictionary, WeakMethod

from torch import Tensor
from torch.compiler import disable
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from crucible.channels.sources import group_of

Closure = Callable[[], Any]
Hook = Callable[..., Any]
DEPTH = 4
"""So many wrappers are looked through."""
COMPILER = str(Path("torch", "_dynamo", "eval_frame.py"))
"""What is compiled by torch.compile is called from this file."""
_OURS: set[int] = set()
"""Ids of the hooks of recorders, which torch calls in the order of a mapping."""


class Seen(Protocol):
    """Who is told of the steps."""

    def before_step(self, optimizer: Optimizer) -> None:
        """An update begins."""

    def moved(self, optimizer: Optimizer) -> None:
        """The step is made, and hooks of others will be called before `after_step`: one may move the scheduler on."""

    def after_step(self, optimizer: Optimizer) -> None:
        """An update has been made; this optimizer's step was the outermost."""

    def stranger_stepped(self, optimizer: Optimizer) -> None:
        """Another optimizer that holds the parameter has made a step of its own."""

    def wrapper_stepped(self, optimizer: Optimizer) -> None:
        """Another optimizer that holds the parameter has made a step, and called the update within it."""

    def hear_closure(self, closure: Closure) -> Closure:
        """The closure that the step shall call instead."""


class Passing(NamedTuple):
    """A step of a stranger that has not returned: its frame, and how many updates there were before."""

    frame: FrameType
    updates: int


class Steps:
    """Tells of the steps of these optimizers, from `listen` until it is let go.

    Parameters
    ----------
    parameter : Tensor
        What they update.
    optimizers : sequence of Optimizer
        Those that belong together, see `together`.
    seen : Seen
        Who is told.

    Attributes
    ----------
    updates : int
        How many there were.
    is_compiled : bool
        Whether a step was seen that torch.compile has compiled: at the updates 1, 2, 4, 8, ... one looks.
    """

    def __init__(self, parameter: Tensor, optimizers: Sequence[Optimizer], seen: Seen) -> None:
        self.optimizers, self.updates, self.is_compiled = tuple(optimizers), 0, False
        self._parameter, self._seen = parameter, seen
        self._running: list[FrameType] = []
        self._passing: list[Passing] = []
        self._holds: WeakKeyDictionary[Optimizer, tuple[int, bool]] = WeakKeyDictionary()
        self._handles: list[RemovableHandle] = []
        self._own: set[int] = set()
        self._leaves: set[int] = set()

    def listen(self) -> None:
        """Tell from now on. Where that fails, `let_go` takes back what was done of it."""
        for each in self.optimizers:
            self._handles.append(near := each.register_step_post_hook(_uncompiled(self._moved)))
            _go_first(each._optimizer_step_post_hooks, near.id)
            self._handles.append(leave := each.register_step_post_hook(_uncompiled(self._leave)))
            self._leaves.add(leave.id)
            self._handles.append(each.register_step_pre_hook(_uncompiled(self._enter)))
        self.go_last(self._handles)
        self._handles.append(register_optimizer_step_pre_hook(_uncompiled(weakly(self._enter_other))))
        self._handles.append(register_optimizer_step_post_hook(_uncompiled(weakly(self._leave_other))))

    def has(self, optimizer: Optimizer) -> bool:
        """Whether it is one of these."""
        for each in self.optimizers:  # noqa: SIM110 - asked twice a step: a generator takes three times as long
            if each is optimizer:
                return True
        return False

    def go_last(self, handles: Iterable[RemovableHandle]) -> None:
        """Let these hooks before a step be called behind those of others, which may write to the weights."""
        self._own |= {each.id for each in handles}
        _OURS.update(self._own)

    def let_go(self) -> None:
        """Listen no longer."""
        while self._handles:
            self._handles.pop().remove()
        _OURS.difference_update(self._own)
        self._running.clear()
        self._passing.clear()

    def _enter(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if optimizer not in self.optimizers:  # a copy, which was made with its hooks
            return None
        frame = _step_frame()
        if self._running:  # of a step that calls another, or of one that ended with an exception
            callers = set(_callers(frame))
            self._running = [each for each in self._running if each in callers]
        self._running.append(frame)
        if len(self._running) > 1:
            return None
        self._seen.before_step(optimizer)
        return _with_closure(args, kwargs, self._seen.hear_closure)

    def _moved(self, optimizer: Optimizer, *_: object) -> None:
        for each in optimizer._optimizer_step_post_hooks:
            if each in self._leaves:
                return
            if each not in _OURS:  # somebody else's
                break
        if self._running and self._running[0] is _step_frame():
            self._seen.moved(optimizer)

    def _leave(self, optimizer: Optimizer, *_: object) -> None:
        frame = _step_frame()
        if frame not in self._running:
            return
        del self._running[self._running.index(frame) :]
        if not self._running:
            self.updates += 1
            if not self.updates & (self.updates - 1) and not self.is_compiled:
                self.is_compiled = any(each.f_code.co_filename.endswith(COMPILER) for each in _callers(frame))
            self._seen.after_step(optimizer)

    def _enter_other(self, optimizer: Optimizer, *_: object) -> None:
        if self.has(optimizer):
            hooks = optimizer._optimizer_step_pre_hooks
            if next(reversed(hooks)) not in _OURS:
                _go_last(hooks)
        elif self._is_stranger(optimizer):
            self._passing.append(Passing(_step_frame(), self.updates))

    def _leave_other(self, optimizer: Optimizer, *_: object) -> None:
        if not self._passing:
            return
        frame = _step_frame()
        passing = next((each for each in self._passing if each.frame is frame), None)
        if passing is None:
            return
        del self._passing[self._passing.index(passing) :]
        if self.updates > passing.updates:
            self._seen.wrapper_stepped(optimizer)
        elif not any(each in _callers(frame) for each in self._running):
            self._seen.stranger_stepped(optimizer)

    def _is_stranger(self, optimizer: Optimizer) -> bool:
        """Whether one that is none of ours holds the parameter; looked up again when it gets more groups."""
        groups = len(optimizer.param_groups)
        known = self._holds.get(optimizer)
        if known is None or known[0] != groups:
            known = self._holds[optimizer] = groups, bool(group_of(optimizer, self._parameter))
        return known[1]


def together(optimizer: Optimizer, parameter: Tensor) -> list[Optimizer]:
    """An optimizer and those that it wraps, outermost first: SAM and its base, accelerate's and the one inside.

    The last one is that which has the parameter's state and learning rate.

    Examples
    --------
    >>> import torch
    >>> sgd = torch.optim.SGD([weight := torch.nn.Parameter(torch.ones(2, 2))])
    >>> together(sgd, weight) == [sgd]
    True
    """
    found = [optimizer]
    while len(found) <= DEPTH:
        inner = (each for each in _attributes(found[-1]) if isinstance(each, Optimizer) and group_of(each, parameter))
        following = next((each for each in inner if not any(each is one for one in found)), None)
        if following is None:
            break
        found.append(following)
    return [each for each in found if hasattr(each, "_optimizer_step_post_hooks")]


def _attributes(optimizer: Optimizer) -> Iterator[object]:
    """The values of its attributes, and what those of them that are lists or mappings hold."""
    for value in vars(optimizer).values():
        yield value
        if isinstance(value, (list, tuple)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()


def _go_first(hooks: dict[int, Hook], first: int) -> None:
    """Let torch call this one of the hooks before the others."""
    for each in [each for each in hooks if each != first]:
        hooks[each] = hooks.pop(each)


def _go_last(hooks: dict[int, Hook]) -> None:
    """Let torch, which has not come to these hooks yet, call those of recorders behind the others."""
    for each in [each for each in hooks if each in _OURS]:
        hooks[each] = hooks.pop(each)


def _with_closure(
    args: tuple[Any, ...], kwargs: dict[str, Any], hear: Callable[[Closure], Closure]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a step with its closure exchanged; None where it has none."""
    if len(args) > 1 and callable(args[1]):
        return (args[0], hear(args[1]), *args[2:]), kwargs
    if callable(closure := kwargs.get("closure")):
        return args, {**kwargs, "closure": hear(closure)}
    return None


def _step_frame() -> FrameType:
    """The frame of torch's function around the step, which calls the hooks."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename != torch_optimizer.__file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame, and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def weakly(method: Hook) -> Hook:
    """A hook that does not hold whose method it is: torch keeps those of all optimizers for ever."""
    held = WeakMethod(method)

    def hook(*given: Any) -> None:  # noqa: ANN401 - handed on
        call = held()
        if call is not None:
            call(*given)

    return hook


def _uncompiled(hook: Hook) -> Hook:
    """The hook, which a compiled step calls and does not compile with it."""
    return cast(Hook, disable(hook))  # type: ignore[no-untyped-call] # torch

"""The parameter that is recorded: whether it is still the one that is trained, looked at in every step.

A tensor that the model or the optimizer has dropped stands still for ever, and would be recorded as frozen. Looking
takes a few microseconds a step, however many parameters the optimizer has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.updates.steps import weakly

IDLE_UPDATES = 10
"""So many updates in a row without a gradient are told: nothing trains the parameter any more."""
REPLACED = "the parameter was replaced in the model (an assignment, resize_token_embeddings, tied weights)"
Find = Callable[[], object]


class Arrivals:
    """Whether gradients still reach a parameter: one that the model has dropped may keep an old one, or get zeros.

    Parameters
    ----------
    parameter : Tensor
        It is listened to from now on, where it gets gradients.
    """

    def __init__(self, parameter: Tensor) -> None:
        self._has_come = self._has_ever_come = False
        self._seen: tuple[StorageWeakRef | None, int] = None, 0
        self._mark = 0, 0
        self._handle: RemovableHandle | None = None
        if parameter.requires_grad and parameter.is_leaf:
            self._handle = parameter.register_post_accumulate_grad_hook(weakly(self._come))  # type: ignore[no-untyped-call] # torch

    def note_update(self, gradient: Tensor | None) -> bool:
        """After an update with this gradient: whether it is one of its own, and no old one that nothing has renewed.

        Where no backward pass has ever reached the parameter, gradients are made in another way, and count as they are.
        """
        if gradient is None or not self._has_ever_come:
            return gradient is not None
        (seen, writes), came, self._has_come = self._seen, self._has_come, False
        dense = gradient._values() if gradient.is_sparse else gradient
        # torch exchanges no tensor that Python refers to weakly (Module.to of DTensors), so its memory is noted
        now = StorageWeakRef(dense.untyped_storage())  # type: ignore[no-untyped-call] # torch
        self._seen = now, writes_to(gradient)
        if came or seen is None or seen.cdata != now.cdata:
            return True
        return self._seen[1] != writes and not _is_zero(gradient)

    def was_cleared(self, gradient: Tensor) -> bool:
        """Whether something has set this gradient to 0 since a backward pass reached the parameter."""
        return self._has_ever_come and mark_of(gradient) != self._mark and _is_zero(gradient)

    def let_go(self) -> None:
        """Listen no longer."""
        if self._handle is not None:
            self._handle.remove()

    def _come(self, parameter: Tensor) -> None:
        self._has_come = self._has_ever_come = True
        if parameter.grad is not None and not parameter.grad.is_sparse:
            self._mark = mark_of(parameter.grad)


class Subject:
    """A parameter, and where it must be found again.

    Parameters
    ----------
    parameter : Tensor
        As it is when recording begins.
    optimizer : Optimizer or None
        The one that updates it, where one does.
    find : callable, optional
        Says what stands in its place in the model now.

    Attributes
    ----------
    idle : int
        Updates without a gradient of their own since the last one that had one.
    arrivals : Arrivals
        Of the parameter's gradients.
    kind : tuple
        Its shape, dtype and device when recording began.
    place : tuple of int
        Where the optimizer holds the parameter: its group, and the place in that, where `change` has found it.
    """

    def __init__(self, parameter: Tensor, optimizer: Optimizer | None, find: Find | None = None) -> None:
        self.parameter, self.optimizer = parameter, optimizer
        self.finds = [] if find is None else [find]
        self.idle, self.arrivals = 0, Arrivals(parameter)
        self.kind = _kind(parameter)
        self.place = (0, 0)
        self._written, self._alias = mark_of(parameter), parameter.detach()

    def change(self) -> str | None:
        """What has become of the parameter; None while it is the one that it was."""
        parameter = self.parameter
        try:
            for find in self.finds:
                if find() is not parameter:
                    return REPLACED
        except (AttributeError, LookupError) as error:
            return f"the parameter is no longer in the model under its name ({error})"
        if not self._is_held():
            return "the optimizer no longer holds the parameter in its param_groups"
        return None if _kind(parameter) == self.kind else self.change_of_kind()

    def change_of_kind(self) -> str:
        """In what its shape, dtype or device is another now."""
        now, before = _words(_kind(self.parameter)), _words(self.kind)
        return f"the parameter is {now} now, and was {before} when recording began"

    def note_update(self, gradient: Tensor | None) -> None:
        """After an update with this gradient; what is written to from now on is no part of it."""
        self.idle = 0 if self.arrivals.note_update(gradient) else self.idle + 1
        self.note_state()

    def note_state(self) -> None:
        """What is written to from now on is not in the row that is taken now."""
        now = mark_of(self.parameter)
        if now[1] != self._written[1]:
            self._alias = self.parameter.detach()  # while it is held, no other weights can come to lie at its place
        self._written = now

    def was_written(self) -> bool:
        """Whether something other than the last update may have written to the weights since.

        As far as torch counts it, and as far as the weights lie elsewhere now: writing through ``.data`` is not seen,
        nor is a fused optimizer.
        """
        return mark_of(self.parameter) != self._written

    def idle_words(self) -> str:
        """That it gets no gradient."""
        if self.parameter.grad is not None:
            return (
                f"no backward pass has reached the parameter in the last {self.idle} updates, so the optimizer goes on "
                "with an old gradient of it, or with zeros: is it unused, or was it replaced in the model (an "
                "assignment, load_state_dict(assign=True))?"
            )
        return (
            f"the parameter has had no gradient in the last {self.idle} updates, so the optimizer leaves it as it is: "
            f"is it frozen (requires_grad is {self.parameter.requires_grad}), unused, or replaced in the model?"
        )

    def _is_held(self) -> bool:
        if self.optimizer is None:
            return True
        groups, (group, index) = self.optimizer.param_groups, self.place
        params = groups[group]["params"] if group < len(groups) else []
        if index < len(params) and params[index] is self.parameter:
            return True
        places = ((g, i) for g, each in enumerate(groups) for i, p in enumerate(each["params"]) if p is self.parameter)
        found = next(places, None)
        self.place = found or self.place
        return found is not None


def frozen_notices(parameter: Tensor) -> list[str]:
    """That it cannot be trained, if so."""
    if parameter.requires_grad:
        return []
    return ["the parameter has requires_grad=False: it gets no gradient, and stands still until that is changed"]


def writes_to(tensor: Tensor) -> int:
    """How often torch has counted a write to it; it counts none to tensors of `torch.inference_mode`."""
    return 0 if tensor.is_inference() else tensor._version


def mark_of(parameter: Tensor) -> tuple[int, int]:
    """How often torch has counted a write, and where the weights lie (a tensor of several processes has no place)."""
    is_spread = hasattr(parameter, "placements")  # as in crucible.ranks.part, without a call twice an update
    return writes_to(parameter), 0 if is_spread else parameter.data_ptr()


def _is_zero(gradient: Tensor) -> bool:
    """Whether all of it is 0, as far as this process has it at hand."""
    return not gradient.is_sparse and not hasattr(gradient, "placements") and not bool(gradient.any())


def _kind(parameter: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return parameter.shape, parameter.dtype, parameter.device


def _words(kind: tuple[torch.Size, torch.dtype, torch.device]) -> str:
    shape, dtype, device = kind
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)} on {device}"

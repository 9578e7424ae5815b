"""The loss of an update, from the losses of its micro-batches, and what listens to a Trainer for them."""

# The Trainer has a type that only its own library, which is not imported here, could name.
# ruff: noqa: ANN401

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LOOKED_AT = 3
"""The losses of so many updates are compared with what `backward` is called on: looking waits for the device."""
NEAR = 0.01
"""How near these must be, relatively, to count as the same."""


class UpdateLoss:
    """Gathers the losses of the micro-batches of one update, and says what the update's own loss is.

    Nothing is copied to the host here, but by `other_optimised` in the first updates.
    """

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._optimised: list[Tensor] = []
        self._are_shares = self._is_heard = False
        self._looked_at = 0

    def add(self, loss: Tensor, *, is_share: bool) -> None:
        """One micro-batch's loss: its own mean, or its share of the update's."""
        self._are_shares = is_share
        self._values.append(loss.detach().float().mean())
        if self._looked_at < LOOKED_AT and loss.requires_grad and not torch.compiler.is_compiling():
            self._is_heard, value, heard = True, loss.detach(), self._optimised
            # what backward is called on: the loss times the gradient of that with respect to it
            loss.register_hook(lambda share: heard.append((share * value).sum()))  # type: ignore[no-untyped-call]

    def other_optimised(self) -> tuple[float, float] | None:
        """The update's loss, and how much of it `backward` was called on, where that is something else.

        None where it is the same, where that cannot be told, and after some updates. To be asked before `total`.
        """
        if not self._is_heard or self._looked_at == LOOKED_AT:
            return None
        self._looked_at += 1
        whole, optimised = self._whole(), float(sum(self._optimised))
        loss = float("nan") if whole is None else float(whole)
        return (loss, optimised) if abs(loss - optimised) > NEAR * abs(loss) else None

    def total(self) -> Tensor | None:
        """The update's loss on this rank; begins the next update."""
        whole = self._whole()
        self._values, self._optimised, self._is_heard = [], [], False
        return whole

    def _whole(self) -> Tensor | None:
        values = self._values
        if not values:
            return None
        whole = sum(values[1:], values[0])
        return whole if self._are_shares else whole / len(values)

    @property
    def are_shares(self) -> bool:
        """Whether the losses seen last are shares of the update's, divided by the number of items in all of it."""
        return self._are_shares


class ModelOutputs:
    """A forward hook that hands on what a model gives. A copy of the model, in a file too, has one that does nothing.

    Parameters
    ----------
    take : callable, optional
        Called with the hook's arguments.
    """

    def __init__(self, take: Callable[..., None] | None = None) -> None:
        self._take = take

    def __call__(self, *given: Any) -> None:
        """As torch calls a hook."""
        if self._take is not None:
            self._take(*given)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled without what it belongs to."""
        return ModelOutputs, ()


class TrainingSteps:
    """Listens to a Trainer's `training_step`: it answers each micro-batch's share of what the Trainer optimises."""

    def __init__(self, trainer: Any, losses: UpdateLoss) -> None:
        self._trainer, self._own = trainer, vars(trainer).get("training_step")
        step = trainer.training_step

        def training_step(*args: Any, **kwargs: Any) -> Tensor:
            share: Tensor = step(*args, **kwargs)
            losses.add(share, is_share=True)
            return share

        trainer.training_step = training_step

    def remove(self) -> None:
        """Give the Trainer back what it had."""
        if self._own is None:
            vars(self._trainer).pop("training_step", None)
        else:
            self._trainer.training_step = self._own

"""What the loop hands over between two updates, and how it becomes one value for each name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from crucible.channels.sources import Value
from crucible.units import a_or_an

Reduce = Literal["mean", "sum"]
Closure = Callable[[], Any]
LOOKED_AT = 3
"""So many updates are compared with what `backward` was called on: looking waits for the device."""
NEAR = 0.01
"""A share of 1/n is told from 1 by at least this, relatively, for every n from 2 on."""


class Handed:
    """Values that were logged since the last update.

    Parameters
    ----------
    numbers : iterable of str
        Names of channels that keep one number: a tensor of one element, of whatever shape, is one.
    """

    def __init__(self, numbers: Iterable[str]) -> None:
        self._numbers = set(numbers)
        self._values: dict[str, list[Tensor | float]] = {}
        self._reduce: dict[str, Reduce] = {}
        self._shares: dict[str, list[Tensor]] = {}
        self._is_deaf = False
        self._looked_at = 0

    @property
    def names(self) -> frozenset[str]:
        """What something was logged for."""
        return frozenset(self._values)

    def expect_number(self, name: str) -> None:
        """Take what is logged under this name for one number, too."""
        self._numbers.add(name)

    @property
    def is_compared(self) -> bool:
        """Whether what was logged since the last update is compared with what backward is called on."""
        return bool(self._shares) and self._looked_at < LOOKED_AT

    def take(self, name: str, value: object, reduce: Reduce) -> None:
        """One value more.

        Raises
        ------
        TypeError, ValueError
            No number and no tensor; several numbers where the channel keeps one; two ways to make one of them.
        """
        if reduce not in _OTHER:
            raise ValueError(f"log(reduce={reduce!r}): several values before an update become their 'mean' or 'sum'")
        taken = self._plain(name, value)
        if self._is_deaf:
            return
        if self._reduce.setdefault(name, reduce) != reduce:
            before = self._reduce[name]
            raise ValueError(f"log({name}=...): reduce={reduce!r} now, and {before!r} earlier in the same update")
        self._values.setdefault(name, []).append(taken)
        if isinstance(value, Tensor) and value.requires_grad and value.numel() == 1 and self._looked_at < LOOKED_AT:
            # how much of it backward was called on: the gradient of that with respect to it
            value.register_hook(self._shares.setdefault(name, []).append)  # type: ignore[no-untyped-call] # torch

    def values(self) -> dict[str, Value]:
        """One value for each name; a tensor stays on its device, and is not waited for."""
        return {name: one_of(values, self._reduce[name]) for name, values in self._values.items()}

    def clear(self) -> None:
        """Begin the next update."""
        self._values.clear()
        self._reduce.clear()
        self._shares.clear()

    def first_call_of(self, closure: Closure) -> Closure:
        """A step's closure, of which the first call alone is heard, and only where nothing was logged before the step.

        Later calls look at other weights than those that the update begins with: LBFGS makes some twenty.
        """

        def heard() -> Any:  # noqa: ANN401 - whatever it gives
            self._is_deaf = bool(self._values)
            try:
                return closure()
            finally:
                self._is_deaf = False

        return heard

    def disagreements(self, scale: float) -> list[str]:
        """Sentences on names of which several values were logged, and backward was called on another whole than theirs.

        Parameters
        ----------
        scale : float
            What a gradient scaler has multiplied the losses by; 1 without one.
        """
        if not self.is_compared:
            return []
        self._looked_at += 1
        several = {name: shares for name, shares in self._shares.items() if len(shares) == len(self._values[name]) > 1}
        found = (self._disagreement(name, [float(s) / scale for s in shares]) for name, shares in several.items())
        return [words for words in found if words]

    def _disagreement(self, name: str, shares: list[float]) -> str | None:
        """Whether backward was called on the sum where the mean is kept, or on the mean where the sum is."""
        count, kept = len(shares), self._reduce[name]
        whole = 1.0 if kept == "mean" else 1 / count
        if not np.allclose(shares, whole, rtol=NEAR / count, atol=0):
            return None
        is_now, would_be = (float(one_of(self._values[name], way)) for way in (kept, _OTHER[kept]))
        if kept == "mean":
            return (
                f"{count} values of {name} were logged before an update, and their mean, {is_now:.4g}, is recorded; "
                f"but backward was called on each of them whole, as on shares of one (loss / {count}): log({name}=..., "
                f"reduce='sum') records {would_be:.4g}"
            )
        return (
            f"{count} values of {name} were logged before an update, and their sum, {is_now:.4g}, is recorded; but "
            f"backward was called on each of them divided by {count}: log({name}=...), without reduce='sum', records "
            f"their mean, {would_be:.4g}"
        )

    def _plain(self, name: str, value: object) -> Tensor | float:
        """A number, or a copy of a tensor, since the loop may write on in its own before the step."""
        if isinstance(value, Tensor):
            taken = value.detach().clone()
            if taken.ndim and name in self._numbers:
                self._refuse_several(name, taken)
                taken = taken.reshape(())
            return taken
        if isinstance(value, np.ndarray):
            return self._plain(name, torch.from_numpy(np.array(value)))
        if isinstance(value, (bool, int, float, np.number, np.bool_)):
            return value.item() if isinstance(value, np.generic) else value
        raise TypeError(f"log({name}=...) takes a number or a tensor, not {_what(value)}")

    def _refuse_several(self, name: str, tensor: Tensor) -> None:
        if tensor.numel() != 1:
            raise ValueError(
                f"log({name}=...): {name} is one number, and this tensor has the shape {tuple(tensor.shape)}; log its "
                f"mean: log({name}=values.mean())"
            )


_OTHER: dict[Reduce, Reduce] = {"mean": "sum", "sum": "mean"}


def one_of(values: list[Tensor | float], reduce: Reduce) -> Tensor | float:
    """The mean or the sum of what was logged, without looking at it: tensors stay on their device."""
    if len(values) == 1:
        return values[0]
    tensors = [v.float() if isinstance(v, Tensor) else torch.tensor(float(v)) for v in values]
    whole = torch.stack([t.to(tensors[0].device) for t in tensors])
    return whole.mean(dim=0) if reduce == "mean" else whole.sum(dim=0)


def _what(value: object) -> str:
    return "None" if value is None else a_or_an(type(value).__name__)

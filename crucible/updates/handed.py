"""What the loop hands over between two updates, and how it becomes one value for each name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from crucible.channels.tensors import Value, dtype_name
from crucible.units import a_or_an
from crucible.updates import telling

Reduce = Literal["mean", "sum"]
WAYS = ("mean", "sum")
Closure = Callable[[], Any]
LOOKED_AT = 3
"""So many updates are compared with what `backward` was called on: looking waits for the device."""
IN_FLOAT32 = (torch.float32, torch.bfloat16, torch.float16, torch.bool)
"""Numbers of these dtypes lose nothing in float32."""
PLAIN = (bool, int, float, np.integer, np.floating, np.bool_)
"""Numbers that are no tensors."""
NEAR = 0.01
"""How near two numbers must be, relatively and divided by how many there are, to count as the same."""


@dataclass(slots=True)
class Taken:
    """What was logged since the last update, by name: the values, and what is known of them.

    Parameters
    ----------
    values : dict
        In the order in which they were logged.
    reduce : dict
        What becomes of several.
    shares : dict
        The gradient of what `backward` was called on, with respect to each.
    without_graph : dict
        How many have no gradient.
    of_closure : dict
        How many are the closure's, of names that it alone has logged.
    before_closure : frozenset, optional
        While a closure is called: the names that were logged before.
    """

    values: dict[str, list[Tensor | float]] = field(default_factory=dict)
    reduce: dict[str, Reduce] = field(default_factory=dict)
    shares: dict[str, list[Tensor]] = field(default_factory=dict)
    without_graph: dict[str, int] = field(default_factory=dict)
    of_closure: dict[str, int] = field(default_factory=dict)
    before_closure: frozenset[str] | None = None


class Handed:
    """Values that were logged since the last update.

    Parameters
    ----------
    numbers : iterable of str
        Names of channels that keep one number: a tensor of one element, of whatever shape, is one.
    are_plain : bool
        Whether nobody but the store reads these numbers: those that lie on the host are kept as Python's own then,
        which takes a tenth of the time of a copy.
    """

    def __init__(self, numbers: Iterable[str], *, are_plain: bool = False) -> None:
        self._numbers, self._are_plain = set(numbers), are_plain
        self._taken = Taken()
        self._unheard: frozenset[str] = frozenset()
        self._looked_at = 0
        self._most: dict[str, int] = {}
        self._first: dict[str, list[int]] = {}

    @property
    def names(self) -> frozenset[str]:
        """What something was logged for."""
        return frozenset(self._taken.values)

    def expect_number(self, name: str) -> None:
        """Take what is logged under this name for one number, too."""
        self._numbers.add(name)

    @property
    def is_compared(self) -> bool:
        """Whether what was logged since the last update is compared with what backward is called on."""
        return bool(self._taken.shares) and self._looked_at < LOOKED_AT

    def take(self, name: str, value: object, reduce: Reduce) -> None:
        """One value more.

        Raises
        ------
        TypeError, ValueError
            No number and no tensor; several numbers where the channel keeps one; two ways to make one of them.
        """
        if reduce not in WAYS:
            raise ValueError(f"log(reduce={reduce!r}): several values before an update become their 'mean' or 'sum'")
        taken = self._plain(name, value)
        if name in self._unheard:
            return
        if self._taken.reduce.setdefault(name, reduce) != reduce:
            before = self._taken.reduce[name]
            raise ValueError(f"log({name}=...): reduce={reduce!r} now, and {before!r} earlier in the same update")
        self._taken.values.setdefault(name, []).append(taken)
        if not isinstance(value, Tensor) or value.numel() != 1 or self._looked_at >= LOOKED_AT:
            return
        if not value.requires_grad:
            self._taken.without_graph[name] = self._taken.without_graph.get(name, 0) + 1
        else:
            # how much of it backward was called on: the gradient of that with respect to it
            value.register_hook(self._taken.shares.setdefault(name, []).append)  # type: ignore[no-untyped-call] # torch

    def words_of_surplus(self, name: str, update: int) -> str:
        """That more values of it were logged for this update than for any before."""
        return telling.more_than(
            "before any earlier update", name, update, len(self._taken.values[name]), self._taken.reduce[name]
        )

    def words_of_rest(self, name: str, step: int) -> str:
        """That more values of it than of any update were logged after this step, and no update came."""
        return telling.never_taken(name, step, len(self._taken.values[name]))

    def values(self) -> dict[str, Value]:
        """One value for each name; a tensor stays on its device, and is not waited for."""
        return {name: one_of(values, self._taken.reduce[name]) for name, values in self._taken.values.items()}

    def clear(self) -> None:
        """Begin the next update."""
        self._taken = Taken()  # all at once: an interrupt may come before it or after it

    def first_call_of(self, closure: Closure) -> Closure:
        """A step's closure, of which only names are heard that nothing was logged for before it is called.

        Of LBFGS, which makes some twenty calls, the first counts: later ones look at other weights than those that the
        update begins with.
        """

        def heard() -> Any:  # noqa: ANN401 - whatever it gives
            try:
                return self._call(closure)
            except BaseException:
                self.forget_closure()
                raise

        return heard

    def _call(self, closure: Closure) -> Any:  # noqa: ANN401 - whatever it gives
        """Hear what has no name yet, and note that it is the closure's."""
        self._taken.before_closure = self._unheard = self.names
        try:
            return closure()
        finally:
            self._end_closure()

    def _end_closure(self) -> None:
        """Note what is the closure's. Where an interrupt comes in between it is done again."""
        taken, before = self._taken, self._taken.before_closure
        if before is not None:
            taken.of_closure |= {name: len(values) for name, values in taken.values.items() if name not in before}
            self._unheard = frozenset()
            taken.before_closure = None

    def forget_closure(self) -> None:
        """Drop what the closure of a step has logged that was broken off: the next step's is to be heard."""
        self._end_closure()
        taken, own = self._taken, self._taken.of_closure
        later = {name: values[own.get(name, 0) :] for name, values in taken.values.items()}
        values = {name: some for name, some in later.items() if some}
        others = values.keys() - own.keys()
        self._taken = Taken(
            values,
            {name: taken.reduce[name] for name in values},
            {name: shares for name, shares in taken.shares.items() if name in others},
            {name: count for name, count in taken.without_graph.items() if name in others},
        )

    def surplus(self) -> list[str]:
        """Names of which more values were logged than before any earlier update."""
        found = []
        for name, values in self._taken.values.items():
            most = self._most.get(name)
            if most is None or len(values) > most:
                self._most[name] = len(values)
                if most:
                    found.append(name)
        return found

    def first_had_more(self, update: int) -> list[str]:
        """Sentences on names of which the first update had more values than either of the two after it.

        To be asked of each of these; with the gradients of what was logged `disagreements` knows more.
        """
        found = []
        for name, values in self._taken.values.items():
            counts = self._first.setdefault(name, [])
            counts.append(0 if name in self._taken.shares else len(values))
            if len(counts) == LOOKED_AT and counts[0] > max(counts[1:]) > 0:
                self._most[name] = max(counts[1:])
                found.append(
                    telling.more_than(
                        "for each of the two updates behind it", name, update - 2, counts[0], self._taken.reduce[name]
                    )
                )
        return found

    def disagreements(self, scale: float) -> list[str]:
        """Sentences on names of which several values were logged that are not what `backward` was called on.

        Parameters
        ----------
        scale : float
            What a gradient scaler has multiplied the losses by; 1 without one.
        """
        if not self.is_compared:
            return []
        self._looked_at += 1
        several = [name for name, values in self._taken.values.items() if len(values) > 1]
        return [words for name in several if (words := self._disagreement(name, scale))]

    def _disagreement(self, name: str, scale: float) -> str | None:
        """Whether the value that is recorded is another than the whole that `backward` was called on, and known why."""
        values, shares = self._taken.values[name], [float(share) / scale for share in self._taken.shares.get(name, [])]
        kept, count = self._taken.reduce[name], len(values)
        if self._taken.without_graph.get(name, 0) and shares:
            return telling.mixed(name, count, self._taken.without_graph[name])
        if shares and len(shares) < count:
            return telling.not_backward(name, count, count - len(shares), kept)
        if len(shares) != count:
            return None
        recorded = float(one_of(values, kept))
        whole = sum(share * float(value) for share, value in zip(shares, values, strict=True))
        is_of_shares = np.allclose(shares, 1, rtol=NEAR / count)
        is_one_loss = is_of_shares or abs(sum(shares) - 1) < NEAR
        if not (is_one_loss and np.isfinite(recorded) and np.isfinite(whole)):  # inf and NaN are the same in any share
            return None
        if abs(recorded - whole) <= NEAR / count * abs(whole):
            return None
        return telling.other_whole(name, count, kept, recorded, whole, is_of_shares=is_of_shares)

    def _plain(self, name: str, value: object) -> Tensor | float:
        """A number, or a copy of a tensor, since the loop may write on in its own before the step."""
        if isinstance(value, Tensor):
            if hasattr(value, "placements"):  # `is_spread`, without a call at each log
                value = _whole_here(name, value)
            if value.is_complex():  # torch would keep its real part
                raise TypeError(f"log({name}=...) takes real numbers, not {dtype_name(value.dtype)}: log its abs()")
            if name not in self._numbers:
                return value.detach().clone()
            if value.ndim:
                self._refuse_several(name, value)
            if self._are_plain and type(value) is Tensor and value.is_cpu:
                return value.item()
            return value.detach().clone().reshape(())
        if isinstance(value, np.ndarray):
            return self._plain(name, torch.from_numpy(np.array(value)))
        if isinstance(value, PLAIN):
            return value.item() if isinstance(value, np.generic) else value
        raise TypeError(f"log({name}=...) takes a number or a tensor, not {_what(value)}")

    def _refuse_several(self, name: str, tensor: Tensor) -> None:
        if tensor.numel() != 1:
            raise ValueError(
                f"log({name}=...): {name} is one number, and this tensor has the shape {tuple(tensor.shape)}; log its "
                f"mean: log({name}=values.mean())"
            )


def _whole_here(name: str, spread: Any) -> Tensor:  # noqa: ANN401 - a DTensor, whose type may not be there
    """A tensor of several processes as this one has all of it."""
    if any(not each.is_replicate() for each in spread.placements):
        raise TypeError(
            f"log({name}=...): this DTensor lies in parts on several ranks, {spread.placements}: log its "
            "full_tensor(), which every rank must call"
        )
    here: Tensor = spread.to_local()
    return here


def is_number(value: object) -> bool:
    """Whether it is one number: Python's, or a tensor or array of one element."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    return value.size == 1 if isinstance(value, np.ndarray) else isinstance(value, PLAIN)


def one_of(values: list[Tensor | float], reduce: Reduce) -> Tensor | float:
    """The mean or the sum of what was logged, without looking at it: tensors stay on their device.

    In float32 where all tensors are of that or of less, else in float64, which counts of tokens need.
    """
    if len(values) == 1:
        return values[0]
    plain = [float(v) for v in values if not isinstance(v, Tensor)]
    if len(plain) == len(values):
        return sum(plain) / (len(plain) if reduce == "mean" else 1)
    device = next(v.device for v in values if isinstance(v, Tensor))
    is_wide = any(isinstance(v, Tensor) and v.dtype not in IN_FLOAT32 for v in values) and device.type != "mps"
    dtype = torch.float64 if is_wide else torch.float32
    whole = torch.stack([torch.as_tensor(v, dtype=dtype, device=device) for v in values])
    return whole.mean(dim=0) if reduce == "mean" else whole.sum(dim=0)


def _what(value: object) -> str:
    return "None" if value is None else a_or_an(type(value).__name__)

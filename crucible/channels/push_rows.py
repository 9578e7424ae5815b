"""How near an optimizer's step comes to moving a weight: the push of each row, from torch's tensors.

Computed with torch's own operations right after the step; what changes only where a weight moves is kept between steps.
What a push is stands in `analysis.optimizers.push_arithmetic`; the tests hold both against torch, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.lattice import require_subnormals
from analysis.optimizers.update_rules import Update
from crucible.channels.push import DTYPES, StepTaken, as_factor


class Pushes:
    """The push of each row at each step, from torch's tensors on the parameter's device.

    Parameters
    ----------
    rows : Tensor of bfloat16 or float16, shape (row, hidden)
        The recorded rows as they are before the next step. They are copied.

    Raises
    ------
    TypeError
        For other dtypes.
    FloatingPointError
        If this thread flushes subnormal numbers to zero.

    Attributes
    ----------
    before : Tensor, shape (row, hidden)
        The rows kept.

    Notes
    -----
    The power of two below each weight and the weight in its unit are kept, and made anew only where a bit of any row
    has changed: 24 bytes an element. Weights that anything but the optimizer changes between two steps must be told
    with `keep` again.

    Examples
    --------
    >>> from crucible.channels.push import arithmetic_of
    >>> weight = torch.nn.Parameter(torch.ones(1, 64, dtype=torch.bfloat16))
    >>> optimizer = torch.optim.SGD([weight], lr=0.001)
    >>> pushes = Pushes(weight.detach())
    >>> weight.grad = torch.ones_like(weight)
    >>> optimizer.step()
    >>> pushes.of(arithmetic_of(optimizer, weight).step_taken(optimizer, weight))  # half a cell down from 1 is 2^-9
    tensor([0.5117], dtype=torch.bfloat16)
    """

    def __init__(self, rows: Tensor) -> None:
        require_subnormals()
        if rows.dtype not in DTYPES:
            raise TypeError(f"push is known for rows of bfloat16 and float16, not {rows.dtype}")
        rows = _flat(rows)
        self._lattice, self._on_host = DTYPES[rows.dtype], rows.device.type == "cpu"
        self.before, self._root = (torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(2))
        floats = [torch.empty(rows.shape, dtype=torch.float32, device=rows.device) for _ in range(5)]
        self._weights, self._binade, self._place, self._m, self._sums = floats
        self._begin(rows)

    def keep(self, rows: Tensor) -> None:
        """Take the rows as they are after a step: they are the rows before the next."""
        rows = _flat(rows)
        if not _same_bits(self.before, rows, self._on_host):
            self._begin(rows)

    def of(self, step: StepTaken | None) -> Tensor:
        """The strongest push of each row in the step just taken from the rows kept.

        Returns
        -------
        Tensor of bfloat16, shape (row,)
            In half cells, rounded up, so that a row moves only where it is at least 1. NaN where it is not known: no
            step, decoupled weight decay that alone can move a weight, weights that are NaN or infinite.
        """
        if step is None or step.update.refusal(self._lattice.mantissa_bits):
            return torch.full((len(self.before),), torch.nan, dtype=torch.bfloat16, device=self.before.device)
        if step.v is not None:
            self._add_adam(_flat(step.m), _flat(step.v), step.update)
        else:
            self._add_sgd(step)
        # (w - s) over the power of two below w: positive towards zero for a positive w
        distance = torch.addcdiv(self._place, self._sums, self._binade, value=-1, out=self._m)
        strongest = torch.amax(self._sizes(distance), dim=1)
        strongest.view(torch.float32).mul_(2.0 ** (self._lattice.mantissa_bits + 1))  # to half cells, exactly
        up = strongest.clamp_(max=0x7FC00000).add_(0xFFFF).bitwise_right_shift_(16)
        return up.to(torch.int16).view(torch.bfloat16)

    def _begin(self, rows: Tensor) -> None:
        """The power of two below each weight, the weight in its unit, and where the cell towards zero is narrow.

        Half a cell is 2^-8 of that power in bfloat16, 2^-11 in float16; the smallest holds for what lies below it.
        """
        self.before.copy_(rows)
        self._weights.copy_(rows)
        smallest = torch.tensor(2.0 ** (self._lattice.smallest + self._lattice.mantissa_bits)).view(torch.int32).item()
        powers = self._binade.view(torch.int32)  # positive floats sort as their bits
        torch.bitwise_and(self._weights.view(torch.int32), 0x7F800000, out=powers).clamp_(min=smallest)
        torch.div(self._weights, self._binade, out=self._place)
        mantissa = (1 << self._lattice.mantissa_bits) - 1
        find = _narrow_on_host if self._on_host else _narrow_elsewhere
        self._narrow = find(self.before.view(torch.int16).view(-1), mantissa, powers.view(-1), smallest)
        self._signs = self._place.view(-1).index_select(0, self._narrow).sign_()

    def _sizes(self, distance: Tensor) -> Tensor:
        """Distances without their sign, as bits, which sort like the numbers. Made in place.

        Towards zero the cell of a power of two is half as wide, so the distance is twice as many half cells.
        """
        if self._on_host:  # NumPy picks elements in a third of torch's time, and wakes no threads
            sizes, places, signs = distance.view(-1).numpy(), self._narrow.numpy(), self._signs.numpy()
            here = sizes[places]
            with np.errstate(all="ignore"):  # infinity and NaN are answers
                sizes[places] = np.where(here * signs > 0, here + here, here)
            np.bitwise_and(sizes.view(np.int32), 0x7FFFFFFF, out=sizes.view(np.int32))
        else:
            flat = distance.view(-1)
            found = flat[self._narrow]
            flat[self._narrow] = torch.where(found * self._signs > 0, found + found, found)
            flat.view(torch.int32).bitwise_and_(0x7FFFFFFF)
        return distance.view(torch.int32)

    def _add_adam(self, m: Tensor, v: Tensor, update: Update) -> None:
        step_size, correction = update.scalars()
        if update.fused:
            divisor = self._sums.copy_(v).sqrt_().div_(correction).add_(update.eps)
        else:
            divisor = self._sums.copy_(torch.sqrt(v, out=self._root).div_(correction).add_(update.eps))
        kept = update.kept_weight()
        weights = self._weights if kept is None else self._weights * kept
        torch.addcdiv(weights, self._m.copy_(m), divisor, value=-float(step_size), out=self._sums)

    def _add_sgd(self, step: StepTaken) -> None:
        update = step.update
        direction = self._m.copy_(_flat(step.m if step.gradient is None else step.gradient))
        if update.variant != "sgd_momentum":
            if update.maximize:
                direction.neg_()
            if update.weight_decay:
                self._add_rounded(direction, update.weight_decay, self._weights)
            if update.variant == "sgd_nesterov":
                self._add_rounded(direction, update.momentum, self._sums.copy_(_flat(step.m)))
        torch.add(self._weights, direction, alpha=as_factor(-update.lr, self.before.dtype), out=self._sums)

    def _add_rounded(self, direction: Tensor, factor: float, other: Tensor) -> None:
        """Add factor x other to the direction, rounded to the weights' dtype."""
        torch.add(direction, other, alpha=as_factor(factor, self.before.dtype), out=self._sums)
        direction.copy_(self._root.copy_(self._sums))


def _flat(rows: Tensor) -> Tensor:
    return rows.detach().reshape(len(rows), -1)


def _same_bits(a: Tensor, b: Tensor, on_host: bool) -> bool:
    if on_host and b.is_contiguous():
        return np.array_equal(_words(a), _words(b))
    return torch.equal(a.view(torch.int16), b.view(torch.int16))


def _words(rows: Tensor) -> np.ndarray[Any, Any]:
    """The bits of contiguous rows on the host, eight bytes at a time where that comes out even."""
    bits = rows.view(torch.int16).numpy().reshape(-1)
    return bits.view(np.int64) if bits.size % 4 == 0 else bits


def _narrow_on_host(bits: Tensor, mantissa: int, powers: Tensor, smallest: float) -> Tensor:
    """Where a weight is a power of two above the smallest, or infinite. NumPy takes a third of torch's time."""
    found = np.flatnonzero((bits.numpy() & mantissa) == 0)
    return torch.from_numpy(found[powers.numpy()[found] > smallest])


def _narrow_elsewhere(bits: Tensor, mantissa: int, powers: Tensor, smallest: float) -> Tensor:
    return torch.nonzero(((bits & mantissa) == 0) & (powers > smallest)).view(-1)

"""How near an optimizer's step comes to moving a weight: the push of each row, from torch's tensors.

Computed with torch's own operations right after the step; what changes only where a weight moves is kept between steps.
Weights that come to rest gather at powers of two, in a run of 5,000 steps more than half of them, between cells of two
widths: so no operation here takes longer the more of them there are. What a push is stands in
`analysis.optimizers.push_arithmetic`; the tests hold both against torch, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.lattice import require_subnormals
from analysis.optimizers.update_rules import Update
from crucible.channels.push import DTYPES, StepTaken, as_factor

WORD = 4
"""Weights are compared so many at a time: eight bytes."""
FEW = 16
"""Where at most one word of so many has changed, what is kept is made anew for those alone."""
SIZE, NAN = 0x7FFFFFFF, 0x7FC00000
"""In the bits of a float32: all but the sign, and the NaN that stands for all of them."""


class Pushes:
    """The push of each row at each step, from torch's tensors on the parameter's device.

    Parameters
    ----------
    weights : Tensor of bfloat16 or float16, shape (row, hidden)
        The parameter as it is before the next step. Its recorded rows are copied.
    rows : Tensor of int64, shape (recorded row,), optional
        Ids of the recorded rows on the parameter's device; all unless given.

    Raises
    ------
    TypeError
        For other dtypes.
    FloatingPointError
        If this thread flushes subnormal numbers to zero.

    Attributes
    ----------
    before : Tensor, shape (recorded row, hidden)
        The rows kept.

    Notes
    -----
    The weights in float32 and the widths of their cells are kept: 24 bytes an element. Weights that anything but the
    optimizer changes between two steps must be told with `keep` again.

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

    def __init__(self, weights: Tensor, rows: Tensor | None = None) -> None:
        require_subnormals()
        if weights.dtype not in DTYPES:
            raise TypeError(f"push is known for rows of bfloat16 and float16, not {weights.dtype}")
        self._lattice, self._rows, self._length = DTYPES[weights.dtype], rows, len(weights)
        weights = _flat(weights)
        shape = (len(weights) if rows is None else len(rows), weights.shape[1])
        self.before, self._picked = (torch.empty(shape, dtype=weights.dtype, device=weights.device) for _ in range(2))
        floats = [torch.empty(shape, dtype=torch.float32, device=weights.device) for _ in range(5)]
        self._weights, self._inverse, self._to_half_cells, self._m, self._sums = floats
        self._begin(self._pick(weights))

    def keep(self, weights: Tensor) -> None:
        """Take the weights as they are after a step: they are those before the next.

        Whether any has changed is not asked: a device would have to be waited for.
        """
        self._begin(self._pick(weights))

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
            self._add_adam(step.m, step.v, step.update)
        else:
            self._add_sgd(step)
        # (w - s) over the power of two below w: positive towards zero
        return self._strongest(torch.sub(self._weights, self._sums, out=self._sums).mul_(self._inverse))

    def _pick(self, tensor: Tensor) -> Tensor:
        """The recorded rows of a tensor that is shaped like the parameter; good until the next are picked."""
        tensor = _flat(tensor)
        return tensor if self._rows is None else torch.index_select(tensor, 0, self._rows, out=self._picked)

    def _begin(self, rows: Tensor) -> None:
        """Keep the weights and what belongs to them."""
        self._make(rows, *self._kept, scratch=self._m)

    @property
    def _kept(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.before, self._weights, self._inverse, self._to_half_cells

    def _make(
        self, rows: Tensor, before: Tensor, weights: Tensor, inverse: Tensor, to_half_cells: Tensor, *, scratch: Tensor
    ) -> None:
        """The weights, one over the signed power of two below each, and how many of its half cells that power is.

        Half a cell is 2^-8 of that power in bfloat16, 2^-11 in float16; the smallest holds for what lies below it.
        Towards zero the cell of a power of two is half as wide: a distance is twice as many of its half cells.
        """
        before.copy_(rows)
        weights.copy_(rows)
        powers = self._power_below(weights, out=inverse)
        nearer = torch.mul(weights, 1 - 2.0 ** -(self._lattice.mantissa_bits + 2), out=scratch)
        torch.div(powers, self._power_below(nearer, out=scratch), out=to_half_cells).mul_(self._half_cells)
        torch.copysign(powers.reciprocal_(), weights, out=inverse)

    @property
    def _half_cells(self) -> float:
        """Of a power of two, away from zero."""
        return 2.0 ** (self._lattice.mantissa_bits + 1)

    def _power_below(self, numbers: Tensor, out: Tensor) -> Tensor:
        """The power of two below the size of each number, at least that below which cells become no smaller."""
        smallest = np.float32(2.0 ** (self._lattice.smallest + self._lattice.mantissa_bits)).view(np.int32)
        powers = out.view(torch.int32)  # positive floats sort as their bits
        torch.bitwise_and(numbers.view(torch.int32), 0x7F800000, out=powers).clamp_(min=int(smallest))
        return out

    def _strongest(self, distance: Tensor) -> Tensor:
        """The largest distance of each row without its sign, in half cells, rounded up. Changes the distances.

        Those towards zero, the positive ones, are compared by their bits: positive floats sort as these.
        """
        away = torch.amin(distance, dim=1).mul_(-self._half_cells)  # NaN where one is
        towards = torch.amax(distance.mul_(self._to_half_cells).view(torch.int32), dim=1)
        return self._rounded_up(torch.maximum(towards.view(torch.float32), away, out=away).view(torch.int32))

    def _add_adam(self, m: Tensor, v: Tensor, update: Update) -> None:
        step_size, correction = update.scalars()
        if update.fused:
            divisor = self._sums.copy_(self._pick(v)).sqrt_().div_(correction).add_(update.eps)
        else:
            root = torch.sqrt(self._pick(v), out=self._picked)
            divisor = self._sums.copy_(root.div_(correction).add_(update.eps))
        kept = update.kept_weight()
        weights = self._weights if kept is None else self._weights * kept
        torch.addcdiv(weights, self._m.copy_(self._pick(m)), divisor, value=-float(step_size), out=self._sums)

    def _add_sgd(self, step: StepTaken) -> None:
        update = step.update
        direction = self._m.copy_(self._pick(step.m if step.gradient is None else step.gradient))
        if update.variant == "sgd" or step.gradient is not None:
            if update.maximize:
                direction.neg_()
            if update.weight_decay:
                self._add_rounded(direction, update.weight_decay, self._weights)
            if update.variant == "sgd_nesterov":
                self._add_rounded(direction, update.momentum, self._sums.copy_(self._pick(step.m)))
        torch.add(self._weights, direction, alpha=as_factor(-update.lr, self.before.dtype), out=self._sums)

    def _add_rounded(self, direction: Tensor, factor: float, other: Tensor) -> None:
        """Add factor x other to the direction, rounded to the weights' dtype."""
        torch.add(direction, other, alpha=as_factor(factor, self.before.dtype), out=self._sums)
        direction.copy_(self._picked.copy_(self._sums))

    def _rounded_up(self, bits: Tensor) -> Tensor:
        """Numbers, given as the bits of float32, without their sign, rounded up to bfloat16."""
        bits.bitwise_and_(SIZE).clamp_(max=NAN).add_(0xFFFF).bitwise_right_shift_(16)
        return bits.to(torch.int16).view(torch.bfloat16)


class PushesOnHost(Pushes):
    """`Pushes` of weights that lie on the host, the same to the bit: to call NumPy costs less."""

    def __init__(self, weights: Tensor, rows: Tensor | None = None) -> None:
        super().__init__(weights, rows)
        self._words_before = None if self.before.numel() % WORD else _words(self.before)
        self._is_ready = True

    def keep(self, weights: Tensor) -> None:
        """The same; what is kept is made anew only where a weight has changed."""
        rows = self._pick(weights)
        changed = self._changed(rows) if self._is_ready else None
        if changed is not None and not len(changed):
            return
        self._is_ready = False  # until all of it is made: an interrupt may come between
        if changed is None:
            self._begin(rows)
        else:
            self._begin_some(rows.view(-1, WORD).index_select(0, changed), changed)
        self._is_ready = True

    def _pick(self, tensor: Tensor) -> Tensor:
        tensor = _flat(tensor)
        if self._rows is None:
            return tensor
        if len(tensor) != self._length:  # NumPy is not to look, which takes twice the time
            raise IndexError(f"rows of a tensor of {len(tensor)}, and not of {self._length} as when the push began")
        np.take(_bits(tensor), self._rows.numpy(), axis=0, out=_bits(self._picked), mode="clip")
        return self._picked

    def _changed(self, rows: Tensor) -> Tensor | None:
        """Which words of `WORD` weights are others than those kept; None for any or all."""
        if self._words_before is None or not rows.is_contiguous():
            is_same = torch.equal(self.before.view(torch.int16), rows.view(torch.int16))
            return torch.empty(0, dtype=torch.int64) if is_same else None
        differs = self._words_before != _words(rows)
        if np.count_nonzero(differs) * FEW > differs.size:
            return None
        return torch.from_numpy(np.flatnonzero(differs))

    def _begin_some(self, rows: Tensor, words: Tensor) -> None:
        """Keep these words of `WORD` weights and what belongs to them."""
        parts = [torch.empty(len(words), WORD, dtype=each.dtype, device=each.device) for each in self._kept]
        self._make(rows, *parts, scratch=torch.empty_like(parts[-1]))
        for each, part in zip(self._kept, parts, strict=True):
            each.view(-1, WORD).index_copy_(0, words, part)

    def _rounded_up(self, bits: Tensor) -> Tensor:
        numbers = bits.numpy()
        numbers &= SIZE
        np.minimum(numbers, NAN, out=numbers)
        numbers += 0xFFFF
        numbers >>= 16
        return torch.from_numpy(numbers.astype(np.int16)).view(torch.bfloat16)


def pushes_of(weights: Tensor, rows: Tensor | None = None) -> Pushes:
    """`Pushes` in the way of the device that the weights lie on."""
    return (PushesOnHost if weights.device.type == "cpu" else Pushes)(weights, rows)


def _flat(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor if tensor.ndim == 2 else tensor.reshape(len(tensor), -1)


def _bits(rows: Tensor) -> NDArray[np.int16]:
    return rows.view(torch.int16).numpy()


def _words(rows: Tensor) -> NDArray[Any]:
    """The bits of contiguous rows on the host, `WORD` weights at a time."""
    return _bits(rows).reshape(-1).view(np.int64)

"""How near an optimizer's step comes to moving a weight: the arithmetic of torch's Adam, AdamW and SGD, bit for bit.

A weight w on the lattice moves only if the proposed update passes half the way to its neighbour. torch computes an
update of 16-bit weights in float32 and rounds once: the new weight is round(s) with s = fl32(w + q). So the *push* of a
step is |s - w| over half a cell, the distance to the midpoint in the direction of the step. A weight moves exactly
where its push is above 1, or where it is 1 and the last bit of the weight is odd (a tie goes to the even neighbour).

q is Adam's -(lr / (1 - beta1^t)) m / d, with d = sqrt(v) / sqrt(1 - beta2^t) + eps rounded to the weight's dtype after
each operation; the scalars are computed in double precision. For SGD it is -lr m, with lr rounded to the weight's
dtype. The order is that of torch 2.13 on the CPU, where one tensor at a time and ``foreach`` give the same bits. Fused
kernels and other devices keep more digits, so there it is an approximation; `crucible.channels.push` knows which.

Public face: `analysis.lattice`. NumPy in, NumPy out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.number_formats import (
    Array,
    Floats,
    Lattice,
    as_float32,
    float32_to_bits,
    lattice_of,
    patterns_of,
    require_subnormals,
)
from analysis.optimizers.update_rules import VARIANTS, Update


def push(
    before: ArrayLike, m: ArrayLike, v: ArrayLike | None = None, *, gradient: ArrayLike | None = None, **update: Any  # noqa: ANN401
) -> Floats:  # fmt: skip
    """The strongest push of a step over the hidden dimensions, in half cells: a row moves only where it is at least 1.

    Parameters
    ----------
    before : array of uint16 (bits of bfloat16) or float16, shape (..., hidden)
        Weights before the step.
    m, v : arrays like `before`
        Adam: first and second moment as stored after the step (with amsgrad, v is the running maximum). SGD with
        momentum: m is the momentum after the step. Plain SGD: m is the gradient.
    gradient : array like `before`, optional
        For ``sgd_nesterov`` alone.
    **update
        ``variant``, ``lr``, ``optimizer_step``, ``beta1``, ``beta2``, ``eps``, ``weight_decay``, ``momentum``,
        ``maximize``, ``fused``: the fields of `Update`.

    Returns
    -------
    array of float32, shape (...)
        Infinite where it is beyond float32; NaN where a new weight is NaN or the weight before is infinite.

    Raises
    ------
    ValueError
        Where a push would not tell what moves (decoupled weight decay with lr x weight_decay >= 2^-9), for an unknown
        variant, and where an array that the variant needs is missing.
    TypeError
        For float32 weights (torch's square root of float32 is not rounded correctly on every machine, and such weights
        hardly ever stand still), and for arrays of different dtypes.
    FloatingPointError
        If this thread flushes subnormal numbers to zero.

    Notes
    -----
    `half_cells` keeps the hidden dimensions; `proposed` and `rounded` give the new weights. About six arrays of float32
    like `before` are alive at once.

    Examples
    --------
    >>> before, m, v = (float32_to_bits(np.float32([[x]])) for x in (1.0, -0.5, 0.25))
    >>> push(before, m, v, variant="adamw", lr=1e-3, optimizer_step=10_000)  # half a cell up from 1 is 2^-8
    array([0.25601196], dtype=float32)
    """
    sums = proposed(before, m, v, gradient=gradient, **update)
    with np.errstate(all="ignore"):
        strongest: Floats = np.max(half_cells(before, sums), axis=-1, initial=0)
    return strongest


def proposed(
    before: ArrayLike, m: ArrayLike, v: ArrayLike | None = None, *, gradient: ArrayLike | None = None, **update: Any  # noqa: ANN401
) -> Floats:  # fmt: skip
    """The new weights before they are rounded to their dtype, fl32(w + q). Arguments and errors are those of `push`.

    Examples
    --------
    >>> before, m, v = (float32_to_bits(np.float32([x])) for x in (1.0, -0.5, 0.25))
    >>> proposed(before, m, v, variant="adamw", lr=1e-3, optimizer_step=10_000)
    array([1.001], dtype=float32)
    """
    numbers = Update(**update)
    weights, momentum = _alike(before, "before"), _alike(m, "m", before)
    refused = numbers.refusal(lattice_of(np.asarray(before).dtype).mantissa_bits)
    if refused:
        raise ValueError(refused)
    with np.errstate(all="ignore"):
        if VARIANTS[numbers.variant].adam:
            return _adam(weights, momentum, _alike(v, "v", before), np.asarray(before).dtype, numbers)
        if numbers.variant == "sgd_nesterov":
            return _sgd(weights, momentum, _alike(gradient, "gradient", before), np.asarray(before).dtype, numbers)
        return _sgd(weights, momentum, momentum, np.asarray(before).dtype, numbers)


def half_cells(before: ArrayLike, sums: Floats) -> Floats:
    """How far proposed weights lie from the weights before, in half cells in the direction of the step.

    Half a cell is half the distance to the next representable number: u(w) / 2, and u(w) / 4 from a power of two
    towards zero, except at the smallest cells.

    Parameters
    ----------
    before : array of uint16 (bits of bfloat16) or float16
        Weights.
    sums : array of float32
        From `proposed`.

    Returns
    -------
    array of float32
        Never negative.

    Examples
    --------
    >>> one = float32_to_bits(np.float32([1, 1]))
    >>> half_cells(one, np.float32([1 + 2**-8, 1 - 2**-8]))
    array([1., 2.], dtype=float32)
    """
    weights = as_float32(before)
    lattice = lattice_of(np.asarray(before).dtype)
    require_subnormals()
    with np.errstate(all="ignore"):
        moves = np.subtract(sums, weights)
        halves = half_cell_outward(weights, lattice)
        inward = ((moves < 0) != (weights < 0)) & has_narrow_side(weights, halves, lattice)
        halves[inward] *= np.float32(0.5)
        distances: Floats = np.abs(np.divide(moves, halves, out=moves), out=moves)
    return distances


def half_cell_outward(weights: Floats, lattice: Lattice, out: Floats | None = None) -> Floats:
    """Half the distance to the next number of a lattice away from zero, u(w) / 2."""
    halves = np.empty_like(weights) if out is None else out
    np.bitwise_and(weights.view(np.uint32), np.uint32(0x7F800000), out=halves.view(np.uint32))
    halves *= np.float32(2.0 ** -(lattice.mantissa_bits + 1))
    low, high = np.float32(2.0 ** (lattice.smallest - 1)), np.float32(2.0 ** (lattice.largest - 1))
    return np.clip(halves, low, high, out=halves)


def has_narrow_side(weights: Floats, halves: Floats, lattice: Lattice) -> NDArray[np.bool_]:
    """Where the cell towards zero is half as wide: at powers of two, except at the smallest cells."""
    power_of_two = (weights.view(np.uint32) & np.uint32(0x007FFFFF)) == 0
    narrow: NDArray[np.bool_] = power_of_two & (halves > np.float32(2.0 ** (lattice.smallest - 1)))
    return narrow


def rounded(sums: Floats, dtype: np.dtype[Any] | type[Any]) -> Array:
    """Proposed weights rounded to the weights' dtype, to nearest even: the new weights.

    Parameters
    ----------
    sums : array of float32
        From `proposed`.
    dtype : dtype
        uint16 for the bits of bfloat16, or float16.

    Returns
    -------
    array of `dtype`
        The bits that the optimizer leaves, but for the payload of NaN.

    Examples
    --------
    >>> rounded(np.float32([1.0, 1.01]), np.uint16).tolist()
    [16256, 16257]
    """
    if np.dtype(dtype) == np.uint16:
        return float32_to_bits(sums)
    with np.errstate(all="ignore"):
        return sums.astype(dtype)


def moves_weight(before: ArrayLike, pushes: Floats) -> NDArray[np.bool_]:
    """Where a push moves its weight: above 1, and at 1 where the weight's last bit is odd.

    Examples
    --------
    >>> moves_weight(np.array([0x3F80, 0x3F81, 0x3F80], np.uint16), np.float32([1, 1, 1.01]))
    array([False,  True,  True])
    """
    odd: NDArray[np.bool_] = (patterns_of(np.asarray(before)) & 1).astype(bool)
    moved: NDArray[np.bool_] = (pushes > 1) | (odd & (pushes == 1))
    return moved


def bits_rounded_up(pushes: Floats) -> NDArray[np.uint16]:
    """The smallest bfloat16 that is not below each push, as bits: what is stored. It keeps push <= 1 true.

    Examples
    --------
    >>> [hex(bits) for bits in bits_rounded_up(np.float32([0.0, 1.0, 1.0001]))]
    ['0x0', '0x3f80', '0x3f81']
    """
    wide = np.minimum(np.asarray(pushes, np.float32).view(np.uint32), np.uint32(0x7FC00000))
    return ((wide + np.uint32(0xFFFF)) >> np.uint32(16)).astype(np.uint16)


def _alike(array: ArrayLike | None, name: str, before: ArrayLike | None = None) -> Floats:
    """An array as float32, if it is one of 16-bit floats and like the weights."""
    if array is None:
        raise ValueError(f"this variant needs {name}")
    array = np.asarray(array)
    if array.dtype not in (np.uint16, np.float16):
        raise TypeError(
            f"{name} is {array.dtype}: a push is known for bfloat16 (uint16 bits) and float16. torch's square root of "
            "float32 is not rounded correctly on every machine, and float32 weights hardly ever stand still"
        )
    if before is not None and array.dtype != np.asarray(before).dtype:
        raise TypeError(f"{name} is {array.dtype} and the weights are {np.asarray(before).dtype}; one dtype is needed")
    return as_float32(array)


def _adam(weights: Floats, m: Floats, v: Floats, dtype: np.dtype[Any], numbers: Update) -> Floats:
    step_size, correction = numbers.scalars()
    divisor: Floats = np.sqrt(v)
    if numbers.fused:
        divisor /= np.float32(correction)
        divisor += np.float32(numbers.eps)
    else:
        divisor = _as(_as(divisor, dtype) / np.float32(correction), dtype)
        divisor = _as(divisor + _as(np.float32(numbers.eps), dtype), dtype)
    step = np.float32(-step_size) * m
    step /= divisor
    kept = numbers.kept_weight()
    step += weights if kept is None else weights * np.float32(kept)
    return step


def _sgd(weights: Floats, m: Floats, gradient: Floats, dtype: np.dtype[Any], numbers: Update) -> Floats:
    if VARIANTS[numbers.variant].takes_gradient:
        gradient = -gradient if numbers.maximize else gradient
        if numbers.weight_decay:
            gradient = _as(_fused(gradient, numbers.weight_decay, weights, dtype), dtype)
        nesterov = numbers.variant == "sgd_nesterov"
        m = _as(_fused(gradient, numbers.momentum, m, dtype), dtype) if nesterov else gradient
    return _fused(weights, -numbers.lr, m, dtype)


def _fused(a: Floats, factor: float | np.float32, b: Floats, dtype: np.dtype[Any]) -> Floats:
    """A fused a + factor b of 16-bit numbers, rounded to float32 once. The factor is rounded to the dtype first.

    Double precision holds the product exactly, and its sum with so short a number is never rounded to a tie of float32.
    """
    product = b.astype(np.float64) * np.float64(_as(np.float32(factor), dtype))
    return (a + product).astype(np.float32)


def _as(values: ArrayLike, dtype: np.dtype[Any]) -> Floats:
    """Round float32 values to the weights' dtype and back."""
    return as_float32(rounded(np.asarray(values, np.float32), dtype))

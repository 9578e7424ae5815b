"""The lattice of representable numbers: cells, displacements, norms, hops, pushes. NumPy in, NumPy out.

A weight moves from one representable number to another. Near a weight w these lie one *cell* apart,
u(w) = 2^(max(E, 1) - bias - mantissa bits), where E is the exponent field: 2^(max(E,1) - 134) for bfloat16,
2^(max(E,1) - 150) for float32, 2^(max(E,1) - 25) for float16. A uint16 array holds the bit patterns of bfloat16;
float32 and float16 arrays have lattices of their own.

NaN and infinite weights raise nothing and warn of nothing here. float64 is refused: it would measure the noise
of a conversion that nobody asked for.

A public room: what `analysis.number_formats` and `analysis.optimizers.push_arithmetic` offer is offered here too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.number_formats import (
    INSTEAD,
    LATTICES,
    Array,
    Floats,
    Lattice,
    as_float32,
    bits_to_float32,
    float32_to_bits,
    is_finite,
    lattice_of,
    patterns_of,
    refuse_lost_bits,
    require_subnormals,
)
from analysis.optimizers.push_arithmetic import half_cells, moves_weight, proposed, push, rounded
from analysis.optimizers.update_rules import Update

__all__ = [
    "INSTEAD", "LATTICES", "NORMS", "WORK_ELEMENTS", "Array", "Floats", "Lattice", "Norms", "Update", "as_float32",
    "bits_to_float32", "cell", "displacement", "displacement_of_floats", "float32_to_bits", "half_cells", "hops",
    "is_finite", "lattice_of", "moves_weight", "norms", "norms_over_first", "patterns_of", "proposed", "push",
    "refuse_lost_bits", "require_subnormals", "rounded",
]  # fmt: skip

NORMS = ("l1", "l2", "linf")
TELL_MOVES = frozenset({"W", "delta_W_prime", "displacement_l2"})
"""Names of the arrays by any of which it is known how far tokens moved, in the norm that is asked for as a rule."""
WORK_ELEMENTS = 1 << 17
"""Elements worked on at once: some 4 MB of scratch."""


def cell(weights: ArrayLike) -> Floats:
    """The size u(w) of the lattice cell at each weight.

    u(w) = 2^(max(E, 1) - 134) for bfloat16, with the 8 exponent bits E: 2^-133 at 0 and in the subnormals, twice as
    much in each binade from E = 2 on. The sign does not matter. Infinity and NaN (E = 255) get 2^121, the
    formula's answer.

    Parameters
    ----------
    weights : array of uint16 (bits of bfloat16), float32 or float16
        Any shape.

    Returns
    -------
    array of float32
        Sizes in the weights' own unit, exact for every bit pattern.

    Raises
    ------
    TypeError
        For any other dtype.
    FloatingPointError
        If this thread flushes subnormal numbers to zero: the cells near 0 are subnormal.

    Examples
    --------
    >>> bits = np.array([0x0000, 0x3F80, 0xBF80], np.uint16)  # 0, 1, -1
    >>> [float(u).hex() for u in cell(bits)]
    ['0x1.0000000000000p-133', '0x1.0000000000000p-7', '0x1.0000000000000p-7']
    """
    weights = np.asarray(weights)
    lattice = lattice_of(weights.dtype)
    require_subnormals()
    # A copy of its own in any case: the next function writes into it.
    return _cell_in_place(np.array(as_float32(weights)), lattice)


def displacement(before: ArrayLike, after: ArrayLike) -> Floats:
    """The move from `before` to `after` in cells of the lattice at `before`, with its sign.

    d = (after - before) / u(before), subtracted and divided in float32. Fractional where it crosses a binade,
    infinite where float32 overflows, NaN only where a weight is NaN or infinite. If it is not 0, it is at least 0.5
    or at most -0.5.

    Parameters
    ----------
    before, after : arrays of one dtype: uint16 (bits of bfloat16), float32 or float16
        Shapes that broadcast.

    Returns
    -------
    array of float32
        In lattice cells.

    Examples
    --------
    >>> displacement(np.array([0x3F80, 0x3F80], np.uint16), np.array([0x3F81, 0x3F7F], np.uint16))  # up, down from 1
    array([ 1. , -0.5], dtype=float32)
    """
    before, after = np.asarray(before), np.asarray(after)
    lattice = lattice_of(before.dtype)
    if lattice_of(after.dtype) is not lattice:
        raise TypeError(f"both sides must be of one dtype, not {before.dtype} and {after.dtype}")
    require_subnormals()
    return displacement_of_floats(as_float32(before), as_float32(after), lattice)


class Norms(NamedTuple):
    """Three norms of displacements over the hidden axis, float32, in cells."""

    l1: Floats
    l2: Floats
    linf: Floats


def norms(d: ArrayLike) -> Norms:
    """L1 = sum |d|, L2 = sqrt(sum d^2) and Linf = max |d| over the last axis.

    Summed in float64, one hidden dimension after the other, and rounded to float32 once: no overflow where the norm
    itself fits float32, and the same bits whatever the memory layout. An infinite entry makes the norms infinite, a
    NaN makes them NaN (the quiet NaN without payload). Without hidden dimensions they are 0.

    Parameters
    ----------
    d : array of float32, shape (..., hidden)
        Displacements in cells.

    Returns
    -------
    Norms
        Arrays ``l1``, ``l2``, ``linf`` of float32, shape (...).

    Examples
    --------
    >>> norms(np.array([[3.0, -4.0], [3e30, 4e30]], np.float32)).l2
    array([5.e+00, 5.e+30], dtype=float32)
    >>> norms(np.zeros((3, 0), np.float32)).l2
    array([0., 0., 0.], dtype=float32)
    """
    d = np.asarray(d, dtype=np.float32)
    if d.ndim < 2:
        return Norms(*(norm.reshape(()) for norm in norms(d[None])))
    answer = Norms(*(np.empty(d.shape[:-1], np.float32) for _ in NORMS))
    slowest = int(np.argmax(np.abs(d.strides[:-1])))
    width = max(1, WORK_ELEMENTS * d.shape[slowest] // max(1, d.size))
    for start in range(0, d.shape[slowest], width):
        strip = (slice(None),) * slowest + (slice(start, start + width),)
        # Hidden first and contiguous: the sums then run over whole vectors.
        columns = np.ascontiguousarray(np.moveaxis(d[strip], -1, 0))
        for whole, part in zip(answer, norms_over_first(columns), strict=True):
            whole[strip] = part
    return answer


def hops(a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
    """How many representable numbers one must step to get from `a` to `b`: the ordinal distance of the bit patterns.

    -0 and 0 are one number. Finite everywhere: beyond the largest number come infinity and then the NaN patterns,
    in the order of their bits.

    Parameters
    ----------
    a, b : arrays of one dtype: uint16 (bits of bfloat16), float32 or float16
        Shapes that broadcast.

    Returns
    -------
    array of int64
        Never negative.

    Examples
    --------
    >>> int(hops(np.uint16(0x0000), float32_to_bits(np.float32(0.001))))
    14979
    """
    a, b = np.asarray(a), np.asarray(b)
    if lattice_of(a.dtype) is not lattice_of(b.dtype):
        raise TypeError(f"both sides must be of one dtype, not {a.dtype} and {b.dtype}")
    distance: NDArray[np.int64] = np.abs(_ordinals(a) - _ordinals(b))
    return distance


def displacement_of_floats(before: Floats, after: Floats, lattice: Lattice) -> Floats:
    """(after - before) / u(before) of float32 arrays."""
    with np.errstate(all="ignore"):
        d = np.subtract(after, before)
        d /= _cell_in_place(np.array(before), lattice)
    return d


def _cell_in_place(values: Floats, lattice: Lattice) -> Floats:
    """Turn weights into their cells: the power of two below |w|, shifted down by the mantissa, kept in range.

    The range makes zero and the subnormals the smallest cell, and what stands for infinity and NaN the largest.
    """
    powers = values.reshape(-1).view(np.uint32) if values.ndim == 0 else values.view(np.uint32)
    powers &= np.uint32(0x7F800000)
    with np.errstate(all="ignore"):
        values *= np.float32(2.0**-lattice.mantissa_bits)
        return np.clip(values, np.float32(2.0**lattice.smallest), np.float32(2.0**lattice.largest), out=values)


def norms_over_first(d: Floats) -> Norms:
    """Norms over the first axis of a contiguous array, one hidden dimension after the other in float64."""
    columns = d.reshape(len(d), math.prod(d.shape[1:]))
    if columns.shape[1] == 1:
        # NumPy adds whole vectors in order, but a lone column pairwise: with a twin it is treated like all others.
        columns = np.repeat(columns, 2, axis=1)
    size = np.abs(columns)
    with np.errstate(all="ignore"):
        largest = np.maximum.reduce(size, axis=0, initial=0)
        wide = size.astype(np.float64)
        l1 = np.add.reduce(wide, axis=0)
        wide *= wide
        l2 = np.sqrt(np.add.reduce(wide, axis=0))
        answer = [norm.astype(np.float32, copy=False) for norm in (l1, l2, largest)]
    unknown = np.isnan(l1)
    if unknown.any():
        for norm in answer:
            norm[unknown] = np.nan
    rows = math.prod(d.shape[1:])
    return Norms(*(norm[:rows].reshape(d.shape[1:]) for norm in answer))


def _ordinals(weights: Array) -> NDArray[np.int64]:
    """The place of each bit pattern on the line of representable numbers; 0 and -0 at 0."""
    sign = 1 << (8 * weights.dtype.itemsize - 1)
    patterns = patterns_of(weights).astype(np.int64)
    return np.where(patterns & sign, sign - patterns, patterns)

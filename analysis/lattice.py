"""The lattice of representable numbers: cells, displacements, norms, hops. NumPy in, NumPy out.

A weight moves from one representable number to another. Near a weight w these lie one *cell* apart,
u(w) = 2^(max(E, 1) - bias - mantissa bits), where E is the exponent field: 2^(max(E,1) - 134) for bfloat16,
2^(max(E,1) - 150) for float32, 2^(max(E,1) - 25) for float16. A uint16 array holds the bit patterns of bfloat16;
float32 and float16 arrays have lattices of their own.

NaN and infinite weights raise nothing and warn of nothing here. float64 is refused: it would measure the noise
of a conversion that nobody asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from analysis.push_arithmetic import half_cells, moves_weight, proposed, push, rounded  # noqa: F401
    from analysis.update_rules import Update  # noqa: F401

Floats = NDArray[np.float32]
Array = NDArray[Any]


class Lattice(NamedTuple):
    """Where the numbers of a dtype lie: cells are its powers of two, kept between the smallest and the largest."""

    name: str
    mantissa_bits: int
    smallest: int
    largest: int
    exponent_mask: int


LATTICES = {
    np.dtype(np.uint16): Lattice("bfloat16", 7, -133, 121, 0x7F80),
    np.dtype(np.float32): Lattice("float32", 23, -149, 105, 0x7F800000),
    np.dtype(np.float16): Lattice("float16", 10, -24, 6, 0x7C00),
}
"""The lattice that belongs to an array's dtype; `smallest` and `largest` are base-2 logarithms of a cell."""

INSTEAD = (
    "go back to the Dataset as it was opened, select with sel, isel or a boolean index, as in "
    "ds.sel(token=ds.token > 9), instead of where(..., drop=True) or reindex, and join with join='inner' or 'exact'"
)
"""What to do instead of what makes numbers of bit patterns."""

NORMS = ("l1", "l2", "linf")
WORK_ELEMENTS = 1 << 17
"""Elements worked on at once: some 4 MB of scratch."""


def lattice_of(dtype: np.dtype[Any]) -> Lattice:
    """The lattice that weights of a dtype lie on.

    Raises
    ------
    TypeError
        If it is neither uint16 (bfloat16 bits) nor float32 nor float16.
    """
    try:
        return LATTICES[dtype]
    except KeyError:
        how = "as bits of bfloat16 with .astype('uint16')" if dtype.kind in "iu" else "e.g. with .astype('float32')"
        raise TypeError(
            f"weights of dtype {dtype} have no lattice here: expected uint16 (the bits of bfloat16), "
            f"float32 or float16; convert them first, {how}"
        ) from None


def refuse_lost_bits(name: str, dtype: np.dtype[Any], bits_of: str | None) -> None:
    """Refuse an array that should hold bit patterns, but whose dtype says that it holds other numbers.

    xarray makes floats of uint16 wherever something may be missing (``where``, ``reindex``, outer joins) and keeps the
    attributes; 48,594 would then be taken for the weight -0.1 whose bits they are.

    Parameters
    ----------
    name : str
        Of the array, for the message.
    dtype : dtype
        What it holds.
    bits_of : str or None
        Its attribute ``bits_of``: what its integers are the bits of.

    Raises
    ------
    ValueError
        If they are no integers, or not the 16 bits of a bfloat16.

    Examples
    --------
    >>> refuse_lost_bits("W", np.dtype(np.uint16), "bfloat16")
    """
    if bits_of is None:
        return
    expected = "uint16" if bits_of == "bfloat16" else "integers"
    if not (dtype == np.uint16 if bits_of == "bfloat16" else dtype.kind in "iu"):
        raise ValueError(
            f"{name}: by its attribute bits_of it holds the bits of {bits_of} numbers, as {expected}, but its dtype is "
            f"{dtype}: something took the bits for numbers; {INSTEAD}"
        )


def as_float32(weights: ArrayLike) -> Floats:
    """The weights as float32, exactly.

    Parameters
    ----------
    weights : array of uint16 (bits of bfloat16), float32 or float16
        Any shape.

    Returns
    -------
    array of float32
        The same numbers; NaN payloads, infinities, subnormals and the sign of zero stay. A float32 array is
        handed back as it is.

    Examples
    --------
    >>> as_float32(np.array([0x3F80, 0xC000, 0x0001], np.uint16))
    array([ 1.0000e+00, -2.0000e+00,  9.1835e-41], dtype=float32)
    """
    weights = np.asarray(weights)
    if lattice_of(weights.dtype).name == "bfloat16":
        wide = weights.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return weights.astype(np.float32, copy=False)


def bits_to_float32(bits: ArrayLike) -> Floats:
    """The numbers that bfloat16 bit patterns stand for, exactly; `as_float32` for uint16 alone, else a TypeError.

    Examples
    --------
    >>> bits_to_float32(np.array([0x3F80, 0xFF80, 0x7FC0], np.uint16))
    array([  1., -inf,  nan], dtype=float32)
    """
    bits = np.asarray(bits)
    if bits.dtype != np.uint16:
        raise TypeError(f"bit patterns of bfloat16 are uint16, not {bits.dtype}")
    return as_float32(bits)


def float32_to_bits(weights: ArrayLike) -> NDArray[np.uint16]:
    """Project float32 weights on the bfloat16 lattice: the bits of the nearest bfloat16, ties to even.

    As torch's ``.bfloat16()``: what is too large becomes infinite, and NaN becomes 0x7FC0, whatever its payload.

    Examples
    --------
    >>> [hex(b) for b in float32_to_bits(np.array([1.0, 1.00390625, 1.01171875, np.nan], np.float32))]
    ['0x3f80', '0x3f80', '0x3f82', '0x7fc0']
    """
    weights = np.asarray(weights)
    if weights.dtype != np.float32:
        raise TypeError(f"expected float32 weights, not {weights.dtype}")
    wide = np.ascontiguousarray(weights).view(np.uint32).reshape(weights.shape)
    rounded = (wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(weights), np.uint16(0x7FC0), rounded.astype(np.uint16))


def is_finite(weights: ArrayLike) -> NDArray[np.bool_]:
    """Where a weight is neither infinite nor NaN.

    Examples
    --------
    >>> is_finite(np.array([0x3F80, 0x7F80, 0xFFC0], np.uint16))
    array([ True, False, False])
    """
    weights = np.asarray(weights)
    mask = lattice_of(weights.dtype).exponent_mask
    finite: NDArray[np.bool_] = (patterns_of(weights) & mask) != mask
    return finite


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


def patterns_of(weights: Array) -> Array:
    """The bit patterns of a float array as unsigned integers of the same width."""
    return weights if weights.dtype == np.uint16 else weights.view(f"u{weights.dtype.itemsize}")


def _ordinals(weights: Array) -> NDArray[np.int64]:
    """The place of each bit pattern on the line of representable numbers; 0 and -0 at 0."""
    sign = 1 << (8 * weights.dtype.itemsize - 1)
    patterns = patterns_of(weights).astype(np.int64)
    return np.where(patterns & sign, sign - patterns, patterns)


def require_subnormals() -> None:
    """Refuse to work where subnormal numbers are flushed to zero: a thread inherits that from torch's switch."""
    with np.errstate(all="ignore"):
        if not np.array([2.0**-126], np.float32)[0] * np.float32(0.5) > 0:
            raise FloatingPointError(
                "this thread flushes subnormal numbers to zero, which would make lattice cells near 0 vanish; "
                "call torch.set_flush_denormal(False) before recording or analysing"
            )


def __getattr__(name: str) -> object:
    """What an optimizer's step does on the lattice stands in `analysis.push_arithmetic`, which needs this module."""
    from analysis import push_arithmetic

    if name in push_arithmetic.PUBLIC:
        return getattr(push_arithmetic, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

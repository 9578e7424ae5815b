"""The number formats of weights: bfloat16 as its bits, float32, float16. NumPy in, NumPy out.

A uint16 array holds the bit patterns of bfloat16; float32 and float16 arrays hold numbers. float64 is refused: it would
measure the noise of a conversion that nobody asked for. NaN and infinite weights raise nothing and warn of nothing.

Public face: `analysis.lattice`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

    As torch's ``.bfloat16()``: what is too large becomes infinite. NaN becomes 0x7FC0, whatever its payload; torch
    makes 0xFFFF of some, by the machine and where they lie.

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


def patterns_of(weights: Array) -> Array:
    """The bit patterns of a float array as unsigned integers of the same width; integers and bools as they are."""
    return weights if weights.dtype.kind in "biu" else weights.view(f"u{weights.dtype.itemsize}")


def require_subnormals() -> None:
    """Refuse to work where subnormal numbers are flushed to zero: a thread inherits that from torch's switch."""
    with np.errstate(all="ignore"):
        if not np.array([2.0**-126], np.float32)[0] * np.float32(0.5) > 0:
            raise FloatingPointError(
                "this thread flushes subnormal numbers to zero, which would make lattice cells near 0 vanish; "
                "call torch.set_flush_denormal(False) before recording or analysing"
            )

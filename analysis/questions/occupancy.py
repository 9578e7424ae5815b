"""Where tokens sit on the lattice: identical rows, exponents, the box around them. All lazy, all at every step.

Every answer also has nonfinite and first_nonfinite (int64): how many weights are NaN or infinite, and since when. To
ask about some steps only, select them first: ``exponents(ds.sel(step=[t]))``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis import lattice
from analysis.engine import nonfinite
from analysis.engine.perstep import ask, rows_before
from analysis.engine.question import NEVER, Answer, Block
from analysis.engine.reduction import answers_to
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array

IDENTICAL_ROWS = {
    "distinct": Answer(("step",), "int64", "number of distinct rows"),
    "largest": Answer(("step",), "int64", "tokens in the largest group of identical rows"),
    "group": Answer(("step", "token"), "int64", "id of the first token with the same row"),
    "group_size": Answer(("step", "token"), "int64", "tokens with the same row, this one included"),
}
BOX = {
    "low": Answer(("step", "hidden"), "float32", "smallest weight of a token"),
    "high": Answer(("step", "hidden"), "float32", "largest weight of a token"),
    "cells": Answer(("step", "hidden"), "int64", "representable steps from low to high", "cell", may_be_missing=True),
}


def identical_rows(ds: xr.Dataset) -> xr.Dataset:
    """Groups of tokens whose rows have the same bits ("black holes"), at every step.

    Parameters
    ----------
    ds : xarray.Dataset
        With W (step, token, hidden).

    Returns
    -------
    xarray.Dataset
        Lazy, int64:

        distinct : (step) - number of distinct rows; the number of tokens if none are identical
        largest : (step) - size of the largest group
        group : (step, token) - id of the first token with the same row
        group_size : (step, token) - how many tokens have this row; 1 if no other has it

    Raises
    ------
    ValueError
        Without W, or with nothing selected.

    Notes
    -----
    Bits are compared: -0 and 0 differ, NaN is identical to NaN of the same payload. One pass over W; memory: some
    blocks of 8 MB, and one block of chunks. Sorts the rows of each step at which any bit changed.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_motion([[1, 0, 1, 0]], tokens=[3, 5, 7, 9])
    >>> told = identical_rows(ds.sel(step=[1])).load()
    >>> int(told.distinct[0]), told.group.values[0], told.group_size.values[0]
    (2, array([3, 5, 3, 5]), array([2, 2, 2, 2]))
    """
    asked = trajectory_of(ds)
    return _with_finite(asked, ask(asked, "identical-rows", _identical_rows, IDENTICAL_ROWS))


def exponents(ds: xr.Dataset) -> xr.Dataset:
    """How many weights have which exponent, at every step.

    Parameters
    ----------
    ds : xarray.Dataset
        With W (step, token, hidden): uint16 bits of bfloat16, float32 or float16.

    Returns
    -------
    xarray.Dataset
        Lazy: weight_count, int64 (step, exponent), on the exponent bits E as labels: 0 to 255, for float16 to 31.
        E = 0 are zeros and subnormals, the last E infinities and NaN; in between weights are 2^(E - 127) to
        2^(E - 126), for float16 2^(E - 15) to 2^(E - 14).

    Raises
    ------
    ValueError
        Without W, or with nothing selected.

    Notes
    -----
    One pass over W; memory as `identical_rows`.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = exponents(simulate.with_motion([[1, 0]])).load()  # all weights are between 1 and 2
    >>> told.weight_count.sel(exponent=[126, 127]).values
    array([[0, 8],
           [0, 8]])
    """
    asked = trajectory_of(ds)
    W = asked.variables.get("W")
    labels = range(32 if W is not None and W.dtype == np.float16 else 256)
    gives = {"weight_count": Answer(("step", "exponent"), "int64", "weights with this exponent")}
    return _with_finite(asked, ask(asked, "exponents", _exponents, gives, coords={"exponent": labels}))


def bounding_box(ds: xr.Dataset) -> xr.Dataset:
    """The box around all tokens at every step, and its sides in lattice cells.

    Parameters
    ----------
    ds : xarray.Dataset
        With W (step, token, hidden).

    Returns
    -------
    xarray.Dataset
        Lazy, on (step, hidden):

        low, high : float32 - the smallest and largest weight, NaN left out; NaN if all are NaN
        cells : int64 - how many lattice cells lie between them, which are of different sizes: `lattice.hops`, on the
            lattice that moves are measured on; 0 if all tokens agree, missing (-1) if all are NaN

    Raises
    ------
    ValueError
        Without W, or with nothing selected.

    Notes
    -----
    One pass over W; memory as `identical_rows`.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = bounding_box(simulate.with_motion([[1, 0]], cells=5)).load()
    >>> told.cells.values[1]
    array([5, 0, 0, 0])
    """
    asked = trajectory_of(ds)
    chunk = functools.partial(_bounding_box, projected=asked.is_projected)
    return _with_finite(asked, ask(asked, "bounding-box", chunk, BOX))


def _with_finite(asked: Trajectory, answer: xr.Dataset) -> xr.Dataset:
    return answer.merge(answers_to(asked, nonfinite.nonfinite(asked)))


def _identical_rows(block: Block) -> Mapping[str, Array]:
    states = block["W"]
    shapes = {"step": len(states), "token": states.shape[1]}
    made = {name: np.zeros([shapes[dim] for dim in gives.dims], np.int64) for name, gives in IDENTICAL_ROWS.items()}
    for row, (before, state) in enumerate(zip(rows_before(block), map(np.ascontiguousarray, states), strict=True)):
        if row and before is not None and np.array_equal(lattice.patterns_of(before), lattice.patterns_of(state)):
            for array in made.values():
                array[row] = array[row - 1]
            continue
        whole = state.view(np.dtype((np.void, state.itemsize * state.shape[1]))).ravel()
        _, first, group, sizes = np.unique(whole, return_index=True, return_inverse=True, return_counts=True)
        made["distinct"][row], made["largest"][row] = len(first), sizes.max()
        made["group"][row], made["group_size"][row] = block.tokens[first[group]], sizes[group]
    return made


def _exponents(block: Block) -> Mapping[str, Array]:
    kind = lattice.lattice_of(block["W"].dtype)
    kinds = (kind.exponent_mask >> kind.mantissa_bits) + 1
    rows = (lattice.patterns_of(np.ascontiguousarray(state)) for state in block["W"])
    fields = ((row.ravel() & kind.exponent_mask) >> kind.mantissa_bits for row in rows)
    return {"weight_count": np.array([np.bincount(field, minlength=kinds) for field in fields])}


def _bounding_box(block: Block, *, projected: bool) -> Mapping[str, Array]:
    states = block["W"]
    with np.errstate(invalid="ignore"):
        wide = lattice.as_float32(states)
    unknown = np.isnan(wide)
    if unknown.any():  # fmin and fmax skip quiet NaN only
        wide = np.where(unknown, np.float32(np.nan), wide)
    low, high = np.fmin.reduce(wide, axis=1), np.fmax.reduce(wide, axis=1)
    if projected or lattice.lattice_of(states.dtype).name == "bfloat16":
        cells = lattice.hops(lattice.float32_to_bits(low), lattice.float32_to_bits(high))
    else:
        cells = lattice.hops(low.astype(states.dtype), high.astype(states.dtype))
    return {"low": low, "high": high, "cells": np.where(np.isnan(low), NEVER, cells)}

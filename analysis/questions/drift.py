"""How the centroid of the tokens travels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from analysis import lattice
from analysis.answers import AnswerDataset
from analysis.engine import inputs, nonfinite, perstep
from analysis.engine.question import Answer
from analysis.engine.reduction import answers_to
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array

STEPS_TOGETHER = 65_536
"""Rows of the centroid in a block, whatever the chunks: sums along the path then have the same bits."""

DRIFT = {
    "speed": Answer(("step",), "float64", "length of the centroid's move"),
    "displacement": Answer(("step",), "float64", "distance of the centroid from where it started"),
    "path": Answer(("step",), "float64", "length of the centroid's path until here"),
    "autocorrelation": Answer(("step",), "float64", "cosine between the centroid's move and the one before"),
    "frozen": Answer(("step",), "bool", "the centroid has the same bits as a step before"),
    "net": Answer((), "float64", "distance of the centroid between the first and the last state"),
    "path_length": Answer((), "float64", "length of the centroid's path"),
    "efficiency": Answer((), "float64", "net over path length"),
    "frozen_steps": Answer((), "int64", "steps that left the centroid as it was, bit for bit", "step"),
}


def drift(ds: xr.Dataset) -> xr.Dataset:
    """Speed, path and direction of the centroid c[t].

    Parameters
    ----------
    ds : xarray.Dataset
        With centroid (step, hidden) float32, or W (step, token, hidden). See `centroid` for which is used.

    Returns
    -------
    xarray.Dataset
        Lazy, float64 unless said otherwise, in units of the weights. On `step`:

        speed : |c[t] - c[t-1]|; NaN at the first state
        displacement : |c[t] - c[first]|
        path : summed speeds up to t; 0 at the first state
        autocorrelation : cos(v[t], v[t-1]), v[t] = c[t] - c[t-1]; NaN in the first two states, and where a v is 0
        frozen : bool, c[t] has the bits of c[t-1]; False at the first state

        And without dimension: net (displacement of the last state), path_length, efficiency = net / path_length (NaN
        for a path of length 0), frozen_steps : int64; and nonfinite, first_nonfinite if there is more than a centroid.

        Where steps are missing, t-1 is the label before t that is there: speeds are distances over up to
        `resolution_steps` steps (an attribute), frozen_steps counts labels, and the path, which leaves out what lies
        between them, is at most as long as the whole one.

    Raises
    ------
    ValueError, TypeError
        As `centroid`.

    Notes
    -----
    A slice has a path of its own, from its first state on. NaN or infinite weights make the centroid so, and with it
    all that follows along the path. Memory: 65,536 rows of the centroid; one pass over it, or over W.

    Examples
    --------
    >>> states = np.array([[0, 0], [3, 4], [3, 4], [3, 0]], np.float32)
    >>> told = drift(xr.Dataset({"centroid": (("step", "hidden"), states)})).load()
    >>> told.speed.values, told.path.values
    (array([nan,  5.,  0.,  4.]), array([0., 5., 5., 9.]))
    >>> told.frozen.values, float(told.net), round(float(told.efficiency), 3)
    (array([False, False,  True, False]), 3.0, 0.333)
    """
    asked = trajectory_of(ds)
    found = centroid(asked).transpose("step", "hidden")
    bits = _in_blocks(found.data)
    c = _quietly(_wide, bits)
    v = _quietly(np.subtract, *_later_and_earlier(c))
    speed = _length(v)
    along = _quietly(_dot, *_later_and_earlier(v), drop_axis=1)
    scale = _quietly(np.multiply, *_later_and_earlier(speed))
    answers = {
        "speed": _after(1, speed),
        "displacement": _length(_quietly(np.subtract, c, c[:1])),
        "path": da.cumsum(_after(1, speed, 0.0), axis=0),
        "autocorrelation": _after(2, _quietly(_ratio, along, scale))[: len(asked.steps)],
        "frozen": _after(1, _same_bits(bits), False),
    }
    answers |= {"net": answers["displacement"][-1], "path_length": answers["path"][-1]}
    answers |= {
        "efficiency": _quietly(_ratio, answers["net"], answers["path_length"]),
        "frozen_steps": answers["frozen"].sum(),
    }
    variables = {name: (answer.dims, answers[name], answer.attributes) for name, answer in DRIFT.items()}
    span = asked.span
    answer: xr.Dataset = AnswerDataset(variables, {"step": ("step", asked.steps)}, attrs=dict(span.attributes))
    counts_nonfinite = lattice.TELL_MOVES if span.resolution == 1 else {"W"}
    is_counted = not counts_nonfinite.isdisjoint(asked.variables)
    return answer.merge(answers_to(asked, nonfinite.nonfinite(asked))) if is_counted else answer


def centroid(asked: Trajectory) -> xr.DataArray:
    """The centroid of the tokens of a trajectory, lazily.

    Parameters
    ----------
    asked : Trajectory
        With centroid (step, hidden), W (step, token, hidden), or both.

    Returns
    -------
    xarray.DataArray
        float32 (step, hidden), without labels. The stored one where there is no W, or where the attribute `tokens`
        (how many were recorded, as `store.open_trajectory` sets it) says that no token was left out. Otherwise, as of
        a run that plain xarray opened, the mean over tokens of W, in float64, rounded once; other sums of the same
        numbers differ from it in the last bit.

    Raises
    ------
    ValueError
        With neither, or if the stored one is that of other tokens than are here and there is no W. For a mean also if
        no token is selected.
    TypeError
        When a mean is computed of W of a dtype without a lattice, such as float64.

    Notes
    -----
    In a hidden dimension with a NaN the mean is NaN. With infinities it is infinite, or NaN if they are of both signs.
    One pass over W, memory as `cloud.cloud`; the stored one is only read.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_last_motion([2, 0], total_steps=2)
    >>> both, first = (centroid(trajectory_of(part)).values[1] for part in (ds, ds.isel(token=[0])))
    >>> both == first - [1 / 256, 0, 0, 0]  # one cell is 1 / 128
    array([ True,  True,  True,  True])
    """
    is_whole = asked.has_all("token")
    if "centroid" in asked.variables and ("W" not in asked.variables or is_whole):
        if is_whole is False:
            recorded, others = asked.attributes["tokens"], f"{asked.sizes['token']}, or some of them twice"
            raise ValueError(f"the stored centroid is that of {recorded} tokens, here are {others}, and there is no W")
        return inputs.in_blocks(asked.variables["centroid"])
    if "W" not in asked.variables:
        there = ", ".join(asked.variables) or "none"
        raise ValueError(f"the Dataset has neither centroid nor W; its variables: {there}")
    weights = perstep.whole_steps(asked).variables["W"]
    mean = weights.data.map_blocks(_mean, drop_axis=1, dtype=np.float32)
    return xr.DataArray(mean, dims=("step", "hidden"), name="centroid")


def _mean(states: Array) -> Array:
    with np.errstate(invalid="ignore"):
        means = [lattice.as_float32(np.ascontiguousarray(state)).mean(axis=0, dtype=np.float64) for state in states]
        return np.array(means, np.float32).reshape(len(states), states.shape[2])


def _in_blocks(rows: Any) -> Any:  # noqa: ANN401 - dask arrays have no types
    """Rows in blocks whose borders follow from their number alone."""
    return rows.rechunk((STEPS_TOGETHER, *(-1,) * (rows.ndim - 1)))


def _later_and_earlier(rows: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """All rows but the first, and all but the last, in the same blocks: row by row a state and the one before it."""
    return _in_blocks(rows[1:]), _in_blocks(rows[:-1])


def _length(rows: Any) -> Any:  # noqa: ANN401
    return da.sqrt((rows * rows).sum(axis=1))


def _after(count: int, rows: Any, before: float | bool = np.nan) -> Any:  # noqa: ANN401
    """Rows that begin `count` steps late."""
    # not da.full: of a single state dask would fuse it away and then miss it
    first = da.from_array(np.full(count, before, rows.dtype), chunks=count)
    return _in_blocks(da.concatenate([first, rows]))


def _quietly(function: Callable[..., Array], *arrays: Any, **how: Any) -> Any:  # noqa: ANN401
    """A function of blocks; of infinities and NaN it makes NaN, and warns of nothing."""
    return da.map_blocks(functools.partial(_without_warning, function), *arrays, dtype=np.float64, **how)


def _without_warning(function: Callable[..., Array], *blocks: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return function(*blocks)


def _wide(rows: Array) -> Array:
    return rows.astype(np.float64)


def _dot(rows: Array, others: Array) -> Array:
    products: Array = (rows * others).sum(axis=1)
    return products


def _ratio(above: Array, below: Array) -> Array:
    """NaN where the lower one is 0."""
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1.0, below))


def _same_bits(rows: Any) -> Any:  # noqa: ANN401
    later, earlier = _later_and_earlier(rows.map_blocks(lattice.patterns_of, dtype=f"u{rows.dtype.itemsize}"))
    return (later == earlier).all(axis=1)

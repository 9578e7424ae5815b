"""The cloud of all tokens at a step: how wide it is, how it moves as a whole, and how much its tokens agree."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from analysis import lattice
from analysis.answers import AnswerDataset
from analysis.engine import nonfinite
from analysis.engine import outputs as graphs
from analysis.engine.perstep import ask, rows_before, steps_together, whole_steps
from analysis.engine.question import NEVER, Answer, Block, Span
from analysis.engine.reduction import answers_to, conclude
from analysis.engine.taskgraph import FAN_IN
from analysis.engine.trajectory import trajectory_of
from analysis.lattice import Array

Floats = npt.NDArray[np.float64]

CLOUD = {
    "radius_mean": Answer(("step",), "float64", "mean distance of tokens to their centroid"),
    "radius_max": Answer(("step",), "float64", "largest distance of a token to the centroid"),
    "radius_rms": Answer(("step",), "float64", "RMS distance of tokens to their centroid"),
    "bulk_motion": Answer(("step",), "float64", "length of the mean move"),
    "thermal_motion": Answer(("step",), "float64", "RMS of moves about the mean move"),
    "movers": Answer(("step",), "int64", "tokens whose weights changed"),
    "coherence": Answer(("step",), "float64", "mean cosine between the moves of two movers"),
    "nonfinite_here": Answer(("step",), "int64", "weights of the step that are NaN or infinite"),
}
AXES = 3
"""On which `snapshots` shows tokens."""
SHAPE = ("radius_mean", "radius_max", "radius_rms", "nonfinite_here")
"""What stays as it was when nothing moves."""


def cloud(ds: xr.Dataset) -> xr.Dataset:
    """Radius, bulk and thermal motion, and coherence of the tokens at every step.

    Parameters
    ----------
    ds : xarray.Dataset
        With W (step, token, hidden): uint16 bits of bfloat16, float32 or float16.

    Returns
    -------
    xarray.Dataset
        Lazy, on `step`, float64 unless said otherwise, in units of the weights:

        radius_mean, radius_max, radius_rms : of the distances |W[t, i] - c[t]| to the mean c[t] of these tokens
        bulk_motion : |mean dW| over tokens, dW = W[t] - W[t-1]; NaN at the first state
        thermal_motion : RMS of |dW - mean dW|; NaN at the first state
        movers : int64, tokens with dW not 0; 0 at the first state
        coherence : mean cosine between the moves of two movers; NaN with fewer than two
        nonfinite_here : int64, weights of the step that are NaN or infinite; all but the counts is then NaN, or the
            radii infinite

        And over all steps: nonfinite : int64, their number; first_nonfinite : int64, the first step with one. Where
        steps are missing, t-1 is the label before t that is there, up to `resolution_steps` steps (an attribute)
        earlier.

    Raises
    ------
    ValueError
        Without W, or with no step or no token selected.

    Notes
    -----
    With u = dW / |dW| and M movers, coherence is (|sum u|^2 - M) / (M (M - 1)): all pairs in one sum. All sums
    are float64 over the tokens of one step, so the bits do not depend on chunks. On a selection of tokens the centroid
    is theirs. One pass over W; memory: some blocks of 8 MB, and one block of chunks.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_motion([[1, 1], [1, 0]], hidden=4)  # at step 1 both move one cell of 2^-7, the same way
    >>> told = cloud(ds).load()
    >>> told.bulk_motion.values
    array([       nan, 0.0078125 , 0.00390625])
    >>> told.thermal_motion.values
    array([       nan, 0.        , 0.00390625])
    >>> told.coherence.values, told.movers.values
    (array([nan,  1., nan]), array([0, 2, 1]))
    """
    answer = ask(trajectory_of(ds), "cloud", _cloud, CLOUD)
    count = functools.partial(_count, steps=answer["step"].values)
    return answer.assign(conclude(answer[["nonfinite_here"]], count, nonfinite.GIVES).data_vars)


def principal_axes(ds: xr.Dataset) -> xr.Dataset:
    """The principal axes of the tokens about their centroid, over all steps of `ds` together.

    Parameters
    ----------
    ds : xarray.Dataset
        With W (step, token, hidden). For the axes at one step, select it: ``ds.sel(step=[t])``.

    Returns
    -------
    xarray.Dataset
        Lazy:

        variance : float64 (axis) - of the tokens along each axis, descending; its sum is the mean squared radius
        share : float64 (axis) - of the whole variance; NaN if that is 0
        axes : float64 (axis, hidden) - unit vectors; the component of largest size is positive
        nonfinite, first_nonfinite : int64 - weights that are NaN or infinite, and the first step with one

    Raises
    ------
    ValueError
        Without W, or with nothing selected.

    Notes
    -----
    Eigenvectors of the D x D covariance sum_t sum_i (W - c[t]) (W - c[t])^T / (steps x tokens), summed in float64 step
    by step within blocks of 8 MB, and then block by block. Which steps share a block follows from the shape alone, so
    the bits do not depend on chunks. One pass; memory as `cloud`. NaN throughout if a weight is NaN or infinite.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_motion([[1, 0]], hidden=4).sel(step=[1])  # two tokens, a cell apart in one dimension
    >>> told = principal_axes(ds).load()
    >>> told.share.values, told.axes.values[0]
    (array([1., 0., 0., 0.]), array([1., 0., 0., 0.]))
    """
    asked = trajectory_of(ds)
    weights = whole_steps(asked).variables["W"].data
    weights = weights.rechunk({0: steps_together(weights)})
    hidden = weights.shape[2]
    scatter = weights.map_blocks(_scatter, dtype=np.float64, chunks=((1,) * weights.numblocks[0], (hidden,), (hidden,)))
    total = scatter.sum(axis=0, split_every=FAN_IN)
    covariance = total / (weights.shape[0] * weights.shape[1])
    name = f"axes-{covariance.name}"
    shapes = {"variance": (hidden,), "share": (hidden,), "axes": (hidden, hidden)}
    outputs = [graphs.Output(part, tuple((size,) for size in shape), "float64") for part, shape in shapes.items()]
    arrays = graphs.arrays_of(name, {(name,): (_axes, (covariance.name, 0, 0))}, outputs, [covariance])
    dims = {"variance": ("axis",), "share": ("axis",), "axes": ("axis", "hidden")}
    answer: xr.Dataset = AnswerDataset({name: (dims[name], arrays[name]) for name in dims})
    return answer.merge(answers_to(asked, nonfinite.nonfinite(asked)), combine_attrs="drop_conflicts")


def snapshots(ds: xr.Dataset, *, steps: Sequence[int]) -> xr.Dataset:
    """Where the tokens are at some steps, relative to their centroid, on the principal axes of the last step of `ds`.

    Parameters
    ----------
    ds : xarray.Dataset
        With W (step, token, hidden).
    steps : sequence of int, or an array of them
        Labels of steps, in any order; one that is named twice counts once.

    Returns
    -------
    xarray.Dataset
        Lazy: ``position`` float64 (step, token, axis), on the first three axes (fewer with fewer hidden dimensions), in
        units of the weights; ``share`` float64 (axis), of the variance at the last step; ``nonfinite``,
        ``first_nonfinite`` of the last step alone.

    Raises
    ------
    ValueError
        Without W, with nothing selected, for a step that is not there, and as all questions: where labels of steps
        repeat or do not ascend, there is no last step.

    Notes
    -----
    Reads the blocks of the named steps and of the last one. If a weight of the last step is NaN or infinite, all
    positions are NaN; if one of another step is, so are those of that step.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = snapshots(simulate.with_motion([[1, 0]], hidden=4), steps=[1]).load()
    >>> told.position.values[0, :, 0] * 2**7  # two tokens, a cell apart
    array([ 0.5, -0.5])
    """
    given: object = steps  # whatever was given for them
    is_list = isinstance(given, Iterable) and not isinstance(given, str)
    wanted = np.asarray(steps if hasattr(steps, "dtype") else list(steps)).ravel().tolist() if is_list else []
    if not wanted:
        raise ValueError(f"steps must be labels in a list, as in steps=[0, 100], not {steps!r}")
    there = trajectory_of(ds).steps
    if "step" not in ds.coords:  # else a selection would be numbered anew
        ds = ds.assign_coords(step=there)
    missing = [step for step in wanted if step not in there]
    if missing:
        raise ValueError(f"step {missing[0]} is not among the recorded steps {there[0]} to {there[-1]}")
    axes = principal_axes(ds.isel(step=[-1])).isel(axis=slice(AXES))
    asked = trajectory_of(ds.sel(step=sorted(set(wanted))))
    weights = whole_steps(asked).variables["W"].data
    weights = weights.rechunk({0: 1, 1: -1, 2: -1})
    shown = axes.sizes["axis"]
    chunks = (weights.chunks[0], weights.chunks[1], (shown,))
    position = da.map_blocks(_on_axes, weights, axes["axes"].data.rechunk(-1)[None], dtype=np.float64, chunks=chunks)
    answer = axes[["share", "nonfinite", "first_nonfinite"]].assign(position=(("step", "token", "axis"), position))
    return answer.assign_coords(asked.coords_of(("step", "token")))


def _on_axes(states: Array, axes: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        wide = _wide(states)
        offset: Floats = (wide - wide.mean(axis=1, keepdims=True)) @ axes[0].T
    return offset


def _cloud(block: Block) -> Mapping[str, Array]:
    states = block["W"]
    made: dict[str, Array] = {name: np.full(len(states), np.nan) for name in CLOUD}
    made |= {name: np.zeros(len(states), np.int64) for name in ("movers", "nonfinite_here")}
    earlier = 0
    for row, (before, state) in enumerate(zip(rows_before(block), map(np.ascontiguousarray, states), strict=True)):
        if before is not None:
            earlier = made["nonfinite_here"][row - 1] if row else _nonfinite(before)
            changed = np.flatnonzero((lattice.patterns_of(state) != lattice.patterns_of(before)).any(axis=1))
            moves = _moves(before[changed], state[changed])
            made["movers"][row] = len(moves)
        if row and not changed.size:
            for name in SHAPE:  # nothing moved: the cloud looks as it did
                made[name][row] = made[name][row - 1]
        else:
            made["nonfinite_here"][row] = _nonfinite(state)
            made["radius_mean"][row], made["radius_max"][row], made["radius_rms"][row] = _radii(_wide(state))
        if before is not None and not earlier and not made["nonfinite_here"][row]:
            made["bulk_motion"][row], made["thermal_motion"][row] = _bulk_and_thermal(moves, len(state))
            made["coherence"][row] = _coherence(moves)
    return made


def _count(known: Mapping[str, Array], _span: Span, *, steps: npt.NDArray[np.int64]) -> Mapping[str, int]:
    """`nonfinite` and `first_nonfinite`, which every answer has."""
    found = known["nonfinite_here"]
    first = int(steps[np.argmax(found > 0)]) if found.any() else NEVER
    return {"nonfinite": int(found.sum()), "first_nonfinite": first}


def _nonfinite(state: Array) -> int:
    return int(np.count_nonzero(~lattice.is_finite(state)))


def _moves(before: Array, after: Array) -> Floats:
    """The moves of those rows that moved: -0 and 0 are one value, infinity is motion, NaN is none."""
    with np.errstate(invalid="ignore"):
        moves = _wide(after) - _wide(before)
    moved: Floats = moves[((moves != 0) & ~np.isnan(moves)).any(axis=1)]
    return moved


def _wide(weights: Array) -> Floats:
    with np.errstate(invalid="ignore"):  # signalling NaN
        wide: Floats = lattice.as_float32(weights).astype(np.float64)
    return wide


def _radii(points: Floats) -> tuple[float, float, float]:
    with np.errstate(invalid="ignore"):
        offset = points - points.mean(axis=0)
        squares = np.einsum("ij,ij->i", offset, offset)
        distance = np.sqrt(squares)
        return float(distance.mean()), float(distance.max()), float(np.sqrt(squares.mean()))


def _bulk_and_thermal(moves: Floats, tokens: int) -> tuple[float, float]:
    """Of all tokens; those that are not among `moves` stand still."""
    mean = moves.sum(axis=0) / tokens
    still = (tokens - len(moves)) * float(mean @ mean)
    return float(np.sqrt(mean @ mean)), float(np.sqrt((((moves - mean) ** 2).sum() + still) / tokens))


def _coherence(moves: Floats) -> float:
    count = len(moves)
    if count < 2:
        return np.nan
    unit = moves / np.sqrt(np.einsum("ij,ij->i", moves, moves))[:, None]
    total = unit.sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def _scatter(states: Array) -> Floats:
    """Summed products of offsets from the centroid, (1, hidden, hidden)."""
    total = np.zeros((states.shape[2], states.shape[2]))
    with np.errstate(invalid="ignore"):
        for state in states:
            offset = _wide(np.ascontiguousarray(state))
            offset -= offset.mean(axis=0)
            total += offset.T @ offset
    return total[None]


def _axes(covariance: Floats) -> dict[str, Floats]:
    if not np.isfinite(covariance).all():
        covariance = np.full_like(covariance, np.nan)
        return {"variance": covariance[0], "share": covariance[0], "axes": covariance}
    variance, columns = np.linalg.eigh(covariance)
    variance, axes = np.maximum(variance[::-1], 0), columns[:, ::-1].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    whole = variance.sum()
    share = variance / whole if whole else np.full_like(variance, np.nan)
    return {"variance": variance, "share": share, "axes": axes * np.where(largest < 0, -1.0, 1.0)}

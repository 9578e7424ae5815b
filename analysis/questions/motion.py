"""Which tokens moved when: motion, last motion, freeze times, and the silence after the last motion (Fimbulwinter)."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import lattice
from analysis.answers import AnswerArray
from analysis.engine import inputs, nonfinite, selections
from analysis.engine.question import NEVER, Answer, Block, Partial, Reduction, Span
from analysis.engine.reduction import answers_to, conclude
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array
from analysis.moves import last_true, sees_every_change
from analysis.thresholds import DEFAULT_THRESHOLD, quantiles_of

LAST_MOTION = {"last_motion": Answer(("token",), "int64", "last step with motion", "step", True)}


def threshold_of(attributes: Mapping[str, Any], threshold: float | None) -> np.float32:
    """The threshold of motion in cells: as given, else the ``motion_threshold`` of a trajectory's attributes, else 0.1.

    Returned as float32, since norms are compared in float32.

    Raises
    ------
    ValueError
        If it is not above 0: at 0 all would move always.
    """
    value = float(attributes.get("motion_threshold", DEFAULT_THRESHOLD) if threshold is None else threshold)
    if not value > 0:
        raise ValueError(f"threshold must be above 0 cells, not {value}; at 0 even a still token would count as moving")
    with np.errstate(over="ignore"):
        return max(np.float32(value), np.finfo(np.float32).smallest_subnormal)


def norm_name(norm: str) -> str:
    """The array that holds a norm.

    Raises
    ------
    ValueError
        If there is no such norm.
    """
    if norm not in selections.NORM_OF:
        raise ValueError(f"norm must be one of {', '.join(lattice.NORMS)}, not {norm!r}")
    return selections.NORM_OF[norm]


def moved_in(block: Block, *, norm: str, threshold: np.float32) -> NDArray[np.bool_]:
    """Which tokens of a block moved at which steps, (step, token); nothing moves into the first state."""
    moved: NDArray[np.bool_] = block[selections.NORM_OF[norm]] >= threshold
    moved &= block.is_move[:, None]
    return moved


def moved(ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2") -> xr.DataArray:
    """Whether a token moved at a step: the norm of its displacement is at least the threshold.

    Parameters
    ----------
    ds : Dataset
        A trajectory or a slice of one.
    threshold : float, optional
        In cells, above 0; the Dataset's ``motion_threshold``, else 0.1. Compared in float32. A displacement other than
        0 is at least 0.5, so up to 0.5 it means "any weight changed".
    norm : {"l2", "l1", "linf"}

    Returns
    -------
    DataArray
        bool (step, token), dask-backed. False at the first step, whatever led to it. An infinite norm is motion, NaN
        is none. Where steps are missing before a label: whether W there is another than at the label before it that is
        there; the attribute ``resolution_steps`` says how many steps these are apart at most.

    Raises
    ------
    ValueError
        If the threshold is not above 0, there is no such norm, no step is selected, labels do not ascend, or there is
        neither the norm nor delta_W_prime nor W; or only W would do, since steps or hidden dimensions are missing.
    TypeError
        If the norm is derived from W, and W is of a dtype without a lattice, such as float64.
    FloatingPointError
        When it is derived from W, in a thread that flushes subnormal numbers to zero.

    Notes
    -----
    One pass over the norm, or over W where it is not stored or steps are missing; two bytes of memory for four read.

    Examples
    --------
    >>> from analysis import simulate
    >>> moved(simulate.with_last_motion([1, 2], total_steps=3)).values.astype(int)
    array([[0, 0],
           [1, 1],
           [0, 1],
           [0, 0]])
    """
    asked = trajectory_of(ds)
    name, least = norm_name(norm), threshold_of(asked.attributes, threshold)
    array = inputs.arrays(asked, [name])[name]
    sizes = array.chunks or ()
    steps = da.from_array(asked.steps, chunks=(sizes[0],))[:, None]
    data = da.map_blocks(_moved, array.data, steps, dtype=bool, least=least, first=asked.span.first)
    answer = array.copy(data=data).assign_coords(step=asked.steps, token=asked.tokens)
    attrs = {"long_name": "moved", "threshold": float(least), "norm": norm}
    attrs["resolution_steps"] = asked.span.resolution
    return AnswerArray(answer.drop_attrs(deep=False).rename("moved").assign_attrs(attrs))


def _moved(norm: Array, steps: Array, *, least: np.float32, first: int) -> NDArray[np.bool_]:
    moved: NDArray[np.bool_] = (norm >= least) & (steps != first)
    return moved


def last_motion(ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2") -> xr.Dataset:
    """The last step at which each token moved.

    Parameters
    ----------
    ds, threshold, norm
        As in `moved`.

    Returns
    -------
    Dataset
        ``last_motion`` (token) int64, the label of the last step with motion, -1 for a token that never moved; and
        ``nonfinite``, ``first_nonfinite``. An infinite norm is motion, NaN is none. Of a single state nothing moves.
        The attribute ``resolution_steps`` is 1, or more where steps are missing: the move itself then came after the
        label before this one that is there, and motion that was undone between two labels is not seen.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `moved`.

    Notes
    -----
    One pass over the norm (73 MB of float32 for 5,000 steps of 3,644 tokens), a few chunks in memory.

    Examples
    --------
    >>> from analysis import simulate
    >>> last_motion(simulate.with_last_motion([3, -1, 5], total_steps=6)).last_motion.values
    array([ 3, -1,  5])
    """
    return _last_motion(trajectory_of(ds), threshold, norm)


def _last_motion(asked: Trajectory, threshold: float | None, norm: str) -> xr.Dataset:
    name, least = norm_name(norm), threshold_of(asked.attributes, threshold)
    chunk = functools.partial(_last_chunk, norm=norm, threshold=least)
    question = Reduction("last-motion", (name,), "token", chunk, _later, LAST_MOTION, over_gaps=True)
    answer = answers_to(asked, question, nonfinite.nonfinite(asked, norm=norm))
    return answer.assign_attrs(threshold=float(least), norm=norm)


def _last_chunk(block: Block, *, norm: str, threshold: np.float32) -> Partial:
    return {"last_motion": last_true(moved_in(block, norm=norm, threshold=threshold), block.steps)}


def _later(one: Partial, other: Partial) -> Partial:
    return {name: np.maximum(one[name], other[name]) for name in one}


def lower_quantile(values: Array, q: float) -> int:
    """The value at index floor(q (n - 1)) of the sorted values: one of them, never a mean; -1 for none.

    At q = 1/2 the lower of the two middle values, as torch's median.

    Examples
    --------
    >>> lower_quantile(np.array([4, 1, 3, 2]), 0.5), lower_quantile(np.array([], int), 0.5)
    (2, -1)
    """
    if not values.size:
        return NEVER
    place = math.floor(q * (values.size - 1))
    return int(np.partition(values, place)[place])


def freeze_times(
    ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2", quantiles: Sequence[float] = ()
) -> xr.Dataset:
    """When the tokens froze: earliest, median and latest of their last motions, quantiles, and the survival curve.

    A token that never moved counts with -1, so an ``earliest`` of -1 says that at least one token never moved.

    Parameters
    ----------
    ds, threshold, norm
        As in `moved`.
    quantiles : sequence of float
        In [0, 1]. Each gives the last motion at index floor(q (n - 1)) of the sorted ones.

    Returns
    -------
    Dataset
        ``earliest``, ``median_freeze`` (the lower middle value), ``latest``: int64 steps. ``at_quantile`` (q) int64.
        ``survival`` (step) float64: the fraction of tokens that still move after that step, NaN without tokens.
        ``never_moved`` int64: how many never moved. ``nonfinite``, ``first_nonfinite``. Without tokens
        all steps are -1. Where steps are missing, all of this is of the steps that are there: see `last_motion`.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `moved`; a ValueError also for quantiles outside [0, 1].

    Notes
    -----
    One pass over the norm; all last motions (8 bytes a token) in memory. An infinite norm is motion, NaN is none.

    Examples
    --------
    >>> from analysis import simulate
    >>> times = freeze_times(simulate.with_last_motion([3, 1, 4, 5], total_steps=6), quantiles=[0.9])
    >>> [int(times[name]) for name in ("earliest", "median_freeze", "latest")], times.at_quantile.values
    ([1, 3, 5], array([4]))
    >>> times.survival.values
    array([1.  , 0.75, 0.75, 0.5 , 0.25, 0.  , 0.  ])
    """
    quantiles = quantiles_of(quantiles)
    asked = trajectory_of(ds)
    source = _last_motion(asked, threshold, norm)
    gives = {
        "earliest": Answer((), "int64", "earliest last motion of a token", "step", True),
        "median_freeze": Answer((), "int64", "median last motion of the tokens", "step", True),
        "latest": Answer((), "int64", "latest last motion of a token", "step", True),
        "at_quantile": Answer(("q",), "int64", "quantile of last motion", "step", True),
        "never_moved": Answer((), "int64", "tokens that never moved"),
        "survival": Answer(("step",), "float64", "fraction of tokens that still move after the step"),
    }
    function = functools.partial(_freeze_times, quantiles=quantiles, steps=asked.steps)
    coords = {"q": list(quantiles), "step": asked.steps}
    return _with_finite(conclude(source[["last_motion"]], function, gives, coords=coords), source)


def _freeze_times(
    known: Mapping[str, Array], _span: Span, *, quantiles: Sequence[float], steps: NDArray[np.int64]
) -> Mapping[str, Any]:
    last = known["last_motion"]
    with np.errstate(invalid="ignore"):
        survival = 1 - np.searchsorted(np.sort(last), steps, side="right") / np.float64(last.size)
    names = {"earliest": 0.0, "median_freeze": 0.5, "latest": 1.0}
    return {name: lower_quantile(last, q) for name, q in names.items()} | {
        "at_quantile": np.array([lower_quantile(last, q) for q in quantiles], np.int64),
        "never_moved": np.count_nonzero(last == NEVER),
        "survival": survival,
    }


def fimbulwinter(ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2") -> xr.Dataset:
    """How long nothing has moved: the last motion of any token, and the silence since, which is called Fimbulwinter.

    Parameters
    ----------
    ds, threshold, norm
        As in `moved`.

    Returns
    -------
    Dataset
        ``global_last_motion`` int64; ``fimbulwinter_duration`` int64 = T - global_last_motion, T the last step;
        ``fimbulwinter_fraction`` float64 = duration / number of moves, NaN where there is no move at all;
        ``never_moved`` int64, the number of tokens that never moved; ``nonfinite``, ``first_nonfinite``. On a slice
        number of moves, duration and fraction are the slice's. With no motion at all global_last_motion is -1, the
        duration all moves, the fraction 1. Where steps are missing, the silence may have begun up to
        ``resolution_steps`` - 1 steps earlier, and motion that was undone between two labels is not seen.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `moved`.

    Warns
    -----
    UserWarning
        When it is computed, if nothing moved at all: perhaps the wrong rows were recorded. By a threshold above 0.5,
        which misses moves of a weight, that nothing moved so far at once.

    Notes
    -----
    One pass over the norm; all last motions (8 bytes a token) in memory. An infinite norm is motion, NaN is none.

    Examples
    --------
    >>> from analysis import simulate
    >>> winter = fimbulwinter(simulate.with_last_motion([3, 1], total_steps=12))
    >>> int(winter.global_last_motion), int(winter.fimbulwinter_duration), float(winter.fimbulwinter_fraction)
    (3, 9, 0.75)
    """
    source = _last_motion(trajectory_of(ds), threshold, norm)
    gives = {
        "global_last_motion": Answer((), "int64", "last motion of any token", "step", True),
        "fimbulwinter_duration": Answer((), "int64", "steps since the last motion of any token", "step"),
        "fimbulwinter_fraction": Answer((), "float64", "fraction of the moves since the last motion of any token"),
        "never_moved": Answer((), "int64", "tokens that never moved"),
    }
    threshold = float(source.attrs["threshold"])
    by = "" if sees_every_change(threshold) else f" by {threshold:.7g} cells or more"
    function = functools.partial(_fimbulwinter, by=by)
    return _with_finite(conclude(source[["last_motion"]], function, gives), source)


def _fimbulwinter(known: Mapping[str, Array], span: Span, *, by: str) -> Mapping[str, Any]:
    last = known["last_motion"]
    latest = int(last.max(initial=NEVER))
    if latest == NEVER and span.moves:
        seen = "" if span.resolution == 1 else f", seen up to {span.resolution} steps apart"
        doubt = "a threshold above 0.5 misses moves" if by else "were the intended rows recorded?"
        warnings.warn(
            f"no token moved{by} at steps {span.first + 1} to {span.last}{seen}, of the {last.size} that were asked "
            f"about; {doubt}",
            stacklevel=2,
        )
    duration = span.moves if latest == NEVER else span.last - latest
    return {
        "global_last_motion": latest,
        "fimbulwinter_duration": duration,
        "fimbulwinter_fraction": duration / span.moves if span.moves else np.nan,
        "never_moved": np.count_nonzero(last == NEVER),
    }


def _with_finite(answer: xr.Dataset, source: xr.Dataset) -> xr.Dataset:
    return answer.assign({name: source[name] for name in nonfinite.GIVES})

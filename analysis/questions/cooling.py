"""How tokens cool: how far they move at each step, how many still do, and which of them in a raster of all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from analysis.engine.perstep import ask
from analysis.engine.question import Answer, Block, Partial, Reduction, Span
from analysis.engine.reduction import answers_to
from analysis.engine.trajectory import trajectory_of
from analysis.lattice import Array
from analysis.questions.endstate import end_state_of
from analysis.questions.lifecycle import lifecycle
from analysis.questions.motion import last_motion, moved_in, norm_name, threshold_of
from analysis.thresholds import quantiles_of

QUANTILES = (0.05, 0.5, 0.95)
COLUMNS = 1000
"""Of the raster of `stratigraphy`, at most: a column for each dot of a picture."""


def cooling(
    ds: xr.Dataset,
    *,
    threshold: float | None = None,
    norm: str = "l2",
    quantiles: Sequence[float] = QUANTILES,
    reference_learning_rate: float | None = None,
) -> xr.Dataset:
    """The displacement norm over tokens at every step, the fraction of them that moves, and the end state.

    Parameters
    ----------
    ds, threshold, norm
        As in `motion.moved`.
    quantiles : sequence of float
        In [0, 1].
    reference_learning_rate : float, optional
        As in `endstate.end_state`.

    Returns
    -------
    Dataset
        Lazy: ``displacement`` (step, q) float32, in cells, the norm of one token, at index
        floor(q (n - 1)) of the sorted ones; ``largest`` (step) float32, the largest of them; ``moving`` (step)
        float64, the fraction of tokens that move. All NaN at the first state, which is no move. And all of
        `endstate.end_state`. The attribute ``tokens`` says of how many tokens.

    Raises
    ------
    ValueError
        For quantiles outside [0, 1], with no step or no token selected, where steps are missing, and as
        `motion.moved`.
    TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    Still tokens count, with 0; so does a norm of NaN. An infinite norm counts as the largest, and as motion. One pass
    over the norm, some blocks of steps in memory.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = cooling(simulate.trajectory([[[3, 4], [1, 0], [0, 0]]])).load()
    >>> told.displacement.sel(step=1, q=0.5).item(), round(float(told.moving[1]), 3)
    (1.0, 0.667)
    >>> told.largest.values
    array([nan,  5.], dtype=float32)
    """
    quantiles = quantiles_of(quantiles)
    gives = {
        "displacement": Answer(("step", "q"), "float32", f"{norm} norm of a token's displacement", "cell"),
        "largest": Answer(("step",), "float32", f"largest {norm} norm of a token's displacement", "cell"),
        "moving": Answer(("step",), "float64", "fraction of tokens that move"),
    }
    asked = trajectory_of(ds)
    name, least = norm_name(norm), threshold_of(asked.attributes, threshold)
    chunk = functools.partial(_cooling, name=name, threshold=least, quantiles=quantiles)
    answer = ask(asked, "cooling", chunk, gives, array=name, coords={"q": list(quantiles)})
    ended = end_state_of(asked, threshold, norm, reference=reference_learning_rate)
    return answer.assign(ended.data_vars).assign_attrs(ended.attrs, tokens=len(asked.tokens))


def _cooling(block: Block, *, name: str, threshold: np.float32, quantiles: tuple[float, ...]) -> Mapping[str, Array]:
    size = np.nan_to_num(block[name], nan=0.0, posinf=np.inf)
    places = [math.floor(q * (size.shape[1] - 1)) for q in quantiles]
    places.append(size.shape[1] - 1)
    found = np.sort(size, axis=1)[:, places]  # sooner done than np.partition, most of all where hardly anything moves
    moving = (size >= threshold).mean(axis=1)
    found[~block.is_move], moving[~block.is_move] = np.nan, np.nan
    return {"displacement": found[:, :-1], "largest": found[:, -1], "moving": moving}


def stratigraphy(
    ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2", columns: int = COLUMNS
) -> xr.Dataset:
    """Which tokens moved when, in columns of neighbouring steps, beside the end of each token's phases.

    Parameters
    ----------
    ds, threshold, norm
        As in `motion.moved`.
    columns : int
        At most so many columns, each of the same number of steps.

    Returns
    -------
    Dataset
        Lazy: ``moved_within`` (token, column) bool, whether the token moved at any step of the column, whose label is
        its first step; ``exit`` (token, phase) of `lifecycle.lifecycle`; ``last_motion`` (token) of
        `motion.last_motion`. The attribute ``steps_of_column`` is the width of a column.

    Raises
    ------
    ValueError
        For `columns` below 1, where steps are missing, and as `motion.moved`.
    TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    One pass over the norms; a bit a token and column for each block of steps in memory.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = stratigraphy(simulate.with_motion([[1, 0], [0, 0], [0, 0], [0, 1]]), columns=2).load()
    >>> told.column.values, told.moved_within.values.astype(int)
    (array([1, 3]), array([[1, 0],
           [0, 1]]))
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    if int(columns) != columns:
        raise ValueError(f"columns must be a whole number, not {columns}")
    columns = int(columns)
    asked = trajectory_of(ds)
    name, least = norm_name(norm), threshold_of(asked.attributes, threshold)
    width = max(1, -(-asked.span.moves // columns))
    starts = np.arange(asked.span.first + 1, asked.span.last + 1, width)
    chunk = functools.partial(_moved_within, norm=norm, threshold=least, starts=starts)
    gives = {"moved_within": Answer(("token", "column"), "bool", "moved at a step of the column")}
    finish = functools.partial(_unpacked, columns=len(starts))
    coords = {"column": starts.tolist()}
    question = Reduction("stratigraphy", (name,), "token", chunk, _or, gives, finish=finish, coords=coords)
    raster = answers_to(asked, question)
    last = last_motion(ds, threshold=threshold, norm=norm)
    life = lifecycle(ds)
    whole = raster.assign(exit=life["exit"], phase=life["phase"]).assign(last.data_vars)
    return whole.assign_attrs(last.attrs, steps_of_column=width)


def _moved_within(block: Block, *, norm: str, threshold: np.float32, starts: Array) -> Partial:
    moved = moved_in(block, norm=norm, threshold=threshold)
    column = np.searchsorted(starts, block.steps, side="right") - 1  # -1 for the first state, which is no move
    found = np.zeros((moved.shape[1], len(starts)), bool)
    for here in np.unique(column[column >= 0]):
        found[:, here] = moved[column == here].any(axis=0)
    return {"packed": np.packbits(found, axis=1)}


def _or(one: Partial, other: Partial) -> Partial:
    return {"packed": one["packed"] | other["packed"]}


def _unpacked(partial: Partial, _span: Span, *, columns: int) -> Partial:
    return {"moved_within": np.unpackbits(partial["packed"], axis=1, count=columns).astype(bool)}

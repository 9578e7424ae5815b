"""Questions about the push: of each token and step, its spread over tokens, and what it leaves the learning rate."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from analysis.engine import perstep
from analysis.engine.question import Answer, Block, Partial, Reduction, Span
from analysis.engine.reduction import answers_to
from analysis.engine.trajectory import OF_A_RUN, Trajectory, trajectory_of
from analysis.optimizers.expected_moves import LIMITS
from analysis.pushes.source import NAME, RATE, larger, memory_of, rates_below, strongest, with_push
from analysis.thresholds import quantiles_of

QUANTILES = (0.05, 0.5, 0.95)
NO_MOVE = -1.0
"""Stands for the push of a token without any move, below every push."""
_BY_TOKEN = {"headroom": Answer(("token",), "float64", "factor by which the learning rate could have been higher")}


def push(ds: xr.Dataset) -> xr.DataArray:
    """How near each update came to moving each token, in half cells: below 1 nothing moves.

    Parameters
    ----------
    ds : Dataset
        With `push` as it was recorded; else with W, learning_rate, the attribute ``optimizer_update``, the numbers of
        `analysis.lattice.Update` that stay, and at every step what its variant needs in the dtype of W: adam_m and
        adam_v for Adam (max_exp_avg_sq with amsgrad), gradient for SGD, momentum_buffer for SGD with momentum, and
        both for Nesterov's. Without optimizer_step the label of the step is taken for Adam's count.

    Returns
    -------
    DataArray
        float32 (step, token), dask-backed: the largest proposed change of a weight of the token, in half cells in its
        direction, rounded up to bfloat16. NaN at the first step, and where it is not known. So it is where it is
        computed, `exact` is true of the run, and W holds other weights than the update makes: the optimizer's numbers
        have changed since recording began, or something else has written to the weights.

    Raises
    ------
    ValueError
        With the reason, where no push is known of the run: it was not recorded and cannot be computed, hidden
        dimensions were left out, or steps are missing between the first and the last.
    TypeError
        For what is no Dataset.

    Notes
    -----
    `analysis.lattice.push` has the definition. One pass over the push, or over W and both moments.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_pushes([[0.5, 0.25], [1.5, 0.25], [0.5, 0.125]])
    >>> push(ds).values[1:].tolist()
    [[0.5, 0.25], [1.5, 0.25], [0.5, 0.125]]
    """
    asked = with_push(trajectory_of(ds))
    answer = asked.variables[NAME].assign_coords(asked.coords_of(("step", "token")))
    is_move = xr.DataArray(asked.steps != asked.span.first, dims="step")
    return answer.where(is_move.variable).rename(NAME).assign_attrs(units="half cell", long_name="push")


def headroom(ds: xr.Dataset, *, quantiles: Sequence[float] = QUANTILES) -> xr.Dataset:
    """The push over tokens at each step, and by which factor the learning rate could have been higher for each token.

    Parameters
    ----------
    ds : Dataset
        As in `push`.
    quantiles : sequence of float
        In [0, 1].

    Returns
    -------
    Dataset
        Lazy: ``strongest`` (step) float32, the largest push of all tokens; ``push`` (step, q) float32, that of one
        token, at index floor(q (n - 1)) of the sorted ones; ``headroom`` (token) float64, 1 over the token's largest
        push in the last 20 memories of the optimizer's momentum (200 steps at beta1 = 0.9), but no more than decoupled
        weight decay allows, which moves weights by itself from lr x weight_decay = 2^-9 on (2^-12 in float16).
        Infinite where nothing bounds it, NaN where there is no move, or none with a learning rate;
        ``learning_rate`` and ``optimizer_step`` (step), NaN where they were not recorded. NaN where the push is not
        known. It says nothing of NaN in weights: ask `divergence`; nor whether the moves
        contradict the push: ask `end_state`.

    Raises
    ------
    ValueError
        As `push`; for quantiles outside [0, 1], without tokens, and where the states of a run were numbered anew: the
        pushes between them are not there.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = headroom(simulate.with_pushes([[0.5, 0.25], [0.5, 0.125]])).load()
    >>> told.strongest.values[1:].tolist(), told.headroom.values.tolist()
    ([0.5, 0.5], [2.0, 4.0])
    """
    quantiles = quantiles_of(quantiles)
    asked = with_push(trajectory_of(ds))
    _refuse_computed_labels(asked)
    gives = {NAME: Answer(("step", "q"), "float32", "push of a token", "half cell")}
    chunk = functools.partial(_quantiles, quantiles=quantiles)
    by_step = perstep.ask(asked, "push-quantiles", chunk, gives, array=NAME, coords={"q": list(quantiles)})
    after = asked.span.last - LIMITS.headroom_memories * memory_of(asked.attributes)
    recent = functools.partial(_recent, after=after, rates_below=rates_below(asked))
    by_token = Reduction("headroom", (NAME, RATE), "token", recent, larger, _BY_TOKEN, finish=_headroom)
    answer = answers_to(asked, by_token).assign(by_step.data_vars)
    return answer.assign(strongest(asked).data_vars).assign_attrs(asked.variables[NAME].attrs)


def _refuse_computed_labels(asked: Trajectory) -> None:
    """Refuse a run whose labels of steps are not those of the recording: steps may be missing, and their pushes."""
    if not asked.has_recorded_labels and not OF_A_RUN.isdisjoint(asked.attributes):
        raise ValueError(
            "headroom looks at the push of every step, and the labels of steps have lost their attributes or were "
            "computed, so that steps may be missing between two states; ask of the run as it was opened, or of a range "
            "of its steps, as in ds.sel(step=slice(first, last))"
        )


def _quantiles(block: Block, *, quantiles: tuple[float, ...]) -> Partial:
    size = np.sort(block[NAME], axis=1)
    found = size[:, [int(q * (size.shape[1] - 1)) for q in quantiles]]
    found[~block.is_move] = np.nan
    return {NAME: found}


def _recent(block: Block, *, after: int, rates_below: float) -> Partial:
    told = (block.steps > after) & block.is_move & (block[RATE] != 0)
    with np.errstate(invalid="ignore"):  # an infinite rate and no weight decay
        by_decay = np.nan_to_num(block[RATE][told, None] / rates_below)  # a rate that is not known bounds nothing
    rows = np.maximum(block[NAME][told], by_decay)
    return {"headroom": rows.max(axis=0, initial=NO_MOVE).astype(np.float64)}


def _headroom(partial: Partial, _span: Span) -> Partial:
    push = np.where(partial["headroom"] == NO_MOVE, np.nan, partial["headroom"])
    with np.errstate(divide="ignore"):
        return {"headroom": 1 / push}

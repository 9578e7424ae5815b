"""Did the run diverge? Weights, or the loss, that stopped being finite numbers: since when, and how many."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import lattice
from analysis.answers import plain
from analysis.engine import inputs, nonfinite, selections
from analysis.engine.question import NEVER, Answer, Span
from analysis.engine.reduction import answers_to
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array

DIVERGENCE = {
    "diverged": Answer((), "bool", "a weight was NaN or infinite, or the loss has stopped being a finite number"),
    "weights_now": Answer((), "int64", "weights that are NaN or infinite at the last step", may_be_missing=True),
    "tokens_now": Answer((), "int64", "tokens with such a weight at the last step"),
    "loss_from": Answer((), "int64", "step since which there is no finite loss", "step", True),
}


def divergence(ds: xr.Dataset, *, norm: str = "l2") -> xr.Dataset:
    """Whether the run diverged: since which step, and how many weights of how many tokens.

    A weight that is NaN or infinite does not move any more by any norm, so a run that diverged looks frozen. Ask this
    before anything else; `record` says it in words.

    Parameters
    ----------
    ds : Dataset
        A trajectory or a slice of one. Its loss (step) is looked at if there is one.
    norm : {"l2", "l1", "linf"}
        By which weights to look at are found. Take the one that is read anyway.

    Returns
    -------
    Dataset
        Lazy. ``diverged`` bool; ``nonfinite`` int64, weights that are NaN or infinite, counted at every step;
        ``first_nonfinite`` int64, the first step that has one, -1 for none. At the last step: ``weights_now`` int64,
        how many, -1 where there is no W to look at; ``tokens_now`` int64, of how many tokens, 0 of a single state
        without W, of which no move tells. ``loss_from`` int64: the first of the steps at the end without a finite loss,
        -1 if there are none. The attributes ``tokens`` and, with W, ``weights`` say how many there are in all.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    A loss that was not logged is NaN too. Therefore a loss without any finite or infinite value is ignored, and
    steps at the end without a finite loss count only if they are more than ever were without one before. One pass over
    the norm, and over the weights of the blocks in which it is not finite.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_last_motion([5, 3], total_steps=5, hidden=2).load()
    >>> ds.W[3:, 0, 0] = 0x7FC0  # NaN
    >>> told = divergence(ds[["W"]]).load()
    >>> bool(told.diverged), int(told.first_nonfinite), int(told.weights_now), int(told.tokens_now)
    (True, 3, 1, 1)
    """
    asked = trajectory_of(ds)
    found = answers_to(asked, nonfinite.nonfinite(asked, norm=norm))
    weights_now, tokens_now = _at_the_end(asked, norm)
    loss_from = _loss_from(asked)
    arrays = {
        "diverged": (found["nonfinite"].data > 0) | (loss_from != NEVER),
        "weights_now": weights_now,
        "tokens_now": tokens_now,
        "loss_from": loss_from,
    }
    told = {name: ((), arrays[name].astype(each.dtype), each.attributes) for name, each in DIVERGENCE.items()}
    totals = {"tokens": len(asked.tokens)}
    if "W" in asked.variables:
        totals["weights"] = totals["tokens"] * asked.sizes["hidden"]
    return found.assign(told).assign_attrs(totals)


def record(answer: xr.Dataset) -> dict[str, Any] | None:
    """An answer of `divergence` in Python's own numbers, with a sentence; None for a run that did not diverge.

    Parameters
    ----------
    answer : Dataset
        Of `divergence`. It is computed.

    Returns
    -------
    dict or None
        ``step``, since which something is not finite; ``weights`` of ``of_weights`` and ``tokens`` of ``of_tokens``
        that are not finite at ``last_step``; ``loss_from``, the step since which there is no finite loss;
        ``sentence``. What does not exist is None.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_last_motion([5, 3], total_steps=5, hidden=2).load()
    >>> ds.W[3:, 0, 0] = 0x7FC0  # NaN
    >>> told = record(divergence(ds[["W"]]))
    >>> told["sentence"].split(". ")[0]
    'Diverged at step 3: at step 5, 1 of 4 weights is NaN or infinite, in 1 of 2 tokens'
    >>> record(divergence(simulate.with_last_motion([5, 3], total_steps=5))) is None
    True
    """
    told, attributes = plain(answer), answer.attrs
    if not told["diverged"]:
        return None
    known = {
        "step": min(step for step in (told["first_nonfinite"], told["loss_from"]) if step is not None),
        "weights": told["weights_now"],
        "of_weights": attributes.get("weights"),
        "tokens": told["tokens_now"],
        "of_tokens": attributes["tokens"],
        "last_step": attributes["last_step"],
        "loss_from": told["loss_from"],
    }
    began = told["first_nonfinite"] == attributes["first_step"]
    words = _of_loss(known) if told["first_nonfinite"] is None else _of_weights(known, began=began)
    return known | {"sentence": words}


def _of_loss(known: Mapping[str, Any]) -> str:
    return (
        f"Diverged at step {known['step']}, by the loss alone: from there on it is NaN, infinite or was not "
        "logged, though every recorded weight is finite. The numbers of freezing are those of a training that had "
        "broken down."
    )


def _of_weights(known: Mapping[str, Any], *, began: bool) -> str:
    head = f"Diverged at step {known['step']}" + (", the first state" if began else "")
    tokens, last = f"{known['tokens']:,} of {known['of_tokens']:,} tokens", known["last_step"]
    if not known["tokens"]:
        seen = f"weights were NaN or infinite, though at step {last} none is any more"
    elif known["weights"] is None:
        seen = f"at step {last} the moves of {tokens} are NaN"
    else:
        verb = "is" if known["weights"] == 1 else "are"
        count = f"{known['weights']:,} of {known['of_weights']:,} weights {verb}"
        seen = f"at step {last}, {count} NaN or infinite, in {tokens}"
    loss = "" if known["loss_from"] is None else f" There is no finite loss from step {known['loss_from']} on."
    return (
        f"{head}: {seen}.{loss} A token with such a weight counts as still: for it the numbers of freezing tell when "
        "it diverged, not when it froze."
    )


def _at_the_end(asked: Trajectory, norm: str) -> tuple[Any, Any]:
    """Weights that are not finite in the last state, -1 without W, and the tokens that have one. Lazy numbers."""
    if "W" in asked.variables:
        last = inputs.recorded_weights(asked).data[-1:]
        bad = ~last.map_blocks(lattice.is_finite, dtype=bool)
        return bad.sum(), bad.any(axis=2).sum()
    name = selections.NORM_OF[norm]
    moves = inputs.arrays(asked, [name])[name].data[1:]  # what stands at the first state is no move of these
    return da.from_array(np.array(NEVER)), da.isnan(moves[-1:]).sum()


def _loss_from(asked: Trajectory) -> Any:  # noqa: ANN401 - dask arrays have no types
    """The first of the steps at the end without a finite loss, -1 if there are none. A lazy number."""
    if "loss" not in asked.variables or asked.variables["loss"].ndim != 1:
        return da.from_array(np.array(NEVER))
    axis = str(asked.variables["loss"].dims[0])
    steps = np.asarray(asked.coords[axis].values if axis in asked.coords else np.arange(asked.sizes[axis]), np.int64)
    loss = inputs.in_blocks(asked.variables["loss"]).data.rechunk(-1)
    moves = functools.partial(_breakdown, steps=steps, span=asked.span)
    return loss.map_blocks(moves, drop_axis=0, dtype=np.int64)


def _breakdown(loss: Array, *, steps: NDArray[np.int64], span: Span) -> Array:
    """The first label of the last stretch without a finite loss, -1 unless it is the longest of them.

    The loss of the first state belongs to no move of these, nor does what a loss with steps of its own has beside them.
    Values that are only NaN were perhaps never logged.
    """
    here = (steps > span.first) & (steps <= span.last)
    loss, steps = loss[here], steps[here]
    gaps = np.diff(np.flatnonzero(np.isfinite(loss)), prepend=-1, append=len(loss)) - 1
    if np.isnan(loss).all() or not gaps[-1] or gaps[-1] <= gaps[:-1].max(initial=0):
        return np.array(NEVER)
    return np.array(steps[len(loss) - gaps[-1]])

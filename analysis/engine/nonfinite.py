"""Weights that are NaN or infinite: how many, and since when. Part of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from analysis import lattice
from analysis.engine import inputs
from analysis.engine.question import NEVER, Answer, Block, Partial, Reduction, Span

GIVES = {
    "nonfinite": Answer((), "int64", "weights that are NaN or infinite"),
    "first_nonfinite": Answer((), "int64", "first step with a weight that is NaN or infinite", "step", True),
}


def nonfinite(ds: xr.Dataset, *, norm: str = "l2") -> Reduction:
    """The question how many weights are NaN or infinite, and since which step.

    Wherever a norm is finite, so are the weights before and after the move: only where it is not are the weights
    themselves looked at, which hardly ever happens (a displacement may also overflow). Without W each token-step with a
    norm of NaN counts as one.

    Parameters
    ----------
    ds : Dataset
    norm : {"l1", "l2", "linf"}
        Take the one that is read anyway.

    Returns
    -------
    Reduction
        Of ``nonfinite`` (int64, over all states of the Dataset, the first one too) and ``first_nonfinite`` (int64,
        -1 for none).
    """
    name = inputs.NORM_OF[norm]
    aside = WeightsAside(inputs.in_blocks(ds["W"]).data) if "W" in ds.data_vars else None
    return Reduction("nonfinite", (name,), None, _count, _join, GIVES, finish=_finish, aside=aside)


@dataclass(frozen=True, slots=True)
class WeightsAside:
    """W, for a task that reads a little of it when it must."""

    weights: da.Array

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("WeightsAside", self.weights.name)

    def finite(self, steps: slice, tokens: slice) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Where the weights at these positions are finite; computed in this thread."""
        return lattice.is_finite(np.asarray(self.weights[steps, tokens].compute(scheduler="synchronous")))


def _count(block: Block) -> Partial:
    (norm,) = block.rows.values()
    suspect = ~np.isfinite(norm) & block.is_move[:, None]
    if not block.span.moves:  # a lone state has no move that would tell
        suspect = np.full(norm.shape, block.aside is not None)
    rows = np.flatnonzero(suspect.any(axis=1))
    if not rows.size:
        return {"count": 0, "first": NEVER}
    if block.aside is None:
        found = (np.isnan(norm) & suspect).sum(axis=1)
        start = int(block.steps[0])
    else:
        # The first state has no move of its own; the move away from it tells.
        start = int(block.steps[rows[0]])
        start -= start == block.span.first + 1
        steps = slice(start - block.span.first, int(block.steps[rows[-1]]) - block.span.first + 1)
        finite = block.aside.finite(steps, slice(block.token_start, block.token_start + len(block.tokens)))
        found = np.count_nonzero(~finite, axis=(1, 2))
    with_one = np.flatnonzero(found)
    return {"count": int(found.sum()), "first": start + int(with_one[0]) if with_one.size else NEVER}


def _join(one: Partial, other: Partial) -> Partial:
    known = [part["first"] for part in (one, other) if part["first"] != NEVER]
    return {"count": one["count"] + other["count"], "first": min(known, default=NEVER)}


def _finish(partial: Partial, _span: Span) -> Mapping[str, Any]:
    return {"nonfinite": partial["count"], "first_nonfinite": partial["first"]}

"""Weights that are NaN or infinite: how many, and since when. Part of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.engine import inputs, selections
from analysis.engine.question import NEVER, Answer, Block, Partial, Reduction, Span
from analysis.engine.stored_norms import WeightsAside
from analysis.engine.trajectory import Trajectory
from analysis.lattice import Array

GIVES = {
    "nonfinite": Answer((), "int64", "weights that are NaN or infinite"),
    "first_nonfinite": Answer((), "int64", "first step with a weight that is NaN or infinite", "step", True),
}


def nonfinite(asked: Trajectory, *, norm: str = "l2") -> Reduction:
    """Make the reduction that counts weights that are NaN or infinite, and finds the first step with one.

    Wherever a norm is finite, so are the weights before and after the move: only where it is not are the weights
    themselves looked at, which hardly ever happens (a displacement may also overflow). Without W each token-step with a
    norm of NaN counts as one.

    Parameters
    ----------
    asked : Trajectory
    norm : {"l1", "l2", "linf"}
        Take the one that is read anyway.

    Returns
    -------
    Reduction
        Of ``nonfinite`` (int64, over all states, the first one too) and ``first_nonfinite`` (int64,
        -1 for none).
    """
    name = selections.NORM_OF[norm]
    aside = WeightsAside(inputs.recorded_weights(asked).data) if "W" in asked.variables else None
    return Reduction("nonfinite", (name,), None, _count, _join, GIVES, finish=_finish, aside=aside, over_gaps=True)


def _count(block: Block) -> Partial:
    (norm,) = block.rows.values()
    suspect = ~np.isfinite(norm) & block.is_move[:, None]
    if not block.span.moves:  # a lone state has no move that would tell
        suspect = np.full(norm.shape, block.aside is not None)
    rows = np.flatnonzero(suspect.any(axis=1))
    if not rows.size:
        return {"count": 0, "first": NEVER}
    if block.aside is None:
        start, found = block.step_start, (np.isnan(norm) & suspect).sum(axis=1)
    else:
        start, found = _look_at_weights(block, rows)
    with_one = np.flatnonzero(found)
    first = _label(block, start + int(with_one[0])) if with_one.size else NEVER
    return {"count": int(found.sum()), "first": first}


def _look_at_weights(block: Block, rows: Array) -> tuple[int, Array]:
    """How many weights are not finite, state by state, and the position of the first state that was looked at.

    Looked at are the states of `rows`, and the one before them: no move leads to the first state of all, so it is
    found by the move away from it.
    """
    before = max(0, block.step_start + int(rows[0]) - 1)
    steps = slice(before, block.step_start + int(rows[-1]) + 1)
    tokens = slice(block.token_start, block.token_start + len(block.tokens))
    found = np.count_nonzero(~block.aside.finite(steps, tokens), axis=2)
    is_before_the_move = before > 0  # that state is counted with the move that led to it
    return before + is_before_the_move, found[is_before_the_move:].sum(axis=1)


def _label(block: Block, position: int) -> int:
    """The step at a position in the Dataset: one of the block's, or the first."""
    return int(block.steps[position - block.step_start]) if position else block.span.first


def _join(one: Partial, other: Partial) -> Partial:
    known = [part["first"] for part in (one, other) if part["first"] != NEVER]
    return {"count": one["count"] + other["count"], "first": min(known, default=NEVER)}


def _finish(partial: Partial, _span: Span) -> Mapping[str, Any]:
    return {"nonfinite": partial["count"], "first_nonfinite": partial["first"]}

"""Weights that are NaN or infinite: how many, and since when. Part of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.local import get_sync

from analysis import lattice
from analysis.engine import inputs, selections
from analysis.engine.question import NEVER, Answer, Block, Partial, Reduction, Span
from analysis.engine.trajectory import Trajectory
from analysis.lattice import Array

GIVES = {
    "nonfinite": Answer((), "int64", "weights that are NaN or infinite"),
    "first_nonfinite": Answer((), "int64", "first step with a weight that is NaN or infinite", "step", True),
}

LEAST_MOVE = np.float32(0.5)
"""The least norm of a move, in cells: down across the edge of a binade."""


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


def refuse_impossible(norm: Array, steps: Array, tokens: Array) -> None:
    """Refuse norms that no move has: a weight that changes goes half a cell at least, so a norm is 0 or 0.5 and more.

    They come of arithmetic: a mean over steps or a difference of them, an interpolation, another scale.

    Parameters
    ----------
    norm : array of float32, (step, token)
        Of moves.
    steps, tokens : array of int64
        Their labels.

    Raises
    ------
    ValueError
    """
    wrong = (norm < LEAST_MOVE) & (norm != 0)
    if wrong.any():
        row, token = np.argwhere(wrong)[0]
        raise ValueError(
            f"a stored norm is {norm[row, token]:.4g} at step {steps[row]}, token {tokens[token]}, but no move has a "
            "norm between 0 and 0.5 cells or below 0: something computed new numbers of it (a mean, a difference, an "
            "interpolation); go back to the Dataset as it was opened, or keep W alone, as in ds[['W']]"
        )


@dataclass(frozen=True, slots=True)
class WeightsAside:
    """W, handed to tasks that read some of it only where a norm is not finite."""

    weights: da.Array

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("WeightsAside", self.weights.name)

    def finite(self, steps: slice, tokens: slice) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Where the weights at these positions are finite; computed in this thread."""
        return lattice.is_finite(np.asarray(self.weights[steps, tokens].compute(scheduler=get_sync)))


def _count(block: Block) -> Partial:
    (norm,) = block.rows.values()
    refuse_impossible(norm[block.is_move], block.steps[block.is_move], block.tokens)
    suspect = ~np.isfinite(norm) & block.is_move[:, None]
    if not block.span.moves:  # a lone state has no move that would tell
        suspect = np.full(norm.shape, block.aside is not None)
    rows = np.flatnonzero(suspect.any(axis=1))
    if not rows.size:
        return {"count": 0, "first": NEVER}
    if block.aside is None:
        start, found = block.step_start, (np.isnan(norm) & suspect).sum(axis=1)
    else:
        start, found = _look_at_weights(block, norm, rows)
    with_one = np.flatnonzero(found)
    first = _label(block, start + int(with_one[0])) if with_one.size else NEVER
    return {"count": int(found.sum()), "first": first}


def _look_at_weights(block: Block, norm: Array, rows: Array) -> tuple[int, Array]:
    """How many weights are not finite, state by state, and the position of the first state that was looked at.

    Looked at are the states of `rows`, and the one before them: no move leads to the first state of all, so it is
    found by the move away from it.
    """
    before = max(0, block.step_start + int(rows[0]) - 1)
    steps = slice(before, block.step_start + int(rows[-1]) + 1)
    tokens = slice(block.token_start, block.token_start + len(block.tokens))
    found = np.count_nonzero(~block.aside.finite(steps, tokens), axis=2)
    _refuse_foreign_norms(block, norm, found, before)
    is_before_the_move = before > 0  # that state is counted with the move that led to it
    return before + is_before_the_move, found[is_before_the_move:].sum(axis=1)


def _refuse_foreign_norms(block: Block, norm: Array, found: Array, before: int) -> None:
    """Refuse a stored norm that is NaN though all weights before and after are finite: it is not that of this move.

    It may be of a first state, whose row is NaN, where runs were joined. Only of bits: float32 weights that are
    measured on the lattice of bfloat16 may overflow on it.
    """
    if block.aside.weights.dtype != np.uint16 or not block.span.moves:
        return
    first = before + 1 - block.step_start  # the row of the block that is the second of `found`
    unknown = np.isnan(norm[first : first + len(found) - 1])
    wrong = unknown & (found[1:] == 0) & (found[:-1] == 0)
    if wrong.any():
        row, token = np.argwhere(wrong)[0]
        raise ValueError(
            f"a stored norm is NaN at step {block.steps[first + row]}, token {block.tokens[token]}, but the weights "
            "before and after are finite: it is not the norm of this move, which would count as no motion; leave out "
            "what is stored of moves, as in ds[['W']], and the norm is derived from W"
        )


def _label(block: Block, position: int) -> int:
    """The step at a position in the Dataset: one of the block's, or the first."""
    return int(block.steps[position - block.step_start]) if position else block.span.first


def _join(one: Partial, other: Partial) -> Partial:
    known = [part["first"] for part in (one, other) if part["first"] != NEVER]
    return {"count": one["count"] + other["count"], "first": min(known, default=NEVER)}


def _finish(partial: Partial, _span: Span) -> Mapping[str, Any]:
    return {"nonfinite": partial["count"], "first_nonfinite": partial["first"]}

"""Whether tokens did what their push says: where not, something else than the optimizer's step made the weights."""

from __future__ import annotations

import functools

import numpy as np
import xarray as xr

from analysis.engine.question import Answer, Block, Partial, Reduction
from analysis.engine.reduction import answers_to
from analysis.engine.selections import NORM_OF
from analysis.engine.trajectory import Trajectory
from analysis.pushes.source import NAME

LEAST, MOST = 0.9, 1.1
"""A push between them may move a token or not: a tie, or the last digits of one that is approximate."""
DISAGREEMENTS = {
    "unexplained": Answer(("step",), "int64", "tokens that moved, or stayed, against what their push says"),
    "nearly": Answer(("step",), "int64", "tokens that did so by a push of about 1"),
}


def disagreements(asked: Trajectory, norm: str) -> xr.Dataset:
    """How many tokens moved by a push below 1, or stayed by one above it, at each step, lazily.

    ``unexplained`` by a push below 0.9 or above 1.1, ``nearly`` by one between them. What moves weights beside the
    recorded update has no such bound: a second parameter on the same memory, a constraint, an average that is swapped
    in, another arithmetic. That a push is small then says nothing of moves.

    Parameters
    ----------
    asked : Trajectory
        One of `source.with_push`.
    norm : {"l1", "l2", "linf"}
        By which it is looked whether anything changed; all of them tell the same.
    """
    chunk = functools.partial(_disagreements, norm=NORM_OF[norm])
    return answers_to(asked, Reduction("disagreements", (NAME, NORM_OF[norm]), "step", chunk, _sum, DISAGREEMENTS))


def _disagreements(block: Block, *, norm: str) -> Partial:
    push, size = block[NAME], block[norm]
    with np.errstate(invalid="ignore"):  # NaN is neither: a push or a weight that is not known
        wrong = ((size > 0) & (push < 1)) | ((size == 0) & (push > 1))
        far = wrong & ((push < LEAST) | (push > MOST))
    here = block.is_move[:, None]
    return {
        "unexplained": np.count_nonzero(far & here, axis=1),
        "nearly": np.count_nonzero(wrong & ~far & here, axis=1),
    }


def _sum(one: Partial, other: Partial) -> Partial:
    return {name: one[name] + other[name] for name in DISAGREEMENTS}

"""Stored norms, looked at as they are read: one that is no move of these states is refused, whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync
from numpy.typing import NDArray

from analysis import lattice
from analysis.engine.outputs import Constant, Key
from analysis.engine.trajectory import Trajectory
from analysis.lattice import Array

_LEAST_MOVE = np.float32(0.5)
"""The least norm of a move, in cells: down across the edge of a binade."""


@dataclass(frozen=True, slots=True)
class WeightsAside:
    """W, handed to tasks that read some of it only where a norm is not finite."""

    weights: da.Array

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("WeightsAside", self.weights.name)

    def rows(self, steps: slice, tokens: slice) -> Array:
        """The weights at these positions; computed in this thread."""
        return np.asarray(self.weights[steps, tokens].compute(scheduler=get_sync))

    def finite(self, steps: slice, tokens: slice) -> NDArray[np.bool_]:
        """Where the weights at these positions are finite."""
        return lattice.is_finite(self.rows(steps, tokens))


def checked(asked: Trajectory, norm: xr.DataArray, weights: xr.DataArray | None) -> xr.DataArray:
    """A stored norm that is looked at, block by block, as it is read; to the bit what it was.

    Parameters
    ----------
    asked : Trajectory
    norm : DataArray
        Of moves, float32 (step, token), in dask blocks.
    weights : DataArray or None
        W as it was recorded, in dask blocks, if it is there.

    Returns
    -------
    DataArray
        A block raises a ValueError when it is computed, if it holds a norm that no move has (between 0 and 0.5, or
        below), or one that is NaN though all weights before and after the move are finite. The weights of a block are
        read only where one of its norms is NaN.
    """
    data = norm.data
    aside = None if weights is None else WeightsAside(weights.data)
    name = f"checked-norm-{tokenize(data.name, aside, asked.steps, asked.tokens, asked.is_projected)}"
    tasks: dict[Key, Any] = {} if aside is None else {(f"{name}-aside",): (Constant(aside),)}
    beside = list(tasks)
    step_ends, token_ends = (list(accumulate(sizes, initial=0)) for sizes in data.chunks)
    for i, (top, bottom) in enumerate(pairwise(step_ends)):
        for j, (left, right) in enumerate(pairwise(token_ends)):
            look = _Look(top, left, asked.steps[top:bottom], asked.tokens[left:right], top == 0, asked.is_projected)
            tasks[(name, i, j)] = (look, (data.name, i, j), *beside)
    graph = HighLevelGraph.from_collections(name, dict(tasks), dependencies=[data])
    return norm.copy(data=da.Array(graph, name, data.chunks, dtype=data.dtype))


@dataclass(frozen=True, slots=True)
class _Look:
    """Look at a block of a stored norm; `has_first` where its first row is the first state of all, which is no move."""

    step_start: int
    token_start: int
    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    has_first: bool
    is_projected: bool

    def __call__(self, norm: Array, aside: WeightsAside | None = None) -> Array:
        moves, steps = norm[self.has_first :], self.steps[self.has_first :]
        if not (moves[moves != 0] >= _LEAST_MOVE).all():  # NaN is not either
            _refuse_impossible(moves, steps, self.tokens)
            unknown = np.isnan(moves)
            if aside is not None and unknown.any():
                self._refuse_foreign(unknown, steps, aside)
        return norm

    def _refuse_foreign(self, unknown: NDArray[np.bool_], steps: NDArray[np.int64], aside: WeightsAside) -> None:
        """Refuse a norm that is NaN between finite weights: it may be of a first state, where runs were joined."""
        rows = np.flatnonzero(unknown.any(axis=1))
        low, high = int(rows[0]), int(rows[-1]) + 1
        before = self.step_start + self.has_first + low - 1  # the position of the state before the first of these moves
        weights = aside.rows(
            slice(before, before + high - low + 1), slice(self.token_start, self.token_start + len(self.tokens))
        )
        if self.is_projected:  # a large float32 weight may be infinite there
            weights = lattice.float32_to_bits(weights)
        finite = np.asarray(lattice.is_finite(weights).all(axis=2), bool)
        wrong = unknown[low:high] & finite[1:] & finite[:-1]
        if wrong.any():
            row, token = np.argwhere(wrong)[0]
            raise ValueError(
                f"a stored norm is NaN at step {steps[low + row]}, token {self.tokens[token]}, but the weights before "
                "and after are finite: it is not the norm of this move, which would count as no motion; leave out what "
                "is stored of moves, as in ds[['W']], and the norm is derived from W"
            )


def _refuse_impossible(norm: Array, steps: Array, tokens: Array) -> None:
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
    wrong = (norm < _LEAST_MOVE) & (norm != 0)
    if wrong.any():
        row, token = np.argwhere(wrong)[0]
        raise ValueError(
            f"a stored norm is {norm[row, token]:.4g} at step {steps[row]}, token {tokens[token]}, but no move has a "
            "norm between 0 and 0.5 cells or below 0: something computed new numbers of it (a mean, a difference, an "
            "interpolation); go back to the Dataset as it was opened, or keep W alone, as in ds[['W']]"
        )

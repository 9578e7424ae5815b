"""Stored norms, looked at as they are read: one that is no move of these states is refused, whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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
from analysis.engine.trajectory import OF_A_RUN, Trajectory
from analysis.lattice import Array

_LEAST_MOVE = np.float32(0.5)
"""The least norm of a move, in cells: down across the edge of a binade."""
_SOME = 8
"""Tokens that are compared before all of them are."""


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Of a run, what is another number at nearly every step, (step, ...): where it stays, a state may be repeated."""

    array: da.Array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Marks) and other.array.name == self.array.name

    def __hash__(self) -> int:
        return hash(self.array.name)

    @lru_cache(maxsize=256)  # noqa: B019 - a few bytes a step, of the last runs; asked for each norm
    def stays(self, start: int, stop: int) -> NDArray[np.int64]:
        """Which positions in (start, stop) have the marks of the one before; NaN is like nothing."""
        rows = np.asarray(self.array[start:stop].compute(scheduler=get_sync)).reshape(stop - start, -1)
        found: NDArray[np.int64] = start + 1 + np.flatnonzero((rows[1:] == rows[:-1]).all(axis=1))
        return found


@dataclass(frozen=True, slots=True)
class WeightsAside:
    """W, handed to tasks that read some of it only where a norm may be none of its moves."""

    weights: da.Array
    marks: Marks | None = None

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return ("WeightsAside", self.weights.name, "" if self.marks is None else self.marks.array.name)

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
        read only where one of its norms is NaN, and where norms of a run are those of the step before and its centroid
        is too: states may have been repeated with the norms of their moves, as ``reindex(method="ffill")`` fills a gap.
    """
    data = norm.data
    aside = None if weights is None else WeightsAside(weights.data, _marks(asked))
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


def _marks(asked: Trajectory) -> Marks | None:
    """The centroid of a run, or its loss: None of what was never a run, whose states nobody selects by labels."""
    if OF_A_RUN.isdisjoint(asked.attributes):
        return None
    for name in ("centroid", "loss"):
        found = asked.variables.get(name)
        if found is not None and found.dims[:1] == ("step",):
            return Marks(da.asarray(found.data))
    return None


def _moved_again(norm: Array) -> NDArray[np.int64]:
    """The rows of a block with motion whose norms are those of the row before; the first has none to compare with.

    Some tokens are compared first: where many move, these tell.
    """
    rows = np.flatnonzero((norm > 0).any(axis=1))
    if len(norm) == 1:
        return rows
    rows = rows[rows > 0]
    for some in (norm[:, :_SOME], norm):
        rows = rows[(some[rows] == some[rows - 1]).all(axis=1)]
    return rows


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
        if aside is not None and aside.marks is not None:
            self._refuse_repeated(norm, aside, aside.marks)
        return norm

    def _refuse_repeated(self, norm: Array, aside: WeightsAside, marks: Marks) -> None:
        """Refuse a move that stands there again where the state was repeated: ``reindex(method="ffill")`` does so."""
        moved = _moved_again(norm)
        if not moved.size:
            return
        start, stop = max(0, self.step_start - 1), self.step_start + len(norm)
        rows = np.intersect1d(marks.stays(start, stop) - self.step_start, moved)
        if not rows.size:
            return
        low, high = int(rows[0]), int(rows[-1]) + 1
        weights = lattice.patterns_of(self._weights(low, high, aside))
        wrong = (weights[1:] == weights[:-1]).all(axis=2) & (norm[low:high] > 0)
        if wrong.any():
            row, token = np.argwhere(wrong)[0]
            raise ValueError(
                f"a stored norm is {norm[low + row, token]:.4g} at step {self.steps[low + row]}, token "
                f"{self.tokens[token]}, but the weights before and after are the same: the state was repeated, with "
                "the norm of another move; leave out what is stored of moves, as in ds[['W']], and the norm is "
                "derived from W"
            )

    def _weights(self, low: int, high: int, aside: WeightsAside) -> Array:
        """The weights before and after the moves into these rows of the block, on the lattice of the norm."""
        before = self.step_start + low - 1
        tokens = slice(self.token_start, self.token_start + len(self.tokens))
        weights = aside.rows(slice(before, before + high - low + 1), tokens)
        # a large float32 weight may be infinite there
        return lattice.float32_to_bits(weights) if self.is_projected else weights

    def _refuse_foreign(self, unknown: NDArray[np.bool_], steps: NDArray[np.int64], aside: WeightsAside) -> None:
        """Refuse a norm that is NaN between finite weights: it may be of a first state, where runs were joined."""
        rows = np.flatnonzero(unknown.any(axis=1))
        low, high = int(rows[0]), int(rows[-1]) + 1
        weights = self._weights(low + self.has_first, high + self.has_first, aside)
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

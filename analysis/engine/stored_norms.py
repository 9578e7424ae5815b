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
from analysis.engine.selections import NORM_OF
from analysis.engine.trajectory import OF_A_RUN, Trajectory
from analysis.lattice import Array
from analysis.moves import norms_of_moves

_LEAST_MOVE = np.float32(0.5)
"""The least norm of a move, in cells: down across the edge of a binade."""
_SOME = 8
"""Tokens that are compared before all of them are."""
_LAYERS_OF_A_FILE = 2
"""Of the graph of an array that was opened: the file, and its blocks. A selection adds one."""
_MOVES = 64
"""Moves at each end of a run whose norms are made again of W: so few cost a chunk of it."""


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


def checked(asked: Trajectory, kind: str, norm: xr.DataArray, weights: xr.DataArray | None) -> xr.DataArray:
    """A stored norm that is looked at, block by block, as it is read; to the bit what it was.

    Parameters
    ----------
    asked : Trajectory
    kind : {"l1", "l2", "linf"}
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
    is_in_doubt = not OF_A_RUN.isdisjoint(asked.attributes) and not _are_as_opened(asked, NORM_OF[kind], "W")
    step_ends, token_ends = (list(accumulate(sizes, initial=0)) for sizes in data.chunks)
    for i, (top, bottom) in enumerate(pairwise(step_ends)):
        for j, (left, right) in enumerate(pairwise(token_ends)):
            ends = _moves_at_the_ends(top, bottom, len(asked.steps)) if is_in_doubt and left == 0 else ()
            look = _Look(
                top, left, asked.steps[top:bottom], asked.tokens[left:right], top == 0, asked.is_projected, ends,
                kind,
            )  # fmt: skip
            tasks[(name, i, j)] = (look, (data.name, i, j), *beside)
    graph = HighLevelGraph.from_collections(name, dict(tasks), dependencies=[data])
    return norm.copy(data=da.Array(graph, name, data.chunks, dtype=data.dtype))


def _are_as_opened(asked: Trajectory, *names: str) -> bool:
    """Whether those of these arrays that are there were opened together, and nothing was selected and nothing computed.

    Then dask has them with names that differ in those of the arrays alone.
    """
    arrays = [(name, asked.variables[name]) for name in names if name in asked.variables]
    if any(array.chunks is None for _, array in arrays):
        return False
    openings = {array.data.name.replace(name, "", 1) for name, array in arrays}
    return len(openings) == 1 and all(_is_of_a_file(array.data) for _, array in arrays)


def _is_of_a_file(array: Any) -> bool:  # noqa: ANN401 - dask arrays have no types
    """Whether an array of dask's is that of a file, of which nothing was selected and nothing computed."""
    return len(array.__dask_graph__().layers) == _LAYERS_OF_A_FILE


def _moves_at_the_ends(top: int, bottom: int, states: int) -> tuple[slice, ...]:
    """Which rows of the block `top` to `bottom` are some of the first moves or of the last, if it holds one of these.

    Examples
    --------
    >>> _moves_at_the_ends(0, 128, 400), _moves_at_the_ends(128, 256, 400), _moves_at_the_ends(384, 400, 400)
    ((slice(1, 65, None),), (), (slice(0, 16, None),))
    """
    first = [slice(1 - top, min(bottom, 1 + _MOVES) - top)] if top <= 1 < bottom else []
    last = [slice(max(top, 1, states - _MOVES) - top, bottom - top)] if max(top, 1) < bottom == states else []
    return (*first, *(rows for rows in last if rows not in first))


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
    """Look at a block of a stored norm; `has_first` where its first row is the first state of all, which is no move.

    `ends` are rows of some of the first or last moves of a run, whose norms are made of W again, by the norm `kind`.
    """

    step_start: int
    token_start: int
    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    has_first: bool
    is_projected: bool
    ends: tuple[slice, ...]
    kind: str

    def __call__(self, norm: Array, aside: WeightsAside | None = None) -> Array:
        moves, steps = norm[self.has_first :], self.steps[self.has_first :]
        if not (moves[moves != 0] >= _LEAST_MOVE).all():  # NaN is not either
            _refuse_impossible(moves, steps, self.tokens)
            unknown = np.isnan(moves)
            if aside is not None and unknown.any():
                self._refuse_foreign(unknown, steps, aside)
        if aside is not None and aside.marks is not None:
            self._refuse_repeated(norm, aside, aside.marks)
        if aside is not None:
            for rows in self.ends:
                self._refuse_others(norm, rows, aside)
        return norm

    def _refuse_others(self, norm: Array, rows: slice, aside: WeightsAside) -> None:
        """Refuse norms that are not those of the moves between these states, though labels say that they are."""
        weights = self._weights(rows.start, rows.stop, aside, tokens=_SOME)
        stored = norm[rows, : weights.shape[1]]
        made = getattr(norms_of_moves(weights[0], weights[1:]), self.kind)
        wrong = (made != stored) & ~(np.isnan(made) & np.isnan(stored))
        if wrong.any():
            row, token = np.argwhere(wrong)[0]
            raise self._unlike(
                stored[row, token], rows.start + row, token, f"{made[row, token]:.4g} cells apart: these are not the "
                "states of that move, as where some were selected and got labels of the run anew, or where W is that "
                "of another run",
            )  # fmt: skip

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
            why = "the same: the state was repeated, with the norm of another move"
            raise self._unlike(norm[low + row, token], low + row, token, why)

    def _unlike(self, norm: float, row: int, token: int, weights: str) -> ValueError:
        """That a stored norm in this row of the block is not that of the move between the weights around it."""
        return ValueError(
            f"a stored norm is {norm:.4g} at step {self.steps[row]}, token {self.tokens[token]}, but the weights "
            f"before and after are {weights}; leave out what is stored of moves, as in ds[['W']], and the norm is "
            "derived from W"
        )

    def _weights(self, low: int, high: int, aside: WeightsAside, tokens: int | None = None) -> Array:
        """The weights before and after the moves into these rows of the block, on the lattice of the norm.

        Of all its tokens, or of so many.
        """
        before = self.step_start + low - 1
        some = slice(self.token_start, self.token_start + len(self.tokens[:tokens]))
        weights = aside.rows(slice(before, before + high - low + 1), some)
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

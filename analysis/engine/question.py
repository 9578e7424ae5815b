"""The records that questions and answers are declared with: Answer, Span, Block, Reduction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.lattice import Array

NEVER = -1
"""The step of what never happened, and any other integer that does not exist."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One array of an answer, declared before it is computed.

    Parameters
    ----------
    dims : tuple of str
        Its dimensions.
    dtype : str
        NumPy name of its dtype.
    long_name : str
        As in the CF conventions.
    units : str or None
        ``"cell"`` for lattice cells, ``"step"`` for labels and counts of steps, None for what has no unit.
    may_be_missing : bool
        Whether an integer -1 in it stands for an answer that does not exist. Floats have NaN for that.
    """

    dims: tuple[str, ...]
    dtype: str
    long_name: str
    units: str | None = None
    may_be_missing: bool = False

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the array in a Dataset."""
        units = {} if self.units is None else {"units": self.units}
        return {"long_name": self.long_name} | units | ({"missing_value": NEVER} if self.may_be_missing else {})


@dataclass(frozen=True, slots=True)
class Span:
    """What a question is asked of: the labels of the first and the last state. Moves are in (first, last].

    `resolution` is the largest distance in steps between a state and the one before it: 1 where every step is there.
    """

    first: int
    last: int
    resolution: int = 1

    @property
    def moves(self) -> int:
        """Number of moves: T on a whole run, the slice's on a slice."""
        return self.last - self.first

    @property
    def attributes(self) -> dict[str, int]:
        """The attributes that an answer gets."""
        return {"first_step": self.first, "last_step": self.last, "resolution_steps": self.resolution}

    @classmethod
    def of_answer(cls, answer: xr.Dataset) -> Span:
        """The span of an answer, from its attributes."""
        return cls(*(int(answer.attrs[name]) for name in ("first_step", "last_step", "resolution_steps")))


@dataclass(frozen=True, slots=True)
class Block:
    """What a chunk function sees: the rows of some neighbouring steps and tokens.

    Parameters
    ----------
    steps, tokens : array of int64
        Labels.
    step_start, token_start : int
        Position of the first step and the first token in the Dataset.
    span : Span
        First and last label of the Dataset.
    rows : mapping from name to array
        Dims as in the Dataset, of (step, token, hidden) those that the array has.
    before : mapping from name to array
        For the names in `needs_before`, the row of the state before the block; none in the Dataset's first block.
    aside : object
        The reduction's `aside`.
    """

    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    step_start: int
    token_start: int
    span: Span
    rows: Mapping[str, Array]
    before: Mapping[str, Array]
    aside: Any = None

    def __getitem__(self, name: str) -> Array:
        return self.rows[name]

    @property
    def is_move(self) -> NDArray[np.bool_]:
        """Which steps are moves: all but the first state's, whatever was stored for it."""
        moves: NDArray[np.bool_] = self.steps != self.span.first
        return moves

    def pairs(self, name: str) -> tuple[NDArray[np.int64], Array, Array]:
        """Steps, the rows before them and their rows, for the moves of the block; needs `needs_before`."""
        rows = self.rows[name]
        if name in self.before:
            return self.steps, np.concatenate([self.before[name][None], rows[:-1]]), rows
        return self.steps[1:], rows[:-1], rows[1:]


Partial = Mapping[str, Any]


def unchanged(partial: Partial, _span: Span) -> Partial:
    """The partial of all blocks as the answer."""
    return partial


@dataclass(frozen=True)
class Reduction:
    """A question, as a record.

    All functions must be importable by name (or a ``functools.partial`` of such) so that other processes can run them.

    Parameters
    ----------
    name : str
    needs : tuple of str
        Arrays of the Dataset, in blocks with common borders. delta_W_prime and the norms are derived from W where they
        are not stored.
    keeps : {"token", "step", None}
        The dimension that the answer keeps. Blocks are combined along the others.
    chunk : function of Block to Partial
        A partial is a mapping from names to arrays or numbers, small beside the block. It must not keep views of it.
    combine : function of two Partials to a Partial
        The earlier steps, or lower tokens, come first. Associative to the bit; where nothing is kept, blocks are
        combined along steps first, then along tokens.
    gives : mapping from name to Answer
        Each with the kept dimension among its dims.
    finish : function of a Partial and a Span to a mapping from name to array
        Makes the answers of the partial of all blocks; by default these are its own arrays.
    coords : mapping from dim to labels
        Labels of other dims of the answers; their sizes follow from them.
    needs_before : tuple of str
        Those of `needs` of which the chunk function must also see the row before the block.
    aside : object
        Handed to every chunk function; kept once in the graph, not in every task.
    over_gaps : bool
        Whether it may be asked where steps are missing between the labels. Its moves then lead from each state to the
        next one there is, delta_W_prime and the norms too, and ``span.resolution`` says how far apart these are at
        most. Else such a Dataset is refused.
    """

    name: str
    needs: tuple[str, ...]
    keeps: Literal["token", "step"] | None
    chunk: Callable[[Block], Partial]
    combine: Callable[[Partial, Partial], Partial]
    gives: Mapping[str, Answer]
    finish: Callable[[Partial, Span], Mapping[str, Any]] = unchanged
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    needs_before: tuple[str, ...] = ()
    aside: Any = None
    over_gaps: bool = False

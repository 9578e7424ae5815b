"""What of a run is exported: its steps and its tokens."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.notebook import TOKEN
from store.run.commit import Commit

Array = NDArray[Any]


@dataclass(frozen=True)
class Selection:
    """What of a run is exported.

    Parameters
    ----------
    trajectory : Path
        The Zarr group.
    commit : Commit
        Where the run stood when the export began.
    first, stop : int
        Rows along the step axis, half open.
    chosen : array of int64 or None
        Positions along the token axis, ascending; None for all.
    """

    trajectory: Path
    commit: Commit
    first: int
    stop: int
    chosen: NDArray[np.int64] | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Ids of the exported tokens."""
        ids: NDArray[np.int64] = self.whole(TOKEN)
        return ids if self.chosen is None else ids[self.chosen]

    @property
    def steps(self) -> tuple[int, int]:
        """Label of the first step and one past the last."""
        return self.commit.labels().between(self.first, self.stop)

    @property
    def has_all_steps(self) -> bool:
        """Whether no committed step is left out."""
        return (self.first, self.stop) == (0, self.commit.rows)

    def rows_of(self, axis: str) -> tuple[int, int]:
        """The rows of a step axis that belong to the selected steps."""
        if axis == "step":
            return self.first, self.stop
        first, stop = np.searchsorted(self.whole(axis), self.steps).tolist()
        return first, stop

    def is_numbered(self, axis: str) -> bool:
        """Whether the selected rows of an axis are the steps 0, 1, 2, ... and no fewer than there are states.

        Such are the rows of a file without labels.
        """
        first, stop = self.rows_of(axis)
        return stop - first == self.stop - self.first and self.commit.labels(axis).between(first, stop) == (
            0,
            stop - first,
        )

    def whole(self, name: str) -> Array:
        """A small stored array."""
        array = self.commit.array(self.trajectory, name)
        return array.read_rows(0, array.shape[0])


def tokens_of(run: Path, population: str, tokens: Sequence[int] | None) -> list[int]:
    """Ids of the tokens of a population; what is known of tokens is read by the reader, which is loaded only here."""
    from crucible.inspection import selection
    from store.reading.reader import open_trajectory

    ds = open_trajectory(run)
    chosen = selection.positions(ds, selection.Selection(population, tokens))
    ids: list[int] = ds["token"].values[chosen].tolist()
    return ids


def select(
    trajectory: Path, commit: Commit, steps: tuple[int | None, int | None] | None, tokens: Sequence[int] | None
) -> Selection:
    """The part of a commit with these steps, the last exclusive, and these ids; ValueError for others than it has."""
    given: object = steps  # whatever was given for them
    if given is not None and not (isinstance(given, tuple | list) and len(given) == 2):
        raise ValueError(f"steps are the first and one past the last, as in steps=(10, 21), not {steps!r}")
    labels, rows = commit.labels(), commit.rows
    begin, end = labels.between(0, rows)
    start, stop = (begin if steps is None or steps[0] is None else operator.index(steps[0]),
                   end if steps is None or steps[1] is None else operator.index(steps[1]))  # fmt: skip
    first, last = labels.rows_until(start - 1), labels.rows_until(stop - 1)
    if not begin <= start < stop <= end or first == last:
        raise ValueError(f"steps {start}:{stop} are not among the committed steps {begin}:{end}")
    selection = Selection(trajectory, commit, first, last)
    if tokens is None:
        return selection
    ids, asked = selection.tokens, np.asarray(tokens)
    if asked.size and asked.dtype.kind not in "iuO":
        raise ValueError(f"tokens are ids in a list, as in tokens=[3, 17], not {tokens!r}")
    try:
        wanted = np.unique(asked.astype(np.int64))
    except OverflowError:
        raise ValueError(f"token ids are numbers of at most 63 bits, not {max(tokens, key=abs)}") from None
    chosen = np.flatnonzero(np.isin(ids, wanted))
    if len(chosen) < len(wanted) or not len(wanted):
        missing = np.setdiff1d(wanted, ids)[:5].tolist()
        raise ValueError(f"the run records no tokens {missing}; its {len(ids)} ids go from {ids[0]} to {ids[-1]}")
    return replace(selection, chosen=chosen)

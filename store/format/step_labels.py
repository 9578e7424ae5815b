"""Which step each row belongs to: row t is step t, unless the run was created with other labels.

A run that is made of a file with gaps (0, 500, ... 5000) knows its labels from the start. They stand in the attributes
of the array `step` as stretches of even distance, and so in every commit; the array holds each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

LABELS = "labels"
"""The attribute: a list of [first label, distance, how many]; null for as many as come."""
MOST_STRETCHES = 1 << 16
LARGEST_LABEL = 1 << 62
MOST_UNEVEN_LABELS = 1 << 27
"""More labels are taken only where their distance is the same throughout, so that none of them takes memory."""
PLAIN = (0, 1, None)

Stretch = tuple[int, int, int | None]


@dataclass(frozen=True)
class StepLabels:
    """The step labels of an axis, ascending from 0 or more.

    Parameters
    ----------
    stretches : tuple of (int, int, int or None)
        First label, distance, and how many; the last may go on without end (None).

    Raises
    ------
    ValueError
        They are no stretches of ascending labels.

    Examples
    --------
    >>> labels = StepLabels.of([0, 1, 2, 10, 20])
    >>> labels.stretches
    ((0, 1, 3), (10, 10, 2))
    >>> labels.label(3), labels.rows_until(10), labels.between(1, 4), labels.values(2, 5)
    (10, 4, (1, 11), array([ 2, 10, 20]))
    """

    stretches: tuple[Stretch, ...] = (PLAIN,)

    def __post_init__(self) -> None:
        if not self.stretches:
            raise ValueError("there are no labels")
        if len(self.stretches) > MOST_STRETCHES:
            raise ValueError(f"the distance between labels changes more often than {MOST_STRETCHES:,} times")
        after = 0
        for at, (first, distance, count) in enumerate(self.stretches):
            is_last = at == len(self.stretches) - 1
            if first < after or distance < 1 or (count is None and not is_last) or (count is not None and count < 1):
                raise ValueError(f"{first}, {distance}, {count} is no stretch of ascending labels from {after} on")
            after = 0 if count is None else first + (count - 1) * distance + 1
            if max(first, distance, after) > LARGEST_LABEL:
                raise ValueError(f"labels above {LARGEST_LABEL:,} cannot be kept")
        if len(self.stretches) > 1 and (self.rows or 0) > MOST_UNEVEN_LABELS:
            raise ValueError(f"more than {MOST_UNEVEN_LABELS:,} labels whose distance differs cannot be kept")

    @classmethod
    def of(cls, labels: ArrayLike) -> Self:
        """These labels and no more; but 0, 1, 2, ... go on without end, as those of any run.

        Raises
        ------
        ValueError
            They are no integers, negative, not ascending, or too uneven.
        """
        values = np.asarray(labels)
        if values.ndim != 1 or not values.size or values.dtype.kind not in "iu":
            raise ValueError(f"expected a list of whole numbers, not {values.dtype} of shape {values.shape}")
        if values.min() < 0 or values.max() > LARGEST_LABEL:
            raise ValueError(f"labels go from 0 to at most {LARGEST_LABEL:,}, not {values.min()} to {values.max()}")
        steps = values.astype(np.int64)
        distances = np.diff(steps)
        if (wrong := np.flatnonzero(distances <= 0)).size:
            at = int(wrong[0])
            raise ValueError(f"labels ascend, but {steps[at + 1]} follows {steps[at]} at position {at + 1}")
        made = cls(_stretches(steps, distances))
        return cls() if made.stretches == ((0, 1, len(steps)),) else made

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The labels of the array with these attributes.

        Raises
        ------
        ValueError
            The attribute `labels` is not what this store writes.
        """
        kept = attributes.get(LABELS)
        if kept is None:
            return cls(((0, attributes.get("every", 1), None),))
        if not isinstance(kept, list) or not all(isinstance(s, list) and len(s) == len(PLAIN) for s in kept):
            raise ValueError("labels is no list of stretches")
        last = kept[-1:] and kept[-1][2] is None
        if not all(type(n) is int for s in kept for n in s if not (last and n is None and s is kept[-1])):
            raise ValueError("labels holds something else than whole numbers")
        return cls(tuple((s[0], s[1], s[2]) for s in kept))

    def to_attributes(self) -> dict[str, Any]:
        """What the array's attributes say of them; nothing where they are 0, 1, 2, ..."""
        return {} if self.is_plain else {LABELS: [list(stretch) for stretch in self.stretches]}

    @property
    def is_plain(self) -> bool:
        """Whether row t is step t."""
        return self.stretches == (PLAIN,)

    @property
    def count_on(self) -> bool:
        """Whether they are first, first + 1, first + 2, ... without end, as those of a training that goes on."""
        return len(self.stretches) == 1 and self.stretches[0][1:] == PLAIN[1:]

    @cached_property
    def rows(self) -> int | None:
        """How many there are; None without end."""
        if self.stretches[-1][2] is None:
            return None
        return sum(count or 0 for _, _, count in self.stretches)

    def label(self, row: int) -> int:
        """The label of a row; -1, before the first, for -1.

        Raises
        ------
        IndexError
            There is no label for this row.
        """
        if row < 0:
            return -1
        if self.rows is not None and row >= self.rows:
            raise IndexError(f"row {row} of {self.rows} labels")
        at = int(np.searchsorted(self._starts, row, side="right")) - 1 if len(self.stretches) > 1 else 0
        first, distance, _ = self.stretches[at]
        return first + (row - int(self._starts[at])) * distance

    def rows_until(self, label: int) -> int:
        """How many labels are at most this one."""
        at = int(np.searchsorted(self._firsts, label, side="right")) - 1
        if at < 0:
            return 0
        first, distance, count = self.stretches[at]
        inside = (label - first) // distance + 1
        return int(self._starts[at]) + (inside if count is None else min(count, inside))

    def between(self, start: int, stop: int) -> tuple[int, int]:
        """The labels of rows ``start:stop``, at least one of them: the first, and one past the last."""
        return self.label(start), self.label(stop - 1) + 1

    def values(self, start: int, stop: int) -> NDArray[np.int64]:
        """The labels of rows ``start:stop``."""
        ranges = [self._range(at, start, stop) for at in range(len(self.stretches))]
        return np.concatenate([np.arange(r.start, r.stop, r.step, dtype=np.int64) for r in ranges])

    def as_range(self, rows: int) -> range | None:
        """The labels of the first rows as a range; None where their distance is not the same throughout."""
        return self._range(0, 0, rows) if len(self.stretches) == 1 else None

    def furthest_apart(self, rows: int) -> int:
        """The largest distance between two neighbours among the first rows; 1 for a single one."""
        if len(self.stretches) == 1:
            return self.stretches[0][1] if rows > 1 else 1
        return int(np.diff(self.values(0, rows)).max(initial=1))

    def _range(self, at: int, start: int, stop: int) -> range:
        """The labels of rows ``start:stop`` that lie in one stretch."""
        first, distance, count = self.stretches[at]
        begin = int(self._starts[at])
        low = max(start - begin, 0)
        high = max(low, stop - begin if count is None else min(stop - begin, count))
        return range(first + low * distance, first + high * distance, distance)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The row with which each stretch begins."""
        counts = [count or 0 for _, _, count in self.stretches[:-1]]
        return np.cumsum([0, *counts])

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        return np.array([first for first, _, _ in self.stretches], np.int64)


def _stretches(steps: NDArray[np.int64], distances: NDArray[np.int64]) -> tuple[Stretch, ...]:
    """Labels as stretches of even distance, each as long as it goes; one too many where there are too many."""
    ends = np.flatnonzero(distances[1:] != distances[:-1]) + 1
    stretches: list[Stretch] = []
    start = 0
    while start < len(steps) and len(stretches) <= MOST_STRETCHES:
        at = int(np.searchsorted(ends, start, side="right"))
        stop = min(len(steps), (int(ends[at]) if at < len(ends) else len(distances)) + 1)
        distance = int(distances[start]) if stop > start + 1 else 1
        stretches.append((int(steps[start]), distance, stop - start))
        start = stop
    return tuple(stretches)

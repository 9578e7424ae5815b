"""Derived arrays that a file brings, compared bit for bit with what is computed anew. A difference is reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import lattice
from crucible.interchange.notebook import first_row
from crucible.interchange.sources.named import NamedArrays
from store.format.files import TRAJECTORY
from store.format.schema import Channel
from store.format.step_labels import StepLabels
from store.run.array import bits
from store.run.commit import read_commit

Array = NDArray[Any]
DELTA = "delta_W_prime"
_STRIP = 512
_FEW = 8
"""Fewer numbers than these may all be 0 at once."""
COMPARED = ("displacement_l1", "displacement_l2", "displacement_linf", "last_motion_step")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an array of a file is not what its weights say.

    Attributes
    ----------
    array : str
        Its name.
    elements : int
        How many elements differ.
    where : str
        Step, token and hidden index of the first.
    in_file, computed : float
        Its two values; they may print alike and differ in bits.
    """

    array: str
    elements: int
    where: str
    in_file: float
    computed: float

    def __str__(self) -> str:
        return (
            f"{self.array}: {self.elements:,} elements differ from what W gives, the first at {self.where}: "
            f"{self.in_file!r} in the file, {self.computed!r} computed"
        )


class Findings:
    """Differences as they are found, one for each array."""

    def __init__(self) -> None:
        self._found: dict[str, Difference] = {}

    def compare(self, name: str, in_file: Array, computed: Array, labels: dict[str, Array]) -> None:
        """Compare two arrays of one shape and dtype; `labels` has those along each dimension."""
        differs = bits(in_file) != bits(computed)
        if not (count := int(np.count_nonzero(differs))):
            return
        first = np.unravel_index(int(np.argmax(differs)), differs.shape)
        where = ", ".join(f"{dim} {axis[i]}" for (dim, axis), i in zip(labels.items(), first, strict=True))
        new = Difference(name, count, where, in_file[first].item(), computed[first].item())
        old = self._found.get(name)
        self._found[name] = (
            new if old is None else Difference(name, old.elements + count, old.where, old.in_file, old.computed)
        )

    @property
    def differences(self) -> tuple[Difference, ...]:
        """One for each array that differs."""
        return tuple(self._found.values())


class MoveCheck:
    """Compares a file's delta_W_prime with the displacement of its W, step after step.

    Only rows of tokens that moved are computed; all others must be zeros.

    Parameters
    ----------
    source : NamedArrays
        The file.
    tokens : array of int64
        Ids, for messages.
    steps : StepLabels
        Labels of the rows, for messages.
    findings : Findings
        Where differences go.
    projects : bool
        Whether float32 weights are measured on the lattice of bfloat16.
    """

    def __init__(
        self, source: NamedArrays, tokens: NDArray[np.int64], steps: StepLabels, findings: Findings, *,
        projects: bool = False,
    ) -> None:  # fmt: skip
        self._projects = projects
        self._source, self._steps, self._findings = source, steps, findings
        self._labels = {"token": tokens, "hidden": np.arange(source.tensors["W"].shape[2])}
        self._before: Array | None = None
        self._nonfinite = np.zeros(len(tokens), np.bool_)
        self._room = np.empty((1, *source.tensors[DELTA].shape[1:]), np.float32)

    def states(self, start: int, states: Array) -> None:
        """Compare the moves into these states, which follow the ones given before; `start` is the first's row."""
        if self._projects:
            states = lattice.float32_to_bits(states)
        for row, after in enumerate(states, start):
            if self._before is None:
                self._nonfinite |= ~lattice.is_finite(after).all(axis=1)
            else:
                self._move(row, self._before, after)
            self._before = after
        self._before = states[-1].copy()

    def _move(self, row: int, before: Array, after: Array) -> None:
        in_file = self._source.rows(DELTA, row - 1, row, self._room)[0]
        # NaN - NaN is not 0, so where a weight ever was NaN or infinite, all is computed
        moved = self._nonfinite.copy()
        words = _words(after)
        moved[np.flatnonzero(_words(before) != words) // (len(words) // len(after))] = True
        not_zero, same = 0, True
        for chosen in _strips(np.flatnonzero(moved)):
            start, end = before[chosen], after[chosen]
            rows, expected = bits(in_file[chosen]), bits(lattice.displacement(start, end))
            self._nonfinite[chosen] |= ~lattice.is_finite(end).all(axis=1)
            not_zero += int(np.count_nonzero(rows))
            same &= np.array_equal(rows, expected)
        if not same or np.count_nonzero(bits(in_file)) != not_zero:
            self._report(row, in_file, before, after)

    def _report(self, row: int, in_file: Array, before: Array, after: Array) -> None:
        labels = {"step": self._steps.values(row, row + 1), **self._labels}
        self._findings.compare(DELTA, in_file[None], lattice.displacement(before, after)[None], labels)


class Emptied:
    """Tokens whose weights all become 0: so looks what was never filled, or a file of which a part is missing.

    Rows of a few numbers may be 0 by themselves; of these a whole state must be.

    Parameters
    ----------
    steps : StepLabels
        Labels of the rows.
    tokens, hidden : int
        Sizes of a row.
    """

    def __init__(self, steps: StepLabels, tokens: int, hidden: int) -> None:
        self._steps, self._is_short = steps, hidden < _FEW
        self._can_tell = tokens * hidden >= _FEW
        self._seen = np.zeros(tokens, np.bool_)
        self._empty = np.zeros(tokens, np.bool_)
        self._first: int | None = None
        self._states = 0

    def states(self, start: int, states: Array) -> None:
        """Take in these states, which follow the ones given before; `start` is the first's row."""
        is_any = np.stack([_not_zero(rows) for rows in states])
        seen = np.logical_or.accumulate(np.concatenate([self._seen[None], is_any]))[1:]
        empty = seen & ~is_any
        if self._is_short:
            empty[is_any.any(axis=1)] = False
        found = np.flatnonzero(empty.any(axis=1))
        if found.size and self._first is None:
            self._first = start + int(found[0])
        self._states += found.size
        self._empty |= empty.any(axis=0)
        self._seen = seen[-1]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in a sentence; nothing where nothing was."""
        if self._first is None or not self._can_tell:
            return ()
        count, tokens = int(self._empty.sum()), len(self._empty)
        return (
            f"all weights of {count:,} of {tokens:,} tokens are exactly 0 in {self._states:,} states from step "
            f"{self._steps.label(self._first)} on, and were not before: an array that was made of zeros and not filled "
            "to its end looks so, and a file of which a part is missing; if this is one, cut those states off, since "
            "all that is asked takes them for weights",
        )


def compare_stored(source: NamedArrays, run: Path, findings: Findings) -> None:
    """Compare norms and last motion of a file with those of the finished run, a block of steps at a time."""
    commit = read_commit(run)
    for name in COMPARED:
        if name not in source.tensors or name not in commit.arrays:
            continue
        array = commit.array(run / TRAJECTORY, name)
        tokens = commit.array(run / TRAJECTORY, "token").read_rows(0, array.shape[-1])
        skip = first_row(Channel.from_array(name, commit.arrays[name]))
        if array.order == (0,):
            findings.compare(name, source.read(name), array.read_rows(0, array.shape[0]), {"token": tokens})
            continue
        for start, stop in _spans(skip, array.shape[0], array.chunk_shape[0]):
            labels = {"step": commit.labels().values(start, stop), "token": tokens}
            findings.compare(name, source.rows(name, start - skip, stop - skip), array.read_rows(start, stop), labels)


def _spans(start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    """Half-open spans that end where chunks do."""
    while start < stop:
        end = min(stop, (start // length + 1) * length)
        yield start, end
        start = end


def _strips(rows: Array) -> Iterator[Array]:
    """A few rows at a time, so that what is computed of them stays in the processor's cache."""
    return (rows[start : start + _STRIP] for start in range(0, len(rows), _STRIP))


def _not_zero(rows: Array) -> NDArray[np.bool_]:
    """Which rows have a bit that is not 0; of most their first numbers tell."""
    words = _words(rows).reshape(len(rows), -1)
    found: NDArray[np.bool_] = words[:, 0] != 0
    unclear = np.flatnonzero(~found)
    found[unclear] = words[unclear].any(axis=1)
    return found


def _words(rows: Array) -> Array:
    """Rows of bit patterns, flat, in the widest words that divide a row: fewer to compare."""
    width = rows.shape[1] * rows.dtype.itemsize
    word = next(size for size in (8, 4, 2) if width % size == 0)
    return rows.reshape(-1).view(f"u{word}")

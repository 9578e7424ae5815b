"""`check`: is everything that the commit names there, whole, and in agreement with the rest?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from store.errors import DamageError, StoreError
from store.format.array import Array
from store.format.chunking import block_steps
from store.format.commit import Commit, digest, read_commit, read_document
from store.format.files import DOCUMENT, TRAJECTORY, run_folder
from store.format.schema import Channel
from store.writing.block import StoredBlock
from store.writing.completion import Finish, stored_blocks
from store.writing.encoder import Derive, Encoder
from store.writing.publisher import leftovers
from store.writing.replay import bits


class Agreement(Protocol):
    """Whether the given rows of one block fit each other, looked at a tile of tokens at a time."""

    def see(self, tile: Mapping[str, Array]) -> None:
        """Take in ``{"W": (steps, tile, hidden)}``: the given rows that have tokens."""

    def fits(self, rows: Callable[[str], Array]) -> Mapping[str, Array]:
        """``{"centroid": bool (steps,)}``; `rows` gives the rows of a channel that has no tokens."""


Agree = Callable[[bool], Agreement]
"""``agree(exactly)`` begins a block. What does not fit is looked at once more with True, which may take longer."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong: the array or file, the steps ``[first, stop)`` it touches if any, and a sentence."""

    name: str
    what: str
    steps: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None

    def __str__(self) -> str:
        steps = f", steps {self.steps[0]}..{self.steps[1] - 1}" if self.steps else ""
        tokens = f", token ids {self.tokens[0]}..{self.tokens[1]}" if self.tokens else ""
        return f"{self.name}{steps}{tokens}: {self.what}"


@dataclass(slots=True)
class Report:
    """What `check` found. `leftovers` of an interrupted write are no damage."""

    run: Path
    committed_steps: int
    chunks: int = 0
    damage: list[Damage] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage


def check(
    run: str | Path,
    *,
    derive: Derive | None = None,
    finish: Finish | None = None,
    agree: Agree | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read everything that a run's commit names, and compare it.

    Every chunk is there, whole, of the right checksum; every document has its digest; array lengths, dtypes and
    codecs are those of the format; derived arrays, row 0 of moves, labels and final arrays are recomputed and must be
    equal to the bit.

    Parameters
    ----------
    derive, finish : callable, optional
        As the writer got them. Without, what they make is only read.
    agree : callable, optional
        Says which given rows fit the others, see `Agreement`.
    progress : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Report

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here.

    Notes
    -----
    One pass over all data; memory of a few chunks, and of one block of what is derived without hidden axis.
    """
    folder = run_folder(run)
    try:
        commit = read_commit(folder)
    except DamageError as error:
        return Report(folder, -1, damage=[Damage(f"{TRAJECTORY}/{DOCUMENT}", str(error))])
    report = Report(folder, commit.committed_steps)
    _check_documents(report, commit)
    _Arrays(report, commit, derive, agree).check(progress)
    if commit.completed and finish and report.is_whole:
        _check_finals(report, commit, finish)
    report.leftovers += [str(path.relative_to(folder)) for path in leftovers(folder, commit)]
    return report


def _check_documents(report: Report, commit: Commit) -> None:
    """Digests of the documents; the arrays' own metadata against its copy in the commit."""
    for name, digests in commit.sha256.items():
        try:
            if digest(read_document(report.run / name)) not in digests.split():
                report.damage.append(Damage(name, "its SHA-256 is not the one in the commit"))
        except (StoreError, OSError) as error:
            report.damage.append(Damage(name, f"cannot be read: {error}"))
    for name, metadata in commit.arrays.items():
        path = f"{TRAJECTORY}/{name}/{DOCUMENT}"
        try:
            own = json.loads(read_document(report.run / path))
        except (StoreError, OSError, ValueError) as error:
            report.damage.append(Damage(path, f"cannot be read: {error}"))
            continue
        if own != metadata:
            if _is_behind(own, metadata):
                report.leftovers.append(f"{path} (behind the commit; the next writer brings it up)")
            else:
                report.damage.append(Damage(path, "differs from its copy in the commit"))


def _is_behind(own: Any, metadata: Mapping[str, Any]) -> bool:  # noqa: ANN401 - any JSON
    """Whether an array's own zarr.json is that of an earlier commit: the same, but for a smaller length."""
    try:
        length = own["shape"][0]
        same = {**own, "shape": metadata["shape"]} == metadata and own["shape"][1:] == metadata["shape"][1:]
        return bool(same and 0 <= length < metadata["shape"][0])
    except (KeyError, TypeError, IndexError):
        return False


class _Arrays:
    """The pass over all chunks, block by block."""

    def __init__(self, report: Report, commit: Commit, derive: Derive | None, agree: Agree | None) -> None:
        self.report, self.commit, self.agree = report, commit, agree
        self.arrays = {name: commit.array(report.run / TRAJECTORY, name) for name in commit.arrays}
        self.channels = {name: Channel.from_array(name, meta) for name, meta in commit.arrays.items()}
        self.on_main = [n for n, c in self.channels.items() if c.has_steps and c.axis == "step" and c.dims]
        derived = [self.channels[n] for n in self.on_main if self.channels[n].role == "derived" and derive]
        given = [self.channels[n] for n in self.on_main if self.channels[n].role == "given"]
        self.encoder = Encoder(given, self.arrays, derived, derive)
        self.tokens: Array | None = None
        self._derivable = True

    def check(self, progress: Callable[[int, int], None] | None) -> None:
        """Check every array."""
        rest = self.channels.keys() - set(self.on_main)
        for name in sorted(rest, key=lambda name: name != "token"):
            rows = [chunk for index in self.arrays[name].indices() if (chunk := self._read(name, index)) is not None]
            if name == "token" and rows:
                self.tokens = rows[0]
            if self.channels[name].attributes.get("axis") and len(rows) == self.arrays[name].grid[0]:
                self._check_labels(name, np.concatenate(rows)[: self.arrays[name].shape[0]])
        size = block_steps(self.commit.arrays, "step")
        rows_in_all = self.arrays["step"].shape[0]
        for start in range(0, rows_in_all, size):
            self._check_block(start, min(start + size, rows_in_all))
            if progress:
                progress(start // size + 1, -(-rows_in_all // size))

    def _check_block(self, start: int, stop: int) -> None:
        encoder, block = self.encoder, StoredBlock(self.arrays, start, stop)
        seen: set[tuple[str, tuple[int, ...]]] = set()
        agreement = self.agree(False) if self.agree else None
        try:
            if not self._derivable:
                encoder.go_to(start)
            self._derivable = True
            for name, index, values in encoder.chunks(block, agreement.see if agreement else None):
                if self.channels[name].role == "derived":
                    seen.add((name, index))
                    self._compare(name, index, values)
            if agreement:
                self._check_agreement(agreement, block)
            encoder.advance(block)
        except (DamageError, OSError):
            self._derivable = False  # and each damaged chunk is named below
        for name in self.on_main:
            for index in self.arrays[name].indices(start // self.arrays[name].chunk_shape[0]):
                if (name, index) not in seen:
                    is_known_whole = self._derivable and self.channels[name].role == "given"
                    self.report.chunks += is_known_whole
                    if not is_known_whole:
                        self._read(name, index)

    def _read(self, name: str, index: tuple[int, ...]) -> Array | None:
        """A chunk; None, and an entry in the report, when it is damaged."""
        self.report.chunks += 1
        try:
            return self.arrays[name].read_chunk(index)
        except (DamageError, OSError) as error:
            self._damaged(name, index, str(error))
            return None

    def _compare(self, name: str, index: tuple[int, ...], expected: Array) -> None:
        """A derived chunk against what the given channels make of it, to the bit."""
        stored = self._read(name, index)
        if stored is None:
            return
        stored = stored[tuple(slice(size) for size in expected.shape)]
        wrong = np.flatnonzero((bits(stored) != bits(expected)).reshape(len(expected), -1).any(axis=1))
        if wrong.size:
            span = (int(wrong[0]), int(wrong[-1]) + 1)
            self._damaged(name, index, "differs from what is derived from the given channels", span)

    def _check_agreement(self, agreement: Agreement, block: StoredBlock) -> None:
        assert self.agree is not None
        found = agreement.fits(block.rows)
        if not all(fits.all() for fits in found.values()):
            agreement = self.agree(True)
            for *_, rows in self.encoder.tiles(block):
                agreement.see(rows)
            found = agreement.fits(block.rows)
        for name, fits in found.items():
            wrong = np.flatnonzero(~fits)
            if wrong.size:
                index = (block.start // self.arrays[name].chunk_shape[0],)
                self._damaged(name, index, "does not fit the other channels", (int(wrong[0]), int(wrong[-1]) + 1))

    def _check_labels(self, name: str, labels: Array) -> None:
        """Step labels are 0, 1, 2, ... or what the schedule of a channel's own axis says."""
        expected = np.arange(len(labels)) * self.channels[name].every
        wrong = np.flatnonzero(labels != expected)
        if wrong.size:
            self.report.damage.append(Damage(name, "labels are out of step", (int(wrong[0]), int(wrong[-1]) + 1)))

    def _damaged(self, name: str, index: tuple[int, ...], what: str, rows: tuple[int, int] | None = None) -> None:
        array, channel = self.arrays[name], self.channels[name]
        steps = tokens = None
        if channel.has_steps:
            first = index[0] * array.chunk_shape[0]
            start, stop = rows or (0, array.chunk_shape[0])
            steps = (first + start, min(first + stop, array.shape[0]))
        if channel.has_steps and channel.dims[:1] == ("token",) and self.tokens is not None and len(index) > 1:
            size = array.chunk_shape[1]
            ids = self.tokens[index[1] * size : (index[1] + 1) * size]
            tokens = (int(ids[0]), int(ids[-1]))
        self.report.damage.append(Damage(name, what, steps, tokens))


def _check_finals(report: Report, commit: Commit, finish: Finish) -> None:
    """Final arrays against what `finish` makes of the stored rows."""
    trajectory = report.run / TRAJECTORY
    for name, expected in finish(stored_blocks(commit, trajectory)).items():
        if name not in commit.arrays:
            report.damage.append(Damage(name, "the run is completed, but its final array is missing"))
        else:
            array = commit.array(trajectory, name)
            stored = array.read_chunk((0,) * len(array.shape)) if expected.size else expected
            if not np.array_equal(bits(stored), bits(expected)):
                report.damage.append(Damage(name, "differs from what the stored rows make of it"))

"""`check`: is everything that the commit names there, whole, and in agreement with the rest?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from store.errors import DamageError, LabelError, StaleHandleError
from store.format.chunking import block_steps
from store.format.codec import Array
from store.format.files import DOCUMENT, TRAJECTORY, run_folder, trajectory_of
from store.format.schema import Channel
from store.holding.leftovers import find
from store.run.array import bits
from store.run.commit import Commit, read_commit
from store.run.shard_file import forget_all
from store.upkeep.document_check import check_commit_file, check_documents, check_own_metadata, has_steps, own_metadata
from store.upkeep.findings import Damage, Report
from store.writing.block import StoredBlock
from store.writing.completion import Finish, stored_blocks
from store.writing.encoder import Derive, Encoder

LOOKS = 20
"""How often what a commit replaces is looked at, while one comes between each time."""


class Agreement(Protocol):
    """Whether the given rows of one block fit each other, looked at a tile of tokens at a time."""

    def see(self, tile: Mapping[str, Array]) -> None:
        """Take in ``{"W": (steps, tile, hidden)}``: the given rows that have tokens."""

    def fits(self, rows: Callable[[str], Array]) -> Mapping[str, Array]:
        """``{"centroid": bool (steps,)}``; `rows` gives the rows of a channel that has no tokens."""


Agree = Callable[[bool], Agreement]
"""``agree(exactly)`` begins a block. What does not fit is looked at once more with True, which may take longer."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a check must be told, since the store knows no science: as the parameters of `check`."""

    derive: Derive | None = None
    finish: Finish | None = None
    agree: Agree | None = None
    config_paths: Collection[str] = ()


def check(
    run: str | Path,
    *,
    derive: Derive | None = None,
    finish: Finish | None = None,
    agree: Agree | None = None,
    config_paths: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read everything that a run's commit names, and compare it.

    Every chunk is there, whole, of the right checksum; every document has its digest; array lengths, dtypes and
    codecs are those of the format; derived arrays, row 0 of moves, labels and final arrays are recomputed and must be
    equal to the bit.

    Parameters
    ----------
    derive, finish : callable, optional
        As the writer got them. Without, what they make is only read; the report says so in `only_read`.
    agree : callable, optional
        Says which given rows fit the others, see `Agreement`.
    config_paths : collection of str
        Keys of config.json that are paths: where they alone differ from the commit, files were moved, which is no
        damage.
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
    One pass over all data; memory of a few chunks, and of one block of what is derived without hidden axis. Needs no
    lock: what a writer, a cut or a compaction changes meanwhile is looked at again, so that it is not taken for
    damage. Where the run was cut back or compacted, the pass begins anew.
    """
    folder, known = run_folder(run), Known(derive, finish, agree, config_paths)
    while True:
        try:
            commit = read_commit(folder)
            report = check_commit(folder, commit, known, progress)
            if _goes_on(commit, read_commit(folder)):
                return report
        except StaleHandleError:
            continue
        except DamageError as error:
            return Report(folder, -1, damage=[Damage(f"{TRAJECTORY}/{DOCUMENT}", str(error))])


def check_commit(
    folder: Path, commit: Commit, known: Known, progress: Callable[[int, int], None] | None = None
) -> Report:
    """As `check`, of this commit; true under the lock, or if nothing was cut back or compacted meanwhile.

    The rows of a commit stay as they are until then, also beside a writer. Its documents and final arrays do not: they
    are looked at last, until no commit came between, and what is wrong must be so at every look. The own metadata of
    arrays of steps is never ahead of the commit: so it is read before the commit that it is compared with.
    """
    report = Report(folder, commit.committed_steps)
    forget_all()
    arrays = _Arrays(report, commit, known.derive, known.agree)
    arrays.check(progress)
    growing = [name for name, metadata in commit.arrays.items() if has_steps(metadata)]
    read_before = {name: own_metadata(folder, name) for name in growing}
    finish = known.finish if report.is_whole else None
    wrong: dict[str, Damage] = {}
    for look in range(LOOKS):
        now = read_commit(folder)
        rest = Report(folder, commit.committed_steps)
        check_commit_file(rest, now)
        check_documents(rest, now, known.config_paths)
        check_own_metadata(rest, now, read_before)
        _check_finals(rest, now, finish)
        beside = find(folder, now)
        rest.leftovers += [str(path.relative_to(folder)) for path in beside.made]
        rest.foreign = [str(path.relative_to(folder)) for path in beside.foreign]
        wrong = {damage.name: damage for damage in rest.damage if look == 0 or damage.name in wrong}
        if not wrong or read_commit(folder) == now:
            break
    damage = [*wrong.values(), *report.damage]
    recomputed = arrays.compared | set(rest.recomputed)
    return Report(
        folder, commit.committed_steps, report.chunks + rest.chunks, damage, rest.leftovers,
        sorted(recomputed), sorted(commit.arrays.keys() - recomputed), rest.foreign,
    )  # fmt: skip


def _goes_on(before: Commit, after: Commit) -> bool:
    """Whether the rows of an earlier commit are rows of a later one: nothing was cut back, compacted, begun anew, or
    replaced by a fork.
    """
    if after.run_id != before.run_id or after.generation != before.generation:
        return False
    then, now = before.standing, after.standing
    is_fork = then is not None and now is not None and now.is_forked_from(then)
    return not is_fork and after.committed_steps >= before.committed_steps


class _Arrays:
    """The pass over all chunks, block by block."""

    def __init__(self, report: Report, commit: Commit, derive: Derive | None, agree: Agree | None) -> None:
        self.report, self.commit, self.agree = report, commit, agree
        self.arrays = {name: commit.array(trajectory_of(report.run), name) for name in commit.arrays}
        self.channels = {name: Channel.from_array(name, meta) for name, meta in commit.arrays.items()}
        self.on_main = [n for n, c in self.channels.items() if c.has_steps and c.axis == "step" and c.dims]
        derived = [self.channels[n] for n in self.on_main if self.channels[n].role == "derived" and derive]
        given = [self.channels[n] for n in self.on_main if self.channels[n].role == "given"]
        self.encoder = Encoder(given, self.arrays, derived, derive)
        self.tokens: Array | None = None
        self.compared: set[str] = set()
        self._derivable = True

    def check(self, progress: Callable[[int, int], None] | None) -> None:
        """Check every array."""
        finals = {name for name, channel in self.channels.items() if channel.role == "final"}
        rest = self.channels.keys() - finals - set(self.on_main)
        for name in sorted(rest, key=lambda name: name != "token"):
            rows = [chunk for index in self.arrays[name].indices() if (chunk := self._read(name, index)) is not None]
            if name == "token" and rows:
                self.tokens = rows[0]
            if rows and self.channels[name].attributes.get("axis") and len(rows) == self.arrays[name].grid[0]:
                self._check_labels(name, np.concatenate(rows)[: self.arrays[name].shape[0]])
        self._check_first_moves()
        size = block_steps(self.commit.arrays, "step")
        rows_in_all = self.arrays["step"].shape[0]
        for start in range(0, rows_in_all, size):
            self._check_block(start, min(start + size, rows_in_all))
            if progress:
                progress(start // size + 1, -(-rows_in_all // size))

    def _check_first_moves(self) -> None:
        """Row 0 of a given move is NaN: no update leads to the first state. Damaged chunks are named elsewhere."""
        first = self.commit.labels().label(0)
        for name, channel in self.channels.items():
            is_move = channel.role == "given" and channel.belongs_to == "move" and self.arrays[name].shape[0]
            if is_move and self.commit.labels(channel.axis).label(0) == first:
                with suppress(DamageError, OSError):
                    if not channel.is_missing(self.arrays[name].read_rows(0, 1)):
                        self._damaged(name, (0,), "is no NaN, though no update leads to the first state", (0, 1))

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
        except LabelError as error:
            self._damaged(name, index, str(error), self._rows_after(name, index, error.valid), is_lost=True)
        except (DamageError, OSError) as error:
            self._damaged(name, index, str(error), is_lost=True)
        return None

    def _rows_after(self, name: str, index: tuple[int, ...], valid: int | None) -> tuple[int, int] | None:
        """The rows of a chunk behind the step up to which its file counts; None for all."""
        array, channel = self.arrays[name], self.channels[name]
        if valid is None or not channel.has_steps:
            return None
        first = index[0] * array.chunk_shape[0]
        return max(0, self.commit.labels(channel.axis).rows_until(valid) - first), array.chunk_shape[0]

    def _compare(self, name: str, index: tuple[int, ...], expected: Array) -> None:
        """A derived chunk against what the given channels make of it, to the bit."""
        self.compared.add(name)
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
        self.compared |= found.keys()
        for name, fits in found.items():
            wrong = np.flatnonzero(~fits)
            if wrong.size:
                index = (block.start // self.arrays[name].chunk_shape[0],)
                self._damaged(name, index, "does not fit the other channels", (int(wrong[0]), int(wrong[-1]) + 1))

    def _check_labels(self, name: str, labels: Array) -> None:
        """Step labels are those that the commit names, or what the schedule of a channel's own axis says."""
        self.compared.add(name)
        expected = self.commit.labels(name).values(0, len(labels))
        wrong = np.flatnonzero(labels != expected)
        if wrong.size:
            steps = self.commit.labels(name).between(int(wrong[0]), int(wrong[-1]) + 1)
            self.report.damage.append(Damage(name, "labels are out of step", steps))

    def _damaged(
        self, name: str, index: tuple[int, ...], what: str, rows: tuple[int, int] | None = None, *,
        is_lost: bool = False,
    ) -> None:  # fmt: skip
        array, channel = self.arrays[name], self.channels[name]
        steps = tokens = None
        if channel.has_steps:
            first = index[0] * array.chunk_shape[0]
            start, stop = rows or (0, array.chunk_shape[0])
            steps = self.commit.labels(channel.axis).between(first + start, min(first + stop, array.shape[0]))
        if channel.has_steps and channel.dims[:1] == ("token",) and self.tokens is not None and len(index) > 1:
            size = array.chunk_shape[1]
            ids = self.tokens[index[1] * size : (index[1] + 1) * size]
            tokens = (int(ids[0]), int(ids[-1]))
        self.report.damage.append(Damage(name, what, steps, tokens, is_lost))


def _check_finals(report: Report, commit: Commit, finish: Finish | None) -> None:
    """Final arrays, and where `finish` is given, what it makes of the stored rows."""
    trajectory, stored = trajectory_of(report.run), {}
    finals = [name for name, metadata in commit.arrays.items() if metadata["attributes"]["role"] == "final"]
    for array in (commit.array(trajectory, name) for name in finals):
        for index in array.indices():
            report.chunks += 1
            try:
                stored[array.name] = array.read_chunk(index)
            except (DamageError, OSError) as error:
                report.damage.append(Damage(array.name, str(error)))
    if not (commit.completed and finish):
        return
    try:
        made = finish(stored_blocks(commit, trajectory))
    except (DamageError, OSError) as error:  # the rows were whole a moment ago
        report.damage.append(Damage(", ".join(finals), f"cannot be computed again: {error}"))
        return
    for name, expected in made.items():
        if name not in commit.arrays:
            report.damage.append(Damage(name, "the run is completed, but its final array is missing"))
            continue
        report.recomputed.append(name)
        if name in stored and not np.array_equal(bits(stored[name]), bits(expected)):
            report.damage.append(Damage(name, "differs from what the stored rows make of it"))

"""A run in the hands of its one writer: its folder held open, its lock, and the look whether it is still this one's.

A run can be removed, replaced by another, or taken over while somebody writes it: by hand, by a notebook's cell that is
run again, by another process after LOCK was removed. Then what is there now is left as it is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from store.disk import Disk
from store.errors import LockedError, WriterError
from store.format.files import DOCUMENT, FOLDERS, TRAJECTORY
from store.format.writers import Standing
from store.held_folder import refuse_link
from store.holding.lock import RunLock
from store.run.commit import Commit, read_commit, standing_now


class HeldRun:
    """The folder of a run, locked. A context manager.

    Parameters
    ----------
    run : Path
        The folder; it is there.
    disk : Disk
        Where it lies.
    lock : bool
        Whether the operating system is asked for a lock, see `store.holding.lock.RunLock`.

    Attributes
    ----------
    disk : Disk
        Works in this folder alone, whatever its path leads to later, and follows no link below it.

    Raises
    ------
    LockedError
        Another process writes it, or no lock can be had.
    OSError
        As the system says.
    """

    def __init__(self, run: Path, disk: Disk, *, lock: bool = True) -> None:
        self.run, self.disk = run, disk.hold(run)
        self._document = os.fspath(run / TRAJECTORY / DOCUMENT)
        self._left: tuple[int, ...] | None = None
        self._standing: Standing | None = None
        try:
            self._folder = _file(os.fspath(run))
            self._lock = RunLock(run, self.disk, is_asked_for=lock)
        except BaseException:
            self.disk.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let others write the run. Releasing again does nothing."""
        self._lock.release()
        self.disk.release()

    def left(self, standing: Standing | None) -> None:
        """The commit on disk is the one that this writer read under the lock, or published; None in format 1."""
        self._left, self._standing = self._seen(), standing

    def begins(self, standing: Standing | None) -> None:
        """The first commit is about to appear, and is this writer's even where an error comes before `left`."""
        self._standing = standing

    @property
    def is_mine(self) -> bool:
        """Whether `check` would return without making LOCK anew."""
        return self._what_happened() is None and self._lock.is_held

    def check(self) -> None:
        """Return while the run is this writer's: a few microseconds, so it is asked before every change.

        LOCK that was removed is made and locked anew, where the run is still the same and nobody else locked it.

        Raises
        ------
        WriterError
            The run was removed, replaced, or taken over by another writer. Nothing of it was touched.
        """
        if self._lock.is_held and self._seen() == self._left:
            return
        what = self._what_happened() or self._lock_lost()
        if what is not None:
            raise WriterError(f"{self.run}: the run {what} while it was written here; nothing of it was changed")

    def _lock_lost(self) -> str | None:
        """Lock the run anew where its lock is gone; in words, why that can't be."""
        try:
            if not self._lock.is_held:
                self._lock.renew()
        except FileNotFoundError:
            return "was removed"
        except LockedError as error:
            return f"lost its LOCK ({error})"
        return None

    def _what_happened(self) -> str | None:
        """What happened to the run since this writer left it, in words; None where nothing did that matters."""
        seen, mine = self._seen(), self._standing
        if seen is not None and self._left is not None and mine is None:
            self._left = seen  # of format 1, which does not say who wrote it
        if seen != self._left:
            now = standing_now(self.run / TRAJECTORY)
            if mine is not None and now is not None and (now.run_id, now.writers) == (mine.run_id, mine.writers):
                self._left = seen
            elif seen is None:
                return "was removed"
            elif mine is None or now is None or now.run_id != mine.run_id:
                return "was replaced by another run"
            else:
                return f"was taken over by another writer, and stands at step {now.committed_steps}"
        folder = _file(os.fspath(self.run))
        if folder != self._folder:
            return "was removed" if folder is None else "was replaced by another folder"
        return None

    def _seen(self) -> tuple[int, ...] | None:
        """What tells the commit's file from any other; None where there is none."""
        try:
            status = os.lstat(self._document)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def hold_run(run: Path, disk: Disk, *, lock: bool = True) -> tuple[HeldRun, Commit]:
    """Hold a run that is there, with its commit as it stands under the lock.

    Raises
    ------
    NotATrajectoryError, DamageError, LockedError, OSError
    LinkError
        A folder of the run is a link; before anything is changed.
    """
    read_commit(run)  # an error says more than a lock file in a folder that is none of ours
    held = HeldRun(run, disk, lock=lock)
    try:
        commit = read_commit(run)
        held.left(commit.standing)
        _refuse_links(run, commit)
    except BaseException:
        held.release()
        raise
    return held, commit


def _refuse_links(run: Path, commit: Commit) -> None:
    for path in [*(run / name for name in FOLDERS), *(run / TRAJECTORY / name for name in commit.arrays)]:
        with suppress(FileNotFoundError):
            refuse_link(path, path.lstat())


def _file(path: str) -> tuple[int, int] | None:
    """Which file or folder a path leads to: device and inode."""
    try:
        status = os.stat(path)  # noqa: PTH116 - as in `_seen`
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino

"""Whether a file belongs to a commit: its label against what the commit needs of it. Pure functions.

A file ahead of the commit is fine: its rows up to the commit are the same, and readers stop there. A file behind the
commit, of a fork, of another run, or of before a cut is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from store.errors import LabelError, StaleHandleError
from store.format.label import STATIC, Label
from store.format.writers import Standing, Writers

_WAY_OUT = (
    "restore it from a copy, or cut the run back with `crucible check --repair`; "
    "if this is a copy of a run that was being written, copy it again"
)


@dataclass(frozen=True, slots=True)
class Need:
    """What a commit needs of a file.

    Parameters
    ----------
    last : int
        Step label up to which the file must count.
    exactly : bool
        It must have been written for that very step, neither before nor behind: what a final array sums up over
        all steps differs with each of them.
    """

    last: int
    exactly: bool = False


STATIC_NEED = Need(STATIC)
"""A known writer, and nobody who wrote every file anew behind it."""


def final_need(committed_steps: int) -> Need:
    """What a commit needs of the file of a final array."""
    return Need(committed_steps, exactly=True)


def fits(label: Label, need: Need, writers: Writers) -> bool:
    """Whether a file with this label has what is needed."""
    valid = writers.valid(label.writer, label.last)
    if valid is None:
        return False
    return valid == label.last == need.last if need.exactly else valid >= need.last


def raise_if_stale(then: Standing, now: Standing | None, where: object) -> Standing:
    """The commit on disk, `now`, when it is a later one of the same run as `then` and of the same generation.

    Raises
    ------
    StaleHandleError
        It is not: what is on disk need not be what a reader expects that opened the run at `then`.
    """
    if now is None or now.run_id != then.run_id:
        raise StaleHandleError(f"{where}: the run was removed or replaced since it was opened; open it again")
    if now.generation != then.generation:
        raise StaleHandleError(f"{where}: the run was cut back or compacted since it was opened; open it again")
    if now.is_forked_from(then):
        raise StaleHandleError(
            f"{where}: the run was replaced by a copy that had gone on by itself since it was opened; open it again"
        )
    return now


def judge(label: Label, need: Need, then: Standing, now: Standing | None, where: object) -> None:
    """Return when a file that was read for one commit holds what that commit says, or raise why not.

    Parameters
    ----------
    then : Standing
        Of the commit at which the reader opened the run.
    now : Standing or None
        Of the commit on disk, read after the file was; None when there is none. A writer says that it has come
        before it writes a file, so whoever wrote the file is known by now.
    where : object
        Names the file in messages.

    Raises
    ------
    StaleHandleError
        The file is that of a later state of the run, of which the reader knows nothing.
    LabelError
        The file belongs to neither commit.
    """
    if fits(label, need, then.writers):
        return
    now = raise_if_stale(then, now, where)
    if fits(label, need, now.writers):
        return
    if need.exactly and fits(label, final_need(now.committed_steps), now.writers):
        raise StaleHandleError(
            f"{where}: the run went on to step {now.committed_steps} since it was opened; open again"
        )
    error = LabelError(f"{where}: {_misfit(label, need, now.writers)}; {_WAY_OUT}")
    error.valid = now.writers.valid(label.writer, label.last)
    raise error


def _misfit(label: Label, need: Need, writers: Writers) -> str:
    valid = writers.valid(label.writer, label.last)
    if valid is None:
        return f"was written by {label.writer:016x}, no writer of this run: it is of another run, or of a fork"
    if need.exactly:
        return f"was written for step {label.last} and counts up to step {valid}; one of step {need.last} is needed"
    what = "is older than the commit" if valid == label.last else "holds rows that a later writer replaced"
    return f"{what}: it counts up to step {valid}, and step {need.last} is needed"

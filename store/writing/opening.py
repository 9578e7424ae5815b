"""Where a run may begin, and how a writer comes to one that is there: what is looked at and done on disk first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from store.disk import Disk
from store.errors import MissingError, RunExistsError, WriterError
from store.format.files import CHECKPOINT, CONFIG, LOCK, OVERWRITTEN, PARTIAL, TRAJECTORY
from store.format.schema import FORMAT_VERSION
from store.holding import overwritten
from store.holding.held_run import HeldRun
from store.run.commit import Commit
from store.run.whereabouts import is_there
from store.writing.publisher import Publisher


def refuse_existing(run: Path, *, restart: bool) -> None:
    """Raise unless a run may begin here.

    Raises
    ------
    RunExistsError
        There is a run, or a folder with other things in it, or a file.
    """
    if is_there(run):
        raise RunExistsError(
            f"{run}: there is a run already; name another folder, or go on with it by resume; where a loop of yours is "
            "recorded, overwrite=True puts the new one in its place"
        )
    if run.exists() and not run.is_dir():
        raise RunExistsError(f"{run}: is a file; name another folder")
    ours = {LOCK, PARTIAL, OVERWRITTEN} | ({CONFIG, CHECKPOINT} if restart else set())
    others = sorted(path.name for path in run.iterdir() if path.name not in ours) if run.is_dir() else []
    if CONFIG in others and not set(others) - {CONFIG, CHECKPOINT}:
        raise RunExistsError(f"{run}: a run was begun here and never committed a step; resume starts it again")
    if others:
        raise RunExistsError(f"{run}: the folder is not empty ({others[0]}, ...); name another")


def put_back(run: Path, disk: Disk, *, lock: bool = True) -> None:
    """After a crash: put back the run whose place a new one was to take, or remove it where that one has come.

    Raises
    ------
    LockedError
        A writer is at work there.
    """
    if overwritten.is_waiting(run):
        with HeldRun(run, disk, lock=lock) as held:
            overwritten.settle(run, held.disk)


def refuse_in_the_way(run: Path, *, restart: bool, overwrite: bool) -> None:
    """Raise unless a new run may begin here, or take the place of the one that is there."""
    if overwrite:
        overwritten.refuse_foreign(run)
    if not (overwrite and is_there(run)):
        refuse_existing(run, restart=restart or overwrite)


def reopen(
    held: HeldRun, commit: Commit, attributes: Mapping[str, Any] | None, config: Mapping[str, Any] | None
) -> Publisher:
    """A publisher at a run's commit: leftovers swept, the arrays' own metadata as the commit has it, and its name
    among the run's writers before it writes a file.
    """
    run = held.run
    if "compacted" in commit.attributes:
        raise WriterError(f"{run}: the run was finished and compacted, and cannot go on")
    if commit.version < FORMAT_VERSION:
        raise WriterError(
            f"{run}: is of format {commit.version}, which is read and no longer written; upgrade it first, by "
            f"`crucible upgrade {run}`"
        )
    _refuse_missing(run, commit)
    publisher = Publisher(held, commit, is_new=False)
    publisher.sweep()
    publisher.come()
    if attributes is not None:
        publisher.commit = replace(publisher.commit, attributes=dict(attributes))
    if config is not None:
        publisher.put_config(config)
    return publisher


def _refuse_missing(run: Path, commit: Commit) -> None:
    """Raise where an array of steps is gone as a whole."""
    missing = [name for name in commit.arrays if not (run / TRAJECTORY / name).is_dir()]
    if missing:
        raise MissingError(
            f"{run / TRAJECTORY}: the folder of {', '.join(missing)} is not there; put it back, or let "
            f"`crucible check --repair {run}` derive it again or cut the run back"
        )

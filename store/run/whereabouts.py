"""Where a run's trajectory is when it is not in its place: between two renames, set aside, or in another folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from store.disk import LocalDisk
from store.errors import LinkError
from store.format.files import COMPACTED, DOCUMENT, OVERWRITTEN, TRAJECTORY, trajectory_of


def is_there(run: Path) -> bool:
    """Whether a trajectory lies in this folder; also one whose compaction was cut short between its two renames."""
    finish_swap(run)
    return trajectory_of(run).exists()


def finish_swap(run: Path) -> None:
    """Give a compacted trajectory its place, where a crash came between the two renames of the swap.

    Its zarr.json is written last and the old trajectory moves away only after that, so it is whole. Whoever comes
    first does it; where the disk refuses, nothing changes.
    """
    if (run / COMPACTED / DOCUMENT).exists() and not (run / TRAJECTORY).exists():
        with suppress(OSError, LinkError):
            disk = LocalDisk().hold(run)
            try:
                disk.rename(run / COMPACTED, run / TRAJECTORY)
            finally:
                disk.release()


def why_not_here(run: Path) -> str | None:
    """What stands on the way to a run, in words: a link that leads nowhere, or a file."""
    for path in (run / TRAJECTORY, run, *run.parents):
        if path.is_symlink() and not path.exists():
            return f"{path}: is a link that leads nowhere ({path.readlink()})"
        if path.is_file():
            return f"{path}: is a file, and a run is a folder; `crucible import` makes a run of a file of weights"
    return None


def what_is_here(run: Path) -> str:
    """What lies in this folder instead of a trajectory, to end a sentence with; empty where nothing is known."""
    return _set_aside(run) or _meant(run)


def _set_aside(run: Path) -> str:
    """What became of the run whose place a new one was to take."""
    if not (run / OVERWRITTEN).is_dir():
        return ""
    return (
        f"; the run that was here is in {OVERWRITTEN}, since a new one was to take its place, which has not committed "
        "yet. Where that one is no longer written, resume or `crucible check --repair` puts it back"
    )


def _meant(run: Path) -> str:
    """The run or the store that lies in this folder, which is none itself, or around it, as a question."""
    runs = [found.parent.parent for found in run.glob(f"*/{TRAJECTORY}/{DOCUMENT}")]
    inside = sorted([*runs, *(found.parent for found in run.glob(f"*.zarr/{DOCUMENT}") if found.parent not in runs)])
    around = [parent for parent in run.parents if (parent / TRAJECTORY / DOCUMENT).is_file()]
    meant = inside or around[:1]
    others = f" and {len(meant) - 1} more" if meant[1:] else ""
    return f"; did you mean {meant[0]}{others}?" if meant else ""

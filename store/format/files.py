"""The name of every file and folder of a run. They stand here alone; docs/reference/format.md says what each holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

TRAJECTORY = "trajectory.zarr"
"""The Zarr group."""
DOCUMENT = "zarr.json"
"""Metadata of the group (the commit) and of each array."""
CHECKPOINT = "checkpoint"
"""Folder of the training state."""
CONFIG = "config.json"
METADATA = "metadata.json"
SECOND_COPY = "commit.json"
"""Second copy of the commit, outside of the Zarr group, where no program for Zarr rewrites it."""
LOCK = "LOCK"
PARTIAL = ".partial"
"""Folder of the files that are being written."""
COMPACTED = Path(PARTIAL, "compacted.zarr")
"""Where a compacted trajectory is built, below the run."""
REPLACED = Path(PARTIAL, "replaced.zarr")
"""Where the trajectory goes that a compacted one replaces."""
SET_ASIDE = "set-aside"
"""Folder of the chunks that a repair cut off."""
OVERWRITTEN = ".overwritten"
"""Folder of the run whose place a new one takes, until that one's first commit."""
FOLDERS = (TRAJECTORY, CHECKPOINT, PARTIAL, SET_ASIDE, OVERWRITTEN)
"""Folders of a run that the store makes."""
REPORT = "report.html"


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How an address begins, other than a drive of Windows; pathlib makes one slash of two."""


def local_path(path: str | Path) -> Path:
    """A path of this machine as a user writes it: ``~`` is their home.

    Raises
    ------
    TypeError
        It is no path.
    ValueError
        It is an address, such as ``s3://bucket/run``.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"expected a path, as 'runs/first', not something of type {type(path).__name__}")
    if _ADDRESS.match(str(path)) and not Path(path).exists():
        raise ValueError(
            f"{path}: is an address, and files are read and written on disks of this machine; copy or mount it first"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)


def run_folder(path: str | Path, *, to_write: bool = False) -> Path:
    """The run's folder, given it or its trajectory.zarr; absolute.

    A store under another name, ``experiment1.zarr``, has no run's folder around it: it stands for itself, and can be
    read, but not written.

    Raises
    ------
    ValueError
        It is an address; or `to_write`, and it is a store alone.
    """
    folder = local_path(path).absolute()
    folder = folder.parent if folder.name == TRAJECTORY else folder
    if to_write and is_alone(folder):
        raise ValueError(
            f"{folder}: is a trajectory without a run's folder, which can only be read; to change it, move it into a "
            f"folder of its own and name it {TRAJECTORY}"
        )
    return folder


def is_alone(run: Path) -> bool:
    """Whether this is no run's folder, but a store itself, under a name of its own."""
    return run.suffix == ".zarr" and (run / DOCUMENT).is_file()


def trajectory_of(run: Path) -> Path:
    """The store of a run's folder; a store alone is its own."""
    return run if is_alone(run) else run / TRAJECTORY


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; one that disappears meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total

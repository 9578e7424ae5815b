"""The name of every file and folder of a run. They stand here alone; docs/reference/format.md says what each holds."""

from __future__ import annotations

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
FOLDERS = (TRAJECTORY, CHECKPOINT, PARTIAL, SET_ASIDE)
"""Folders of a run that the store makes."""
REPORT = "report.html"


def run_folder(path: str | Path) -> Path:
    """The run's folder, given it or its trajectory.zarr; absolute."""
    folder = Path(path).absolute()
    return folder.parent if folder.name == TRAJECTORY else folder


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; one that disappears meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total

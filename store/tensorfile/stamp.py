"""Whether a file that is read in pieces, of whatever kind, was written to meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

from store.errors import TensorFileError


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """What changes of a file when it is written to: its length, and when it was."""
    return status.st_size, status.st_mtime_ns


def refuse_changed(path: Path, before: tuple[int, int], now: os.stat_result) -> None:
    """Raise where a file was written to since: what was read of it may be of two contents.

    Raises
    ------
    TensorFileError
    """
    if stamp_of(now) != before:
        raise TensorFileError(f"{path}: was changed while it was read; read it anew when nothing writes it any more")

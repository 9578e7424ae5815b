"""What the server may answer with: the page's own files, and those of one trajectory, by pattern; nothing else."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from store.format.files import TRAJECTORY, is_alone

PAGE = Path(__file__).parent / "built"
"""The page as it was built; see page/README.md."""
PAGE_FILES = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "worker.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "licences.txt": "text/plain; charset=utf-8",
}
_GROUP = r"(?:parameters/[A-Za-z0-9_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_\-])?/)?"
_ARRAY = _GROUP + r"[A-Za-z_][A-Za-z0-9_]*"
METADATA = re.compile(rf"trajectory\.zarr/(?:zarr\.json|{_ARRAY}/zarr\.json)")
CHUNK = re.compile(rf"trajectory\.zarr/{_ARRAY}/c(?:[./]\d{{1,9}})*")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes start .. stop - 1 of a file."""

    start: int
    stop: int


def is_of_trajectory(path: str) -> bool:
    """Whether a path below the server's root names a file of the trajectory.

    Examples
    --------
    >>> is_of_trajectory("trajectory.zarr/W/c.0.1.0"), is_of_trajectory("trajectory.zarr/../config.json")
    (True, False)
    """
    return bool(METADATA.fullmatch(path) or CHUNK.fullmatch(path))


def open_regular(run: Path, path: str) -> int:
    """A descriptor of a file below the run, if it is a regular file and no part of its path below the run is a link.

    Raises
    ------
    OSError
        It is not there, a link, a folder, or a pipe.
    """
    assert is_of_trajectory(path), path
    if is_alone(run):
        run, path = run.parent, path.replace(TRAJECTORY, run.name, 1)
    *folders, name = path.split("/")
    if os.open not in os.supports_dir_fd:
        return _open_resolved(run, path)
    here = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=here)
            os.close(here)
            here = inside
        return _regular(os.open(name, os.O_RDONLY | _NO_LINK | _NO_WAIT, dir_fd=here))
    finally:
        os.close(here)


def range_of(header: str | None, size: int) -> Range | None:
    """The bytes that a Range header asks for; None for the whole file, as for several ranges at once.

    Raises
    ------
    ValueError
        No byte of the file lies in the range.

    Examples
    --------
    >>> range_of("bytes=2-3", 10), range_of("bytes=-4", 10), range_of("bytes=8-", 10), range_of("lines=1-2", 10)
    (Range(start=2, stop=4), Range(start=6, stop=10), Range(start=8, stop=10), None)
    """
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (header or "").replace(" ", ""))
    if asked is None or asked[0] == "bytes=-":
        return None
    if not asked[1]:
        start, stop = max(0, size - int(asked[2])), size
    else:
        start, stop = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
        if asked[2] and int(asked[2]) < int(asked[1]):
            return None
    if start >= stop:
        raise ValueError(f"no byte of {size} lies in {header}")
    return Range(start, stop)


def _open_resolved(run: Path, path: str) -> int:
    """For systems that cannot open relative to a folder."""
    whole = run / path
    if whole.resolve() != (run.resolve() / path):
        raise FileNotFoundError(path)
    return _regular(os.open(whole, os.O_RDONLY | _NO_WAIT))


def _regular(descriptor: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError("not a regular file")
    return descriptor

"""The calls of the operating system that the store needs to write: the seam at which tests make a disk fail.

In life it is the `os` module; in the tests a shim that fails the nth call, dies at it, or forgets what was not flushed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

Bytes = bytes | bytearray | memoryview


class SystemCalls(Protocol):
    """The calls of the operating system that a disk needs; the `os` module is one.

    A path may be relative to a folder that is held open, whose descriptor then comes with it.
    """

    def open(self, path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open a file or folder and return its descriptor."""

    def write(self, fd: int, data: Bytes, /) -> int:
        """Write some of the bytes and say how many."""

    def pwrite(self, fd: int, data: Bytes, offset: int, /) -> int:
        """Write some of the bytes at an offset and say how many."""

    def fsync(self, fd: int) -> None:
        """Return when the file's or folder's content is on the medium."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def replace(
        self, src: str | Path, dst: str | Path, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        """Rename, onto what is there."""

    def mkdir(self, path: str | Path, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """Make one folder."""

    def unlink(self, path: str | Path, *, dir_fd: int | None = None) -> None:
        """Remove a file."""

    def rmdir(self, path: str | Path, *, dir_fd: int | None = None) -> None:
        """Remove an empty folder."""

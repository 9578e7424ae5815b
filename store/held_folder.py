"""A folder that is held open, so that work below it goes to it and to no other, whatever its path leads to by now.

A path can lead elsewhere from one call to the next: a folder is removed and made again, or a link is put in its place.
A descriptor can't. Where the system has calls relative to a descriptor (POSIX), each folder below the top is opened
relative to the one above it, no link is followed, and files are opened, renamed and removed relative to it. Elsewhere
each part of a path is looked at for a link before a call, which leaves a moment in which one can be put there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from store.errors import LinkError
from store.system_calls import SystemCalls

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_IS_LINK = {errno.ELOOP, errno.ENOTDIR, getattr(errno, "EMLINK", errno.ELOOP)}


class Folders(Protocol):
    """How the folders below a top one are reached."""

    def at(self, path: Path) -> AbstractContextManager[tuple[str | Path, int | None]]:
        """What names `path` in a call, and the descriptor of the folder that the name is relative to.

        Raises
        ------
        LinkError
            A folder on the way is a link.
        OSError
            There is no such folder, or as the system says.
        """

    def folder(self, path: Path) -> AbstractContextManager[int | None]:
        """A descriptor of this folder; None where none can be held."""

    def close(self) -> None:
        """Close what is held. Closing again does nothing."""


class AnyFolder:
    """No folder is held, and links are followed: for files outside of a run."""

    @contextmanager
    def at(self, path: Path) -> Iterator[tuple[str | Path, int | None]]:
        """The path itself."""
        yield path, None

    @contextmanager
    def folder(self, path: Path) -> Iterator[int | None]:  # noqa: ARG002 - the same words as the others
        """No descriptor."""
        yield None

    def close(self) -> None:
        """Nothing is open."""


class HeldFolder:
    """The descriptor of a folder; those below it are opened from there for each call, see `Folders`.

    Parameters
    ----------
    top : Path
        The folder; it may be reached through links. What lies below may not.
    calls : SystemCalls
        The operating system.
    """

    def __init__(self, top: Path, calls: SystemCalls) -> None:
        self._top, self._calls = top, calls
        self._fd = calls.open(top, _FOLDER)

    @contextmanager
    def at(self, path: Path) -> Iterator[tuple[str | Path, int | None]]:
        """The name of a file or folder below the top, and the descriptor of the folder that it lies in."""
        with self.folder(path.parent) as fd:
            try:
                yield path.name, fd
            except OSError as error:
                if error.errno is not None:  # the system knows the name alone
                    name_file(error, path)
                raise

    @contextmanager
    def folder(self, path: Path) -> Iterator[int]:
        """The descriptor of the top or of a folder below it."""
        if path == self._top:
            yield self._fd
            return
        if self._top not in path.parents:
            raise ValueError(f"{path} is not below {self._top}")
        with self.folder(path.parent) as above:
            fd = self._open(path, above)
        try:
            yield fd
        finally:
            self._calls.close(fd)

    def close(self) -> None:
        """Close the descriptor. Closing again does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._calls.close(fd)

    def _open(self, path: Path, above: int) -> int:
        try:
            return self._calls.open(path.name, _FOLDER | _NO_LINK, dir_fd=above)
        except OSError as error:
            if error.errno in _IS_LINK:
                with suppress(FileNotFoundError):
                    refuse_link(path, os.stat(path.name, dir_fd=above, follow_symlinks=False))
            error.filename = str(path)
            raise


class LookedAtFolders:
    """Folders of a system that knows no calls relative to a descriptor, looked at before each call; see `Folders`.

    Parameters
    ----------
    top : Path
        The folder; it may be reached through links. What lies below may not.
    """

    def __init__(self, top: Path) -> None:
        self._top = top

    @contextmanager
    def at(self, path: Path) -> Iterator[tuple[str | Path, int | None]]:
        """The path itself."""
        for folder in path.parents:
            if folder == self._top:
                break
            with suppress(FileNotFoundError):
                refuse_link(folder, folder.lstat())
        yield path, None

    @contextmanager
    def folder(self, path: Path) -> Iterator[int | None]:
        """No descriptor; raises where the folder is a link."""
        with self.at(path / "inside"):
            yield None

    def close(self) -> None:
        """Nothing is open."""


def name_file(error: OSError, path: Path) -> None:
    """Let an error of the system tell of this file, whatever name it was met under."""
    error.filename = str(path)
    del error.filename2  # set to None it would be printed


def hold(top: Path, calls: SystemCalls) -> Folders:
    """Hold a folder open, where the system can."""
    if os.open in os.supports_dir_fd:
        return HeldFolder(top, calls)
    return LookedAtFolders(top)


def refuse_link(path: Path, status: os.stat_result) -> None:
    """Raise where this is the status of a link, or of a junction of Windows.

    Raises
    ------
    LinkError
    """
    is_junction = getattr(status, "st_reparse_tag", None) == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", 0)
    if stat.S_ISLNK(status.st_mode) or is_junction:
        raise LinkError(
            f"{path}: is a link; below a run's folder no link is followed to write or to remove, since another run or "
            "anything else may lie behind it. Put what it leads to in its place; the run's folder itself may be a link"
        )

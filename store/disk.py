"""Every byte that goes to the disk or comes from it passes through here; small documents through `store.small_file`.

A file appears whole or not at all: it is written under a temporary name, flushed to the medium, renamed onto its
place, and the folder that holds it is flushed.
"""

from __future__ import annotations

import copy
import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

from store.errors import RunExistsError
from store.held_folder import AnyFolder, Folders, hold, name_file
from store.system_calls import Bytes, SystemCalls

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class Disk(Protocol):
    """Where a run lies. `LocalDisk` is a folder of a file system; an object store can follow."""

    def hold(self, folder: Path) -> Self:
        """The same disk, for this folder alone: what is done goes to it, whatever its path leads to later."""

    def release(self) -> None:
        """Hold the folder no longer."""

    def at(self, path: Path) -> AbstractContextManager[tuple[str | Path, int | None]]:
        """What names `path` in a call, and the descriptor of the folder that the name is relative to."""

    def open_plain(self, path: Path, *, follow: bool = False) -> int:
        """Open a plain file to read it; the descriptor is the caller's to close."""

    def names(self, folder: Path) -> list[str]:
        """Names of what lies in a folder, sorted."""

    def put(
        self,
        target: Path,
        parts: Iterable[Bytes],
        scratch: Path,
        *,
        flush: bool = True,
        may_rename: Callable[[], None] | None = None,
    ) -> None:
        """Make `target` hold these bytes, whole or not at all. Durable after `sync_folder` of its folder.

        Without `flush`, a power cut may leave any bytes. `may_rename` is called when they are written, and raises where
        they must not take the place of what is there.
        """

    def create(self, path: Path) -> OpenFile:
        """Begin a file under a temporary name."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder, with its parents, durably."""

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in this folder are on the medium."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file onto what is there; the name is durable after `sync_folder`."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder and flush the folder that holds the new name."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with what is in it. Nothing there is fine."""


class LocalDisk:
    """A folder of a local file system.

    Parameters
    ----------
    calls : SystemCalls
        The operating system; a test's shim takes its place.
    """

    def __init__(self, calls: SystemCalls = os) -> None:
        self.calls = calls
        self._folders: Folders = AnyFolder()

    def hold(self, folder: Path) -> Self:
        """The same disk for what lies below this folder: it is held open, and below it no link is followed.

        Raises
        ------
        OSError
            There is no such folder, or as the system says.
        """
        held = copy.copy(self)
        held._folders = hold(folder, self.calls)
        return held

    def release(self) -> None:
        """Close the folder that is held."""
        self._folders.close()

    def at(self, path: Path) -> AbstractContextManager[tuple[str | Path, int | None]]:
        """What names `path` in a call, and the descriptor of the folder that the name is relative to."""
        return self._folders.at(path)

    def put(
        self,
        target: Path,
        parts: Iterable[Bytes],
        scratch: Path,
        *,
        flush: bool = True,
        may_rename: Callable[[], None] | None = None,
    ) -> None:
        """Write `parts` under a temporary name in `scratch`, flush, and rename to `target`.

        Parameters
        ----------
        may_rename : callable, optional
            Called between the two; what it raises leaves `target` as it is.

        Raises
        ------
        OSError
            As the system says, with the target's path. The temporary file is left for the next sweep.
        """
        temporary = scratch / f"{target.parent.name}.{target.name}"
        try:
            self.write_file(temporary, parts, flush=flush)
            if may_rename is not None:
                may_rename()
            self.replace(temporary, target)
        except OSError as error:
            name_file(error, target)
            raise

    def write_file(self, path: Path, parts: Iterable[Bytes], *, flush: bool = True) -> None:
        """Write a file from its start; not atomic by itself."""
        file = self.create(path)
        try:
            for part in parts:
                file.write(part)
            if flush:
                file.flush()
        finally:
            file.close()

    def create(self, path: Path) -> OpenFile:
        """Begin a new file. What has its name already, be it a link or a pipe, is removed and not written into."""
        return OpenFile(path, self)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and the missing ones above it, each flushed into its parent."""
        if self._is_folder(folder):
            return
        self.make_folder(folder.parent)
        with self.at(folder) as (name, above):
            self.calls.mkdir(name, dir_fd=above)
        self.sync_folder(folder.parent)

    def sync_folder(self, folder: Path) -> None:
        """Flush a folder's names. Windows has no such call and does it by itself."""
        if sys.platform == "win32":
            return None
        with self._folders.folder(folder) as held:
            if held is not None:
                return self.flush(held)
        fd = self.calls.open(folder, os.O_RDONLY)
        try:
            return self.flush(fd)
        finally:
            self.calls.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder and flush the folder that holds the new name."""
        self.replace(source, target)
        self.sync_folder(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all in it; a link is removed, never followed."""
        if (status := self.status(path)) is None:
            return None
        if not stat.S_ISDIR(status.st_mode):
            with self.at(path) as (name, above):
                return self.calls.unlink(name, dir_fd=above)
        for inside in self.names(path):
            self.remove(path / inside)
        with self.at(path) as (name, above):
            return self.calls.rmdir(name, dir_fd=above)

    def open_plain(self, path: Path, *, follow: bool = False) -> int:
        """Open a plain file to read it, and wait for nobody who writes into a pipe.

        Parameters
        ----------
        follow : bool
            Whether a link to one will do.

        Raises
        ------
        OSError
            There is none, or as the system says.
        """
        with self.at(path) as (name, above):
            fd = self.calls.open(name, _READ if follow else _READ | _NO_LINK, dir_fd=above)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self.calls.close(fd)
            raise OSError(errno.EINVAL, "it must be a plain file", str(path))
        return fd

    def status(self, path: Path) -> os.stat_result | None:
        """What lies at a path; None where there is nothing. Of a link, that of the link."""
        try:
            with self.at(path) as (name, above):
                return os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self, folder: Path) -> list[str]:
        """Names of what lies in a folder, sorted."""
        with self._folders.folder(folder) as held:
            return sorted(os.listdir(folder if held is None else held))  # noqa: PTH208 - of a descriptor

    def _is_folder(self, folder: Path) -> bool:
        """Whether there is a folder. Below one that is held, a link to one raises."""
        try:
            with self._folders.folder(folder) as held:
                return held is not None or folder.is_dir()
        except FileNotFoundError:
            return False

    def write_all(self, fd: int, data: memoryview) -> None:
        """Write all of these bytes to an open file."""
        while data:
            written = self.calls.write(fd, data)
            if written <= 0:
                raise OSError(errno.ENOSPC, "the disk took no more bytes")
            data = data[written:]

    def flush(self, fd: int) -> None:
        """Return when the file's or folder's content is on the medium."""
        if sys.platform == "darwin":
            import fcntl

            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone stops at the drive's own cache
            except OSError:  # a file system that does not know it
                self.calls.fsync(fd)
        else:
            self.calls.fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file onto what is there; the name is durable after `sync_folder`."""
        attempts = 20 if sys.platform == "win32" else 1
        for attempt in range(1, attempts + 1):
            try:
                with self.at(target) as (new, above), self.at(source) as (old, below):
                    self.calls.replace(old, new, src_dir_fd=below, dst_dir_fd=above)
                break
            except PermissionError:
                # Windows refuses to rename onto a file that a reader has open just now.
                if attempt == attempts:
                    raise
                time.sleep(0.01 * attempt)


LOCAL = LocalDisk()
"""The file system as it is, for those who only read."""


class OpenFile:
    """A new file that is written from its start on; not atomic by itself.

    Parameters
    ----------
    path : Path
        Its name for now. What has it already is removed.
    disk : LocalDisk
        Where it lies.
    """

    def __init__(self, path: Path, disk: LocalDisk) -> None:
        self._disk = disk
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with disk.at(path) as (name, above):
            try:
                self._fd = disk.calls.open(name, flags, 0o666, dir_fd=above)
            except FileExistsError:
                disk.calls.unlink(name, dir_fd=above)
                self._fd = disk.calls.open(name, flags, 0o666, dir_fd=above)

    def write(self, data: Bytes, /) -> None:
        """Append these bytes, all of them."""
        self._disk.write_all(self._fd, memoryview(data).cast("B"))

    def flush(self) -> None:
        """Return when the content is on the medium."""
        self._disk.flush(self._fd)

    def close(self) -> None:
        """Close it. Closing again does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.calls.close(fd)


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written below `folder`, or below its first parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def refuse_blocked(folder: Path) -> None:
    """Raise where a folder cannot be made because a file, or a link that leads nowhere, is in the way.

    Raises
    ------
    RunExistsError
        With what is in the way.
    """
    for path in (folder, *folder.parents):
        if path.is_dir():
            return
        if os.path.lexists(path):
            what = "is a file" if path.exists() else "is a link that leads nowhere"
            where = f"{path}: {what}" if path == folder else f"{folder}: no folder can be made here, {path} {what}"
            raise RunExistsError(f"{where}; name another folder")

"""The one writer's lock: held by the operating system, so that it is free the moment its holder dies.

The file says who holds it, for messages. Where the file system knows no locks, a run can be opened without: then only
what the file says counts, and only processes of this machine can be asked whether they live.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from store.disk import Disk
from store.errors import LockedError
from store.format.files import LOCK
from store.held_folder import refuse_link
from store.processes import is_alive, machine_name

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}
"""What a system says of a lock that another holds; EACCES on NFS, EDEADLOCK on Windows."""
_FAR_BYTE = 1 << 30
"""What is locked on Windows, where a locked byte can't be read: none of the text."""
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


class RunLock:
    """The lock of a run, held until it is released or the process ends. A forked child does not hold it.

    Parameters
    ----------
    run : Path
        The run's folder.
    disk : Disk
        Holds that folder.
    is_asked_for : bool
        Whether the operating system is asked for a lock. Without, two processes that write at once are only noticed
        on one machine, and not always.

    Raises
    ------
    LockedError
        Another process writes the run, or no lock can be had: with the way out.
    LinkError
        LOCK is a link.
    """

    def __init__(self, run: Path, disk: Disk, *, is_asked_for: bool = True) -> None:
        self.run, self._path, self._disk = run, os.fspath(run / LOCK), disk
        self._is_asked_for = is_asked_for
        self._fd, self._file = self._taken()
        _held.add(self)

    @property
    def is_held(self) -> bool:
        """Whether the file at LOCK's place is the one that is locked here."""
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def is_of(self, file: tuple[int, int]) -> bool:
        """Whether this file (device, inode) is locked here."""
        return self._fd >= 0 and self._file == file

    def renew(self) -> None:
        """Where LOCK was removed or replaced: make it and lock it anew.

        Raises
        ------
        LockedError
            Another process holds the new one.
        """
        before = self._fd
        self._fd, self._file = self._taken()
        os.close(before)

    def release(self) -> None:
        """Let go of the lock. Releasing again does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if not self._is_asked_for:
                    with suppress(OSError):
                        os.ftruncate(fd, 0)  # only the text tells that somebody holds it
            finally:
                os.close(fd)

    def leave_to_parent(self) -> None:
        """In a forked child: close the lock, which stays the parent's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _taken(self) -> tuple[int, tuple[int, int]]:
        """The descriptor of LOCK, locked and signed, and which file it is."""
        fd = _open(self.run / LOCK, self._disk)
        try:
            if self._is_asked_for:
                _lock(fd, self.run)
            elif _lives(_text(fd), _file_of(fd)):
                raise _locked(fd, self.run)
            _sign(fd, self.run, must=not self._is_asked_for)
        except BaseException:
            os.close(fd)
            raise
        return fd, _file_of(fd)


def _sign(fd: int, run: Path, *, must: bool) -> None:
    """Write into LOCK who holds it. Where the system holds the lock that is for messages alone, and a full disk may do
    without it: what frees it, a repair, needs the lock.
    """
    try:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f"pid {os.getpid()} on {machine_name()}\n".encode())
    except OSError as error:
        if must:
            error.filename = os.fspath(run / LOCK)
            raise


def _file_of(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _open(path: Path, disk: Disk) -> int:
    try:
        with disk.at(path) as (name, above):
            fd = os.open(name, _FLAGS, 0o666, dir_fd=above)
    except FileNotFoundError:
        raise
    except OSError as error:
        with suppress(FileNotFoundError):
            refuse_link(path, path.lstat())
        raise LockedError(
            f"{path}: cannot be opened to lock the run ({error.strerror}); who writes a run needs the right to write "
            "this file and the folder that it lies in: change their owner or permissions"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LockedError(f"{path}: is no plain file, so it cannot be locked; remove it where nobody writes the run")
    return fd


def _lock(fd: int, run: Path) -> None:
    """Lock an open file for this process, or raise at once."""
    try:
        _ask_for_lock(fd)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise LockedError(
                f"{run / LOCK}: the file system knows no locks ({error.strerror}), so nothing keeps two processes from "
                "writing this run at once, which would spoil it. Put the run on another file system; or, where you "
                "are sure that no other process writes it, say --no-lock (in Python lock=False)"
            ) from error
        if error.errno not in _HELD:
            raise LockedError(
                f"{run / LOCK}: cannot be locked ({error.strerror}), which does not mean that somebody writes the run; "
                "see that the disk is well, or put the run on another one"
            ) from error
        raise _locked(fd, run) from None


def _locked(fd: int, run: Path) -> LockedError:
    holder = _text(fd) or "another process"
    error = LockedError(f"{run}: being written by {holder}; wait for it, or stop it, then try again")
    error.is_held = True
    return error


def _text(fd: int) -> str:
    """What LOCK says of its holder."""
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 200).decode(errors="replace").strip()


def _lives(text: str, file: tuple[int, int]) -> bool:
    """Whether a process of this machine that LOCK names is alive; those of another machine can't be asked."""
    found = re.fullmatch(r"pid (\d{1,10}) on (.+)", text)
    if found is None or found[2] != machine_name() or sys.platform == "win32":
        return False
    pid = int(found[1])
    if pid == os.getpid():  # of this one, or of a dead one that had the same number
        return any(lock.is_of(file) for lock in _held)
    return is_alive(pid)


if sys.platform == "win32":
    import msvcrt

    def _ask_for_lock(fd: int) -> None:
        os.lseek(fd, _FAR_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _ask_for_lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _leave_all_to_parent() -> None:
    for lock in list(_held):
        lock.leave_to_parent()


_at_fork: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _at_fork is not None:
    _at_fork(after_in_child=_leave_all_to_parent)

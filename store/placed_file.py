"""Files that are written outside of a run: each appears under its name whole and durable, and harms no other.

An export, a report, a tokenizer or a picture lies in a folder of the user's, among files that nobody here knows.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.disk import LOCAL, LocalDisk
from store.errors import RunExistsError
from store.held_folder import name_file
from store.processes import is_alive, machine_name
from store.system_calls import Bytes

_OURS = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\.partial")


class PlacedFile:
    """A new file beside its target, filled at any place by any thread, that gets its name when it is complete.

    Its temporary name is one that nobody has (O_EXCL), so that it neither follows a link nor touches another file.

    Parameters
    ----------
    target : Path
        The name that it gets. A link there is replaced, never followed.
    disk : LocalDisk
        Where it lies.
    replace : bool
        Whether something that is there already may be replaced.

    Raises
    ------
    RunExistsError
        Something is there and is not to be replaced; when the file is made, and again before it gets its name.
    OSError
        As the system says, with the target's path.
    """

    def __init__(self, target: Path, disk: LocalDisk, *, replace: bool = False) -> None:
        self.target, self.is_placed = target, False
        self._disk, self._replace = disk, replace
        check_target(target, replace=replace)
        sweep_placed(target)
        owner = f"{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._temporary = target.with_name(f".{target.name}.{owner}.partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with _naming(target):
            self._fd = disk.calls.open(self._temporary, flags, 0o666)

    def write(self, parts: Iterable[Bytes]) -> None:
        """Write these bytes, one after the other, from the start of the file or behind what was written so."""
        with _naming(self.target):
            for part in parts:
                self._disk.write_all(self._fd, memoryview(part).cast("B"))

    def write_at(self, offset: int, data: memoryview) -> None:
        """Put these bytes at this offset. Threads may do so at once, at places that do not overlap."""
        try:
            while data:
                written = self._disk.calls.pwrite(self._fd, data, offset)
                if written <= 0:
                    raise OSError(errno.ENOSPC, "the disk took no more bytes")
                data, offset = data[written:], offset + written
        except OSError as error:
            error.filename = str(self.target)
            raise

    def write_rows(self, offset: int, stride: int, data: memoryview, width: int) -> None:
        """Put pieces of `width` bytes at this offset and every `stride` bytes behind it."""
        if width == stride:
            return self.write_at(offset, data)
        for start in range(0, len(data), width):
            self.write_at(offset, data[start : start + width])
            offset += stride
        return None

    def stretch(self, size: int) -> None:
        """Make the file this long; what nobody puts stays zeros, which take no room on most disks."""
        if size:
            self.write_at(size - 1, memoryview(b"\0"))

    def publish(self) -> None:
        """Flush the file, give it its name, and flush the folder that holds the name."""
        with _naming(self.target):
            self._disk.flush(self._fd)
            self._close()
        check_target(self.target, replace=self._replace)
        with _naming(self.target):
            self._disk.replace(self._temporary, self.target)
            self.is_placed = True
            self._disk.sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove what was written, unless it was published."""
        self._close()
        if not self.is_placed:
            self._disk.remove(self._temporary)

    def withdraw(self) -> None:
        """Remove what was written, also where it was published."""
        self.discard()
        if self.is_placed:
            self._disk.remove(self.target)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._disk.calls.close(fd)


def place(target: Path, data: Bytes, *, replace: bool = False, disk: LocalDisk | None = None) -> None:
    """Make `target` hold these bytes, whole and durable, or leave everything as it is; see `PlacedFile`."""
    file = PlacedFile(target, disk or LocalDisk(), replace=replace)
    try:
        file.write([data])
        file.publish()
    finally:
        file.discard()


def check_target(path: Path, *, replace: bool) -> None:
    """Raise unless a file may be put there.

    Raises
    ------
    RunExistsError
        Something is there and is not to be replaced, a dangling link too; or a folder, which never is.
    FileNotFoundError
        There is no such folder to put it in.
    """
    if path.is_dir() or (os.path.lexists(path) and not replace):
        raise RunExistsError(f"{path} exists and is not replaced; name another file, or say --force")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder to write to", str(path.parent))


def sweep_placed(target: Path) -> None:
    """Remove what killed processes of this machine left of a `PlacedFile` for `target`."""
    if sys.platform == "win32":  # there, signal 0 ends the process that it asks about
        return
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        name = _OURS.fullmatch(leftover.name.removeprefix(f".{target.name}"))
        if name and name["machine"] == _this_machine() and not is_alive(int(name["pid"])):
            with suppress(OSError):
                LOCAL.remove(leftover)


def _this_machine() -> str:
    """Eight digits that tell this machine from another that shares the disk, whose processes are not known here."""
    return hashlib.sha256(machine_name().encode()).hexdigest()[:8]


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Errors of the system tell of the file that was to be written, not of its temporary name."""
    try:
        yield
    except OSError as error:
        name_file(error, target)
        raise

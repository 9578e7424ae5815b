"""Small files, read whole: only plain files, and only up to a size that the caller names.

A pipe under the name of a config would hang whoever opens it, a device would never end, and a huge file would take all
memory. Whatever is read whole here or in `crucible` is read by `read_small`.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_DOCUMENT = 64 << 20
"""Bytes of a JSON or TOML document: a config, metadata, a tokenizer. Real ones are a thousand times smaller."""
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Do not wait for who writes into a pipe."""
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def read_small(path: str | Path, most_bytes: int | None = LARGEST_DOCUMENT) -> bytes:
    """The content of a plain file. A link to one is followed.

    Parameters
    ----------
    most_bytes : int or None
        The most that such a file may hold; None where any size is fine.

    Raises
    ------
    OSError
        It is not there, cannot be read, is no plain file, or too large; `strerror` says so without the path.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise _plainly(error, path) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = next((words for test, words in _KINDS if test(status.st_mode)), "a device")
            raise OSError(errno.EINVAL, f"is {kind}, not a plain file", os.fspath(path))
        if most_bytes is not None and status.st_size > most_bytes:
            what = f"has {status.st_size:,} bytes, more than the {most_bytes:,} that such a file may have"
            raise OSError(errno.EFBIG, what, os.fspath(path))
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read() if most_bytes is None else file.read(status.st_size)
    finally:
        os.close(fd)


def _plainly(error: OSError, path: str | Path) -> OSError:
    """The same error, in words for a file: a link that leads nowhere, or in a circle, is called so."""
    if error.errno == errno.ELOOP:
        return OSError(errno.ELOOP, "is a link that leads in a circle", os.fspath(path))
    if error.errno == errno.ENOENT and Path(path).is_symlink():
        what = f"is a link that leads nowhere ({Path(path).readlink()})"
        return FileNotFoundError(errno.ENOENT, what, os.fspath(path))
    return error

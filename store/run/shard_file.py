"""Chunks read from a file, strictly: what the file must hold, and nothing that it does not vouch for.

File size, label, index and chunk come from one descriptor, so that a file that is replaced meanwhile can't be mixed
with the one that replaces it. Labels and indices are kept, since a pass over one token needs a chunk of every file
again and again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.disk import LOCAL
from store.errors import ChecksumError, DamageError, LabelError, MissingError
from store.format.codec import CHECKSUM_BYTES, crc32c
from store.format.label import Label, name_crc
from store.format.layout import Layout
from store.format.shard import Tail, read_at, read_tail
from store.format.validity import fits, judge, raise_if_stale
from store.format.writers import Standing

_RESTORE = "restore it from a copy, or cut the run back with `crucible check --repair`"
_MOST_KEPT = 1024
_LONGEST_KEPT = 1024
_kept: dict[str, tuple[tuple[int, ...], Tail]] = {}
"""Label and index of files by path, with inode, mtime and size. Each operation on it is atomic: no lock to inherit."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or one of its chunks, for messages: run, array, steps, tokens and path."""

    path: Path
    layout: Layout
    index: tuple[int, ...]

    def __str__(self) -> str:
        run = self.path.parents[self.layout.name.count("/") + 2]
        return f"{run.name}: {self.layout.where(self.index)} ({self.path})"


@dataclass(frozen=True, slots=True)
class ShardFile:
    """An open file of an array; made by `open_shard`."""

    path: Path
    layout: Layout
    fd: int
    tail: Tail

    @property
    def label(self) -> Label:
        """What the file says that it holds."""
        return self.tail.label

    def chunk(self, index: Sequence[int]) -> bytes:
        """The verified bytes of a chunk.

        Raises
        ------
        ChecksumError
            They are not those that the label names.
        """
        position = self.layout.position(index)
        start, stop = self.tail.bounds[position : position + 2]
        data = read_at(self.fd, stop - start, start)
        checksum = crc32c([memoryview(data)[:-CHECKSUM_BYTES]])
        stored = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
        if len(data) != stop - start or not checksum == stored == self.label.chunk_crcs[position]:
            place = Place(self.path, self.layout, tuple(index))
            raise ChecksumError(f"{place}: the checksum does not match its {len(data)} bytes; {_RESTORE}")
        return data


@contextmanager
def open_shard(
    path: Path, layout: Layout, block: int, *, fd: int | None = None, keep: bool = True
) -> Iterator[ShardFile]:
    """Open the file of a block of an array, with its label and index.

    Parameters
    ----------
    fd : int, optional
        The file, opened already (relative to a folder that the caller holds, for example); it is left open.
    keep : bool
        Whether label and index may come from an earlier opening, and be kept for a later one.

    Raises
    ------
    MissingError
        There is no plain file. A link is not followed.
    ChecksumError
        Its label or index is damaged.
    LabelError
        It is the file of another array or block. Whether the commit can use it, `store.format.validity` says.
    """
    place = Place(path, layout, (block,))
    handle = _open(path, place) if fd is None else fd
    try:
        yield ShardFile(path, layout, handle, _tail(handle, place, keep=keep))
    finally:
        if fd is None:
            os.close(handle)


def read_chunk(path: Path, layout: Layout, index: Sequence[int], *, fd: int | None = None) -> tuple[bytes, Label]:
    """The verified bytes of one chunk, and the label of the file that they came from.

    Where they do not fit together, label and index are read anew and all is tried once more: the file may have been
    replaced by one of the same size, inode and time.

    Raises
    ------
    MissingError, ChecksumError, LabelError
        As `open_shard` and `ShardFile.chunk`.
    """
    try:
        with open_shard(path, layout, index[0], fd=fd) as file:
            return file.chunk(index), file.label
    except (ChecksumError, LabelError):
        forget(path)
    with open_shard(path, layout, index[0], fd=fd) as file:
        return file.chunk(index), file.label


def read_committed_chunk(
    path: Path, layout: Layout, index: Sequence[int], then: Standing, now: Callable[[], Standing | None]
) -> bytes:
    """The verified bytes of one chunk, as it belongs to the commit at which a reader opened the run.

    Parameters
    ----------
    layout : Layout
        At the length of that commit.
    then : Standing
        Of that commit.
    now : callable
        Reads the commit on disk; called only when the file is not as expected.

    Raises
    ------
    StaleHandleError
        The run was removed, replaced, cut back or compacted since.
    DamageError
        The chunk is missing or damaged, or the file does not belong to the run as it stands.
    """
    need = layout.need(index[0], then.committed_steps)
    place = Place(path, layout, tuple(index))
    try:
        data, label = read_chunk(path, layout, index)
        if fits(label, need, then.writers):
            return data
        forget(path)  # what was kept may be the label of a file before this one, of equal size, inode and time
        data, label = read_chunk(path, layout, index)
    except DamageError:
        raise_if_stale(then, now(), place)
        raise
    judge(label, need, then, now(), place)
    return data


def check_committed_file(
    path: Path,
    layout: Layout,
    block: int,
    then: Standing,
    now: Callable[[], Standing | None],
    *,
    fd: int | None,
) -> None:
    """Look whether a file belongs to the commit at which a reader opened the run, without reading a chunk of it.

    Parameters
    ----------
    layout, then, now
        As `read_committed_chunk` takes them.
    fd : int or None
        The file, opened already; it is left open.

    Raises
    ------
    StaleHandleError, DamageError
        As `read_committed_chunk`; of damage within a chunk nothing is seen.
    """
    need = layout.need(block, then.committed_steps)
    with open_shard(path, layout, block, fd=fd, keep=False) as file:
        label = file.label
    if not fits(label, need, then.writers):
        judge(label, need, then, now(), Place(path, layout, (block,)))


def forget(path: Path) -> None:
    """Keep label and index of this file no longer."""
    _kept.pop(os.fspath(path), None)


def forget_all() -> None:
    """Keep no label and index any longer: what is read next comes from the disk."""
    _kept.clear()


def _open(path: Path, place: Place) -> int:
    try:
        return LOCAL.open_plain(path)
    except FileNotFoundError:
        raise MissingError(f"{place}: the file is not there; {_RESTORE}") from None
    except OSError as error:
        raise MissingError(f"{place}: {error.strerror}; it must be a plain file") from error


def _tail(fd: int, place: Place, *, keep: bool) -> Tail:
    status, layout = os.fstat(fd), place.layout
    if not stat.S_ISREG(status.st_mode):
        raise MissingError(f"{place}: it must be a plain file")
    count, path = layout.chunks_of_a_file, os.fspath(place.path)
    stamp = (status.st_ino, status.st_mtime_ns, status.st_size, count)
    kept = _kept.get(path) if keep else None
    if kept and kept[0] == stamp:
        return kept[1]
    tail = read_tail(fd, status.st_size, count, layout.most_bytes, place)
    if tail.label.name_crc != name_crc(layout.file_name(place.index[0])):
        raise LabelError(f"{place}: it is the file of another array or block under this name; {_RESTORE}")
    if keep and count <= _LONGEST_KEPT:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[path] = (stamp, tail)
    return tail

"""The files of one block of steps while they are written: in format 2 one for each array, in format 1 one a chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from store.disk import OpenFile
from store.format.shard import ShardWriter
from store.system_calls import Bytes


class BlockFile(Protocol):
    """Where the chunks of one array in one block go, in the order of the file."""

    def add(self, parts: Sequence[Bytes]) -> None:
        """Write the next chunk."""

    def finish(self) -> None:
        """All chunks were added: make the file durable, still under its temporary name."""

    def close(self) -> None:
        """Give up what was not finished. Closing again does nothing."""


OpenBlock = Callable[[str, int, int], BlockFile]
"""``open_block(name, block, last)``: an array's file of a block, whose last row has the step label `last`."""


class Shard:
    """A file of format 2 under its temporary name.

    Parameters
    ----------
    file : OpenFile
        The temporary file, empty.
    writer : ShardWriter
        Writes into it.
    whole : callable
        Called when the file is whole and durable.
    """

    def __init__(self, file: OpenFile, writer: ShardWriter, whole: Callable[[], None]) -> None:
        self._file, self._writer, self._whole = file, writer, whole

    def add(self, parts: Sequence[Bytes]) -> None:
        """Write the next chunk."""
        self._writer.add(parts)

    def finish(self) -> None:
        """Write label and index, and flush."""
        self._writer.finish()
        self._file.flush()
        self._file.close()
        self._whole()

    def close(self) -> None:
        """Close the file; the next sweep removes it unless it was finished."""
        self._file.close()


class PlainChunks:
    """The chunks of format 1, each put in place by itself.

    Parameters
    ----------
    targets : sequence of Path
        Their files, in order.
    put : callable
        ``put(path, parts)`` makes a file hold these bytes.
    """

    def __init__(self, targets: Sequence[Path], put: Callable[[Path, Sequence[Bytes]], None]) -> None:
        self._targets, self._put = iter(targets), put

    def add(self, parts: Sequence[Bytes]) -> None:
        """Put the next chunk in place."""
        self._put(next(self._targets), parts)

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is left to do."""


class BlockFiles:
    """The files of one block, each opened with its first chunk and finished when the block ends. A context manager."""

    def __init__(self, open_block: OpenBlock) -> None:
        self._open_block = open_block
        self._files: dict[str, BlockFile] = {}
        self._stack = ExitStack()

    def add(self, name: str, block: int, last: int, parts: Sequence[Bytes]) -> None:
        """Write the next chunk of an array."""
        if name not in self._files:
            self._files[name] = self._open_block(name, block, last)
            self._stack.callback(self._files[name].close)
        self._files[name].add(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                for file in self._files.values():
                    file.finish()

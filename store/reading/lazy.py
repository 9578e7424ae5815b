"""A stored array as dask sees it: shape, dtype and slices, each of them read strictly from the chunks.

zarr-python could stand here. Decoding a chunk through its pipeline took ten times the processor time of decoding
alone, most of it for a copy into another memory order (docs/decisions/own-lazy-arrays.md); here a chunk comes as it
lies, time fastest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import dask.threaded
import numpy as np

from store.errors import StaleHandleError
from store.format.codec import Array
from store.format.files import DOCUMENT, run_folder, trajectory_of
from store.run.array import StoredArray
from store.run.commit import Commit, read_commit
from store.run.document import digest, to_json


@dataclass(frozen=True)
class CommittedArray:
    """One array at one commit, for `dask.array.from_array`. It pickles, and reads nothing until it is sliced.

    Parameters
    ----------
    array : StoredArray
        At its committed length.
    stand : tuple of (int, str)
        Generation of the commit and what names the run; chunks of another are not shown. In format 2 the array itself
        knows.
    """

    array: StoredArray
    stand: tuple[int, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Committed shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[int | slice, ...]) -> Array:
        """A part of the array, in whatever memory order the chunks have.

        Raises
        ------
        DamageError
            A chunk is missing or damaged.
        StaleHandleError
            The run was cut back or compacted since it was opened.
        """
        spans = [
            range(size)[k] if isinstance(k, slice) else range(k, k + 1) for k, size in zip(key, self.shape, strict=True)
        ]
        whole = self._read(spans)
        return whole[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]

    def _read(self, spans: list[range]) -> Array:
        if not all(spans):
            return np.empty([len(span) for span in spans], self.dtype)
        parts = [range(s[0] // c, s[-1] // c + 1) for s, c in zip(spans, self.array.chunk_shape, strict=True)]
        if all(len(part) == 1 for part in parts):
            return self._part(tuple(part[0] for part in parts), spans)
        axis = next(axis for axis, part in enumerate(parts) if len(part) > 1)
        size = self.array.chunk_shape[axis]
        cuts = [_within(spans[axis], index * size, (index + 1) * size) for index in parts[axis]]
        return np.concatenate([self._read([*spans[:axis], cut, *spans[axis + 1 :]]) for cut in cuts if cut], axis=axis)

    def _part(self, index: tuple[int, ...], spans: list[range]) -> Array:
        """Part of one chunk; copied when it is small, so that it does not keep the chunk in memory."""
        chunk = self.array.read_chunk(index) if self.array.is_sharded else self._plain_chunk(index)
        starts = [i * c for i, c in zip(index, self.array.chunk_shape, strict=True)]
        part: Array = chunk[tuple(slice(s.start - o, s.stop - o, s.step) for s, o in zip(spans, starts, strict=True))]
        return part if 2 * part.size > chunk.size else part.copy(order="K")

    def _plain_chunk(self, index: tuple[int, ...]) -> Array:
        """A chunk of format 1, whose file does not say of which generation it is."""
        try:
            chunk = self.array.read_chunk(index)
        except ValueError:
            self._raise_if_stale()
            raise
        self._raise_if_stale()
        return chunk

    def _raise_if_stale(self) -> None:
        """A cut or a compaction publishes a new generation before it changes any chunk."""
        document = self.array.folder.parent / DOCUMENT
        try:
            status = os.stat(document)  # noqa: PTH116 - a microsecond for every chunk
            now = _stand(document, status.st_ino, status.st_mtime_ns, status.st_size)
        except (FileNotFoundError, ValueError):
            now = (-1, "")
        if now != self.stand:
            raise StaleHandleError(
                f"{document.parent.parent}: the run was cut back, compacted or replaced since it was opened; open it "
                "again"
            )


def lazy_array(run: Path, commit: Commit, name: str) -> da.Array:
    """An array of a commit as a dask array in its own chunks; equal commits give equal keys.

    Its name ends alike for all arrays of a commit, so that it is seen where those of two runs were put together.
    """
    array = CommittedArray(commit.array(trajectory_of(run), name), _stand_of(commit))
    state = f"{run} {_stand_of(commit)} {commit.writers} {commit.committed_steps} "
    token = digest(state.encode() + to_json(commit.arrays))[:16]
    meta = np.empty((0,) * array.ndim, array.dtype)
    lazy: da.Array = da.from_array(
        array, chunks=array.array.chunk_shape, name=f"{name}-{token}", asarray=False, fancy=False, meta=meta
    )
    return lazy


def _within(span: range, start: int, stop: int) -> range:
    """The part of an ascending range that lies in [start, stop)."""
    first = max(span.start, start + (span.start - start) % span.step)
    return range(first, min(span.stop, stop), span.step)


@lru_cache(maxsize=64)
def _stand(document: Path, _inode: int, _mtime_ns: int, _size: int) -> tuple[int, str]:
    """What `_stand_of` tells of a commit's file; the other arguments tell one content from the next."""
    return _stand_of(read_commit(run_folder(document.parent)))


def _stand_of(commit: Commit) -> tuple[int, str]:
    return commit.generation, commit.run_name


def _forget_threads() -> None:
    """In a forked child: dask's threads are the parent's, and whoever asked them here would wait for ever."""
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()
    dask.threaded.pools_lock = threading.Lock()


_at_fork: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _at_fork is not None:
    _at_fork(after_in_child=_forget_threads)

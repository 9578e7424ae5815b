"""A run as a lazy xarray.Dataset, clamped to its commit, and strict: damage raises, it never shows as numbers."""

from __future__ import annotations

import asyncio
import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pandas as pd
import xarray as xr
from zarr.storage import LocalStore

from store.errors import StaleHandleError
from store.group import DOCUMENT, TRAJECTORY, read_commit, run_folder, to_json

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class StrictStore(LocalStore):
    """A read-only Zarr store of one commit of a run.

    Metadata is what the commit says, however far the writer goes on. Every chunk is checked before zarr sees it:
    that it is there, its checksum, and what it claims to unpack to. After a cut or a compaction the store is stale
    and says so. It pickles, for dask's workers.

    Parameters
    ----------
    run : Path
        The run's folder, absolute.
    """

    def __init__(self, run: Path, *, read_only: bool = True) -> None:
        super().__init__(run / TRAJECTORY, read_only=read_only)
        self.run = run
        self.commit = read_commit(run)
        self._arrays = {name: self.commit.array(self.root, name) for name in self.commit.arrays}
        self._seen = self._identity()

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same store; it is never writable."""
        if not read_only:
            raise ValueError(f"{self.run}: a trajectory is opened for reading only")
        return self

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The checked bytes of a chunk, or a metadata document of this commit."""
        from zarr.core.buffer.core import default_buffer_prototype

        buffer = (prototype or default_buffer_prototype()).buffer
        name, _, file = key.rpartition("/")
        if file == DOCUMENT:
            return buffer.from_bytes(self._document(name)) if name in self._arrays or not name else None
        if name not in self._arrays or not file.startswith("c.") or byte_range is not None:
            return None
        array = self._arrays[name]
        index = tuple(int(part) for part in file.split(".")[1:])
        try:
            data = array.read_bytes(index)
            array.verify(data, index)
        except ValueError:
            self._raise_if_stale()
            raise
        self._raise_if_stale()
        return buffer.from_bytes(data)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As `get_sync`, in a thread."""
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StrictStore) and (self.run, self.commit) == (other.run, other.commit)

    __hash__ = None  # type: ignore[assignment]

    def _document(self, name: str) -> bytes:
        return to_json(self.commit.arrays[name]) if name else self.commit.to_bytes()

    def _identity(self) -> tuple[int, int, int]:
        """What changes when the commit's file is replaced."""
        status = os.stat(self.root / DOCUMENT)  # noqa: PTH116 - a microsecond for every chunk
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _raise_if_stale(self) -> None:
        """A cut or a compaction publishes a new generation before it changes any chunk."""
        try:
            identity = self._identity()
        except FileNotFoundError:
            identity = (0, 0, 0)
        if identity == self._seen:
            return
        try:
            generation = read_commit(self.run).generation
        except (FileNotFoundError, ValueError):
            generation = -1
        if generation != self.commit.generation:
            raise StaleHandleError(
                f"{self.run}: the run was cut back or compacted since it was opened at step "
                f"{self.commit.committed_steps}; open it again"
            )
        self._seen = identity


def open_trajectory(run: str | Path) -> xr.Dataset:
    """Open a run, lazily, at its last commit; also while it is being written.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.

    Returns
    -------
    xarray.Dataset
        Coordinates `step` (int64 labels, 0 is the state before the first update) and `token` (int64 ids), and a
        dask-backed variable for every array of the run, in its chunks. Its attributes are the run's, with
        `committed_steps`, `completed`, `checkpoint`, `run`, and `tokens`, how many were recorded (a selection has
        fewer). To see later steps, open again: it costs milliseconds.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here (yet), or one of a later format.
    DamageError
        The metadata is damaged; or later, when a damaged chunk is touched, a named error instead of numbers.
    StaleHandleError
        Later, when the run was cut back or compacted after it was opened.

    Notes
    -----
    Opening reads the commit and the small coordinates, whatever the length of the run; no data.
    """
    folder = run_folder(run)
    store = StrictStore(folder)
    commit = store.commit
    ds: xr.Dataset = xr.open_zarr(
        store, consolidated=True, zarr_format=3, chunks={}, decode_cf=False, drop_variables=["step"]
    )
    ds = ds[[name for name in commit.arrays if name in ds.data_vars]]  # the order of the channels' table
    labels = pd.RangeIndex(commit.committed_steps + 1)  # a million labels would take 2 s to load
    ds = ds.assign_coords(step=("step", labels, commit.arrays["step"]["attributes"]))
    state = {name: getattr(commit, name) for name in ("committed_steps", "completed", "checkpoint")}
    ds.attrs = copy.deepcopy(dict(commit.attributes)) | state | {"run": str(folder), "tokens": ds.sizes["token"]}
    return ds

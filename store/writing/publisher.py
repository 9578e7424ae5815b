"""What makes rows public: chunks put in place, the checkpoint, the one rename, then the arrays' own metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from store.errors import RowError
from store.format import writers
from store.format.codec import Array
from store.format.files import CHECKPOINT, CONFIG, DOCUMENT, PARTIAL, SECOND_COPY, TRAJECTORY
from store.format.label import STATIC
from store.format.shard import ShardWriter
from store.holding import overwritten
from store.holding.held_run import HeldRun
from store.holding.leftovers import clear_replaced, find, old_checkpoints
from store.run.commit import Commit
from store.run.document import digest, read_document, to_json
from store.run.training_state import digests, is_whole, step_of, with_newest
from store.system_calls import Bytes
from store.writing.block_file import BlockFile, BlockFiles, PlainChunks, Shard

Result = TypeVar("Result")
_SMALL_STATE = 1 << 20
"""Bytes by which a file of an earlier checkpoint may be longer than twice the longest of a new one."""


class Publisher:
    """The files of one run, for its one writer.

    Parameters
    ----------
    held : HeldRun
        The run's folder, locked.
    commit : Commit
        What is published, or for a new run what the first commit will extend.
    is_new : bool
        Nothing is published yet: the trajectory is built under a temporary name and appears with its first commit.
    """

    def __init__(self, held: HeldRun, commit: Commit, *, is_new: bool) -> None:
        self.held, self.run, self.disk = held, held.run, held.disk
        self.commit = commit
        self.is_new = is_new
        self._published = commit
        self._unsynced: set[Path] = set()
        self._has_come = is_new
        self.foreign: list[Path] = []
        self._whole: dict[Path, Path] = {}  # the name that a temporary file will get -> its name now
        self._own_checkpoints: set[str] = set()

    @property
    def scratch(self) -> Path:
        """The folder of files that are being written."""
        return self.run / PARTIAL

    @property
    def trajectory(self) -> Path:
        """The Zarr group: its place, or its temporary name before the first commit."""
        return (self.scratch if self.is_new else self.run) / TRAJECTORY

    def begin(self, config: Mapping[str, Any]) -> None:
        """Lay the folders of a new run; config.json is durable before anything else."""
        self.disk.make_folder(self.scratch)
        self.put_config(config)
        for name in self.commit.arrays:
            self.disk.make_folder(self.trajectory / name)

    def put_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json."""
        self.put_document(CONFIG, to_json(config, indent=1))

    def put_document(self, name: str, data: bytes) -> None:
        """Write a document of the run durably; its digest goes with the next commit.

        Where the commit names another content, one that allows both comes first, so that no crash looks like damage.
        """
        before, after = self.commit.sha256.get(name), digest(data)
        if before == after and os.path.lexists(self.run / name):
            return
        self.held.check()
        if before not in (None, after) and not self.is_new:
            self.publish(replace(self.commit, sha256={**self.commit.sha256, name: f"{before} {after}"}))
        path = self.run / name
        self._put(path, [data])
        self.disk.sync_folder(path.parent)
        self.commit = replace(self.commit, sha256={**self.commit.sha256, name: after})

    def come(self) -> None:
        """Publish that a new writer has come, before it writes a file. In format 1 files don't say whose they are."""
        if self.commit.version > 1 and not self._has_come:
            self.publish(replace(self.commit, **writers.resume(self.commit.state, writers.new_writer())))
        self._has_come = True

    def open_block(self, name: str, block: int, last: int) -> BlockFile:
        """The file of a block of an array, for its chunks. `publish` gives it its name.

        Parameters
        ----------
        last : int
            Step label of the block's last row; see `store.format.label.Label`.
        """
        array = self.commit.array(self.trajectory, name)
        self._unsynced.add(array.folder)
        self.held.check()
        standing = self.commit.standing
        if standing is None:
            targets = [array.folder / array.key(index) for index in array.indices(block)]
            return PlainChunks(targets, self._put)
        writer, key = standing.writers.newest, array.layout.key(block)
        temporary, target = self.scratch / f"{writer:016x}.{name}.{key}", array.folder / key
        file = self._with_scratch(lambda: self.disk.create(temporary))
        shard = ShardWriter(
            file, name=array.layout.file_name(block), writer=writer, last=last, count=array.layout.chunks_of_a_file
        )
        return Shard(file, shard, lambda: self._whole.update({target: temporary}))

    def put_whole(self, name: str, values: Array) -> None:
        """Write an array without a step axis; it is one chunk.

        Raises
        ------
        RowError
            The values have another shape or dtype than the array.
        """
        self.held.check()
        array = self.commit.array(self.trajectory, name)
        if values.shape != array.shape or values.dtype != array.dtype:
            raise RowError(f"{name}: {values.dtype}{values.shape} for an array of {array.dtype}{array.shape}")
        self._put(array.folder / DOCUMENT, [to_json(array.metadata)])
        self._unsynced.add(array.folder)
        if values.size:
            with BlockFiles(self.open_block) as files:
                last = self.commit.committed_steps if array.layout.role == "final" else STATIC
                files.add(name, 0, last, array.encode(values))

    def put_checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Write training state; the next commit names it, and the one before it. Never in place: a crash would leave a
        mixture.
        """
        most = _SMALL_STATE + 2 * max(map(len, files.values()), default=0)
        newest, own = self.commit.checkpoint, {file: digest(data) for file, data in files.items()}
        if newest and step_of(newest) == step and digests(self.commit, newest) == own and self._is_whole(newest, most):
            return
        self.commit = with_newest(self.commit, step, lambda kept: self._is_whole(kept, most))
        name = str(self.commit.checkpoint)
        self.disk.make_folder(self.run / CHECKPOINT / name)
        for file, data in files.items():
            self.put_document(f"{CHECKPOINT}/{name}/{file}", data)
        self._own_checkpoints.add(name)

    def _is_whole(self, name: str, most_bytes: int) -> bool:
        """Whether a checkpoint is what was written; one that this writer wrote is not read again."""
        return name in self._own_checkpoints or is_whole(self.run, self.commit, name, most_bytes)

    def publish(self, commit: Commit, *, array_metadata: bool = True) -> None:
        """Make `commit` the state of the run. After this returns, a power cut takes nothing of it away.

        Parameters
        ----------
        array_metadata : bool
            Whether to bring the arrays' own metadata up, too; they may stay behind for a while.
        """
        self.held.check()
        if commit.generation > self.commit.generation:
            # A cut: the arrays' own metadata goes back first, so that it is never ahead of the commit.
            self.put_array_metadata(commit)
            self._unsynced.update(self.trajectory / name for name in commit.arrays)
        self._rename_whole()
        for folder in sorted(self._unsynced):
            self.disk.sync_folder(folder)
        self._unsynced.clear()
        was_new = self.is_new
        if was_new:
            self.held.begins(commit.standing)
            self._appear(commit)
        else:
            self._put(self.trajectory / DOCUMENT, [commit.to_bytes()])
            self.disk.sync_folder(self.trajectory)
        self.commit = self._published = commit = replace(commit, changed="")
        self.held.left(commit.standing)
        self.put_second_copy(flush=array_metadata)
        if was_new:
            with suppress(OSError):  # the next writer tries again
                overwritten.settle(self.run, self.disk)
        if array_metadata:
            self.put_array_metadata(commit)
        self._drop_old_checkpoints()

    def put_second_copy(self, *, flush: bool = True) -> None:
        """Write the commit once more, outside of the Zarr group. Where a power cut spoils it, the first one counts."""
        if self.commit.version > 1:
            self._put(self.run / SECOND_COPY, [self.commit.to_bytes()], flush=flush)

    def publish_changes(self) -> None:
        """Publish what was changed of the commit and waits for rows that did not come: attributes, digests."""
        if not self.is_new and self.commit != self._published:
            self.publish(self.commit)

    def _rename_whole(self) -> None:
        """Give the files that were written their names. Until the commit they are ahead of it, and read as before."""
        while self._whole:
            target, temporary = next(iter(self._whole.items()))
            self.disk.replace(temporary, target)
            del self._whole[target]

    def put_array_metadata(self, commit: Commit) -> None:
        """Bring each array's own zarr.json to a commit, for tools that read only that. Never ahead of it."""
        self.held.check()
        for name, metadata in commit.arrays.items():
            path, data = self.trajectory / name / DOCUMENT, to_json(metadata)
            if not path.exists() or read_document(path) != data:
                self._put(path, [data])

    def sweep(self) -> None:
        """Remove what an interrupted write left, and chunks that are newer than the commit. Others' files stay.

        A killed writer may leave a visible but unflushed commit; flush it first: what is removed here may be all that
        an older commit has.
        """
        if not self.is_new:
            self.disk.sync_folder(self.run)
            self.disk.sync_folder(self.trajectory)
        clear_replaced(self.run, self.commit, self.disk)
        found = find(self.run, self.commit)
        for path in found.made:
            self.disk.remove(path)
        self.foreign = found.foreign
        self.disk.make_folder(self.scratch)

    def _appear(self, commit: Commit) -> None:
        """The first commit: build the group under its temporary name, flushed, and give it its own in one rename."""
        for name, metadata in commit.arrays.items():
            self._put(self.trajectory / name / DOCUMENT, [to_json(metadata)])
            self.disk.sync_folder(self.trajectory / name)
        self._put(self.trajectory / DOCUMENT, [commit.to_bytes()])
        self.disk.sync_folder(self.trajectory)
        self.disk.rename(self.trajectory, self.run / TRAJECTORY)
        self.is_new = False

    def _put(self, path: Path, parts: Sequence[Bytes], *, flush: bool = True) -> None:
        """Put a file in place, where the run is still this writer's once it is written: flushing may take a while."""
        self._with_scratch(lambda: self.disk.put(path, parts, self.scratch, flush=flush, may_rename=self.held.check))

    def _with_scratch(self, write: Callable[[], Result]) -> Result:
        """Write a temporary file; once more where somebody cleared away the folder of these, which is often empty."""
        try:
            return write()
        except FileNotFoundError:
            self.held.check()
            if os.path.lexists(self.scratch) or self.is_new:
                raise
            self.disk.make_folder(self.scratch)
            return write()

    def _drop_old_checkpoints(self) -> None:
        for path in old_checkpoints(self.run, self.commit).made:
            self.disk.remove(path)

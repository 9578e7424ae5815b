"""What makes rows public: chunks put in place, the checkpoint, the one rename, then the arrays' own metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from store.disk import Disk
from store.errors import RowError, WriterError
from store.format import writers
from store.format.codec import Array
from store.format.files import CHECKPOINT, CONFIG, DOCUMENT, PARTIAL, TRAJECTORY
from store.format.label import STATIC
from store.format.shard import ShardWriter
from store.run import overwritten
from store.run.commit import Commit, digest, read_document, standing_now, to_json
from store.writing.block_file import BlockFile, BlockFiles, PlainChunks, Shard


class Publisher:
    """The files of one run, for its one writer.

    Parameters
    ----------
    run : Path
        The run's folder.
    disk : Disk
        Where it lies.
    commit : Commit
        What is published, or for a new run what the first commit will extend.
    is_new : bool
        Nothing is published yet: the trajectory is built under a temporary name and appears with its first commit.
    """

    def __init__(self, run: Path, disk: Disk, commit: Commit, *, is_new: bool) -> None:
        self.run = run
        self.disk = disk
        self.commit = commit
        self.is_new = is_new
        self._published = commit
        self._unsynced: set[Path] = set()
        self._has_come = is_new
        self._left = None if is_new else self._seen()
        self._whole: dict[Path, Path] = {}  # the name that a temporary file will get -> its name now

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
        if before == after:
            return
        self._check_owner()
        if before and not self.is_new:
            self.publish(replace(self.commit, sha256={**self.commit.sha256, name: f"{before} {after}"}))
        path = self.run / name
        self.disk.put(path, [data], self.scratch)
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
        self._check_owner()
        standing = self.commit.standing
        if standing is None:
            targets = [array.folder / array.key(index) for index in array.indices(block)]
            return PlainChunks(targets, lambda path, parts: self.disk.put(path, parts, self.scratch))
        writer, key = standing.writers.newest, array.layout.key(block)
        temporary, target = self.scratch / f"{writer:016x}.{name}.{key}", array.folder / key
        file = self.disk.create(temporary)
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
        self._check_owner()
        array = self.commit.array(self.trajectory, name)
        if values.shape != array.shape or values.dtype != array.dtype:
            raise RowError(f"{name}: {values.dtype}{values.shape} for an array of {array.dtype}{array.shape}")
        self.disk.put(array.folder / DOCUMENT, [to_json(array.metadata)], self.scratch)
        self._unsynced.add(array.folder)
        if values.size:
            with BlockFiles(self.open_block) as files:
                last = self.commit.committed_steps if array.layout.role == "final" else STATIC
                files.add(name, 0, last, array.encode(values))

    def put_checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Write training state; the next commit names it. Never in place: a crash would leave a mixture."""
        name = f"step-{step}"
        if name == self.commit.checkpoint:
            named = {k: v for k, v in self.commit.sha256.items() if k.startswith(f"{CHECKPOINT}/")}
            if named == {f"{CHECKPOINT}/{name}/{file}": digest(data) for file, data in files.items()}:
                return
            name += ".1"
        self.disk.make_folder(self.run / CHECKPOINT / name)
        self.commit = replace(self.commit, checkpoint=name, sha256=self._documents())
        for file, data in files.items():
            self.put_document(f"{CHECKPOINT}/{name}/{file}", data)

    def publish(self, commit: Commit, *, array_metadata: bool = True) -> None:
        """Make `commit` the state of the run. After this returns, a power cut takes nothing of it away.

        Parameters
        ----------
        array_metadata : bool
            Whether to bring the arrays' own metadata up, too; they may stay behind for a while.
        """
        self._check_owner()
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
            self._appear(commit)
        else:
            self.disk.put(self.trajectory / DOCUMENT, [commit.to_bytes()], self.scratch)
            self.disk.sync_folder(self.trajectory)
        self.commit = self._published = commit
        self._left = self._seen()
        if was_new:
            with suppress(OSError):  # the next writer tries again
                overwritten.settle(self.run, self.disk)
        if array_metadata:
            self.put_array_metadata(commit)
        self._drop_old_checkpoints()

    def publish_changes(self) -> None:
        """Publish what was changed of the commit and waits for rows that did not come: attributes, digests."""
        if not self.is_new and self.commit != self._published:
            self.publish(self.commit)

    def _seen(self) -> tuple[int, ...] | None:
        """What tells the commit's file from any other; None where there is none."""
        try:
            status = os.lstat(self.run / TRAJECTORY / DOCUMENT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _check_owner(self) -> None:
        """Raise where the commit on disk is not the one that this writer left: the run is somebody else's now.

        Raises
        ------
        WriterError
            The run was removed, replaced, or taken over by another writer. Nothing of it was touched.
        """
        if self.is_new or self.commit.version == 1 or (seen := self._seen()) == self._left:
            return
        now, mine = standing_now(self.run / TRAJECTORY), self._published.standing
        if now is not None and mine is not None and (now.run_id, now.writers) == (mine.run_id, mine.writers):
            self._left = seen
            return
        if seen is None:
            what = "was removed"
        elif now is None or mine is None or now.run_id != mine.run_id:
            what = "was replaced by another run"
        else:
            what = f"was taken over by another writer, and stands at step {now.committed_steps}"
        raise WriterError(f"{self.run}: the run {what} while it was written here; nothing of it was changed")

    def _rename_whole(self) -> None:
        """Give the files that were written their names. Until the commit they are ahead of it, and read as before."""
        while self._whole:
            target, temporary = next(iter(self._whole.items()))
            self.disk.replace(temporary, target)
            del self._whole[target]

    def put_array_metadata(self, commit: Commit) -> None:
        """Bring each array's own zarr.json to a commit, for tools that read only that. Never ahead of it."""
        self._check_owner()
        for name, metadata in commit.arrays.items():
            path, data = self.trajectory / name / DOCUMENT, to_json(metadata)
            if not path.exists() or read_document(path) != data:
                self.disk.put(path, [data], self.scratch)

    def sweep(self) -> None:
        """Remove what an interrupted write left, and whatever is newer than the commit.

        Who was killed may have left a commit that is seen and not durable yet. It is made so first: what is removed
        here may be all that an older commit has.
        """
        if not self.is_new:
            self.disk.sync_folder(self.run)
            self.disk.sync_folder(self.trajectory)
        for leftover in leftovers(self.run, self.commit):
            self.disk.remove(leftover)
        self.disk.make_folder(self.scratch)

    def _appear(self, commit: Commit) -> None:
        """The first commit: build the group under its temporary name, flushed, and give it its own in one rename."""
        for name, metadata in commit.arrays.items():
            self.disk.put(self.trajectory / name / DOCUMENT, [to_json(metadata)], self.scratch)
            self.disk.sync_folder(self.trajectory / name)
        self.disk.put(self.trajectory / DOCUMENT, [commit.to_bytes()], self.scratch)
        self.disk.sync_folder(self.trajectory)
        self.disk.rename(self.trajectory, self.run / TRAJECTORY)
        self.is_new = False

    def _documents(self) -> dict[str, str]:
        """Digests of the documents that are no checkpoint's."""
        return {name: value for name, value in self.commit.sha256.items() if not name.startswith(CHECKPOINT)}

    def _drop_old_checkpoints(self) -> None:
        for folder in _old_checkpoints(self.run, self.commit):
            self.disk.remove(folder)


def leftovers(run: Path, commit: Commit) -> Iterable[Path]:
    """Files of an interrupted write: temporaries, chunks newer than the commit, checkpoints it does not name."""
    yield from _inside(run / PARTIAL)
    yield from _old_checkpoints(run, commit)
    for name in commit.arrays:
        array = commit.array(run / TRAJECTORY, name)
        wanted = array.keys() | {DOCUMENT}
        yield from (path for path in _inside(array.folder) if path.name not in wanted)
    yield from (p for p in _inside(run / TRAJECTORY) if p.name != DOCUMENT and p.name not in commit.arrays)


def _old_checkpoints(run: Path, commit: Commit) -> list[Path]:
    return [path for path in _inside(run / CHECKPOINT) if path.name != commit.checkpoint]


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none, or where somebody moves it away just now."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []

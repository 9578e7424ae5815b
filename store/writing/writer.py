"""The writer: `append` copies a step's rows and returns; a thread derives, encodes, writes and commits them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from numpy.typing import ArrayLike

from store.disk import Disk, LocalDisk
from store.errors import DifferenceError, RowError, WriterError
from store.format.codec import Array
from store.format.files import run_folder
from store.format.schema import Channel
from store.holding import overwritten
from store.holding.held_run import HeldRun, hold_run
from store.run.document import to_json
from store.writing import opening
from store.writing.completion import Finish, complete
from store.writing.encoder import Derive
from store.writing.plan import plan
from store.writing.publisher import Publisher
from store.writing.worker import Worker


class TrajectoryWriter:
    """Streams a run to disk, step by step, in bounded memory. Make one by `create` or `resume`; a context manager.

    One process, and one thread at a time, may use it. Memory: an open block of given rows and a sixth of one more, one
    chunk of each channel, one block of the derived channels without a hidden axis; `store.format.chunking.project`
    reckons it.
    """

    def __init__(self, worker: Worker, finish: Finish | None) -> None:
        self.run = worker.publisher.run
        self._worker, self._held, self._finish = worker, worker.publisher.held, finish
        self._labels = worker.publisher.commit.labels()
        self._pid = os.getpid()
        self._closed = False
        worker.start()

    @classmethod
    def create(
        cls, run: str | Path, *, channels: Sequence[Channel], tokens: Array, hidden: int = 1,
        labels: ArrayLike | None = None, first_step: int = 0,
        derive: Derive | None = None, finish: Finish | None = None,
        sizes: Mapping[str, int] | None = None, statics: Mapping[str, Array] | None = None,
        attributes: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None,
        commit_interval_s: float = 30.0, restart: bool = False, overwrite: bool = False, lock: bool = True,
        disk: Disk | None = None,
    ) -> Self:  # fmt: skip
        """Begin a new run.

        Parameters
        ----------
        run : path
            Folder to make.
        channels : sequence of Channel
            What is recorded. The arrays `step` and `token` are added by the store.
        tokens : array of int64, shape (token,)
            Id of each recorded row.
        hidden : int
            Size of the dimension "hidden".
        labels : array of int, optional
            The step of each row where these are not 0, 1, 2, ...: ascending, from 0 or more. The run takes as many
            rows as there are labels.
        first_step : int
            The step of the first row, from which the labels go on by one: of a training that was not recorded from
            its beginning.
        derive : callable, optional
            Makes the derived channels, see `store.writing.encoder.Derive`. Runs in the writer's thread; its row values
            must not depend on how steps and tokens are cut, nor on the memory order.
        finish : callable, optional
            Makes the final arrays when the run completes, see `store.writing.completion.Finish`.
        sizes : mapping of str to int, optional
            Sizes of further dimensions.
        statics : mapping of str to array, optional
            The static channels' arrays.
        attributes, config : mapping, optional
            Attributes of the group, and the content of config.json (JSON values).
        commit_interval_s : float
            Commit at least so often, in seconds, while steps are waiting; a full block is committed at once.
        restart : bool
            Allow a folder whose run was killed before its first commit.
        overwrite : bool
            Take the place of the run that is there, if every file in its folder is the store's own. It is set aside
            until the first commit of the new one, and put back by the next writer after a crash before that.
        lock : bool
            Whether the operating system is asked for a lock. False is for file systems that know none: then two
            processes on two machines that write the run at once spoil it, and nothing keeps them from it.
        disk : Disk, optional
            Where the bytes go; by default the local file system.

        Raises
        ------
        RunExistsError
            There is something at `run` already.
        LockedError
            Another process writes there.
        RowError
            Channels, sizes and static arrays do not fit together.
        OSError
            As the disk says.
        """
        folder, disk = run_folder(run, to_write=True), disk or LocalDisk()
        opening.put_back(folder, disk, lock=lock)
        opening.refuse_in_the_way(folder, restart=restart, overwrite=overwrite)
        commit, arrays = plan(
            channels, tokens, hidden, labels=labels, first_step=first_step, sizes=sizes or {},
            statics=statics or {}, attributes=attributes or {},
        )  # fmt: skip
        disk.make_folder(folder)
        disk.sync_folder(folder.parent)  # a killed writer may have made the folder and not flushed it
        held = HeldRun(folder, disk, lock=lock)
        try:
            # another process may have come and gone
            opening.refuse_in_the_way(folder, restart=restart, overwrite=overwrite)
            if overwrite:
                overwritten.set_aside(folder, held.disk)
            publisher = Publisher(held, commit, is_new=True)
            publisher.sweep()
            publisher.begin(config or {})
            for name, values in arrays.items():
                publisher.put_whole(name, values)
            return cls(Worker.of(publisher, derive, commit_interval_s), finish)
        except BaseException:
            held.release()
            raise

    @classmethod
    def resume(
        cls, run: str | Path, *, derive: Derive | None = None, finish: Finish | None = None,
        from_step: int | None = None, on_difference: Literal["replace", "raise"] = "replace", cut: bool = False,
        attributes: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None,
        commit_interval_s: float = 30.0, lock: bool = True, disk: Disk | None = None,
    ) -> Self:  # fmt: skip
        """Go on with a run after its last commit, or after an earlier step.

        Parameters
        ----------
        from_step : int, optional
            The step after which rows will be appended; -1 begins anew. Up to the commit they are compared with the
            stored ones.
        on_difference : {"replace", "raise"}
            What to do when a step that was computed again differs: cut the run back to the step before and go on
            with the new rows (`difference` tells), or raise `DifferenceError` and leave the run as it is.
        cut : bool
            Cut the run back to `from_step` at once, for steps that are meant to differ.
        attributes, config : mapping, optional
            Replace the run's, for example with a larger `total_steps`.
        lock
            As `create` takes it.

        Raises
        ------
        NotATrajectoryError, DamageError, LockedError, OSError
        ValueError
            `from_step` is not among the committed steps.
        """
        folder = run_folder(run, to_write=True)
        opening.put_back(folder, disk or LocalDisk(), lock=lock)
        held, commit = hold_run(folder, disk or LocalDisk(), lock=lock)
        try:
            publisher = opening.reopen(held, commit, attributes, config)
            commit = publisher.commit
            start = commit.rows if from_step is None else commit.labels().rows_until(from_step)
            is_there = from_step is None or commit.labels().label(start - 1) == from_step
            if not is_there or not (1 if cut else 0) <= start <= commit.rows:
                raise ValueError(
                    f"{folder}: cannot go on after step {from_step}; it is committed up to {commit.committed_steps}"
                )
            worker = Worker.of(publisher, derive, commit_interval_s, on_difference)
            worker.go_to(start, cut=cut)
            return cls(worker, finish)
        except BaseException:
            held.release()
            raise

    @property
    def steps(self) -> int:
        """Label of the last step appended; -1 before the first."""
        return self._labels.label(self._worker.main.stop - 1)

    @property
    def committed_steps(self) -> int:
        """Label of the last step that no crash can take away; -1 before the first commit."""
        return self._worker.publisher.commit.committed_steps

    @property
    def foreign(self) -> list[Path]:
        """Files and folders that a resume found in the run's folders, and left: the store did not make them."""
        return self._worker.publisher.foreign

    @property
    def owns_run(self) -> bool:
        """Whether what lies at `run` is still written here: false once it was removed, replaced or taken over.

        Such a writer raises at its next commit or when it is closed, and changes nothing any more.
        """
        return not self._closed and self._held.is_mine

    @property
    def waited_s(self) -> float:
        """Seconds that `append` has waited for the disk or the encoder so far."""
        return self._worker.waited_s

    @property
    def is_closed(self) -> bool:
        """Whether the run is no longer held: it was closed or completed, or writing failed."""
        return self._closed

    @property
    def difference(self) -> str | None:
        """After a resume: the first step that was computed again and differed from the stored one, and where."""
        return self._worker.difference

    def append(self, **rows: Any) -> None:  # noqa: ANN401 - arrays, numbers or None
        """Record the next step. The rows are copied before this returns; it waits while the ring is full.

        Parameters
        ----------
        **rows
            A row of every given channel that records this step, by name; None where there is none (NaN is kept).

        Raises
        ------
        RowError
            A channel is missing, unknown, or of another shape or dtype, or there is no label for another step.
            Nothing was recorded.
        WriterError
            The writer failed since, or is closed, or this process is a fork of the one that made it.
        """
        self._check_usable()
        step = self._next_label()
        self._worker.put(step, self._checked(step, rows))
        self._check_usable()

    def last_row(self, name: str) -> Array | None:
        """The row of a given channel with a row at every step, as it was appended last; None where there is none.

        A view, until the next `append`.
        """
        ring = self._worker.main
        return ring.last(name) if name in ring.channels else None

    def room(self, name: str) -> Array | None:
        """Memory for the next row of a channel with one at every step: what is made there `append` does not copy.

        Waits while the ring is full. None where there is no such channel. Raises WriterError as `append` does.
        """
        self._check_usable()
        return self._worker.room(name)

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Hand over the training state after `step`; it is written with the next commit that reaches that step."""
        self._check_usable()
        self._worker.add_checkpoint(step, files)

    @property
    def attributes(self) -> dict[str, Any]:
        """The run's attributes, with those of `tell`."""
        return self._worker.attributes

    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Have these attributes in the run from its next commit on; TypeError or ValueError unless they are JSON."""
        self._check_usable()
        self._worker.tell(json.loads(to_json(dict(attributes))))

    def commit(self) -> None:
        """Commit every appended step, and return when that is durable."""
        self._check_usable()
        self._worker.commit()
        self._check_usable()

    def complete(self, describe: Callable[[Mapping[str, Array]], Mapping[str, Any]] | None = None) -> None:
        """End the run: commit, write the final arrays and metadata.json, and close.

        Parameters
        ----------
        describe : callable, optional
            Gets the final arrays by name, returns the content of metadata.json (JSON values).
        """
        self._check_usable()
        self._worker.stop()
        self._check_usable()
        try:
            complete(self._worker.publisher, self._finish, describe)
        finally:
            self._release()

    def close(self) -> None:
        """Commit what waits and free the run. Closing again does nothing.

        Raises
        ------
        WriterError
            What was appended since the last commit could not be written.
        """
        if os.getpid() != self._pid:
            return
        if not self._closed:
            self._worker.stop()
            self._release()
            self._raise_error()
        self._held.release()  # which an interrupt of an earlier call may have left out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"at step {self.steps}"
        return f"<TrajectoryWriter {self.run}: {state}, committed {self.committed_steps}>"

    def _next_label(self) -> int:
        row = self._worker.main.stop
        if self._labels.rows is not None and row >= self._labels.rows:
            raise RowError(f"append: the run was created for {row} steps, and the last of them, {self.steps}, is there")
        return self._labels.label(row)

    def _checked(self, step: int, rows: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
        """The rows of this step as arrays, by the axis that they belong to."""
        taken: dict[str, dict[str, Array]] = {}
        for axis, ring in self._worker.rings.items():
            wanted = [name for name, channel in ring.channels.items() if channel.records(step)]
            missing = [name for name in wanted if name not in rows]
            if missing:
                raise RowError(f"append: step {step} needs a row of {', '.join(missing)}")
            if wanted or axis == "step":
                taken[axis] = {name: ring.check(name, rows[name]) for name in wanted}
        known = {name for values in taken.values() for name in values}
        if extra := rows.keys() - known:
            raise RowError(f"append: step {step} has {', '.join(sorted(known))}, no {', '.join(sorted(extra))}")
        return taken

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise WriterError(f"{self.run}: a forked child cannot write; only process {self._pid} can")
        if self._worker.error is not None:
            self.close()
            self._raise_error()
        if self._closed:
            raise WriterError(f"{self.run}: the writer is closed; go on with TrajectoryWriter.resume")

    def _raise_error(self) -> None:
        error = self._worker.error
        if isinstance(error, (DifferenceError, WriterError)):
            raise error
        if error is not None:
            stand = "nothing of it is committed; mend the cause, then begin again"
            if self.committed_steps >= 0:
                stand = f"the run is whole up to step {self.committed_steps}; mend the cause, then resume"
            raise WriterError(f"{self.run}: writing failed: {error}; {stand}") from error

    def _release(self) -> None:
        self._closed = True
        try:
            if self._worker.publisher.is_new and self._held.is_mine:  # the first commit never came
                overwritten.settle(self.run, self._held.disk)
        finally:
            self._held.release()

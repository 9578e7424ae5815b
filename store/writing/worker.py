"""The thread behind a writer: it takes rows from the rings, brings them to disk and commits them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from store.errors import DifferenceError, RowError, WriterError
from store.format import writers
from store.format.codec import Array
from store.run.training_state import without_newer
from store.writing.encoder import Derive, Encoder
from store.writing.plan import channels_of, make_rings
from store.writing.publisher import Publisher
from store.writing.replay import first_difference
from store.writing.ring import Ring


class Worker:
    """Owns the rings, the thread and the order of commits. All waiting is done on one condition.

    Parameters
    ----------
    publisher : Publisher
        Where chunks and commits go.
    rings, encoders : mapping
        By the name of the step axis; "step" is among them.
    interval_s : float
        Commit at least so often while rows are waiting.
    on_difference : {"replace", "raise"}
        What to do when a row that is stored already comes again and differs.
    """

    def __init__(
        self, publisher: Publisher, rings: Mapping[str, Ring], encoders: Mapping[str, Encoder], interval_s: float,
        on_difference: Literal["replace", "raise"],
    ) -> None:  # fmt: skip
        self.publisher, self.rings, self._encoders = publisher, rings, encoders
        self.main, self._labels = rings["step"], publisher.commit.labels()
        self.waited_s = 0.0
        self.difference: str | None = None
        self.error: BaseException | None = None
        self._interval_s, self._on_difference = interval_s, on_difference
        self._lock = threading.RLock()  # entered by itself: an interrupt in the methods of a Condition leaves it taken
        self._changed = threading.Condition(self._lock)
        self._commit_wanted = self._closing = False
        self._checkpoints: list[tuple[int, Mapping[str, bytes]]] = []
        self._told: dict[str, Any] = {}
        self._stored = dict.fromkeys(rings, 0)  # rows on disk; new rows below that are compared, not written
        self._compared = dict.fromkeys(rings, 0)
        self._committed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"writer of {publisher.run.name}", daemon=True)

    @classmethod
    def of(
        cls, publisher: Publisher, derive: Derive | None, interval_s: float,
        on_difference: Literal["replace", "raise"] = "replace",
    ) -> Self:  # fmt: skip
        """A worker for the run of this publisher, with a ring and an encoder for each of its step axes.

        Raises
        ------
        RowError
            The run has derived channels, and there is nothing that derives them.
        """
        commit = publisher.commit
        channels, rings = channels_of(commit), make_rings(commit)
        derived = [channel for channel in channels if channel.role == "derived"]
        if derived and derive is None:
            names = ", ".join(channel.name for channel in derived)
            raise RowError(f"{publisher.run}: {names} are derived channels, but no derive function was given")
        arrays = {name: commit.array(publisher.trajectory, name) for name in commit.arrays}
        encoders = {}
        for axis in rings:
            given = [c for c in channels if c.role == "given" and c.axis == axis]
            is_main = axis == "step"
            encoders[axis] = Encoder(given, arrays, derived if is_main else [], derive if is_main else None)
        return cls(publisher, rings, encoders, interval_s, on_difference)

    # Called by the writer, in the caller's thread

    def go_to(self, rows: int, *, cut: bool) -> None:
        """Before the start: stand where the first `rows` stored rows are in, the later ones to be compared or cut."""
        label = self._labels.label(rows - 1)
        for axis, encoder in self._encoders.items():
            labels = encoder.arrays[axis]
            self._stored[axis] = labels.shape[0]
            stop = int((labels.read_rows(0, labels.shape[0]) <= label).sum())
            ring = self.rings[axis]
            ring.load(encoder.arrays, stop)
            encoder.go_to(ring.start)
        self._compared = {axis: ring.stop for axis, ring in self.rings.items()}
        if cut and rows < self._stored["step"]:
            self._cut(label)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def room(self, name: str) -> Array | None:
        """Memory of the next row of a channel of the main axis; waits while its ring is full."""
        if name not in self.main.channels:
            return None
        self._wait_for_room([self.main.axis])
        return self.main.room(name)

    def _wait_for_room(self, axes: Collection[str]) -> None:
        """Wait while the ring of one of these axes is full. Look at `error` afterwards."""
        with self._lock:
            if any(self.rings[axis].is_full for axis in axes):
                since = time.monotonic()
                self._changed.wait_for(lambda: self.error or not any(self.rings[axis].is_full for axis in axes))
                self.waited_s += time.monotonic() - since

    def put(self, step: int, rows: Mapping[str, Mapping[str, Array]]) -> None:
        """Copy a step's rows, by axis, into the rings; waits while one is full. Look at `error` afterwards."""
        self._wait_for_room(rows.keys())
        if self.error:
            return
        for axis, values in rows.items():
            self.rings[axis].put(step, values)
        with self._lock:
            for axis in rows:
                self.rings[axis].advance()
            is_first_to_wait = self.main.stop == self.publisher.commit.rows + 1
            if is_first_to_wait or self._has_work():  # the thread then knows from when to count the interval
                self._changed.notify_all()

    def add_checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep training state for the next commit that reaches `step`."""
        with self._lock:
            self._checkpoints.append((step, dict(files)))

    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Keep attributes of the run for the next commit."""
        with self._lock:
            self._told |= attributes

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the run, with what the next commit adds."""
        with self._lock:
            return {**self.publisher.commit.attributes, **self._told}

    def commit(self) -> None:
        """Have everything committed and wait until it is."""
        with self._lock:
            self._commit_wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.error or not self._commit_wanted)

    def stop(self) -> None:
        """Have everything committed and the thread ended."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    # The thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._take_told()
            self.publisher.publish_changes()
        except BaseException as error:
            cause = self._cause(error)
            with self._lock:
                self.error = cause
                self._changed.notify_all()

    def _cause(self, error: BaseException) -> BaseException:
        """Why a file could not be written: another writer sweeps what it finds."""
        if isinstance(error, OSError):
            try:
                self.publisher.held.check()
            except (WriterError, OSError) as lost:
                return lost
        return error

    def _turn(self) -> bool:
        """Wait for work and do it; False when closing is done."""
        with self._lock:
            while not self._has_work() and (due := self._until_due()) != 0:
                self._changed.wait(due)
            closing, wanted, stop = self._closing, self._commit_wanted, self.main.stop
            other_is_full = any(ring.block_is_full for ring in self.rings.values() if ring is not self.main)
            now = closing or wanted or other_is_full or self._is_first(stop) or self._until_due() == 0
        while self.main.start + self.main.block <= stop:
            self._commit(self.main.start + self.main.block)
        if now and (self._is_behind(stop) or self._checkpoints):
            self._commit(stop)
        if closing and not self.publisher.is_new:
            self.publisher.put_array_metadata(self.publisher.commit)
        with self._lock:
            self._commit_wanted = self._commit_wanted and not wanted
            self._changed.notify_all()
        return not closing

    def _has_work(self) -> bool:
        full = any(ring.block_is_full for ring in self.rings.values())
        return full or self._closing or self._commit_wanted or self._is_first(self.main.stop)

    def _is_first(self, stop: int) -> bool:
        """The first row is committed at once: from then on there is something to open."""
        return self.publisher.is_new and stop > 0

    def _is_behind(self, stop: int) -> bool:
        """Whether rows up to `stop` are neither on disk nor compared with what is."""
        return stop > self._stored["step"] or self._compared["step"] < stop

    def _until_due(self) -> float | None:
        """Seconds until waiting rows must be committed; None when none wait."""
        if self.main.stop <= self.publisher.commit.rows:
            return None
        return min(max(0.0, self._committed_at + self._interval_s - time.monotonic()), threading.TIMEOUT_MAX)

    def _commit(self, stop: int) -> None:
        """Bring the rows up to `stop`, and those of the other axes up to the same step, to disk; publish them."""
        step = self._labels.label(stop - 1)
        stops = {axis: ring.rows_until(step) for axis, ring in self.rings.items()}
        self._compare(stops)
        for axis in self.rings:
            self._write(axis, stops[axis])
        took = self._take_checkpoint(step)
        self._take_told()
        commit = self.publisher.commit
        if stop > self._stored["step"]:
            ends_block = self.main.start == stop
            self.publisher.publish(commit.at(stops), array_metadata=ends_block)
            self._settle(stops)
        elif took:
            self.publisher.publish(commit)
        self._committed_at = time.monotonic()

    def _write(self, axis: str, stop: int) -> None:
        """Write an axis block by block; free the full ones."""
        ring, encoder = self.rings[axis], self._encoders[axis]
        while ring.start < stop:
            last = min(stop, ring.start + ring.block)
            block = ring.open_block(last)
            if last > self._stored[axis]:
                encoder.write(block, self.publisher.open_block)
            if last < ring.start + ring.block:
                return
            encoder.advance(block)
            with self._lock:
                ring.free_block()
                self._changed.notify_all()

    def _take_checkpoint(self, step: int) -> bool:
        """Write the newest checkpoint that is not ahead of `step`; whether there was one."""
        with self._lock:
            ready = [(at, files) for at, files in self._checkpoints if at <= step]
            self._checkpoints = [(at, files) for at, files in self._checkpoints if at > step]
        if ready:
            self.publisher.put_checkpoint(*max(ready, key=lambda pair: pair[0]))
        return bool(ready)

    def _take_told(self) -> None:
        """Put the attributes that were told since the last commit into the next one."""
        with self._lock:
            if self._told:
                self.publisher.commit = replace(self.publisher.commit, attributes=self.attributes)
            self._told = {}

    def _compare(self, stops: Mapping[str, int]) -> None:
        """Compare rows that are stored already with the new ones; at a difference cut back, or raise."""
        found = []
        for axis, encoder in self._encoders.items():
            start, stop = self._compared[axis], min(stops[axis], self._stored[axis])
            if start < stop:
                if difference := first_difference(self.rings[axis], encoder.arrays, start, stop):
                    row, name = difference
                    label = int(self.rings[axis].rows(axis, row, row + 1)[0])
                    found.append((label, name))
                self._compared[axis] = stop
        if found:
            label, name = min(found)
            self.difference = f"step {label}: {name} differs from what is stored"
            if self._on_difference == "raise":
                raise DifferenceError(f"{self.publisher.run}: {self.difference}; nothing was changed")
            self._cut(label - 1)

    def _cut(self, label: int) -> None:
        """Publish a commit that ends at step `label`, then drop what was newer."""
        stops = {axis: ring.rows_until(label) for axis, ring in self.rings.items()}
        cut = without_newer(self.publisher.commit.at(stops))
        self.publisher.publish(replace(cut, **writers.cut(cut.state, writers.new_writer(), cut.committed_steps)))
        self.publisher.sweep()
        self._settle(stops)

    def _settle(self, stops: Mapping[str, int]) -> None:
        """What is stored is what came last: there is nothing left to compare."""
        self._stored, self._compared = dict(stops), dict(stops)

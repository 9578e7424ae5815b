"""Rows that wait in memory: the open block of an axis, and what arrives while it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import RowError
from store.format.chunking import ring_slots
from store.format.codec import Array
from store.format.schema import Channel
from store.run.array import StoredArray

TURNED_AT_ONCE = 64
"""Steps whose rows are turned to time fastest at once: each lies on a page of its own, and processors know about so
many pages without looking them up. Takes three quarters of the time of 128."""


class Ring:
    """The rows of one step axis that are not in a full block on disk yet.

    The caller's thread puts rows in and advances, the writer's thread reads them and frees whole blocks. `advance`
    and `free_block` move the counters `stop` and `start`; call them with the writer's lock held. Row r lies in slot
    ``r % slots`` of every channel's array.

    Parameters
    ----------
    axis : str
        Name of the axis; its labels are the channel of that name.
    channels : sequence of Channel
        The given channels on this axis.
    sizes : mapping of str to int
        Size of every dimension.
    block : int
        Rows of a block.
    begins_run : bool
        Whether the first row is of the run's first state, to which no update leads.
    """

    def __init__(
        self, axis: str, channels: Sequence[Channel], sizes: Mapping[str, int], block: int, *, begins_run: bool = True
    ) -> None:
        self.axis = axis
        self._begins_run = begins_run
        self.block = block
        self.slots = ring_slots(block)
        self.channels = {channel.name: channel for channel in channels}
        self.start = 0
        """First row of the open block; a multiple of `block`."""
        self.stop = 0
        """One past the last row that was put in."""
        self._loaded_from = 0
        self._arrays: dict[str, Array] = {
            channel.name: np.empty((self.slots, *(sizes[dim] for dim in channel.dims)), channel.dtype)
            for channel in channels
        }
        self._arrays[axis] = np.empty(self.slots, np.int64)
        for array in self._arrays.values():
            array.fill(0)  # take the page faults now: 2.9 ms of an append's 99th percentile otherwise

    @property
    def names(self) -> list[str]:
        """Every array on the axis, its labels included."""
        return list(self._arrays)

    @property
    def is_full(self) -> bool:
        """Whether no slot is free."""
        return self.stop - self.start >= self.slots

    @property
    def block_is_full(self) -> bool:
        """Whether the open block has all its rows."""
        return self.stop - self.start >= self.block

    @property
    def _is_first_state(self) -> bool:
        return self._begins_run and self.stop == 0

    def check(self, name: str, value: Any) -> Array:  # noqa: ANN401 - an array, a number or None
        """The next row as an array of the channel's shape and dtype.

        Raises
        ------
        RowError
            With the expected and the found shape and dtype; or the channel belongs to moves, and no move leads to
            the first state.
        """
        slot = self._arrays[name][0]
        if type(value) is np.ndarray and self.stop and value.shape == slot.shape and value.dtype == slot.dtype:
            return value
        channel = self.channels[name]
        if value is None:
            has_none = slot.dtype.kind == "f" or channel.bits_of == "bfloat16"
            if not has_none and not (channel.belongs_to == "move" and self._is_first_state):
                raise RowError(f"append: {name} is {slot.dtype}, in which nothing stands for 'none'; give a row of it")
            return np.full(slot.shape, channel.missing_value, slot.dtype)
        row = np.asarray(value)
        if not slot.ndim and row.dtype.kind in "biuf":
            row = self._as_number(name, row)
        if row.shape != slot.shape or row.dtype != slot.dtype:
            raise RowError(
                f"append: {name} is {row.dtype}{list(row.shape)}, expected {slot.dtype}{list(slot.shape)} "
                f"{channel.dims}; give the channel another shape or dtype, or the row the channel's"
            )
        if self._is_first_state and channel.belongs_to == "move" and not channel.is_missing(row):
            raise RowError(f"append: {name} describes an update, and none leads to the first state: give None there")
        return row

    def _as_number(self, name: str, value: Array) -> Array:
        """A number in the channel's dtype: rounded where that is a float, otherwise the very number."""
        dtype = self._arrays[name].dtype
        if dtype.kind == "f":
            return value.astype(dtype)
        with np.errstate(invalid="ignore"):
            number = value.astype(dtype)
        if number != value:
            raise RowError(f"append: {name} is {dtype}, which cannot hold {value}; give the channel another dtype")
        return number

    def put(self, label: int, rows: Mapping[str, Array]) -> None:
        """Copy a row of every channel into the next slot. `advance` then makes it a row of the ring."""
        slot = self.stop % self.slots
        for name, row in rows.items():
            self._arrays[name][slot] = row
        self._arrays[self.axis][slot] = label

    def room(self, name: str) -> Array:
        """Memory of the next row of a channel; `put` copies nothing that was made there."""
        room: Array = self._arrays[name][self.stop % self.slots]
        return room

    def advance(self) -> None:
        """Take in the row that was put last."""
        self.stop += 1

    def last(self, name: str) -> Array | None:
        """The row of a channel that was put last, a view until the next is; None where it was never in this ring."""
        return self._arrays[name][(self.stop - 1) % self.slots] if self.stop > self._loaded_from else None

    def free_block(self) -> None:
        """Go to the next block: the slots of the open one, which is full and on disk, are free."""
        self.start += self.block

    def load(self, arrays: Mapping[str, StoredArray], stop: int) -> None:
        """Fill the ring from the disk with the rows of the block that row `stop` belongs to, up to it."""
        self.start, self.stop = stop - stop % self.block, stop
        self._loaded_from = self.start
        for name in self.names:
            for offset, slots in self.segments(name, self.start, stop):
                first = self.start + offset
                arrays[name].read_rows(first, first + len(slots), out=slots)

    def open_block(self, stop: int) -> RingBlock:
        """The open block's rows up to `stop`."""
        return RingBlock(self, self.start, stop)

    def segments(self, name: str, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Rows ``start:stop`` of a channel as views: (offset from start, rows); two where the ring wraps."""
        done = start
        while done < stop:
            slot = done % self.slots
            count = min(stop - done, self.slots - slot)
            yield done - start, self._arrays[name][slot : slot + count]
            done += count

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows ``start:stop`` of a channel, copied together."""
        return np.concatenate([rows for _, rows in self.segments(name, start, stop)])

    def rows_until(self, label: int) -> int:
        """One past the last row whose label is at most `label`."""
        stop = self.stop
        while stop > self.start and self._arrays[self.axis][(stop - 1) % self.slots] > label:
            stop -= 1
        return stop


@dataclass(frozen=True, slots=True)
class RingBlock:
    """Rows ``start:stop`` of a ring, as a `Block`."""

    ring: Ring
    start: int
    stop: int

    def rows(self, name: str) -> Array:
        """All rows of a channel, (rows, ...)."""
        return self.ring.rows(name, self.start, self.stop)

    def tile(self, name: str, tokens: slice, room: Array) -> Array:
        """The rows of some tokens, copied into `room`."""
        for offset, segment in self.ring.segments(name, self.start, self.stop):
            for first in range(0, len(segment), TURNED_AT_ONCE):
                some = segment[first : first + TURNED_AT_ONCE, tokens]
                _turn(some, room[offset + first : offset + first + len(some)])
        return room[: self.stop - self.start]

    def is_still(self, name: str, tokens: slice, before: Array) -> bool:
        """Whether all rows of some tokens equal this one, (tokens, ...), to the bit."""
        same = words(before)
        for _, segment in self.ring.segments(name, self.start, self.stop):
            rows = words(segment[:, tokens])
            if not np.array_equal(rows[-1], same) or not (rows == same).all():  # what moved mostly ends elsewhere
                return False
        return True

    def last(self, name: str) -> Array:
        """The last row of a channel."""
        row: Array = self.ring.rows(name, self.stop - 1, self.stop)[0]
        return row


def _turn(rows: Array, room: Array) -> None:
    """Copy rows to where time is fastest in memory: of tokens that rest only the first is read so, which is far away
    from the next. To look which they are goes through memory as it lies, and takes a third of the time.
    """
    moving = _moving(rows) if rows.ndim > 2 else None
    if moving is None or 2 * len(moving) > rows.shape[1]:
        room[:] = rows
        return
    room[:] = rows[0]
    np.moveaxis(room, 0, -1)[moving] = np.moveaxis(rows[:, moving], 0, -1)


def _moving(rows: Array) -> Array:
    """Places of the tokens whose rows, (step, token, ...), are not all the same, to the bit."""
    numbers = words(rows)
    differs = np.bitwise_or.reduce(numbers != numbers[0], axis=0)
    return np.flatnonzero(differs.any(axis=tuple(range(1, differs.ndim))))


def words(values: Array) -> Array:
    """The same memory as integers, as long ones as fit into the last axis."""
    if values.ndim < 2 or not values.size:
        return values.view(f"u{values.dtype.itemsize}")
    length = values.shape[-1] * values.dtype.itemsize
    return values.view(next(f"u{size}" for size in (8, 4, 2, 1) if length % size == 0))

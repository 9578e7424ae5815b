"""Static arrays whose file another program wrote anew: a whole shard of Zarr, without the label of the store.

A program that adds a variable to a group, as ``ds.to_zarr(mode="a")`` does, writes the coordinates again. Nothing else
in the run tells what a static array should hold, so its numbers are taken as they stand there, and that is said.
"""

from __future__ import annotations

import os
import struct

from store.disk import LOCAL
from store.format.codec import CHECKSUM_BYTES, Array, crc32c
from store.format.files import TRAJECTORY
from store.run.array import StoredArray
from store.system_calls import Bytes
from store.upkeep.findings import Report
from store.writing.publisher import Publisher

_INDEX = struct.Struct("<QQI")
_MOST_MORE = 1024
"""Bytes of a file beside its chunk; a longer one is cut off, and its index then not found."""


def adopt_statics(publisher: Publisher, report: Report) -> list[str]:
    """Write static arrays anew of which a whole chunk is there in a file that is none of the store's.

    Returns
    -------
    list of str
        What was done, a sentence for each array; they are taken off the report's damage.
    """
    commit, done = publisher.commit, []
    damaged = {damage.name for damage in report.damage}
    for name, metadata in commit.arrays.items():
        if name in damaged and metadata["attributes"]["role"] == "static" and commit.version > 1:
            values = _chunk_of_zarr(commit.array(publisher.run / TRAJECTORY, name))
            if values is not None:
                publisher.come()
                publisher.put_whole(name, values)
                report.damage = [damage for damage in report.damage if damage.name != name]
                done.append(f"took {name} as another program wrote it: see that its numbers are right")
    if done:
        publisher.publish(publisher.commit)
    return done


def _chunk_of_zarr(array: StoredArray) -> Array | None:
    """The numbers of a file that holds one whole chunk by the rules of Zarr alone; None where it does not."""
    path, layout = array.folder / array.layout.key(0), array.layout
    try:
        with os.fdopen(LOCAL.open_plain(path), "rb") as file:
            data = file.read(layout.most_bytes + _MOST_MORE)
        offset, size, checksum = _INDEX.unpack(data[-_INDEX.size :])
        chunk = data[offset : offset + size]
        if crc32c([data[-_INDEX.size : -CHECKSUM_BYTES]]) == checksum and _is_whole(chunk, size):
            return layout.decode(chunk, path)
    except (OSError, ValueError, struct.error, OverflowError):
        pass
    return None


def _is_whole(chunk: Bytes, size: int) -> bool:
    view = memoryview(chunk)
    stored = int.from_bytes(view[-CHECKSUM_BYTES:], "little")
    return len(view) == size >= CHECKSUM_BYTES and crc32c([view[:-CHECKSUM_BYTES]]) == stored

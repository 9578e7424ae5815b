"""The end of a run: final arrays from a pass over what is stored, metadata.json, and the last commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import RowError
from store.format.codec import Array
from store.format.files import METADATA
from store.run.array import StoredArray
from store.run.commit import Commit
from store.run.document import to_json
from store.writing.publisher import Publisher

Blocks = Callable[[str], Iterator[tuple[Array, Array]]]
"""``blocks("displacement_l2")`` goes through the run: (step labels int64 (b,), rows (b, ...)), block by block."""
Finish = Callable[[Blocks], Mapping[str, Array]]
"""``finish(blocks) -> {"last_motion_step": (token,)}``: every final array of the run."""


def stored_blocks(commit: Commit, trajectory: Path) -> Blocks:
    """Committed rows of any channel, a block of steps at a time."""

    def blocks(name: str) -> Iterator[tuple[Array, Array]]:
        array = commit.array(trajectory, name)
        labels = _labels(commit.array(trajectory, str(array.metadata["dimension_names"][0])))
        waiting = next(labels, None)
        for start in range(0, array.shape[0], array.chunk_shape[0]):
            stop = min(start + array.chunk_shape[0], array.shape[0])
            while waiting is not None and len(waiting) < stop - start:
                more = next(labels)
                waiting = np.concatenate([waiting, more])
            assert waiting is not None
            yield waiting[: stop - start], array.read_rows(start, stop)
            waiting = waiting[stop - start :]

    return blocks


def _labels(array: StoredArray) -> Iterator[Array]:
    """The labels of a step axis, a chunk at a time: each is unpacked once, not for every block anew."""
    part = array.chunk_shape[0]
    for start in range(0, array.shape[0], part):
        yield array.read_rows(start, min(start + part, array.shape[0]))


def complete(
    publisher: Publisher, finish: Finish | None, describe: Callable[[Mapping[str, Array]], Mapping[str, Any]] | None
) -> None:
    """Write the final arrays and metadata.json, and publish the run as completed."""
    commit = publisher.commit
    shapes = {**commit.pending, **{n: m for n, m in commit.arrays.items() if m["attributes"]["role"] == "final"}}
    finals = dict(finish(stored_blocks(commit, publisher.trajectory))) if finish else {}
    if set(finals) != set(shapes):
        raise RowError(f"finish made {sorted(finals)}, the channels name {sorted(shapes)}")
    if describe is not None:
        publisher.put_document(METADATA, to_json(describe(finals), indent=2))
    commit = publisher.commit
    publisher.commit = replace(commit, arrays={**commit.arrays, **shapes}, pending={})
    for name, values in finals.items():
        publisher.disk.make_folder(publisher.trajectory / name)
        publisher.put_whole(name, values)
    publisher.publish(replace(publisher.commit, completed=True))

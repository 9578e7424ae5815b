"""`crucible info`: what a run holds, from its commit and the sizes of its files; no data is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.lattice import TELL_MOVES
from crucible.inspection.writer_state import stand, way_on
from crucible.units import counted, size_text, steps_text
from store.format.files import folder_bytes, run_folder, trajectory_of
from store.run.array import StoredArray
from store.run.commit import Commit

STATES = {"complete": "completed", "recording": "being written now", "stopped": "interrupted"}
"""What is said of a run by what its writer does."""

GAPS_SHOWN, MOST_APART = 5, 1 << 62
NO_GAPS: dict[str, Any] = {"count": 0, "first": []}


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """An array: its shape by dimension, its chunks, what it takes raw and on disk."""

    name: str
    dims: dict[str, int]
    dtype: str
    chunks: tuple[int, ...]
    raw_bytes: int
    stored_bytes: int

    @property
    def ratio(self) -> float | None:
        """Raw bytes of a stored byte."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None


def info(run: str | Path) -> dict[str, Any]:
    """Everything that `crucible info` tells, as plain values.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here.
    """
    folder = run_folder(run)
    commit, state = stand(folder)
    config = _mapping(commit, "config")
    arrays = [_array_info(commit.array(trajectory_of(folder), name)) for name in commit.arrays]
    return {
        "run": str(folder),
        "committed_steps": commit.committed_steps,
        "first_step": commit.labels().label(0),
        "states": commit.rows,
        "resolution_steps": commit.labels().furthest_apart(commit.rows),
        "gaps": _gaps(commit.labels().values(0, commit.rows)) if not commit.labels().is_plain else NO_GAPS,
        "total_steps": config.get("total_steps"),
        "completed": commit.completed,
        "state": state,
        "way_on": way_on(folder, commit),
        "checkpoint": commit.checkpoint,
        "raw_bytes": sum(array.raw_bytes for array in arrays),
        "stored_bytes": sum(array.stored_bytes for array in arrays),
        "disk_bytes": folder_bytes(folder),
        "arrays": [_plain(array) for array in arrays],
        "config": config,
        "provenance": _mapping(commit, "provenance"),
        "motion_threshold": commit.attributes.get("motion_threshold"),
    }


def _mapping(commit: Commit, name: str) -> dict[str, Any]:
    """An attribute that is a JSON object; an empty one where it is anything else."""
    found = commit.attributes.get(name)
    return found if isinstance(found, dict) else {}


def _array_info(array: StoredArray) -> ArrayInfo:
    raw = math.prod(array.shape) * array.dtype.itemsize
    dims = dict(zip(array.layout.dims, array.shape, strict=True))
    return ArrayInfo(array.name, dims, array.dtype.name, array.chunk_shape, raw, folder_bytes(array.folder))


def _plain(array: ArrayInfo) -> dict[str, Any]:
    return {
        "name": array.name,
        "dims": array.dims,
        "dtype": array.dtype,
        "chunks": list(array.chunks),
        "raw_bytes": array.raw_bytes,
        "stored_bytes": array.stored_bytes,
        "ratio": array.ratio,
    }


def _uneven(found: Mapping[str, Any]) -> list[str]:
    """A line where the steps are not 0, 1, 2, ..."""
    first, last, states, apart = (
        found[name] for name in ("first_step", "committed_steps", "states", "resolution_steps")
    )  # fmt: skip
    if (first, apart) == (0, 1):
        return []
    gaps = found["gaps"]
    where = ", ".join(f"{gap[0]:,} and {gap[1]:,}" for gap in gaps["first"])
    more = " and more" if gaps["count"] > len(gaps["first"]) else ""
    told = [f"{counted(gaps['count'], 'gap')}: no state between steps {where}{more}"] if gaps["count"] else []
    return [f"recorded: {steps_text(first, last, states, apart)}", *told]


def _gaps(labels: NDArray[np.int64]) -> dict[str, Any]:
    """How many times states are further apart than the two that are nearest, and the first of these places."""
    distances = np.diff(labels)
    at = np.flatnonzero(distances > distances.min(initial=MOST_APART))
    return {"count": len(at), "first": [[int(labels[i]), int(labels[i + 1])] for i in at[:GAPS_SHOWN]]}


def _by_hand(found: Mapping[str, Any]) -> str:
    """What goes on with a run that no command does."""
    if "imported_from" in found["provenance"]:
        return "the same import again"
    return f"crucible.attach(..., resume={found['committed_steps']}) in the loop that made it"


def has_moves(found: Mapping[str, Any]) -> bool:
    """Whether the run keeps weights or moves, so that there is something to analyze."""
    return not TELL_MOVES.isdisjoint(array["name"] for array in found["arrays"])


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]], list[str]]:
    """Header and rows of the arrays, and the lines below them."""
    header = ["array", "dims", "dtype", "chunks", "raw", "stored", "ratio"]
    rows = [
        [
            array["name"],
            " x ".join(f"{dim} {size:,}" for dim, size in array["dims"].items()),
            array["dtype"],
            " x ".join(str(size) for size in array["chunks"]),
            size_text(array["raw_bytes"]),
            size_text(array["stored_bytes"]),
            "" if array["ratio"] is None else f"{array['ratio']:.1f}",
        ]
        for array in found["arrays"]
    ]
    of = f" of {found['total_steps']:,}" if isinstance(found["total_steps"], int) else ""
    state = STATES[found["state"]]
    ratio = found["raw_bytes"] / max(1, found["stored_bytes"])
    lines = [
        "",
        f"progress: step {found['committed_steps']:,}{of}, {state}; checkpoint {found['checkpoint'] or 'none'}",
        *_uneven(found),
        f"sizes: {size_text(found['raw_bytes'])} raw, {size_text(found['stored_bytes'])} stored, ratio {ratio:.1f}; "
        f"the whole folder {size_text(found['disk_bytes'])}",
    ]
    if found["state"] == "stopped" and not found["way_on"]:
        lines.insert(2, f"to go on: {_by_hand(found)}")
    lines += [f"{name}: {value}" for name, value in found["config"].items() if not isinstance(value, dict)]
    return header, rows, lines

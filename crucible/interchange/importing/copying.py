"""The states of a file into the writer of a run, a few at a time, and what the file brings compared with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.channels.centroid import mean_of_rows
from crucible.channels.table import CENTROID, LOSS, centroids_fit
from crucible.interchange.file_table import BESIDE
from crucible.interchange.importing.differences import DELTA, Emptied, Findings, MoveCheck
from crucible.interchange.importing.plan import ImportPlan
from crucible.progress import Progress
from store.writing.writer import TrajectoryWriter

Array = NDArray[Any]
READ_BYTES = 8 << 20


def copy_states(
    plan: ImportPlan, writer: TrajectoryWriter, findings: Findings, emptied: Emptied, progress: Progress
) -> float | None:
    """Append every step; the writer compares those that it has already. Returns the last loss."""
    projects = plan.lattice != plan.weight_dtype
    has_moves = DELTA in plan.source.tensors
    check = MoveCheck(plan.source, plan.tokens, plan.steps, findings, projects=projects) if has_moves else None
    loss = None
    for start, W, rows in blocks(plan, findings):
        emptied.states(start, W)
        if check is not None:
            check.states(start, W)
        for weights, others in zip(W, rows, strict=True):
            writer.append(W=weights, **others)
            loss = others.get(LOSS.name, loss)
        progress(start + len(W), plan.sizes["step"])
    return None if loss is None else float(loss)


def blocks(plan: ImportPlan, findings: Findings) -> Iterator[tuple[int, Array, list[dict[str, Any]]]]:
    """Row of the first state, weights, and the rows of all other given channels at each state; a few at a time."""
    source, states = plan.source, plan.sizes["step"]
    others = [name for name in (LOSS.name, *BESIDE) if name in source.tensors]
    row_bytes = sum(source.tensors[name].nbytes // max(1, source.tensors[name].shape[0]) for name in ("W", *others))
    length = min(states, max(1, READ_BYTES // max(1, row_bytes)))
    room = {name: np.empty((length, *source.tensors[name].shape[1:]), source.tensors[name].dtype)
            for name in ("W", *others)}  # fmt: skip
    for start in range(0, states, length):
        stop = min(start + length, states)
        W = source.rows("W", start, stop, room["W"])
        rows: list[dict[str, Any]] = [{} for _ in range(start, stop)]
        for at, values in _centroids(plan, start, W, findings):
            rows[at]["centroid"] = values
        for name in others:
            for at, values in _rows(plan, name, start, stop, room[name]):
                rows[at][name] = values
        yield start, W, rows


def _rows(plan: ImportPlan, name: str, start: int, stop: int, room: Array) -> Iterator[tuple[int, Any]]:
    """The rows of an array for these states, each with its place among them; None where no update led to the first."""
    source, is_short = plan.source, plan.is_short(name)
    is_move = name not in {channel.name for channel in plan.beside if channel.belongs_to == "state"}
    if name in plan.schedules:
        places, first, end = _scheduled(plan, name, start, stop)
    else:
        first, end = (max(0, start - 1), stop - 1) if is_short else (start, stop)
        places = list(range(stop - start - (end - first), stop - start))
        if is_short and not start:
            yield 0, None if is_move or plan.first_step else np.zeros_like(room[0])
    for at, values in zip(places, source.rows(name, first, end, room), strict=True):
        yield at, None if is_move and start + at == 0 else values


def _scheduled(plan: ImportPlan, name: str, start: int, stop: int) -> tuple[list[int], int, int]:
    """Of an array with a schedule: its rows for these states, half open, and the place of each among them."""
    own, steps = plan.schedules[name], plan.steps.values(start, stop)
    first, end = own.rows_of(steps)
    places: list[int] = (own.labels[first:end] - steps[0]).tolist()
    return places, first, end


def _centroids(plan: ImportPlan, start: int, W: Array, findings: Findings) -> Iterator[tuple[int, Array]]:
    """A file's own where they are means of these rows, summed in whatever order; else torch's, as in training."""
    name, stop = CENTROID.name, start + len(W)
    places, first, end = list(range(len(W))), start, stop
    if name in plan.schedules:
        places, first, end = _scheduled(plan, name, start, stop)
    brought = plan.source.rows(name, first, end) if name in plan.source.tensors else None
    some = W[places] if len(places) < len(W) else W
    made = np.empty((len(some), W.shape[2]), np.float32) if brought is None else brought.copy()
    fits = np.zeros(len(some), np.bool_) if brought is None else centroids_fit(some, brought)
    for row in np.flatnonzero(~fits):
        made[row] = mean_of_rows(some[row])
    if brought is not None:
        labels = {"step": plan.steps.values(start, stop)[places], "hidden": np.arange(W.shape[2])}
        findings.compare(name, brought, made, labels)
    yield from zip(places, made, strict=True)

"""Whether a run that was imported is of this very file: a header may be the same while the numbers are others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.channels.table import CENTROID
from crucible.interchange.importing.copying import blocks
from crucible.interchange.importing.differences import Findings
from crucible.interchange.importing.plan import ImportPlan
from store.format.files import TRAJECTORY
from store.run.array import StoredArray, bits
from store.run.commit import Commit

Array = NDArray[Any]


def other_static(plan: ImportPlan, commit: Commit, run: Path) -> str | None:
    """The name of an array without steps (a mask, counts, ids) that is another one in the run; None without one."""
    for name, values in {"token": plan.tokens, **plan.statics}.items():
        if name not in commit.arrays:
            return name
        array = commit.array(run / TRAJECTORY, name)
        if not np.array_equal(array.read_rows(0, array.shape[0]), values):
            return name
    return None


def other_row(plan: ImportPlan, commit: Commit, run: Path) -> str | None:
    """The first array and step at which the file brings other numbers than a finished run holds; None without one.

    One pass over the file and over what was given to the run. The centroid is not looked at: it follows from W.
    """
    for start, W, rows in blocks(plan, Findings()):
        steps = plan.steps.values(start, start + len(W))
        given = {name for row in rows for name in row} - {CENTROID.name}
        arrays = [commit.array(run / TRAJECTORY, name) for name in sorted(given | {"W"})]
        stored = {array.name: _stored(plan, array, start, steps) for array in arrays}
        for at, (weights, row) in enumerate(zip(W, rows, strict=True)):
            for name, value in (row | {"W": weights}).items():
                if name in stored and value is not None and not _same(value, stored[name].get(at)):
                    return f"{name} at step {steps[at]:,}"
    return None


def _stored(plan: ImportPlan, array: StoredArray, start: int, steps: NDArray[np.int64]) -> dict[int, Array]:
    """What the run holds of an array at these steps, by the place of each among them."""
    places, first, stop = list(range(len(steps))), start, start + len(steps)
    if array.name in plan.schedules:
        own = plan.schedules[array.name]
        first, stop = own.rows_of(steps)
        places = (own.labels[first:stop] - steps[0]).tolist()
    return dict(zip(places, array.read_rows(first, stop), strict=True))


def _same(given: Array, stored: Array | None) -> bool:
    return stored is not None and np.array_equal(bits(np.asarray(given, stored.dtype)), bits(stored))

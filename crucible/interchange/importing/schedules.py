"""Arrays of a file that have rows at some steps only, and the schedule that such a run is written by.

A channel with a schedule (``every=10, until=500``) has a row at these steps alone. In a file its labels lie beside it:
`gradient` has those of `step_gradient`. Where these are the labels of W too, it is an array as any other.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.file_table import FILE_ARRAYS, OWN_STEPS, SCHEDULED
from crucible.interchange.matching import Match
from crucible.interchange.sources.named import NamedArrays
from crucible.interchange.sources.source import Source
from store.errors import TensorFileError
from store.format.schema import Channel
from store.format.step_labels import StepLabels
from store.tensorfile.header import TensorSpec

Array = NDArray[Any]
MOST_LABELS = 1 << 24


@dataclass(frozen=True)
class Schedule:
    """At which steps an array of a file has rows: those that `every` divides, up to `until`."""

    labels: NDArray[np.int64]
    every: int
    until: int | None

    def rows_of(self, steps: NDArray[np.int64]) -> tuple[int, int]:
        """The rows that belong to some steps which follow each other, half open."""
        first, stop = np.searchsorted(self.labels, [steps[0], steps[-1] + 1]).tolist()
        return first, stop

    def of(self, channel: Channel) -> Channel:
        """The channel on this schedule."""
        return replace(channel, every=self.every, until=self.until)


def without_arrays(tensors: Mapping[str, TensorSpec]) -> list[str]:
    """Labels whose array is not there, or not taken."""
    return [f"{OWN_STEPS}{name}" for name in SCHEDULED if f"{OWN_STEPS}{name}" in tensors and name not in tensors]


def without_rows(source: Source, found: Match) -> Match:
    """The same without arrays of no rows and no labels: a part of a run may lie between the steps of a schedule."""
    names = dict(found.names)
    for name in SCHEDULED:
        pair = [each for each in (name, f"{OWN_STEPS}{name}") if each in found.names]
        if len(pair) == 2 and all(source.tensors[found.names[each]].shape[:1] == (0,) for each in pair):
            for each in pair:
                del names[each]
    gone = {there: "it has no rows" for name, there in found.names.items() if name not in names}
    return replace(found, names=names, left_out=found.left_out | gone)


def read_schedules(source: NamedArrays, steps: StepLabels, states: int) -> dict[str, Schedule]:
    """The schedule of each array that has one, by its name.

    Raises
    ------
    TensorFileError
        Labels are no ascending steps of this file, or are no schedule.
    """
    every: NDArray[np.int64] = steps.values(0, states)
    found = {}
    for name in SCHEDULED:
        if name not in source.tensors or f"{OWN_STEPS}{name}" not in source.tensors:
            continue
        labels = _labels(source, name)
        if not np.array_equal(labels, every) and not (_may_be_short(name) and np.array_equal(labels, every[1:])):
            found[name] = _schedule(source, name, labels, every)
    if found and np.diff(every).max(initial=1) > 1:
        _refuse(source, next(iter(found)), "are no schedule of a run that leaves out steps itself")
    return found


def _may_be_short(name: str) -> bool:
    """Whether an array may lack a row for the first state."""
    return FILE_ARRAYS[name].dims[0] == "either"


def _labels(source: NamedArrays, name: str) -> NDArray[np.int64]:
    own = source.tensors[f"{OWN_STEPS}{name}"]
    if own.shape[0] > MOST_LABELS:
        raise TensorFileError(f"{own.name} has more than {MOST_LABELS:,} labels")
    values = source.read(f"{OWN_STEPS}{name}")
    try:
        return StepLabels.of(values).values(0, len(values))
    except ValueError as error:
        _refuse(source, name, f"cannot be: {error}")


def _schedule(source: NamedArrays, name: str, labels: NDArray[np.int64], every: NDArray[np.int64]) -> Schedule:
    """The schedule that takes these of all steps, and no others."""
    distance = math.gcd(*labels.tolist()) or 1
    divided = every[every % distance == 0]
    until = None if divided[-1] == labels[-1] else int(labels[-1])
    if not np.array_equal(divided if until is None else divided[divided <= until], labels):
        _refuse(source, name, f"are no schedule: those of {every[0]:,} to {every[-1]:,} that a number divides")
    return Schedule(labels, distance, until)


def _refuse(source: NamedArrays, name: str, why: str) -> NoReturn:
    own, array = (source.raw[each].name for each in (f"{OWN_STEPS}{name}", name))
    skipped = " ".join(f"--skip {shlex.quote(each[:80])}" for each in (array, own))
    raise TensorFileError(f"{own}: its steps {why}; mend them, or leave {array} out with {skipped}")

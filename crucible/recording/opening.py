"""Opens the writer of a run for `crucible.attach`: a new run, or one that goes on."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from analysis.optimizers.update_rules import NO_PUSH
from analysis.thresholds import DEFAULT_THRESHOLD
from crucible.channels import table as tables
from crucible.channels.push import Arithmetic, Refused
from crucible.channels.selection import push_here
from crucible.channels.sources import group_of
from crucible.channels.tensors import dtype_name
from crucible.channels.vocabulary import Statics
from crucible.recording.live import make_way
from crucible.recording.provenance import dtypes, gone_on, machine, software
from crucible.recording.resume import Now, another_count, refuse_unfit
from crucible.recording.seam import LateWriter, Writer
from crucible.updates.numbers import (
    is_made_of_moments,
    longer_memory,
    memory_attributes,
    no_longer_computed,
    others,
    push_attributes,
    told_from,
    told_until,
)
from crucible.updates.telling import Say
from store.disk import LocalDisk
from store.format.files import METADATA
from store.format.schema import Channel
from store.run.commit import Commit
from store.writing.opening import refuse_in_the_way

if TYPE_CHECKING:
    from store.writing.writer import TrajectoryWriter

Moved = tuple[Optimizer | None, Tensor, int]
"""The optimizer, what it moves, and the axis of that along which rows are counted."""


class Opening(NamedTuple):
    """What a run is opened with, new or old; the words are those of `crucible.attach`."""

    run: Path
    table: Sequence[Channel]
    ids: NDArray[np.int64]
    say: Say
    motion_threshold: float | None
    config: Mapping[str, Any] | None
    commit_interval_s: float
    first_step: int
    restart: bool
    overwrite: bool
    lock: bool
    provenance: Mapping[str, Any]

    def create(
        self,
        hidden: int,
        statics: Statics,
        attributes: dict[str, Any],
        sizes: Mapping[str, int] | None,
        *,
        scalars: bool,
    ) -> Writer:
        """Begin the run; with `scalars` later, when it is known what the loop logs. What is in the way is told now."""
        _refuse_no_json(config=self.config, provenance=self.provenance)
        make_way(self.run, overwrite=self.overwrite, say=self.say)
        begin = partial(self._begin, hidden, statics, attributes, sizes)
        if not scalars:
            return begin()
        refuse_in_the_way(self.run, restart=self.restart, overwrite=self.overwrite)
        return LateWriter(self.run, begin, self.first_step)

    def _begin(
        self,
        hidden: int,
        statics: Statics,
        attributes: dict[str, Any],
        sizes: Mapping[str, int] | None,
        added: Sequence[Channel] = (),
    ) -> TrajectoryWriter:
        from store.writing.writer import TrajectoryWriter

        config = dict(self.config or {})
        threshold = DEFAULT_THRESHOLD if self.motion_threshold is None else self.motion_threshold
        extra = [channel for channel in statics.channels if channel not in self.table]
        return TrajectoryWriter.create(
            self.run, channels=(*self.table, *added, *extra), tokens=self.ids, hidden=hidden, sizes=sizes,
            first_step=self.first_step,
            statics=statics.arrays, attributes={"motion_threshold": threshold, **attributes, "config": config},
            config=config, commit_interval_s=self.commit_interval_s, restart=self.restart, overwrite=self.overwrite,
            lock=self.lock, **_functions(self.table, threshold),
        )  # fmt: skip

    def resume(self, step: int, *, lattice: str | None, now: Now, compare: bool, moved: Moved) -> TrajectoryWriter:
        """Go on with the run after this step, moved by this optimizer, as it lies; nothing is cut unless all fits."""
        from store.writing.opening import put_back
        from store.writing.writer import TrajectoryWriter

        _refuse_no_json(config=self.config, provenance=self.provenance)
        put_back(self.run, LocalDisk(), lock=self.lock)
        commit = refuse_unfit(self.run, step, table=self.table, ids=self.ids, lattice=lattice, now=now)
        how = _functions_of(commit, self.table, self.motion_threshold)
        lost = another_count(self.run, commit, step, *moved[:2])
        kept_until = commit.committed_steps if compare else step
        told = told_until(kept_until, commit.attributes)
        told |= self._changed(step, told, commit.arrays, moved)
        told["provenance"] = gone_on(told.get("provenance", {}), self.provenance, step, kept_until=kept_until)
        if self.config is not None:
            how["config"] = told["config"] = dict(self.config)
        if told != commit.attributes:
            how["attributes"] = told
        writer = TrajectoryWriter.resume(
            self.run, from_step=step, cut=not compare, commit_interval_s=self.commit_interval_s, lock=self.lock, **how
        )
        for path in writer.foreign:
            self.say(f"{path} was not made by Crucible; it is left alone")
        if lost:
            self.say(lost)
        if commit.completed and METADATA in commit.sha256:
            end = f"tells of the end at step {commit.committed_steps:,}, from which the run now goes on"
            self.say(f"{self.run / METADATA} {end}; it is left as it is, and export leaves it out")
        return writer

    def _changed(self, step: int, told: Mapping[str, Any], names: Collection[str], moved: Moved) -> dict[str, Any]:
        """What a run that tells this of its optimizer must tell from this step on, where it is another now."""
        optimizer, parameter, axis = moved
        changes: dict[str, Any] = {**longer_memory(told, group_of(optimizer, parameter))}
        numbers = push_attributes(push_here(optimizer, parameter, axis), optimizer, parameter)
        if is_made_of_moments(told, names) and (reason := others(told, numbers, step)):
            self.say(no_longer_computed(told.get(NO_PUSH, reason)))
            changes |= {} if NO_PUSH in told else {NO_PUSH: reason}
        return told_from(step, told, changes) if changes else {}


def attributes_of(
    optimizer: Optimizer | None, parameter: Tensor, push: Arithmetic | Refused, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """What analysis needs to know of the run, and what made it."""
    attributes: dict[str, Any] = {"provenance": dict(provenance)}
    attributes |= push_attributes(push, optimizer, parameter)
    return attributes | memory_attributes(group_of(optimizer, parameter))


def provenance_of(optimizer: Optimizer | None, parameter: Tensor, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """What makes a run of this parameter here and now, and what else is told of that."""
    found = {
        "software": software(),
        "machine": machine(parameter.device),
        "dtypes": dtypes([parameter.dtype], dtype_name(parameter.dtype), optimizer),
        "optimizer": "none" if optimizer is None else type(optimizer).__name__,
        "torch_seed": torch.initial_seed(),
    }
    return {**found, **(more or {})}


def _refuse_no_json(**given: Mapping[str, Any] | None) -> None:
    """Raise where what shall go into the run as JSON cannot: a path, an array, a number that is not finite.

    Raises
    ------
    TypeError, ValueError
        With the name of the value.
    """
    for name, values in given.items():
        for key, value in (values or {}).items():
            try:
                json.dumps({key: value}, allow_nan=False)
            except (TypeError, ValueError) as error:
                words = f"{name}={{{key!r}: ...}}: {error}; give JSON values: str(path), float(number), array.tolist()"
                raise type(error)(words) from None


def _functions_of(commit: Commit, table: Sequence[Channel], threshold: float | None) -> dict[str, Any]:
    """As `_functions`, on the lattice and with the threshold that the run has."""
    stored = tables.stored_lattice(commit.arrays)
    return _functions(tables.on_lattice(table, stored) if stored else table, _threshold(commit, threshold))


def _threshold(commit: Commit, asked: float | None) -> float:
    stored = float(commit.attributes.get("motion_threshold", DEFAULT_THRESHOLD))
    if asked not in (None, stored):
        raise ValueError(f"motion_threshold={asked}: the run's is {stored}; analysis can be asked with any other")
    return stored


def _functions(table: Sequence[Channel], threshold: float) -> dict[str, Any]:
    """What the writer calls: to derive, and to finish."""
    finish = tables.finisher(threshold) if tables.LAST_MOTION in table else None
    return {"derive": tables.deriver(table), "finish": finish}

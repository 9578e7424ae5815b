"""Checks made before a resume truncates anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from analysis.optimizers.update_rules import update_of
from crucible.channels.push import Arithmetic, Refused
from crucible.channels.rows import some
from crucible.channels.selection import push_here
from crucible.channels.sources import Moment, OptimizerState, Recorded
from crucible.channels.table import (
    CENTROID,
    LEARNING_RATE,
    OPTIMIZER_STEP,
    PUSH,
    ROUNDED_FROM,
    W,
    centroids_fit,
    stored_lattice,
)
from crucible.channels.tensors import numpy_of, to_host
from store.format.files import TRAJECTORY
from store.format.schema import Channel
from store.run.commit import Commit, read_commit
from store.writing.plan import channels_of

Now = Mapping[str, NDArray[Any]]
"""Rows of the weights and of the optimizer's states as they are, by the names of their channels."""


def rows_now(moment: Moment, given: Iterable[Recorded]) -> Now:
    """The weights' rows, and those of each state of the optimizer that is recorded; all ranks must ask together."""
    states = {each.channel.name: each for each in given if isinstance(each.source, OptimizerState)}
    values = {name: each.source(moment) for name, each in states.items()}
    weights = numpy_of(moment.recorded.detach().cpu())
    return {W.name: weights, **to_host(values, {name: each.channel for name, each in states.items()})}


def kept_of(channels: Iterable[Channel], run: Path) -> tuple[Channel, ...]:
    """Those of the channels that a run keeps, the learning rate as it keeps it: an older run has fewer."""
    arrays = read_commit(run).arrays
    return tuple(
        replace(each, dtype=arrays[each.name]["data_type"]) if each.name == LEARNING_RATE.name else each
        for each in channels
        if each.name in arrays or each.name not in (PUSH.name, OPTIMIZER_STEP.name, LEARNING_RATE.name)
    )


def push_now(optimizer: Optimizer | None, parameter: Tensor, axis: int, *, of_run: Path | None) -> Arithmetic | Refused:
    """By which arithmetic the optimizer moves the parameter; refused where the run that goes on tells of another."""
    push = push_here(optimizer, parameter, axis)
    told = {} if of_run is None else update_of(read_commit(of_run).attributes)
    if isinstance(push, Refused) or optimizer is None or not told:
        return push
    change = push.change(told, push.numbers(optimizer, parameter))
    return push if change is None else Refused(change)


def refuse_unfit(
    run: Path, step: int, *, table: Iterable[Channel], ids: NDArray[np.int64], lattice: str | None, now: Now
) -> Commit:
    """Raise ValueError unless a run at `step` can go on with these rows, channels and states; returns its commit."""
    commit = read_commit(run)
    _refuse_other_steps(run, commit)
    _refuse_other_rows(run, commit, ids)
    _refuse_other_channels(run, commit, table)
    stored = stored_lattice(commit.arrays)
    if None not in (lattice, stored) and lattice != stored:
        raise ValueError(f"{run}: its displacements are measured on the {stored} lattice, not on that of {lattice}")
    _refuse_other_states(run, commit, step, now)
    return commit


def another_count(run: Path, commit: Commit, step: int, optimizer: Optimizer | None, parameter: Tensor) -> str | None:
    """That the optimizer's own count of its steps is another than the run's at this step, if so: its state was lost."""
    stored = _stored(run, commit, step, OPTIMIZER_STEP.name)
    if stored is None or optimizer is None or np.isnan(float(stored)):
        return None
    now = float(optimizer.state.get(parameter, {}).get("step", 0))
    if now == float(stored):
        return None
    return (
        f"the {type(optimizer).__name__} has counted {now:,.0f} steps of its own on the parameter; at step {step:,} "
        f"of the run it had counted {float(stored):,.0f}: was its state not restored, optimizer.load_state_dict(...)? "
        "The run goes on with the optimizer as it is"
    )


def _refuse_other_steps(run: Path, commit: Commit) -> None:
    """Raise unless the run's steps go on by one: a recorder adds one after each update."""
    if not commit.labels().count_on:
        first, last = commit.labels().between(0, commit.rows)
        raise ValueError(
            f"{run}: it was made of a file, of {commit.rows:,} states of steps {first:,} to {last - 1:,}, and a loop "
            "cannot go on with it; begin a new run"
        )


def _refuse_other_rows(run: Path, commit: Commit, ids: NDArray[np.int64]) -> None:
    """Raise unless the run records exactly these rows."""
    stored = commit.array(run / TRAJECTORY, "token").read_rows(0, commit.arrays["token"]["shape"][0])
    if not np.array_equal(stored, ids):
        raise ValueError(
            f"{run}: the run records {len(stored)} rows, {some(stored)}; rows= now names {len(ids)}, {some(ids)}. "
            "Give the same rows, or begin a new run"
        )


def _refuse_other_channels(run: Path, commit: Commit, table: Iterable[Channel]) -> None:
    """Raise unless the run keeps the channels of this table, each as the table has it."""
    recorded = ("given", "derived", "final")
    stored = {
        channel.name: _shape(channel)
        for channel in channels_of(commit)
        if channel.role in recorded and not channel.attributes.get("axis")
    }
    asked = {channel.name: _shape(channel) for channel in table if channel.role in recorded}
    differing = sorted(name for name in stored.keys() | asked.keys() if stored.get(name) != asked.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"{run}: {', '.join(differing)}: not as the run keeps it ({name} there: {stored.get(name, 'not kept')}; "
            f"asked for: {asked.get(name, 'not asked for')}). Give the same channels, or begin a new run"
        )


def _refuse_other_states(run: Path, commit: Commit, step: int, now: Now) -> None:
    """Raise unless the run's rows at this step are those of now, bit for bit. What it does not keep tells nothing."""
    for name, found in now.items():
        if not _fits(run, commit, step, name, found):
            what = "the parameter is" if name == W.name else f"{name}, a state of the optimizer, is"
            raise ValueError(
                f"{run}: {what} not where the run was at step {step}: restore the weights and the optimizer's state of "
                "that step first"
            )


def _fits(run: Path, commit: Commit, step: int, name: str, found: NDArray[Any]) -> bool:
    """Whether rows are those of the run at this step; of weights it may keep the centroid alone, which they must fit.

    Not to the bit then: another machine sums in another order.
    """
    if (stored := _stored(run, commit, step, name)) is not None:
        return stored.dtype == found.dtype and stored.tobytes() == found.tobytes()
    if name != W.name or (mean := _stored(run, commit, step, CENTROID.name)) is None:
        return True
    return mean.shape == found.shape[1:] and bool(centroids_fit(found[None], mean[None]).all())


def _stored(run: Path, commit: Commit, step: int, name: str) -> NDArray[Any] | None:
    """The row of a channel at a step; None where it is not kept at every step, or this one is not there."""
    metadata, row = commit.arrays.get(name), commit.labels().rows_until(step) - 1
    if metadata is None or metadata["dimension_names"][0] != "step" or not 0 <= row < commit.rows:
        return None
    stored: NDArray[Any] = commit.array(run / TRAJECTORY, name).read_rows(row, row + 1)[0]
    return stored


def _shape(channel: Channel) -> str:
    until = "" if channel.until is None else f" until {channel.until}"
    source = channel.attributes.get(ROUNDED_FROM)
    dtype = f"{channel.dtype} rounded from {source}" if source else channel.dtype
    return f"{dtype} ({', '.join(channel.dims)}) every {channel.every}{until}"

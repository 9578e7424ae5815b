"""`crucible.attach`: choose what is recorded, look at the optimizer, open the run, hook a recorder behind the step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from analysis import lattice as lattices
from analysis.optimizers.update_rules import NO_PUSH, UPDATE
from analysis.thresholds import DEFAULT_THRESHOLD
from crucible.channels import table as tables
from crucible.channels.push import Arithmetic, arithmetic_of
from crucible.channels.push_source import PushOf, known_of
from crucible.channels.sources import SOURCES, OptimizerState, Recorded, group_of, logged
from crucible.recording.precision import notices
from crucible.recording.provenance import dtypes, machine, software
from crucible.recording.recorder import Recorder
from crucible.recording.resume import kept_of, refuse_unfit, stored_lattice
from crucible.recording.rows import POPULATION, Rows, Statics, choose, describe
from crucible.recording.subject import frozen_notices
from store.format.files import run_folder
from store.format.schema import Channel
from store.run.commit import Commit

if TYPE_CHECKING:
    from store.writing.writer import TrajectoryWriter

DEFAULT = (
    tables.W, tables.DELTA, *tables.NORMS, tables.CENTROID, tables.LOSS, tables.LEARNING_RATE, tables.LAST_MOTION,
    tables.PUSH, tables.OPTIMIZER_STEP,
)  # fmt: skip
"""What is kept unless `channels` says otherwise: the notebook's table, the learning rate, and how near each update came
to moving a weight, where that is known of the optimizer and the weights."""


def attach(
    target: nn.Module | Tensor,
    optimizer: Optimizer,
    run: str | Path,
    *,
    rows: Rows = "all",
    channels: Iterable[Channel | Recorded] = DEFAULT,
    populations: Mapping[str, NDArray[np.int64]] | None = None,
    statics: Statics | None = None,
    sizes: Mapping[str, int] | None = None,
    motion_threshold: float | None = None,
    lattice: str | None = None,
    config: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    commit_interval_s: float = 30.0,
    resume: int | None = None,
    compare: bool = False,
    restart: bool = False,
    lock: bool = True,
    say: Callable[[str], None] = warnings.warn,
) -> Recorder:
    """Record rows of a parameter after every step of its optimizer.

    Parameters
    ----------
    target : Module or Parameter
        An embedding (its `weight` is taken), or a parameter of two dimensions, (row, hidden).
    optimizer : Optimizer
        The one that updates it; accelerate's wrapper is looked through.
    run : path
        Folder of the run. It must not exist, unless `resume` is given.
    rows : "all", a name in `populations`, or ids
        What to record, in ascending order of id.
    channels : iterable of Channel or Recorded
        What to keep; see `crucible.channels.table`. A channel that is in no table is taken from `Recorder.log`,
        or from the function of a `Recorded`. Dtypes follow the parameter's. Unless given, `push` is left out where it
        is not known (the run's attribute ``no_push`` says why), and a resumed run keeps the channels that it has.
    populations : mapping of str to ids
        Names for `rows`, each one word, which become the coordinate `population`; see
        `crucible.recording.rows.by_count`.
    statics : Statics
        What does not change from step to step; see `crucible.recording.rows.describe`.
    sizes : mapping of str to int
        Sizes of dimensions that channels of yours have beside token and hidden.
    motion_threshold : float
        Smallest L2 displacement, in cells, that counts as motion: 0.1 unless given, and the run's own with `resume`.
    lattice : {"bfloat16", "float32", "float16"}
        Where the displacement is measured: on the weights' own lattice unless "bfloat16" asks for the projection of
        float32 weights.
    config, provenance : mapping
        JSON values that go into the run; `provenance` is added to what is found here.
    commit_interval_s : float
        Most seconds between commits.
    resume : int
        Cut the run back to this step and go on. Rows, channels and the lattice must be the run's, and the parameter
        must be where it was; otherwise nothing is cut.
    compare : bool
        With `resume`: keep the later steps, and compare them with what is recorded now; the first that differs, and
        what follows it, is replaced.
    restart : bool
        Allow a folder whose run was killed before its first commit.
    lock : bool
        False opens the run without a lock, see `store.TrajectoryWriter.create`.
    say : callable
        Takes notices about precision and waiting; `warnings.warn` unless given.

    Returns
    -------
    Recorder
        A context manager. Step 0, the state at this moment, is recorded already.

    Raises
    ------
    ValueError
        Rows, channels or dtypes that do not fit, or a parameter that this optimizer does not update. The channel
        `push` in `channels` where it is not known of this optimizer and these weights, with the reason.
    StoreError
        The run exists, or cannot be resumed.

    Examples
    --------
    >>> with attach(model.embedding, optimizer, "runs/one", rows=dead_ids) as recorder:  # doctest: +SKIP
    ...     train(model, optimizer, log=recorder.log)
    """
    parameter = _parameter(target, optimizer := getattr(optimizer, "optimizer", optimizer))
    ids = choose(rows, len(parameter), populations)
    index = None if len(ids) == len(parameter) else torch.from_numpy(ids).to(parameter.device)
    arithmetic = arithmetic_of(optimizer, parameter)
    if channels is DEFAULT:
        channels = known_of(DEFAULT, arithmetic) if resume is None else kept_of(DEFAULT, run_folder(run))
    given, rest = _split(channels, parameter, optimizer, index)
    _refuse_unfit_states(given, parameter, optimizer)
    table = tables.on_lattice((*(each.channel for each in given), *rest), _lattice(parameter, lattice))
    for notice in [*frozen_notices(parameter), *notices(optimizer, parameter), *_without_push(given, resume)]:
        say(notice)
    tables.check_table(table)
    how: dict[str, Any] = {"commit_interval_s": commit_interval_s, "lock": lock}
    if resume is not None:
        weights = parameter if index is None else parameter[index]
        commit = refuse_unfit(run_folder(run), resume, table=table, ids=ids, lattice=lattice, weights=weights)
        how |= _functions_of(commit, table, motion_threshold)
        writer = _resume(run, resume, commit, config, cut=not compare, **how)
        for path in writer.foreign:
            say(f"{path} was not made by Crucible; it is left alone")
    else:
        how |= {"sizes": sizes, "restart": restart, "hidden": parameter.shape[1], "tokens": ids}
        attributes = _attributes(optimizer, parameter, motion_threshold, provenance)
        writer = _create(run, table, _with_population(statics, ids, populations), attributes, config, **how)
    find = None if isinstance(target, Tensor) else partial(getattr, target, "weight", None)
    recorder = Recorder(writer, parameter, optimizer, index, given, find=find, say=say)
    return recorder if resume is not None else recorder.begin()


def _without_push(given: Iterable[Recorded], resume: int | None) -> list[str]:
    """That a resumed run gets no push any more; ValueError where a new run should keep one that is not known."""
    reason = next((each.source.refused for each in given if isinstance(each.source, PushOf)), None)
    if reason and resume is None:
        raise ValueError(f"push: {reason}; leave the channel out, and the silence alone is judged")
    return [f"push is not known of this run from step {resume} on: {reason}"] if reason else []


def _create(
    run: str | Path, table: Sequence[Channel], statics: Statics, attributes: dict[str, Any],
    config: Mapping[str, Any] | None, **how: Any,  # noqa: ANN401 - handed on
) -> TrajectoryWriter:  # fmt: skip
    from store.writing.writer import TrajectoryWriter

    found = dict(config or {})
    extra = [channel for channel in statics.channels if channel not in table]
    return TrajectoryWriter.create(
        run, channels=(*table, *extra), statics=statics.arrays, attributes=attributes | {"config": found},
        config=found, **_functions(table, attributes["motion_threshold"]), **how,
    )  # fmt: skip


def _resume(
    run: str | Path, step: int, commit: Commit, config: Mapping[str, Any] | None,
    **how: Any,  # noqa: ANN401 - handed on
) -> TrajectoryWriter:  # fmt: skip
    from store.writing.writer import TrajectoryWriter

    if config is not None:
        how |= {"config": config, "attributes": {**commit.attributes, "config": dict(config)}}
    return TrajectoryWriter.resume(run, from_step=step, **how)


def _functions_of(commit: Commit, table: Sequence[Channel], threshold: float | None) -> dict[str, Any]:
    """As `_functions`, on the lattice and with the threshold that the run has."""
    stored = stored_lattice(commit)
    return _functions(tables.on_lattice(table, stored) if stored else table, _threshold(commit, threshold))


def _threshold(commit: Commit, asked: float | None) -> float:
    stored = float(commit.attributes.get("motion_threshold", DEFAULT_THRESHOLD))
    if asked not in (None, stored):
        raise ValueError(f"motion_threshold={asked}: the run's is {stored}; analysis can be asked with any other")
    return stored


def _with_population(
    statics: Statics | None, ids: NDArray[np.int64], populations: Mapping[str, NDArray[np.int64]] | None
) -> Statics:
    """What is known of the tokens, their population with it where it has names."""
    known = statics or Statics()
    known.refuse_others(ids)
    if not populations or POPULATION.name in known.arrays:
        return known
    return known | describe(ids, populations=populations)


def _parameter(target: nn.Module | Tensor, optimizer: Optimizer) -> Tensor:
    parameter = target if isinstance(target, Tensor) else getattr(target, "weight", None)
    if not isinstance(parameter, Tensor) or parameter.ndim != 2:
        shape = tuple(parameter.shape) if isinstance(parameter, Tensor) else type(target).__name__
        raise ValueError(f"attach needs an embedding or a parameter (row, hidden), not {shape}")
    if group_of(optimizer, parameter) is None:
        raise ValueError(
            "this optimizer does not update the parameter: pass the one that holds it, and attach after it"
        )
    return parameter


def _split(
    channels: Iterable[Channel | Recorded], parameter: Tensor, optimizer: Optimizer, rows: Tensor | None
) -> tuple[list[Recorded], list[Channel]]:
    """Given channels with their sources, in the dtypes of this parameter; and the others."""
    given, rest = [], []
    for each in channels:
        if isinstance(each, Recorded):
            given.append(each)
        elif each.role == "given":
            given.append(_given(each, parameter, optimizer, rows))
        else:
            rest.append(each)
    if not any(each.channel.name == "W" for each in given):
        rest = [channel for channel in rest if channel.role not in ("derived", "final")]
    return given, rest


def _given(channel: Channel, parameter: Tensor, optimizer: Optimizer, rows: Tensor | None) -> Recorded:
    """The channel with its source, in the dtype of the tensor that a row is taken from."""
    if channel.name == tables.PUSH.name:
        push = PushOf(arithmetic_of(optimizer, parameter), optimizer, parameter, rows)
        return Recorded(channel, push, push.begin)
    source, tensor = SOURCES.get(channel.name, logged(channel.name)), parameter
    if isinstance(source, OptimizerState):
        tensor = parameter if (state := source.find(optimizer, parameter)) is None else state
    elif channel.name not in ("W", "gradient"):
        return Recorded(channel, source)
    name = str(tensor.dtype).removeprefix("torch.")
    return Recorded(tables.in_dtype(channel, name), source)


def _refuse_unfit_states(given: Iterable[Recorded], parameter: Tensor, optimizer: Optimizer) -> None:
    """Where the optimizer has made its state already, what it keeps is known; else the first update shows it."""
    for each in given:
        if isinstance(each.source, OptimizerState) and optimizer.state.get(parameter):
            each.source.refuse_unfit(each.channel, optimizer, parameter)


def _lattice(parameter: Tensor, asked: str | None) -> str:
    lattices.cell(np.zeros(1, np.uint16))  # refuses a process that flushes subnormal numbers to zero
    own = str(parameter.dtype).removeprefix("torch.")
    if asked not in (None, own) and (own, asked) != ("float32", "bfloat16"):
        raise ValueError(
            f"lattice={asked!r}: {own} weights lie on their own lattice; only float32 ones project on bfloat16"
        )
    return asked or own


def _functions(table: Sequence[Channel], threshold: float) -> dict[str, Any]:
    """What the writer calls: to derive, and to finish."""
    finish = tables.finisher(threshold) if tables.LAST_MOTION in table else None
    return {"derive": tables.deriver(table), "finish": finish}


def _attributes(
    optimizer: Optimizer, parameter: Tensor, threshold: float | None, provenance: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What analysis needs to know of the run, and what made it."""
    found = {
        "software": software(),
        "machine": machine(parameter.device),
        "dtypes": dtypes([parameter.dtype], str(parameter.dtype).removeprefix("torch."), optimizer),
        "optimizer": type(optimizer).__name__,
        "torch_seed": torch.initial_seed(),
    }
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    attributes: dict[str, Any] = {"motion_threshold": threshold, "provenance": {**found, **(provenance or {})}}
    arithmetic = arithmetic_of(optimizer, parameter)
    if isinstance(arithmetic, Arithmetic):
        attributes |= {UPDATE: arithmetic.attributes(optimizer, parameter)}
    else:
        attributes |= {NO_PUSH: arithmetic.reason}
    betas = (group_of(optimizer, parameter) or {}).get("betas")
    return attributes if betas is None else {**attributes, "beta1": float(betas[0])}

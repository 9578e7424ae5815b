"""Runs from beginning to end: begin a new one, or go on with one that was interrupted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from crucible import console
from crucible.channels import table as tables
from crucible.channels.push import Refused, arithmetic_of
from crucible.channels.push_source import PushOf, known_of
from crucible.channels.sources import ChannelLike, Recorded
from crucible.channels.vocabulary import Statics, describe
from crucible.experiment.checkpoint import Progress
from crucible.experiment.outcome import Outcome
from crucible.experiment.plan import Budget, Plan, plan_run
from crucible.experiment.restoration import restored
from crucible.experiment.session import Session, begin, memory_errors, opening_lines, read_inputs
from crucible.experiment.trainer import train_steps
from crucible.inputs.config import INPUTS, Config, ConfigError, refuse_other_than_config
from crucible.inputs.data import InputError, sha256
from crucible.inputs.stored_config import as_stored, read_config, wants_push
from crucible.inputs.tokens import text_of
from crucible.progress import Progress as ShowProgress
from crucible.progress import silent
from crucible.recording.attach import attach
from crucible.recording.provenance import differences, latest
from crucible.recording.recorder import Recorder
from crucible.recording.resume import kept_of
from crucible.recording.seam import NoRecorder
from crucible.units import counted
from crucible.updates.precision import notices
from store.disk import refuse_blocked
from store.format.files import run_folder
from store.run.commit import read_commit
from store.run.whereabouts import is_there
from store.writing.opening import refuse_existing

Say = Callable[[str], None]


def train(
    config: Config,
    *,
    record: bool = True,
    push: bool = True,
    lock: bool = True,
    budget: Budget | None = None,
    until: Callable[[Session], Callable[[int], bool]] | None = None,
    say: Say = console.say,
    progress: ShowProgress = silent,
) -> Outcome:
    """Train a new run.

    Parameters
    ----------
    config : Config
        With the three inputs, and `out` unless `record` is False.
    record : bool
        False runs the bare loop.
    push : bool
        Record at each step how near the optimizer came to moving a weight, by which the end state is judged. Where that
        is not known (large weight decay), a note says why. False leaves it out, which saves half a millisecond a step.
    lock : bool
        False opens the run without a lock, see `store.TrajectoryWriter.create`.
    budget : Budget
        Most memory and disk that the plan may take; only with `record`.
    until : callable
        Session to a function that is asked after each step; see `crucible.experiment.trainer.train`.
    say : callable
        Takes the lines that are told.
    progress : callable, optional
        Called with (step, steps in all, loss and epoch), a few times a second.

    Raises
    ------
    ConfigError, InputError, StoreError
        Before anything is written.
    """
    refuse_other_than_config(config)
    config.require(*INPUTS, *(["out"] if record else []))
    if not record and budget not in (None, Budget()):
        raise ConfigError("--max-memory and --max-disk are about recording, and --no-record records nothing")
    if record:
        refuse_blocked(Path(str(config.out)))
        refuse_existing(run_folder(str(config.out)), restart=False)
    how: dict[str, Any] = {"budget": budget, "until": until, "lock": lock, "say": say, "progress": progress}
    return _start(config, record=record, push=push, **how, restart=False)


def resume(
    run: str | Path,
    *,
    total_steps: int | None = None,
    device: str | None = None,
    from_start: bool = False,
    lock: bool = True,
    say: Say = console.say,
    progress: ShowProgress = silent,
) -> Outcome | None:
    """Go on with a run from its last commit, also past its planned end, or on another device.

    Parameters
    ----------
    run : path
        The run's folder.
    total_steps : int, optional
        A new end, past the planned one.
    device : str, optional
        Another device than the run's own.
    from_start : bool
        Start at step 0 whatever checkpoints there are: the stored steps are computed again and compared with what is
        stored, bit for bit. The first that differs, and what follows it, is replaced, which is said.
    lock : bool
        False opens the run without a lock, see `store.TrajectoryWriter.create`.
    say : callable
        Takes the lines that are told.
    progress : callable, optional
        Called with (step, steps in all, loss and epoch), a few times a second.

    Returns
    -------
    Outcome or None
        None if the run is finished already.

    Notes
    -----
    A run that was killed before its first commit starts again. Where the newest checkpoint is damaged, the one before
    it is taken; a missing config.json is written anew from the commit. What runs otherwise than before (device,
    versions, threads) is said.

    Raises
    ------
    NotATrajectoryError
        There is no run here, or one that this trainer did not make.
    ConfigError
        `total_steps` is below the committed steps, or below 1. Nothing was changed.
    MetadataError, ChecksumError
        config.json says otherwise than the commit, in more than a path; or all checkpoints are damaged. Nothing was
        changed.
    """
    folder = run_folder(run, to_write=True)
    config, hashes = read_config(folder, say=_noting(say))
    changes: dict[str, Any] = {"out": str(folder), "total_steps": total_steps, "device": device}
    config = replace(config, **{name: value for name, value in changes.items() if value is not None})
    if not is_there(folder):
        _check_inputs(config, hashes)
        say("the run was interrupted before its first commit: starting from the beginning")
        how: dict[str, Any] = {"budget": None, "until": None, "lock": lock, "say": say, "progress": progress}
        return _start(config, record=True, push=wants_push(folder), **how, restart=True)
    commit = read_commit(folder)
    _refuse_earlier_end(folder, config.total_steps, commit.committed_steps)
    if commit.committed_steps == config.total_steps and commit.completed:
        return None
    _check_inputs(config, hashes)
    session = begin(config, read_inputs(config, say=_noting(say)))
    after = None if from_start else restored(session, folder, commit, say=say)
    for line in differences(latest(commit.attributes.get("provenance", {})), session.provenance()):
        say(f"note: {line}; the bits may differ")
    step = after.step if after else 0
    planned = counted(config.total_steps, "step")
    say(f"resuming after step {step:,}; committed are {commit.committed_steps:,} of {planned}")
    # with no step left to train there is nothing to tell but the end
    tell = say if step < config.total_steps else lambda _: None
    push = bool(commit.attributes["config"].get("push", True))
    recorder = attach_to(session, say=tell, push=push, resume=step, lock=lock)
    return _finish(session, recorder, after, None, say=say, progress=progress)


def measure_step(config: Config, *, steps: int = 4) -> float:
    """Seconds of a training step without recording: the median of a few, after the first."""
    config.require(*INPUTS)
    config = replace(config, total_steps=steps)
    session = begin(config, read_inputs(config))
    ends: list[float] = []

    def until(_step: int) -> bool:
        ends.append(time.perf_counter())
        return False

    train_steps(session, NoRecorder(), until=until)
    return statistics.median(later - earlier for earlier, later in pairwise(ends))


def attach_to(
    session: Session, *, say: Say, push: bool = True, resume: int | None = None, restart: bool = False,
    lock: bool = True,
) -> Recorder:  # fmt: skip
    """The experiment's recorder: dead rows of the tied embedding, the notebook's table, and the push."""
    config, dead = session.config, session.inputs.dead
    return attach(
        session.model.token_embedding,
        session.optimizer,
        str(config.out),
        rows=dead.indices,
        channels=_channels(session, push=push, resume=resume, say=say),
        statics=_statics(session),
        motion_threshold=config.motion_threshold,
        config=as_stored(config, session.inputs.sha256, push=push),
        provenance=session.provenance(),
        commit_interval_s=config.commit_interval,
        resume=resume,
        compare=True,
        restart=restart,
        lock=lock,
        say=_noting(say),
    )


def _channels(session: Session, *, push: bool, resume: int | None, say: Say) -> tuple[ChannelLike, ...]:
    """The table of a new run, without a push that nobody wants or knows; that of a run which is resumed."""
    if resume is not None:
        return kept_of(tables.EXPERIMENT, run_folder(str(session.config.out)))
    if not push:
        return tables.NOTEBOOK
    weight = session.model.token_embedding.weight
    found = arithmetic_of(session.optimizer, weight)
    if isinstance(found, Refused):
        say(f"note: push is not recorded: {found.reason}")
        return known_of(tables.EXPERIMENT, found)
    rows = torch.from_numpy(session.inputs.dead.indices).to(weight.device)
    session.push = source = PushOf(found, session.optimizer, weight, rows)
    return tuple(Recorded(c, source, source.begin) if c == tables.PUSH else c for c in tables.EXPERIMENT)


def _start(
    config: Config,
    *,
    record: bool,
    push: bool,
    budget: Budget | None,
    until: Callable[[Session], Callable[[int], bool]] | None,
    lock: bool,
    say: Say,
    progress: ShowProgress,
    restart: bool,
) -> Outcome:
    inputs = read_inputs(config, say=_noting(say))
    plan = plan_run(config, len(inputs.dead.indices), push=push)
    if record:
        plan.refuse_beyond(budget or Budget(), Path(str(config.out)))
    session = begin(config, inputs)
    _tell(session, plan if record else None, say)
    recorder = attach_to(session, say=say, push=push, restart=restart, lock=lock) if record else NoRecorder()
    return _finish(session, recorder, None, until(session) if until else None, say=say, progress=progress)


def _finish(
    session: Session,
    recorder: Recorder | NoRecorder,
    after: Progress | None,
    until: Callable[[int], bool] | None,
    *,
    say: Say,
    progress: ShowProgress,
) -> Outcome:
    with memory_errors():
        outcome = train_steps(session, recorder, after=after, progress=progress, **({"until": until} if until else {}))
    difference = getattr(getattr(recorder, "writer", None), "difference", None)
    if difference:
        say(f"note: this run is not deterministic here: {difference}; the steps from there on were replaced")
    return outcome


def _noting(say: Say) -> Say:
    """Lines of the inputs as notes between the lines of the run."""
    return lambda line: say(f"note: {line}")


def _tell(session: Session, plan: Plan | None, say: Say) -> None:
    for line in opening_lines(session):
        say(line)
    if plan:
        say(plan.line())
    else:
        for notice in notices(session.optimizer, session.model.token_embedding.weight):
            say(f"note: {notice}")


def _statics(session: Session) -> Statics:
    dead = session.inputs.dead
    kept = Statics(tuple(tables.KEPT[name] for name in dead.kept), _as_declared(dead.kept))
    tokenizer = session.inputs.tokenizer
    is_of_this_corpus = not session.inputs.occurring  # else its counts are those of another
    counts = dead.kept.get("token_occurrence_counts") if is_of_this_corpus else None
    known = describe(
        dead.indices, populations={"dead": dead.indices}, counts=counts, text=text_of(tokenizer),
        piece=tokenizer.id_to_token,
    )  # fmt: skip
    return Statics((tables.DEAD_MASK,), {tables.DEAD_MASK.name: dead.mask}) | kept | known


def _as_declared(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: array.astype(tables.KEPT[name].dtype) for name, array in arrays.items()}


def _refuse_earlier_end(folder: Path, total_steps: int, committed: int) -> None:
    if total_steps < committed:
        raise ConfigError(
            f"{folder}: is committed up to step {committed:,}; --total-steps must be at least that, not {total_steps:,}"
        )


def _check_inputs(config: Config, hashes: Mapping[str, str]) -> None:
    for name in INPUTS:
        path = getattr(config, name)
        if not Path(path).is_file():
            raise InputError(f"{path}: the run's {name} is not there any more; put it back to resume")
        if sha256(path) != hashes.get(name):
            raise InputError(f"{path}: the run's {name} has changed since; put the old file back to resume")

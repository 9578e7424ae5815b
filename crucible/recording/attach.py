"""`crucible.attach`: choose what is recorded, look at the optimizer, open the run, hook a recorder behind the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import Optimizer

from analysis import lattice as lattices
from crucible.channels.rows import Rows, choose
from crucible.channels.selection import DEFAULT, default_of, select, without_push
from crucible.channels.sources import ChannelLike, Moment
from crucible.channels.tensors import dtype_name
from crucible.channels.tokenizer import known_of, populations_of
from crucible.channels.vocabulary import Statics
from crucible.ranks.part import Part, is_spread, part_of
from crucible.recording.intake import with_scalars
from crucible.recording.live import make_way
from crucible.recording.on_signal import refuse_unfit
from crucible.recording.opening import Opening, attributes_of, provenance_of
from crucible.recording.recorder import Recorder
from crucible.recording.resume import kept_of, push_now, rows_now
from crucible.recording.seam import NoWriter, Writer
from crucible.recording.updating import After
from crucible.updates.precision import notices
from crucible.updates.subject import frozen_notices
from crucible.updates.target import Target, find_target
from crucible.updates.telling import Say, log_notice
from store.format.files import run_folder

LAST_STEP = 2**31 - 1
"""Steps are kept as int32 where they are answers: last_motion_step."""


def attach(
    target: nn.Module | Tensor,
    optimizer: Optimizer | None,
    run: str | Path,
    *,
    rows: Rows = "all",
    parameter: str | None = None,
    axis: Literal[0, 1] = 0,
    channels: Iterable[ChannelLike] | None = None,
    populations: Mapping[str, ArrayLike] | None = None,
    tokenizer: object = None,
    statics: Statics | None = None,
    sizes: Mapping[str, int] | None = None,
    scalars: bool = False,
    motion_threshold: float | None = None,
    lattice: str | None = None,
    store_as: Literal["bfloat16"] | None = None,
    config: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    commit_interval_s: float = 30.0,
    after: After = "step",
    first_step: int = 0,
    resume: int | None = None,
    compare: bool = False,
    restart: bool = False,
    overwrite: bool = False,
    on_rank: int | None = 0,
    on_signal: Literal["commit"] | None = None,
    lock: bool = True,
    say: Callable[[str], None] | None = None,
) -> Recorder:
    """Record rows of a parameter after every step of its optimizer.

    Parameters
    ----------
    target : Module or Parameter
        An embedding (its `weight` is taken), or a parameter of two dimensions, (row, hidden); a model, where
        `parameter` names one in it.
    optimizer : Optimizer or None
        The one that updates it; wrappers (accelerate's, SAM) are looked through. None in a loop that updates the
        weights by itself and calls `Recorder.record` after each update.
    run : path
        Folder of the run. It must not exist, unless `resume` is given.
    rows : "all" or None, a name in `populations`, a mask, a slice, or ids
        What to record, in ascending order of id; see `crucible.channels.rows.choose`.
    parameter : str, optional
        Name of the parameter in the model, as ``named_parameters()`` has it, or another name that is tied to it.
    axis : {0, 1}
        Where the parameter's rows are counted: 1 where it is transposed, (hidden, row). What is stored is
        (token, hidden) in any case.
    channels : iterable of Channel or Recorded, optional
        What to keep, see `crucible.channels.table`; `crucible.channels.selection.DEFAULT` unless given. A channel
        that is in no table is taken from `Recorder.log`, or from the function of a `Recorded`. Dtypes follow the
        parameter's. Unless given, `push` is left out where it is not known (the run's attribute ``no_push`` says why),
        and a resumed run keeps the channels that it has.
    populations : mapping of str to ids
        Names for `rows`, each one word, which become the coordinate `population`; see
        `crucible.by_count`.
    tokenizer : PreTrainedTokenizer or tokenizers.Tokenizer, optional
        Its text and its own name of each recorded token become coordinates, and unless `populations` is given those
        that it implies: "special", "added", "ordinary", and "unnamed", rows that no token has.
    statics : Statics
        What does not change from step to step; see `crucible.describe`.
    sizes : mapping of str to int
        Sizes of dimensions that channels of yours have beside token and hidden.
    scalars : bool
        Keep every number that the loop logs for the first update, declared or not. The run is made at the first update
        then.
    motion_threshold : float
        Smallest L2 displacement, in cells, that counts as motion: 0.1 unless given, and the run's own with `resume`.
    lattice : {"bfloat16", "float32", "float16"}
        Where the displacement is measured: on the weights' own lattice unless "bfloat16" asks for the projection of
        float32 weights.
    store_as : {"bfloat16"}
        Keep float32 weights rounded to bfloat16, as mixed precision computes with them: a fifth to a twentieth of the
        bytes. What float32 moved below that is lost. The displacement and the centroid are those of the rounded rows.
    config, provenance : mapping
        JSON values that go into the run; `provenance` is added to what is found here. With `resume` what is another in
        it (the optimizer, software, machine, a value of yours) is told of the steps from there on.
    commit_interval_s : float
        Most seconds between commits.
    after : {"step", "record"}
        When a row is taken: right behind ``optimizer.step()``, or when the loop calls `Recorder.record`, once for each
        step, behind what it does to the weights itself (normalisation, an average of them that is a channel).
    first_step : int
        Label of the state at this moment, from which the steps go on: of a model that was trained before.
    resume : int
        Cut the run back to this step and go on. Rows, channels and the lattice must be the run's, and the parameter
        must be where it was; otherwise nothing is cut.
    compare : bool
        With `resume`: keep the later steps, and compare them with what is recorded now; the first that differs, and
        what follows it, is replaced.
    restart : bool
        Allow a folder whose run was killed before its first commit.
    overwrite : bool
        Record in the place of the run that is there, also of one that this process is recording, whose recorder is
        closed. Every file of the folder must be the store's own. The old run is removed when the new one has its first
        commit; a crash before that leaves the old one.
    on_rank : int or None
        Where several processes train together, the rank that records; the others get a recorder that keeps nothing, so
        that every rank may call this, or that rank alone. None where each rank records a run of its own, in a folder
        of its own. The parts of a DTensor are gathered: every rank must call this then.
    on_signal : {"commit"}, optional
        At a signal that ends a training (SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU): commit at the next step, and let
        the signal do after that what it does without this. In the main thread alone. Otherwise the process may end
        with the steps of the last `commit_interval_s` lost.
    lock : bool
        False opens the run without a lock, see `store.TrajectoryWriter.create`.
    say : callable
        Takes notices, each a sentence; unless given they go to the logger ``crucible``, as warnings.

    Returns
    -------
    Recorder
        A context manager. The state at this moment is recorded already, as step 0 unless `first_step` is given.

    Raises
    ------
    TypeError
        What is given as target or optimizer is none.
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
    weight, optimizers, find = found = find_target(target, optimizer, name=parameter)
    _refuse_contradictions(weight, axis, resume, first_step, on_signal, overwrite=overwrite)
    if populations is None and tokenizer is not None:
        populations = populations_of(tokenizer, weight.shape[axis])
    ids = choose(rows, weight.shape[axis], populations)
    index = None if len(ids) == weight.shape[axis] else torch.from_numpy(ids).to(weight.device)
    measured, rounds = _lattice(weight, lattice, store_as), store_as is not None
    part = part_of(weight, None if index is None else ids, on_rank)
    old = None if resume is None else _to_go_on_with(run_folder(run), part, say or log_notice)
    arithmetic = push_now(found.optimizer, weight, axis, of_run=old)
    if channels is None:
        channels = default_of(found.optimizer, arithmetic) if old is None else kept_of(DEFAULT, old)
    given, table = select(
        channels, weight, found.optimizer, lattice=measured, rounds=rounds, push=arithmetic, ids=index
    )
    say = _told(say or log_notice, found, part, run, without_push(given, resume))
    if scalars and old is not None and part.writes:
        given, table = with_scalars(given, table, old)
    opening = Opening(
        run_folder(run), table, ids, say, motion_threshold, config, commit_interval_s, first_step, restart, overwrite,
        lock, provenance_of(found.optimizer, weight, provenance),
    )  # fmt: skip
    moment = Moment(resume or 0, weight, index, found.optimizer, {}, axis, gather=part.gather, rounds=rounds)
    now = {} if resume is None else rows_now(moment, given)  # every rank makes it: the rows may lie on several
    if not part.writes:
        writer: Writer = NoWriter(first_step - 1 if resume is None else resume)
    elif resume is not None:
        moved = (found.optimizer, weight, axis)
        writer = opening.resume(resume, lattice=lattice, now=now, compare=compare, moved=moved)
    else:
        attributes = attributes_of(found.optimizer, weight, arithmetic, opening.provenance)
        known = known_of(ids, statics, populations, tokenizer)
        writer = opening.create(weight.shape[1 - axis], known, attributes, sizes, scalars=scalars)
    with _closed_on_error(writer):
        recorder = Recorder(
            writer, weight, optimizers, index, given, find=find, axis=axis, after=after, part=part,
            first_step=first_step, scalars=scalars and resume is None, commits_on_signal=on_signal == "commit",
            others=[channel.name for channel in table], say=say,
        )  # fmt: skip
    return recorder if resume is not None else recorder.begin()


@contextmanager
def _closed_on_error(writer: Writer) -> Iterator[None]:
    """Close the writer where an error comes: nobody else knows of it."""
    try:
        yield
    except BaseException:
        writer.close()
        raise


def _refuse_contradictions(
    weight: Tensor, axis: int, resume: int | None, first_step: int, on_signal: str | None, *, overwrite: bool
) -> None:
    refuse_unfit(on_signal)
    if axis not in (0, 1):
        raise ValueError(f"axis={axis}: the parameter's rows are counted along axis 0, or 1 where it is transposed")
    if axis and is_spread(weight):
        raise ValueError("axis=1: the parts of a DTensor are gathered by rows, along axis 0, alone")
    if not 0 <= first_step <= LAST_STEP:
        raise ValueError(f"first_step={first_step}: steps from 0 to {LAST_STEP:,} can be kept")
    if overwrite and resume is not None:
        raise ValueError("overwrite=True begins anew, and resume= goes on with what is there: give one of them")
    if first_step and resume is not None:
        raise ValueError("first_step= begins a new run, and resume= goes on with one: give one of them")


def _to_go_on_with(run: Path, part: Part, say: Say) -> Path:
    """The run, before anything of it is read: what records it here comes first, its first commit may not be there."""
    if part.writes:
        make_way(run, overwrite=False, say=say)
    return run


def _told(say: Say, found: Target, part: Part, run: str | Path, more: Iterable[str]) -> Say:
    """Tell what is to be told when recording begins; returns what takes the notices from now on."""
    if not part.writes:
        say(part.words(run))
        return _say_nothing
    frozen = frozen_notices(found.parameter) if found.optimizers else []  # what a loop writes to needs no gradient
    for notice in [*frozen, *notices(found.optimizer, found.parameter), *more]:
        say(notice)
    return say


def _say_nothing(_notice: str) -> None:
    """Of a process that records nothing."""


def _lattice(parameter: Tensor, asked: str | None, store_as: str | None) -> str:
    lattices.cell(np.zeros(1, np.uint16))  # refuses a process that flushes subnormal numbers to zero
    own = dtype_name(parameter.dtype)
    if store_as is not None and (own, store_as) != ("float32", "bfloat16"):
        raise ValueError(f"store_as={store_as!r}: only float32 weights are rounded, to 'bfloat16'; these are {own}")
    if store_as is not None and asked not in (None, store_as):
        raise ValueError(f"lattice={asked!r}: rounded weights lie on the {store_as} lattice; leave one of the two out")
    if asked not in (None, own) and (own, asked) != ("float32", "bfloat16"):
        raise ValueError(
            f"lattice={asked!r}: {own} weights lie on their own lattice; only float32 ones project on bfloat16"
        )
    return store_as or asked or own

"""A file of the lab into a run, through the writer that training uses: in its memory, resumable.

What the file brings that follows from its weights (displacements, norms, last motion) is computed anew, compared,
and any difference reported. Its centroid is kept where it is the mean of these rows, in whatever order other hardware
sums.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible.channels.table import deriver, finisher
from crucible.interchange.importing.copying import copy_states
from crucible.interchange.importing.differences import COMPARED, DELTA, Emptied, Findings, compare_stored
from crucible.interchange.importing.metadata import contradictions, words_of
from crucible.interchange.importing.plan import ImportPlan, plan_import
from crucible.interchange.importing.recognising import other_row, other_static
from crucible.interchange.matching import Match, match
from crucible.interchange.notebook import some_names
from crucible.interchange.report import Transfer
from crucible.interchange.sources.opening import open_source
from crucible.interchange.sources.source import Source
from crucible.progress import Progress, silent
from store.disk import free_bytes
from store.errors import BudgetError, DifferenceError, RunExistsError, TensorFileError
from store.format.files import CONFIG, METADATA, local_path, run_folder
from store.run.commit import read_commit
from store.run.whereabouts import is_there
from store.small_file import read_small
from store.writing.writer import TrajectoryWriter


def import_run(
    path: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    parameter: str | None = None,
    lossy: bool = False,
    motion_threshold: float | None = None,
    commit_interval_s: float = 30.0,
    progress: Progress = silent,
) -> Transfer:
    """Make a run of a file: safetensors, HDF5 or .npz, or of a folder of checkpoints.

    An import that was interrupted goes on from its last commit when it is called again with the same arguments.

    Parameters
    ----------
    path : path-like
        The file. W (step, token, hidden) must be there, as uint16, BF16, float32, float16 or float64. Arrays are known
        by their names; `crucible.list_file` tells what they would come in as. An array `step` or `steps` (int, one
        for each row of W) names the steps, which are 0, 1, 2, ... without it. metadata.json beside it is taken along.
    run : path-like
        Folder to make.
    skip : sequence of str
        Arrays to leave out. One that is not known must be named here, or in `rename`; W cannot be.
    rename : mapping of str to str
        What an array of the file is, where its name does not tell: ``{"emb": "W"}``.
    parameter : str, optional
        The array to take from each file of a folder of checkpoints; needed where there are several.
    lossy : bool
        Round a float16 W to bfloat16, and a float64 one to float32.
    motion_threshold : float, optional
        For last_motion_step; without it the one in metadata.json, else 0.1.
    commit_interval_s : float
        Commit at least so often.
    progress : callable, optional
        Called with (rows, rows in all).

    Returns
    -------
    Transfer

    Raises
    ------
    TensorFileError
        The file is broken, hostile, or of another shape, or holds something that is not known and not skipped; or
        it holds several runs, see `import_runs`. Nothing was written.
    RunExistsError
        There is another run, or a finished one, at `run`.
    BudgetError
        A row is so large that the writer would need more than 1 GiB; or the disk has no room.

    Notes
    -----
    One pass over the file, one before where it holds bfloat16 numbers as float32, one more over its norms if it has
    them, one over those of the run. Memory: the writer's, and 8 MB of rows.
    """
    since = time.monotonic()
    with closing(open_source(path, skip=_some(skip), parameter=parameter)) as source:
        found = _matched(source, _some(skip), rename)
        if len(found) > 1:
            names = some_names([each.run for each in found])
            raise TensorFileError(
                f"{source.path}: a set of {len(found)} runs, {names}; import_runs makes a run of each in a folder"
            )
        plan = plan_import(source, found[0], motion_threshold=motion_threshold, lossy=lossy)
        return _bring(plan, run_folder(os.fspath(run)), commit_interval_s, progress, since)


def import_runs(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    lossy: bool = False,
    motion_threshold: float | None = None,
    commit_interval_s: float = 30.0,
    progress: Progress = silent,
) -> tuple[Transfer, ...]:
    """Make a run of each run that one file holds, as ``run_0_embeddings``, ``run_1_embeddings`` or in groups.

    Parameters
    ----------
    path : path-like
        The file. Arrays that belong to no run, as a dead_mask for all, go into each.
    folder : path-like
        The runs are made in it, by their names in the file: ``folder/run_0``.
    skip, rename, lossy, motion_threshold, commit_interval_s, progress
        As for `import_run`.

    Returns
    -------
    tuple of Transfer
        One for each run that was made; those that an interrupted call had finished are read beside the file, and left
        as they are.

    Raises
    ------
    TensorFileError, RunExistsError, BudgetError
        As `import_run`; a RunExistsError also where a finished run holds other numbers than the file.
    """
    made = []
    with closing(open_source(path, skip=_some(skip))) as source:
        found = _matched(source, _some(skip), rename)
        plans = [plan_import(source, each, motion_threshold=motion_threshold, lossy=lossy) for each in found]
        target = local_path(os.fspath(folder))
        if is_there(target):
            raise RunExistsError(f"{target}: is a run; name a folder for the {len(found)} runs of {source.path.name}")
        target.mkdir(parents=True, exist_ok=True)
        for plan in plans:
            since = time.monotonic()
            run = target / (plan.found.run.replace("/", "_") or source.path.stem)
            if not _is_imported(plan, run):
                made.append(_bring(plan, run, commit_interval_s, progress, since))
    return tuple(made)


def holds_several(
    path: str | os.PathLike[str], *, skip: Sequence[str] = (), rename: Mapping[str, str] | None = None,
    parameter: str | None = None,
) -> bool:  # fmt: skip
    """Whether a file is one for `import_runs`."""
    with closing(open_source(path, skip=_some(skip), parameter=parameter)) as source:
        return len(_matched(source, _some(skip), rename)) > 1


def _some(skip: Sequence[str]) -> tuple[str, ...]:
    return (skip,) if isinstance(skip, str) else tuple(dict.fromkeys(skip))


def _matched(source: Source, skip: Sequence[str], rename: Mapping[str, str] | None) -> list[Match]:
    try:
        return match(source, skip=skip, rename=rename)
    except TensorFileError as error:
        raise TensorFileError(f"{source.path}: {error}") from None


def _bring(plan: ImportPlan, run: Path, commit_interval_s: float, progress: Progress, since: float) -> Transfer:
    """Write the run of a plan, and say what was done."""
    findings, emptied = Findings(), Emptied(plan.steps, plan.sizes["token"], plan.sizes["hidden"])
    writer = _begin(plan, run, commit_interval_s)
    resumed_from = writer.committed_steps if writer.committed_steps >= 0 else None
    try:
        with writer:
            last_loss = copy_states(plan, writer, findings, emptied, progress)
            writer.commit()
            diverged = _divergence(writer.run)
            contradicted: list[str] = []

            def describe(finals: Mapping[str, Any]) -> dict[str, Any]:
                contradicted.extend(contradictions(plan, finals, last_loss))
                return words_of(plan, finals, last_loss, diverged.record)

            writer.complete(describe)
    except DifferenceError as error:
        raise RunExistsError(f"{error}: an interrupted import of another file; name another folder") from None
    compare_stored(plan.source, writer.run, findings)
    derived = (DELTA, *COMPARED)
    return Transfer(
        run=writer.run, path=plan.source.path, file_bytes=plan.source.file_bytes,
        arrays=tuple(plan.source.raw.values()), first_step=plan.first_step, last_step=plan.last_step,
        states=plan.sizes["step"], resolution_steps=plan.resolution_steps, tokens=plan.sizes["token"],
        hidden=plan.sizes["hidden"], kept=tuple(name for name in plan.source.tensors if name not in derived),
        left_out=plan.left_out, metadata=writer.run / METADATA, elapsed_s=time.monotonic() - since,
        assumed=(*plan.assumed, *contradicted, *emptied.sentences), differences=findings.differences,
        nonfinite=diverged.nonfinite, diverged=diverged.record["sentence"] if diverged.record else None,
        resumed_from=resumed_from, lossy=plan.source.lossy,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Divergence:
    """How many weights are not finite, counted at every step, and the record of a run that diverged."""

    nonfinite: int
    record: dict[str, Any] | None


def _divergence(run: Path) -> _Divergence:
    """Since when and how far the run diverged, if it did; xarray and dask, 80 MB, are loaded only here."""
    from analysis.questions.divergence import divergence, record
    from store.reading.reader import open_trajectory

    answer = divergence(open_trajectory(run)).load()
    return _Divergence(int(answer["nonfinite"]), record(answer))


def _begin(plan: ImportPlan, run: Path, commit_interval_s: float) -> TrajectoryWriter:
    """A new writer, or the one of an interrupted import of the same file."""
    finish, derive = finisher(plan.threshold), deriver(plan.channels)
    commit = read_commit(run) if is_there(run) else None
    ours = (_read_config(run) if commit is None else commit.attributes.get("config")) == plan.config
    if ours and commit is not None:
        if commit.completed:
            raise RunExistsError(f"{run}: an import of {plan.source.path.name} ended there; name another folder")
        if commit.labels() != plan.steps:
            raise RunExistsError(f"{run}: an interrupted import, of other steps; name another folder")
        if other := other_static(plan, commit, run):
            raise RunExistsError(f"{run}: an interrupted import, of a file with another {other}; name another folder")
        return TrajectoryWriter.resume(
            run, derive=derive, finish=finish, commit_interval_s=commit_interval_s, from_step=-1, on_difference="raise"
        )
    if commit is not None:
        raise RunExistsError(f"{run}: there is another run already; name another folder")
    needed = sum(values.nbytes for values in plan.statics.values()) + plan.source.file_bytes // 100
    if free_bytes(run.parent) < needed:
        raise BudgetError(f"{run}: the disk has {free_bytes(run.parent):,} bytes free, about {needed:,} are needed")
    named: dict[str, Any] = (
        {"first_step": plan.first_step} if plan.steps.count_on else {"labels": plan.steps.values(0, plan.sizes["step"])}
    )
    return TrajectoryWriter.create(
        run, channels=plan.channels, tokens=plan.tokens, hidden=plan.sizes["hidden"],
        sizes=_further_sizes(plan), **named, derive=derive, finish=finish, statics=plan.statics,
        attributes=plan.attributes, config=plan.config, commit_interval_s=commit_interval_s, restart=ours,
    )  # fmt: skip


def _further_sizes(plan: ImportPlan) -> dict[str, int]:
    """Sizes of what is neither token nor hidden."""
    dims = {dim for channel in plan.beside for dim in channel.dims} - {"token", "hidden"}
    return {dim: plan.sizes[dim] for dim in sorted(dims)}


def _is_imported(plan: ImportPlan, run: Path) -> bool:
    """Whether an earlier call has finished this very import.

    Raises
    ------
    RunExistsError
        It finished that of a file with the same header and other numbers.
    """
    if not is_there(run):
        return False
    commit = read_commit(run)
    if not commit.completed or commit.attributes.get("config") != plan.config:
        return False
    if other := other_static(plan, commit, run) or other_row(plan, commit, run):
        raise RunExistsError(
            f"{run}: was imported of a file that had other numbers, the first of them {other}; name another folder"
        )
    return True


def _read_config(run: Path) -> Any:  # noqa: ANN401 - what the JSON holds
    """What an import began with that has no commit yet."""
    try:
        return json.loads(read_small(run / CONFIG))
    except (OSError, ValueError, RecursionError):
        return None

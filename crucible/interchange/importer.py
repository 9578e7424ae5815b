"""A file of the lab into a run, through the writer that training uses: in its memory, resumable.

What the file brings that follows from its weights (displacements, norms, last motion) is computed anew, compared,
and any difference reported. Its centroid is kept where it is the mean of these rows, in whatever order other hardware
sums.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.channels.table import LOSS, centroids_fit, derive, finisher
from crucible.interchange.differences import DELTA, Difference, Findings, MoveCheck, compare_stored
from crucible.interchange.import_plan import ImportPlan, open_source, plan_import
from crucible.interchange.notebook import STEP_NAMES
from crucible.progress import Progress, silent
from store.disk import free_bytes
from store.errors import BudgetError, DifferenceError, RunExistsError
from store.format.files import CONFIG, run_folder
from store.run.commit import is_there, read_commit
from store.small_file import read_small
from store.writing.writer import TrajectoryWriter

Array = NDArray[Any]
READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import brought.

    Attributes
    ----------
    run : Path
        The run's folder.
    first_step, steps : int
        The labels of the first state and of the last, T.
    states : int
        How many steps are recorded, the first state among them: T + 1, unless there are gaps.
    resolution_steps : int
        How many steps recorded states are apart at most: 1, or more where there are gaps. What is derived of them
        (displacements, norms, last motion) is then of the steps between.
    tokens, hidden : int
        Sizes of a row.
    kept : tuple of str
        Arrays that were taken as they are.
    left_out : tuple of str
        Arrays that were skipped, and whatever else of the file is not in the run.
    assumed : tuple of str
        What the file does not say, or not so that it makes sense, and what was taken instead; a sentence each.
    differences : tuple of Difference
        Derived arrays of the file that are not what its weights give; the run holds the computed ones.
    diverged : str or None
        That weights or the loss stopped being finite numbers, if they did, in a sentence.
    resumed_from : int or None
        Last step that an interrupted import had committed.
    lossy : bool
        W was float16 and was rounded.
    elapsed_s : float
        Wall time.
    """

    run: Path
    first_step: int
    steps: int
    states: int
    resolution_steps: int
    tokens: int
    hidden: int
    kept: tuple[str, ...]
    left_out: tuple[str, ...]
    assumed: tuple[str, ...]
    differences: tuple[Difference, ...]
    diverged: str | None
    resumed_from: int | None
    lossy: bool
    elapsed_s: float


def import_run(
    path: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    skip: Sequence[str] = (),
    lossy: bool = False,
    motion_threshold: float | None = None,
    commit_interval_s: float = 30.0,
    progress: Progress = silent,
) -> ImportReport:
    """Make a run of a file: the notebook's safetensors, or HDF5 with the same names.

    An import that was interrupted goes on from its last commit when it is called again with the same arguments.

    Parameters
    ----------
    path : path-like
        The file. W (step, token, hidden) must be there, as uint16 or BF16. An array `step` or `steps` (int, one for
        each row of W) names the steps, which are 0, 1, 2, ... without it. metadata.json beside it is taken along.
    run : path-like
        Folder to make.
    skip : sequence of str
        Arrays to leave out. One that is not known must be named here; W cannot be.
    lossy : bool
        Take a float16 W of an HDF5 file, rounded to bfloat16.
    motion_threshold : float, optional
        For last_motion_step; without it the one in metadata.json, else 0.1.
    commit_interval_s : float
        Commit at least so often.
    progress : callable, optional
        Called with (rows, rows in all).

    Returns
    -------
    ImportReport

    Raises
    ------
    TensorFileError
        The file is broken, hostile, or of another shape, or holds something that is not known and not skipped.
        Nothing was written.
    RunExistsError
        There is another run, or a finished one, at `run`.
    BudgetError
        A row is so large that the writer would need more than 1 GiB; or the disk has no room.

    Notes
    -----
    One pass over the file, one more over its norms if it has them, one over those of the run. Memory: the writer's, and
    8 MB of rows.
    """
    since, skip = time.monotonic(), (skip,) if isinstance(skip, str) else tuple(dict.fromkeys(skip))
    source = open_source(path, lossy=lossy, skip=skip)
    with source:
        plan = plan_import(source, motion_threshold, skip)
        findings = Findings()
        writer = _begin(plan, run_folder(os.fspath(run)), commit_interval_s)
        resumed_from = writer.committed_steps if writer.committed_steps >= 0 else None
        try:
            with writer:
                last_loss = _copy(plan, writer, findings, progress)
                writer.commit()
                diverged = _divergence(writer.run)
                writer.complete(lambda finals: plan.words or _describe(plan, finals, last_loss, diverged))
        except DifferenceError as error:
            raise RunExistsError(f"{error}: an interrupted import of another file; name another folder") from None
        compare_stored(source, writer.run, findings)
    kept = [name for name in source.tensors if name in ("W", "centroid", "loss", *STEP_NAMES, *plan.statics)]
    return ImportReport(
        writer.run, plan.first_step, plan.last_step, plan.sizes["step"], plan.resolution_steps, plan.sizes["token"],
        plan.sizes["hidden"], tuple(kept), tuple(plan.left_out), tuple(plan.assumed), findings.differences,
        diverged["sentence"] if diverged else None, resumed_from, plan.config["lossy"], time.monotonic() - since,
    )  # fmt: skip


def _divergence(run: Path) -> dict[str, Any] | None:
    """Since when and how far the run diverged, if it did; xarray and dask, 80 MB, are loaded only here."""
    from crucible.inspection.analyze import divergence_of

    return divergence_of(run)


def _begin(plan: ImportPlan, run: Path, commit_interval_s: float) -> TrajectoryWriter:
    """A new writer, or the one of an interrupted import of the same file."""
    finish = finisher(plan.threshold)
    commit = read_commit(run) if is_there(run) else None
    ours = (_read_config(run) if commit is None else commit.attributes.get("config")) == plan.config
    if ours and commit is not None:
        if commit.completed:
            raise RunExistsError(f"{run}: {plan.source.path.name} is imported there already; name another folder")
        if commit.labels() != plan.steps:
            raise RunExistsError(f"{run}: an interrupted import, of other steps; name another folder")
        return TrajectoryWriter.resume(
            run, derive=derive, finish=finish, commit_interval_s=commit_interval_s, from_step=-1, on_difference="raise"
        )
    needed = sum(values.nbytes for values in plan.statics.values()) + plan.source.file_bytes // 100
    if free_bytes(run.parent) < needed:
        raise BudgetError(f"{run}: the disk has {free_bytes(run.parent):,} bytes free, about {needed:,} are needed")
    return TrajectoryWriter.create(
        run, channels=plan.channels, tokens=plan.tokens, hidden=plan.sizes["hidden"],
        labels=plan.steps.values(0, plan.sizes["step"]), derive=derive, finish=finish, statics=plan.statics,
        attributes=plan.attributes, config=plan.config, commit_interval_s=commit_interval_s, restart=ours,
    )  # fmt: skip


def _read_config(run: Path) -> Any:  # noqa: ANN401 - what the JSON holds
    """What an import began with that has no commit yet."""
    try:
        return json.loads(read_small(run / CONFIG))
    except (OSError, ValueError, RecursionError):
        return None


def _copy(plan: ImportPlan, writer: TrajectoryWriter, findings: Findings, progress: Progress) -> float | None:
    """Append every step; the writer compares those that it has already. Answers the last loss."""
    source = plan.source
    check = MoveCheck(source, plan.tokens, plan.steps, findings) if DELTA in source.tensors else None
    for start, rows in _blocks(plan, findings):
        if check is not None:
            check.states(start, rows["W"])
        for i in range(len(rows["W"])):
            writer.append(**{name: values[i] for name, values in rows.items()})
        progress(start + len(rows["W"]), plan.sizes["step"])
    return float(rows[LOSS.name][-1]) if LOSS.name in rows else None


def _blocks(plan: ImportPlan, findings: Findings) -> Iterator[tuple[int, dict[str, Array]]]:
    """Rows of the given channels, a few steps at a time, in memory that is used again."""
    source, steps = plan.source, plan.sizes["step"]
    row_bytes = plan.sizes["token"] * plan.sizes["hidden"] * 2
    length = min(steps, max(1, READ_BYTES // row_bytes))
    room = np.empty((length, plan.sizes["token"], plan.sizes["hidden"]), np.uint16)
    for start in range(0, steps, length):
        stop = min(start + length, steps)
        W = source.rows("W", start, stop, room)
        brought = source.rows("centroid", start, stop) if "centroid" in source.tensors else None
        rows = {"W": W, "centroid": _centroids(plan.steps.values(start, stop), W, brought, findings)}
        if LOSS.name in source.tensors:
            rows[LOSS.name] = source.rows(LOSS.name, start, stop)
            if not start:
                rows[LOSS.name] = np.append(
                    np.float32(np.nan), rows[LOSS.name][1:]
                )  # no update leads to the first state
        yield start, rows


def _centroids(steps: NDArray[np.int64], W: Array, brought: Array | None, findings: Findings) -> Array:
    """A file's own where they are means of these rows, summed in whatever order; else torch's, as in training."""
    made = np.empty((len(W), W.shape[2]), np.float32) if brought is None else brought.copy()
    fits = np.zeros(len(W), np.bool_) if brought is None else centroids_fit(W, brought)
    for row in np.flatnonzero(~fits):
        made[row] = _mean(W[row])
    if brought is not None:
        labels = {"step": steps, "hidden": np.arange(W.shape[2])}
        findings.compare("centroid", brought, made, labels)
    return made


def _mean(bits: Array) -> Array:
    """Torch's mean over the rows, since no other summation gives the notebook's bits; torch is loaded only here."""
    import torch

    values: Array = torch.from_numpy(bits).view(torch.bfloat16).float().mean(dim=0).numpy()
    return values


def _describe(
    plan: ImportPlan, finals: Mapping[str, Array], loss: float | None, diverged: Mapping[str, Any] | None
) -> dict[str, Any]:
    """metadata.json of a file that came without one; of a run that diverged it begins with that."""
    steps, last = plan.last_step, int(finals["last_motion_step"].max())
    apart = plan.resolution_steps
    gaps = {} if apart == 1 else {"recorded_states": plan.sizes["step"], "resolution_steps": apart}
    return {
        **({"diverged": diverged} if diverged else {}),
        "total_steps": steps,
        **gaps,
        "hidden_dim": plan.sizes["hidden"],
        "n_dead_tokens": plan.sizes["token"],
        "motion_threshold": plan.threshold,
        "final_loss": loss if loss is not None and math.isfinite(loss) else None,
        "global_last_motion": last if last > 0 else None,
        "fimbulwinter_duration": steps - (last if last > 0 else plan.first_step),
        "data_shapes": {name: list(tensor.shape) for name, tensor in plan.source.tensors.items()},
        "notes": f"imported from {plan.source.path.name}, which had no metadata.json",
    }

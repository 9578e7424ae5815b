"""view.json: what the page shows but does not reckon: axes, phases, freeze steps, texts and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import dask.base
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import analysis
from analysis.engine.trajectory import trajectory_of
from analysis.questions.divergence import record
from analysis.questions.endstate import sentence
from analysis.questions.motion import threshold_of
from crucible.inputs.run_texts import texts_of
from crucible.inspection.published import name_of_run
from crucible.inspection.selection import Selection, positions, rows, select
from crucible.viewer.source import DamageError, Stand

Floats = NDArray[np.float64]
AXES = 3
WHOLE = Selection()
LOOKS = 5
"""Steps at which the width of the cloud is measured, for a scale that stays."""
ROOM = 1.06
GAPS = "No verdict: steps are missing between the recorded ones, so that silences cannot be counted."


def first_answers(
    ds: xr.Dataset, stand: Stand, *, threshold: float | None = None, norm: str = "l2", selection: Selection = WHOLE
) -> dict[str, Any]:
    """What the first picture needs: who the tokens are, and the axes of the cloud. Reads five steps of W.

    Parameters
    ----------
    ds : Dataset
        The run at one commit.
    stand : Stand
        That commit.
    threshold, norm
        Of motion, as in `analysis.moved`.
    selection : Selection
        The part that the page shows.

    Returns
    -------
    dict
        JSON values. ``answers`` is None until `all_answers` fills it in.
    """
    return {
        "commit": {"key": stand.key, "steps": stand.steps, "completed": stand.completed},
        "title": name_of_run(Path(str(ds.attrs.get("run", "run")))),
        "prefix": "",
        "threshold": float(threshold_of(ds.attrs, threshold)),
        "norm": norm,
        "projected": trajectory_of(ds).is_projected,
        "steps": stand.steps,
        "labels": _labels(ds),
        "tokens": int(ds.sizes["token"]),
        "hidden": int(ds.sizes.get("hidden", 0)),
        "ids": [int(i) for i in ds.token.values],
        "texts": texts_of(ds),
        "cloud": _cloud(ds) if "W" in ds and ds.W.dims == ("step", "token", "hidden") else None,
        "selection": _shown(ds, selection) if selection else None,
        "answers": None,
    }


def _shown(ds: xr.Dataset, selection: Selection) -> dict[str, Any]:
    """Positions of the selected tokens, None for all; and of the first and last step, None for the newest there is."""
    has_tokens = selection.population is not None or selection.tokens is not None
    start, end = rows(ds, selection)
    return {
        "tokens": positions(ds, selection).tolist() if has_tokens else None,
        "rows": [start, None if end == ds.sizes["step"] else end - 1],
    }


def all_answers(
    ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2", selection: Selection = WHOLE
) -> dict[str, Any]:
    """Phases, freeze steps and the verdict, in one pass over the norms.

    Parameters
    ----------
    ds : Dataset
        The run at one commit.
    threshold, norm
        As in `analysis.moved`.
    selection : Selection
        The part that the verdict, the median freeze step and the last motion are of; phases and freeze steps are those
        of every token over all steps, and the page picks those that it shows.

    Returns
    -------
    dict
        ``freeze`` (token) and ``exits`` (phase, token) are step labels, -1 for none; ``so_far`` says that the run goes
        on, so that all of them may come to be later. ``verdict`` is a text. A number that does not exist is None.
    """
    how: dict[str, Any] = {"threshold": threshold, "norm": norm}
    part = select(ds, selection)
    questions = [
        analysis.freeze_times(part, **how),
        analysis.last_motion(ds, **how),
        analysis.divergence(part, norm=norm),
    ]
    if _labels(ds)["list"] is None:  # phases and verdict count single steps
        questions += [analysis.lifecycle(ds), analysis.end_state(part, **how)]
    freeze, last, diverged, *counted = dask.base.compute(*questions)
    moved = last.last_motion.values
    latest = analysis.plain(freeze.latest)
    return {
        "so_far": not ds.attrs.get("completed", True),
        "freeze": moved.tolist(),
        "median_freeze": analysis.plain(freeze.median_freeze),
        "last_motion": latest,
        **(_phases(counted[0]) if counted else {"phases": ["moving"], "exits": [moved.tolist()]}),
        "verdict": _verdict(record(diverged), counted[1] if counted else None, selection),
    }


def _phases(life: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in life.phase.values]
    return {"phases": names, "exits": [life.exit.sel(phase=name).values.tolist() for name in names]}


def _verdict(diverged: Mapping[str, Any] | None, end: xr.Dataset | None, selection: Selection) -> str:
    """What there is to say of the end: of which part, and that the run diverged, before anything else."""
    said = [f"Of {selection}:"] if selection else []
    said += [str(diverged["sentence"])] if diverged else []
    return " ".join([*said, GAPS if end is None else sentence(end)])


def to_json(value: Mapping[str, Any]) -> bytes:
    """Strict and short: no NaN, no spaces, nothing personal."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _labels(ds: xr.Dataset) -> dict[str, Any]:
    """Labels of the recorded steps: the first, and all of them only where some between are missing."""
    steps = np.asarray(ds.step.values)
    is_whole = bool((np.diff(steps) == 1).all())
    return {"first": int(steps[0]), "list": None if is_whole else steps.tolist()}


def _cloud(ds: xr.Dataset) -> dict[str, Any] | None:
    """Axes of the last step, how much of the variance they hold, and how far the cloud reaches, both frames."""
    if not ds.sizes["token"] or not ds.sizes["hidden"]:
        return None
    steps = np.unique(np.linspace(0, ds.sizes["step"] - 1, LOOKS).astype(int))
    found = _states(ds, steps.tolist())
    if not found:
        return None
    states = list(found.values())
    axes, share = _axes(states[-1])
    with np.errstate(invalid="ignore"):
        points, path = [state @ axes.T for state in states], _centroid(ds) @ axes.T
    known = [flat[np.isfinite(flat).all(axis=1)] for flat in points]
    offsets = [flat - flat.mean(axis=0) for flat in known if len(flat)]
    reach = max((float(np.hypot(flat[:, 0], flat[:, 1]).max()) for flat in offsets), default=0.0)
    every = np.concatenate([*known, path[np.isfinite(path).all(axis=1)]])
    low, high = (every.min(axis=0), every.max(axis=0)) if len(every) else (np.zeros(AXES), np.ones(AXES))
    return {
        "axes": axes.tolist(),
        "share": share,
        "reach": ROOM * reach or 1.0,
        "box": [low.tolist(), high.tolist()],
        "axes_of_step": int(ds.step.values[max(found)]),
    }


def _states(ds: xr.Dataset, steps: list[int]) -> dict[int, Floats]:
    """The weights at some positions, (token, hidden) each. Damaged ones are left out: the page tells of them itself."""
    lazy = {step: analysis.weights(ds.isel(step=[step])) for step in steps}
    try:
        loaded = dict(zip(lazy, dask.base.compute(*lazy.values()), strict=True))
    except DamageError:
        loaded = {step: state for step, each in lazy.items() if (state := _undamaged(each)) is not None}
    return {step: state.values[0].astype(np.float64) for step, state in loaded.items()}


def _undamaged(state: xr.DataArray) -> xr.DataArray | None:
    try:
        return state.load()
    except DamageError:
        return None


def _axes(state: Floats) -> tuple[Floats, list[float] | None]:
    """Three principal axes of the finite rows of a state, (3, hidden); zeros where there are fewer than three."""
    finite = state[np.isfinite(state).all(axis=1)]
    axes = np.zeros((AXES, state.shape[1]))
    if not len(finite):
        axes[:, : min(AXES, state.shape[1])] = np.eye(AXES)[:, : state.shape[1]]
        return axes, None
    ds = xr.Dataset({"W": (("step", "token", "hidden"), finite[None].astype(np.float32))})
    found = analysis.principal_axes(ds)[["axes", "share"]].load()
    count = min(AXES, state.shape[1])
    axes[:count] = found["axes"].values[:count]
    share = found["share"].values[:count]
    return axes, share.tolist() if np.isfinite(share).all() else None


def _centroid(ds: xr.Dataset) -> Floats:
    """The recorded centroids, (step, hidden), in float64; none where they were not recorded, or are damaged."""
    none = np.empty((0, ds.sizes["hidden"]))
    if "centroid" not in ds or ds.centroid.dims != ("step", "hidden"):
        return none
    try:
        found: Floats = ds.centroid.values.astype(np.float64)
    except DamageError:
        return none
    return found

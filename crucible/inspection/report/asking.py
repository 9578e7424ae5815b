"""Everything that a report tells of a run, asked in two passes: over the norms, and over the weights.

The weights are looked at in some steps with motion only. Which, the first pass decides: evenly on a quadratic scale, so
that the early steps are among them, and beside these the last steps with motion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.base
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import analysis
from crucible.inputs.run_texts import texts_of
from crucible.inspection.analyze import answers_of, questions_of
from crucible.inspection.published import name_of_run
from crucible.inspection.threads import in_threads

STATES, LATE = 180, 30
"""Steps at which the weights are looked at: so many over the whole run, and the last so many with motion."""
EVERY = 3
"""Of these steps, if they are many, every third is enough for distinct rows and exponents."""
RADII, MOTIONS = ("radius_mean", "radius_max", "radius_rms"), ("bulk_motion", "thermal_motion")
"""Of the cloud."""
NORMS = ("l1", "l2", "linf")
"""Of the cooling curve: that by which it is asked, and beside it the others."""


@dataclass(frozen=True, slots=True)
class Story:
    """A run and its answers.

    Parameters
    ----------
    name : str
        Of the run, as it may leave this machine.
    told : mapping
        As `crucible.analyze` answers.
    answers : mapping from name to Dataset
        Computed. What could not be asked is not there.
    texts : list of str or None
        Of the tokens.
    reference : float or None
        The learning rate that the end state was asked for; None for the last recorded one.
    """

    name: str
    told: Mapping[str, Any]
    answers: Mapping[str, xr.Dataset]
    texts: list[str] | None
    reference: float | None = None

    def __getitem__(self, question: str) -> xr.Dataset:
        return self.answers[question]

    @property
    def last(self) -> int:
        """The last step."""
        return int(self.told["last_step"])


def story_of(
    ds: xr.Dataset,
    *,
    threshold: float | None = None,
    norm: str = "l2",
    reference_learning_rate: float | None = None,
    brief: bool = False,
) -> Story:
    """Ask all that a report tells of a run.

    Parameters
    ----------
    ds : Dataset
        A run as it was opened, or a slice of one.
    threshold, norm
        Of motion, as in `analysis.moved`.
    reference_learning_rate : float, optional
        As in `analysis.end_state`.
    brief : bool
        Ask only what a picture of several runs needs: nothing of the weights.

    Returns
    -------
    Story

    Notes
    -----
    Every norm is read once, and W once; of W the last block twice, since which steps to look at is known only after the
    first pass.
    """
    how: dict[str, Any] = {"threshold": threshold, "norm": norm}
    rate: dict[str, Any] = {"reference_learning_rate": reference_learning_rate}
    with in_threads():
        plain, first = dask.base.compute(questions_of(ds, **how, **rate), _of_norms(ds, how, rate, brief=brief))
        second = {} if brief else dask.base.compute(_of_weights(ds, first))[0]
    whole = plain[""]
    answers = {**first, **second, "freeze_times": whole[2], "drift": whole[3]}
    answers |= dict(zip(("stillness", "end_state", "lifecycle"), whole[4:], strict=False))
    name = name_of_run(Path(str(ds.attrs.get("run", "run"))))
    texts = None if brief else texts_of(ds)
    return Story(name, answers_of(ds, plain, **how), answers, texts, reference_learning_rate)


def apart_of(first: xr.Dataset, other: xr.Dataset) -> dict[str, xr.Dataset]:
    """How far a run is apart from the first one, at some of the steps of both; empty where they cannot be compared.

    W of both is read once, where one of these steps is.
    """
    both = np.intersect1d(first["step"].values, other["step"].values)
    some = both[np.unique(_early(len(both) - 1))] if len(both) else both
    try:
        told = analysis.apart(first.sel(step=some), other.sel(step=some))
    except ValueError:  # other tokens, other lattices, no step of both, or no weights
        return {}
    with in_threads():
        return {"apart": told.load()}


def _of_norms(ds: xr.Dataset, how: dict[str, Any], rate: dict[str, Any], *, brief: bool) -> dict[str, xr.Dataset]:
    """What one pass over the norms and the scalars answers."""
    asked = {"last_motion": analysis.last_motion(ds, **how)}
    if (loss := _loss_of(ds)) is not None:
        asked["loss"] = loss
    if asked["last_motion"].attrs["resolution_steps"] > 1:
        return asked
    asked["cooling"] = analysis.cooling(ds, **how, **rate)
    if brief:
        return asked
    if "push" in ds and ds["push"].dims == ("step", "token"):
        asked["headroom"] = analysis.headroom(ds)
        asked["verdicts"] = analysis.verdicts(ds, **how, **rate)
    there = "hidden" in ds.sizes
    if there:
        asked["census"] = analysis.census(ds)
        asked["stratigraphy"] = analysis.stratigraphy(ds, **how)
    for norm in set(NORMS) - {how["norm"]}:
        if there or f"displacement_{norm}" in ds:
            asked[f"cooling_{norm}"] = analysis.cooling(ds, norm=norm)[["displacement"]]
    return asked


def _loss_of(ds: xr.Dataset) -> xr.Dataset | None:
    """The loss along `step`, from the first of these steps to the last; None where there is none.

    One that was recorded at some steps only has an axis of its own, which a selection of steps has not cut.
    """
    dims = ds["loss"].dims if "loss" in ds else ()
    if dims == ("step",):
        return ds[["loss"]]
    if dims != ("step_loss",):
        return None
    first, last = (int(ds["step"][at]) for at in (0, -1))
    found = ds[["loss"]].rename(step_loss="step").sel(step=slice(first, last))
    return found.assign_attrs(first_step=first, last_step=last) if found.sizes["step"] else None


def _of_weights(ds: xr.Dataset, known: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """What some states of W answer; each with the state before it, since moves lead from one to the next.

    The state before also shows in a picture until when all was as it had been: else a line would lead from one state
    that was looked at to the next, though hardly anything moved in between.
    """
    if "W" not in ds or not ds.sizes["token"] or not ds.sizes["hidden"]:
        return {}
    is_known = "cooling" in known
    chosen = looked_at(known["cooling"]["largest"].values > 0 if is_known else np.ones(ds.sizes["step"], bool))
    weights = ds[["W"]]
    pairs = np.unique(np.concatenate([chosen, np.maximum(chosen - 1, 0)]))
    part = weights.isel(step=pairs)
    few = np.union1d(chosen[:1], chosen[:: -EVERY if len(chosen) > STATES // EVERY else -1])
    some = weights.isel(step=np.union1d(few, np.maximum(few - 1, 0)))
    asked = {
        "cloud": _of_single_moves(analysis.cloud(part)[[*RADII, *MOTIONS]], pairs),
        "identical_rows": analysis.identical_rows(some)[["distinct", "largest"]],
        "exponents": analysis.exponents(some)[["weight_count"]],
        "snapshots": analysis.snapshots(weights, steps=moments_of(ds, known))[["position", "share"]],
    }
    asked["identical_rows"].attrs["tokens"] = int(ds.sizes["token"])
    # Some states alone do not tell since when weights are not finite: all norms have.
    return {
        name: answer.assign(first_nonfinite=known["last_motion"]["first_nonfinite"]) for name, answer in asked.items()
    }


def _of_single_moves(cloud: xr.Dataset, at: NDArray[np.int64]) -> xr.Dataset:
    """The cloud at these positions, its motion where the state before stands there too: no other is one move."""
    follows = xr.DataArray(np.diff(at, prepend=at[:1]) == 1, dims="step")
    return cloud.assign({name: cloud[name].where(follows) for name in MOTIONS})


def looked_at(moving: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the states of which the weights are looked at: the first, the last, and in between some with motion.

    At the others nothing has changed since the one before.

    Parameters
    ----------
    moving : array of bool, (step)
        Whether anything moved into the state.

    Examples
    --------
    >>> looked_at(np.array([False, True, True, False, False])).tolist(), len(looked_at(np.ones(5001, bool)))
    ([0, 1, 2, 4], 207)
    """
    last = len(moving) - 1
    there = np.unique([0, *np.flatnonzero(moving), last])
    some = there[np.searchsorted(there, _early(last), side="right") - 1]
    return np.unique(np.concatenate([some, there[-LATE:]])).astype(np.int64)


def _early(last: int) -> NDArray[np.int64]:
    """At most 180 positions from the first to the last, evenly on a quadratic scale; some stand there twice."""
    even = np.arange(last + 1) if last < STATES else np.round(last * np.linspace(0, 1, STATES) ** 2)
    return even.astype(np.int64)


def moments_of(ds: xr.Dataset, known: Mapping[str, xr.Dataset]) -> list[int]:
    """The labels of four steps that tell a life: the first, half of the cooling, half frozen, the last."""
    steps = ds["step"].values
    first, last = int(steps[0]), int(steps[-1])
    middle = np.sort(known["last_motion"]["last_motion"].values)
    half = int(middle[(len(middle) - 1) // 2])
    if "stratigraphy" in known and known["stratigraphy"].sizes["phase"] > 1:
        cooled = int(np.sort(known["stratigraphy"]["exit"].values[:, 1])[(len(middle) - 1) // 2])
    else:
        cooled = (first + half) // 2
    wanted = [first, min(max(cooled, first), last), min(max(half, first), last), last]
    return sorted({int(steps[np.abs(steps - step).argmin()]) for step in wanted})

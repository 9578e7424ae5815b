"""All questions of `crucible analyze`, asked together so that the data is read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.base
import numpy as np
import xarray as xr

import analysis
from analysis.endstate import verdict
from analysis.episodes import Rule
from crucible.console import bar
from store.reader import open_trajectory

LONGEST = 10
COUNT_STEPS = ("stillness", "end_state", "lifecycle")
"""Answers that do not exist where steps are missing between recorded states."""


def ask_run(run: str | Path, *, threshold: float | None = None, norm: str = "l2") -> dict[str, Any]:
    """The answers about a run, as of its last commit; see `ask`."""
    return ask(open_trajectory(run), threshold=threshold, norm=norm)


def ask(ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2") -> dict[str, Any]:
    """The answers in Python's own numbers, under the names of ``crucible analyze --json``.

    Parameters
    ----------
    ds : Dataset
        A trajectory.
    threshold : float
        In cells; the run's motion_threshold unless given, else 0.1.
    norm : {"l1", "l2", "linf"}
        Of the displacement.

    Returns
    -------
    dict
        A number that does not exist is None. Beyond the documented names: ``nonfinite`` and ``sentence`` in
        ``end_state``, and ``resolution_steps``, how many steps recorded states are apart at most. If that is more than
        1, what counts single steps is None: ``stillness``, ``end_state`` and ``lifecycle``.
    """
    how: dict[str, Any] = {"threshold": threshold, "norm": norm}
    questions = [analysis.fimbulwinter(ds, **how), analysis.freeze_times(ds, **how), analysis.drift(ds)]
    resolution = int(questions[0].attrs["resolution_steps"])
    if resolution == 1:
        questions += [analysis.stillness(ds, **how), analysis.lifecycle(ds)]
    with bar():
        winter, freeze, drift, *counted = dask.base.compute(*questions)
    steps = int(ds.step.values[-1]) if ds.sizes["step"] else 0
    return {
        "run": str(ds.attrs.get("run", "")),
        "steps": steps,
        "tokens": int(ds.sizes["token"]),
        "threshold": float(ds.attrs.get("motion_threshold", 0.1) if threshold is None else threshold),
        "norm": norm,
        "resolution_steps": resolution,
        **_some(winter, "global_last_motion", "fimbulwinter_duration", "fimbulwinter_fraction"),
        "freeze": _some(freeze, "earliest", "median", "latest"),
        "never_moved": analysis.plain(winter["never_moved"]),
        **_counted(*counted, steps=steps, rule=Rule.for_beta1(float(ds.attrs.get("beta1", 0.9)))),
        "drift": {
            "net": analysis.plain(drift["net"]),
            "path": analysis.plain(drift["path_length"]),
            "efficiency": analysis.plain(drift["efficiency"]),
        },
    }


def _counted(
    stillness: xr.Dataset | None = None, life: xr.Dataset | None = None, *, steps: int, rule: Rule
) -> dict[str, Any]:
    """What counts single steps; None for all of it where steps are missing."""
    if stillness is None or life is None:
        return dict.fromkeys(COUNT_STEPS)
    exits = {str(phase): analysis.plain(life.median_exit.sel(phase=phase)) for phase in life.phase.values}
    return {
        "stillness": _stillness(stillness),
        "end_state": _end_state(stillness, steps, rule),
        "lifecycle": {phase: {"median_exit": last} for phase, last in exits.items()},
    }


def _some(answer: xr.Dataset, *names: str) -> dict[str, Any]:
    return {name: analysis.plain(answer[name]) for name in names}


def _stillness(answer: xr.Dataset) -> dict[str, Any]:
    longest = [length for length in answer["longest"].values.tolist() if length > 0][:LONGEST]
    return {
        **_some(answer, "count"),
        "longest": longest,
        **_some(answer, "final_vs_second", "mean", "median"),
    }


def _end_state(stillness: xr.Dataset, last_step: int, rule: Rule) -> dict[str, Any]:
    """The verdict, of the steps at which anything moved."""
    moving = stillness.step.values[np.asarray(stillness["any_motion"].values, bool)]
    nonfinite = int(stillness["nonfinite"].values)
    told = verdict(moving, last_step=last_step, finite=nonfinite == 0, rule=rule)
    names = ("gap", "longest_earlier", "ratio", "episodes", "looks", "p", "confidence", "frozen", "sentence")
    return {**{name: told[name] for name in names}, "nonfinite": nonfinite}


def ask_on(
    scheduler: str | None, run: str | Path, *, threshold: float | None = None, norm: str = "l2"
) -> dict[str, Any]:
    """`ask_run`, computed by the dask cluster at this address; in this process if there is none.

    Raises
    ------
    ConnectionError
        Nothing answers at the address.
    """
    if scheduler is None:
        return ask_run(run, threshold=threshold, norm=norm)
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port

        get_address_host_port(scheduler)  # a Client of no address at all takes 20 s to give up
        # never the default of this process: one that failed would answer all later questions, with silence
        client: Any = Client(scheduler, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
    except ImportError:
        raise ConnectionError("--scheduler needs the extra: pip install 'crucible-trajectory[cluster]'") from None
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(f"{scheduler}: no dask scheduler answers there ({error})") from None
    with client, dask.config.set(scheduler=client):
        return ask_run(run, threshold=threshold, norm=norm)

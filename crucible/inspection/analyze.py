"""All questions of `crucible analyze`, asked together so that the data is read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.base
import xarray as xr

import analysis
from analysis.moves import sees_every_change
from analysis.questions.divergence import record
from analysis.questions.endstate import no_verdict, sentence
from analysis.thresholds import DEFAULT_THRESHOLD
from analysis.told_numbers import at_least
from crucible.inspection.checkpoint_push import push_of_checkpoint
from crucible.inspection.selection import STEPS_LEFT_OUT, Selection, Steps, mixed, select
from crucible.inspection.threads import in_threads
from crucible.progress import Progress, of_dask, silent
from store.reading.reader import open_trajectory

END_STATE = (
    "gap", "longest_earlier", "ratio", "episodes", "looks", "p", "confidence", "push", "headroom", "E",
    "reference_learning_rate", "rate_at_last_motion", "blocks", "unexplained", "last_unexplained", "nearly",
    "frozen_by_silence", "frozen_by_push", "frozen",
)  # fmt: skip
LONGEST = 10
FREEZE = {"earliest": "earliest", "median": "median_freeze", "latest": "latest"}
STILLNESS = {
    "count": "run_count",
    "final_vs_second": "final_vs_second",
    "mean": "mean_length",
    "median": "median_length",
}
"""Keys of the answers as JSON, and the variables of the Datasets in which they stand."""
COUNT_STEPS = ("stillness", "end_state", "lifecycle")
"""Answers that do not exist where steps are missing between recorded states."""


def analyze(
    run: str | Path,
    *,
    threshold: float | None = None,
    norm: str = "l2",
    reference_learning_rate: float | None = None,
    population: str | None = None,
    tokens: Sequence[int] | None = None,
    steps: Steps | None = None,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The answers about a run, as of its last commit, in Python's own numbers.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.
    threshold : float, optional
        Of motion, in cells; the run's own unless given, else 0.1.
    norm : {"l1", "l2", "linf"}
        Of the displacement.
    reference_learning_rate : float, optional
        The learning rate for which the end state is judged by the push; the last recorded one unless given.
    population, tokens, steps
        Of which part; see `crucible.inspection.selection.Selection`.
    scheduler : str, optional
        Address of a dask cluster that computes; it must reach the run by the same path.
    progress : callable, optional
        Called with (tasks done, tasks known); not with a `scheduler`.

    Returns
    -------
    dict
        Under the names of ``crucible analyze --json``; see `ask`. ``part`` names the part that was asked about, None
        for the whole run. Where no push was recorded, ``end_state`` has the push and the headroom of the last
        checkpoint, if that tells one, and its step as ``push_of_checkpoint``.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here.
    ConnectionError
        Nothing answers at the address of the scheduler.
    ValueError
        The run has no such population, token or step.
    """
    how: dict[str, Any] = {"threshold": threshold, "norm": norm, "reference_learning_rate": reference_learning_rate}
    selection = Selection(population, tokens, steps)
    ds = select(open_trajectory(run), selection)
    if scheduler is None:
        with in_threads(), of_dask(progress):
            answers = ask(ds, **how)
    else:
        with _client(scheduler) as client, dask.config.set(scheduler=client):
            answers = ask(ds, **how)
    first = {name: answers[name] for name in ("run", "diverged")}
    answers = first | {"part": str(selection) or None} | answers
    return answers if selection else _with_checkpoint(answers, run)


def ask(
    ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2", reference_learning_rate: float | None = None
) -> dict[str, Any]:
    """The answers in Python's own numbers, under the names of ``crucible analyze --json``.

    Parameters
    ----------
    ds : Dataset
        A trajectory, or a slice of one.
    threshold : float
        In cells; the run's motion_threshold unless given, else 0.1.
    norm : {"l1", "l2", "linf"}
        Of the displacement.
    reference_learning_rate : float, optional
        As in `analysis.end_state`.

    Returns
    -------
    dict
        A number that does not exist is None. ``diverged`` is the record of `questions.divergence.record`, None for a
        run that did not diverge: look at it first. ``steps`` counts moves, from the state ``first_step`` to
        ``last_step``; ``completed`` is False for a run that may go on. ``sees_every_change`` is False by a threshold
        above 0.5, which misses moves, ``all_steps`` where only some of the recorded steps were selected.
        ``resolution_steps`` is how many steps recorded states are apart at most; if that is more than 1, what counts
        single steps is None: ``stillness``, ``end_state`` and ``lifecycle``. ``end_state`` also holds ``sentence`` and
        ``no_verdict``, why there is none. ``populations`` is None, unless the tokens are of several, or of one and of
        none: then it has these answers for each of them by its name.
    """
    asked = questions_of(ds, threshold=threshold, norm=norm, reference_learning_rate=reference_learning_rate)
    return answers_of(ds, dask.base.compute(asked)[0], threshold=threshold, norm=norm)


def questions_of(
    ds: xr.Dataset, *, threshold: float | None, norm: str, reference_learning_rate: float | None = None
) -> dict[str, list[xr.Dataset]]:
    """What `ask` asks, lazily, to be computed with other questions; `answers_of` takes it on from there.

    By the name of the population where the tokens are of several; the whole has the name "".
    """
    parts = {"": ds} | mixed(ds)
    return {name: _questions(part, threshold, norm, reference_learning_rate) for name, part in parts.items()}


def answers_of(
    ds: xr.Dataset, computed: Mapping[str, Sequence[xr.Dataset]], *, threshold: float | None, norm: str
) -> dict[str, Any]:
    """The answers of `ask`, from the computed questions of `questions_of`."""
    parts = {"": ds} | mixed(ds)
    told = {name: _answers(part, computed[name], threshold, norm) for name, part in parts.items()}
    whole = told.pop("")
    return whole | {"populations": told or None}


def _questions(
    ds: xr.Dataset, threshold: float | None, norm: str, reference_learning_rate: float | None
) -> list[xr.Dataset]:
    """What is asked of a part, lazy; what counts single steps only where none is missing."""
    how: dict[str, Any] = {"threshold": threshold, "norm": norm}
    questions = [
        analysis.divergence(ds, norm=norm),
        analysis.fimbulwinter(ds, **how),
        analysis.freeze_times(ds, **how),
        analysis.drift(ds),
    ]
    if questions[1].attrs["resolution_steps"] == 1:
        end = analysis.end_state(ds, **how, reference_learning_rate=reference_learning_rate)
        questions += [analysis.stillness(ds, **how), end, analysis.lifecycle(ds)]
    return questions


def _answers(ds: xr.Dataset, computed: Sequence[xr.Dataset], threshold: float | None, norm: str) -> dict[str, Any]:
    """The computed answers of a part in Python's own numbers."""
    diverged, winter, freeze, drift, *counted = computed
    span = {name: int(winter.attrs[name]) for name in ("first_step", "last_step", "resolution_steps")}
    least = float(ds.attrs.get("motion_threshold", DEFAULT_THRESHOLD) if threshold is None else threshold)
    return {
        "run": str(ds.attrs.get("run", "")),
        "diverged": record(diverged),
        "completed": bool(ds.attrs.get("completed", True)),
        "steps": span["last_step"] - span["first_step"],
        **span,
        "tokens": int(ds.sizes["token"]),
        "threshold": least,
        "norm": norm,
        "sees_every_change": sees_every_change(least),
        "all_steps": not ds.attrs.get(STEPS_LEFT_OUT, False),
        **_some(winter, "global_last_motion", "fimbulwinter_duration", "fimbulwinter_fraction"),
        "freeze": {name: analysis.plain(freeze[variable]) for name, variable in FREEZE.items()},
        "never_moved": analysis.plain(winter["never_moved"]),
        **(_counted(*counted) if counted else dict.fromkeys(COUNT_STEPS)),
        "drift": {
            "net": analysis.plain(drift["net"]),
            "path": analysis.plain(drift["path_length"]),
            "efficiency": analysis.plain(drift["efficiency"]),
        },
        **_some(winter, "nonfinite", "first_nonfinite"),
    }


def divergence_of(run: str | Path) -> dict[str, Any] | None:
    """Since when and how far a run has diverged, as of its last commit; None if it has not."""
    return record(analysis.divergence(open_trajectory(run)))


def _counted(stillness: xr.Dataset, end: xr.Dataset, life: xr.Dataset) -> dict[str, Any]:
    """What counts single steps."""
    exits = {str(phase): analysis.plain(life.median_exit.sel(phase=phase)) for phase in life.phase.values}
    return {
        "stillness": _stillness(stillness),
        "end_state": _end_state(end),
        "lifecycle": {phase: {"median_exit": last} for phase, last in exits.items()},
    }


def _some(answer: xr.Dataset, *names: str) -> dict[str, Any]:
    return {name: analysis.plain(answer[name]) for name in names}


def _stillness(answer: xr.Dataset) -> dict[str, Any]:
    longest = [length for length in answer["longest"].values.tolist() if length > 0][:LONGEST]
    told = {name: analysis.plain(answer[variable]) for name, variable in STILLNESS.items()}
    return {"count": told.pop("count"), "longest": longest, **told}


def _end_state(answer: xr.Dataset) -> dict[str, Any]:
    told = _some(answer, *END_STATE, "nonfinite")
    no_push = answer.attrs["no_push"] or None
    return {**told, "no_push": no_push, "no_verdict": no_verdict(answer), "sentence": sentence(answer)}


def _with_checkpoint(answers: dict[str, Any], run: str | Path) -> dict[str, Any]:
    """The answers with the push of the last checkpoint, where none was recorded."""
    end = answers["end_state"]
    if end is None or end["no_push"] is None:  # one that was recorded, and perhaps contradicted by what moved
        return answers
    found = push_of_checkpoint(run)
    if found is None or found["step"] > answers["last_step"]:  # the run may have gone on since it was opened
        return answers
    end |= {"push": found["push"], "headroom": found["headroom"], "push_of_checkpoint": found["step"]}
    end["sentence"] += (
        f" By the checkpoint of step {found['step']} the optimizer's strongest push is {found['push']:.2g} of half a "
        "cell there"
    )
    if found["headroom"] is not None:
        end["sentence"] += f", so its learning rate could have been {at_least(found['headroom'])} times as high"
    end["sentence"] += "."
    return answers


def _client(scheduler: str) -> Any:  # noqa: ANN401 - a distributed.Client, which is an extra
    """A client of the dask cluster at this address."""
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port

        get_address_host_port(scheduler)  # a Client of no address at all takes 20 s to give up
        # never the default of this process: one that failed would answer all later questions, with silence
        return Client(scheduler, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
    except ImportError:
        raise ConnectionError("--scheduler needs the extra: pip install 'crucible-trajectory[cluster]'") from None
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(f"{scheduler}: no dask scheduler answers there ({error})") from None

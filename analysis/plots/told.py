"""Whose answer each picture takes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import xarray as xr

from analysis import lattice
from analysis.answers import as_asked

TAKES = {
    "cooling": ("cooling(ds), or a trajectory", ("displacement", "q", "largest", "moving", "gap")),
    "moving": ("cooling(ds), or a trajectory", ("displacement", "q", "largest", "moving", "gap")),
    "stratigraphy": ("stratigraphy(ds), or a trajectory", ("moved_within", "exit", "last_motion")),
    "lifecycle": ("lifecycle(ds)", ("exit", "median_exit", "phase")),
    "loss": ("a trajectory with a loss", ("loss", "step")),
    "survival": ("freeze_times(ds)", ("survival", "earliest", "median_freeze", "latest")),
    "freeze_histogram": ("last_motion(ds)", ("last_motion", "token")),
    "stillness": ("stillness(ds)", ("run_length",)),
    "p_over_time": ("stillness(ds)", ("any_motion", "run_length")),
    "push": ("headroom(ds), or a trajectory with a push", ("push", "strongest", "q")),
    "learning_rate": ("headroom(ds)", ("learning_rate", "step")),
    "headroom": ("headroom(ds), or a trajectory with a push", ("headroom", "token")),
    "verdicts": ("verdicts(ds), or a trajectory", ("asked", "p", "E", "frozen", "frozen_by_silence")),
    "census": ("census(ds)", ("tokens", "fraction", "kind")),
    "distinct_rows": ("identical_rows(ds)", ("distinct", "largest")),
    "exponents": ("exponents(ds)", ("weight_count", "exponent")),
    "drift": ("drift(ds)", ("path", "displacement", "efficiency")),
    "speed": ("drift(ds)", ("speed", "frozen_steps")),
    "autocorrelation": ("drift(ds)", ("autocorrelation",)),
    "cloud": ("cloud(ds)", ("radius_max", "radius_rms", "radius_mean")),
    "motion_of_cloud": ("cloud(ds)", ("thermal_motion", "bulk_motion")),
    "coherence": ("cloud(ds)", ("coherence", "movers")),
    "apart": ("apart(a, b)", ("share", "hops_median", "hops_largest")),
    "hops_apart": ("apart(a, b)", ("share", "hops_median", "hops_largest")),
    "positions": ("snapshots(ds)", ("position", "share")),
    "sky": ("snapshots(ds)", ("position", "share")),
}
"""The picture: the question whose answer it takes, and the variables by which that is known."""
ATTRIBUTES = {
    "cooling": ("norm", "threshold", "last_step"),
    "moving": ("tokens",),
    "verdicts": ("no_push", "level", "level_with_push", "most_expected"),
}
"""What pictures read of the attributes of an answer."""
OF_SEVERAL = {"run", "parameter"}
"""Dimensions along which `analysis.over` puts answers."""


def answer_of(result: xr.Dataset, picture: str, needs: Sequence[str] | None = None) -> xr.Dataset:
    """The answer, computed in place, if it is one that the picture takes; `needs` where it draws only a part of it.

    Raises
    ------
    ValueError
        With the question whose answer it takes.
    """
    question, names = TAKES[picture]
    if isinstance(result, str | PathLike):
        raise TypeError(f"plots.{picture} takes no path; open the run first: store.open_trajectory({str(result)!r})")
    if several := OF_SEVERAL & set(getattr(result, "dims", ())):
        dim = min(several)
        raise ValueError(f"plots.{picture} takes an answer about one run, and this one has a dimension {dim!r}: select "
                         f"one, as in answer.isel({dim}=0), or lay them over each other by plots.overlay")  # fmt: skip
    missing = [name for name in needs or names if name not in getattr(result, "variables", ())]
    if missing:
        given = f"this {type(result).__name__.replace('AnswerArray', 'DataArray')} has no {missing[0]}"
        takes = question if question.startswith("a ") else f"the answer of {question}"
        raise ValueError(f"plots.{picture} takes {takes}; {given}")
    if lost := [name for name in ATTRIBUTES.get(picture, ()) if name not in result.attrs]:
        raise ValueError(
            f"plots.{picture} reads the attributes of an answer, and this one has lost {lost[0]!r}: draw the answer of "
            f"{question} as it is"
        )
    return as_asked(result.load())


def is_trajectory(result: object) -> bool:
    """Whether a picture may ask its question itself."""
    return not lattice.TELL_MOVES.isdisjoint(getattr(result, "variables", ()))

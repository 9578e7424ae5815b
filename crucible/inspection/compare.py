"""`crucible compare`: the longest equal prefix of runs, and where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import analysis
from crucible.inspection.selection import Selection, Steps, select
from crucible.inspection.threads import in_threads
from crucible.progress import Progress, of_dask, silent
from crucible.units import counted
from store.reading.reader import open_trajectory


def compare(
    run: str | Path, other: str | Path, *more: str | Path, population: str | None = None,
    tokens: Sequence[int] | None = None, steps: Steps | None = None, progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """The answer of `analysis.compare` in Python's own numbers, with the runs' names.

    Where one recorded steps that the other left out, displacements and norms are not compared: they lead from other
    states.

    Parameters
    ----------
    run, other, *more : path
        Two runs, or more, which are then each compared with the first.
    population, tokens, steps
        The part of each run; see `crucible.inspection.selection.Selection`.
    progress : callable, optional
        Called with (tasks done, tasks known).

    Returns
    -------
    dict
        Of two runs the answers of `analysis.compare`: ``differs`` is True for a difference at a step that both have,
        and where one left out steps that the other recorded; it is False for a run that is a prefix of the other,
        where ``equal`` is False too. ``reason`` always says why. ``part`` names the part of the runs that was asked
        about, None for all of them: what lies outside of it was not looked at. Of more: ``runs``, ``equal``,
        ``differs``, ``reason`` and ``part`` of all, and ``comparisons``, one such dict for each run after the first.

    Raises
    ------
    NotATrajectoryError
        One of them is no run.
    ValueError
        They recorded other tokens, or have no step in common; or one has no such population, token or step.
    """
    selection = Selection(population, tokens, steps)
    first = select(open_trajectory(run), selection)
    found = []
    for each in (other, *more):
        with in_threads(), of_dask(progress):
            found.append(_compared(first, select(open_trajectory(each), selection), str(selection)))
    if not more:
        return found[0]
    apart = [each["runs"][1] for each in found if each["differs"]]
    reason = f"{len(apart)} of {len(found)} differ from the first: {', '.join(apart)}" if apart else "no difference"
    reason = _of_part(reason, str(selection))
    return {
        "runs": [found[0]["runs"][0], *(each["runs"][1] for each in found)],
        "equal": all(each["equal"] for each in found),
        "differs": bool(apart),
        "reason": reason,
        "part": str(selection) or None,
        "comparisons": found,
    }


def _of_part(reason: str, part: str) -> str:
    """A reason, with the part of the runs that it is said of."""
    return f"{reason}; said of {part} alone" if part else reason


def _compared(a: xr.Dataset, b: xr.Dataset, part: str) -> dict[str, Any]:
    same_steps = _same_steps(a, b)
    answer = analysis.compare(a, b)
    found: dict[str, Any] = {"runs": [a.attrs["run"], b.attrs["run"]], **analysis.plain(answer)}
    found |= {"part": part or None, "array": found["array"] or None, "reason": _of_part(found["reason"], part)}
    if found["array"]:
        found |= {name: answer[name].values.item() for name in ("value_a", "value_b")}  # NaN and infinity as they are
    found["lengths"] = [int(ds.attrs["committed_steps"]) for ds in (a, b)]
    found["states"] = [int(ds.sizes["step"]) for ds in (a, b)]
    found["same_steps"] = same_steps
    found["differs"] = found["differs"] or not same_steps
    found["arrays"] = list(answer.attrs["arrays"])
    found["moves_left_out"] = list(answer.attrs["moves_of_other_steps"])
    found["only_in_one"] = list(answer.attrs["only_in_one"])
    found["not_compared"] = list(answer.attrs["not_compared"])
    found["of_the_whole_run"] = list(answer.attrs["of_the_whole_run"])
    found["resolution_steps"] = answer.attrs["resolution_steps"]
    return found


def _same_steps(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether the two recorded the same steps as far as both go."""
    end = min(a.step.values[-1], b.step.values[-1])
    one, another = (ds.step.values[: np.searchsorted(ds.step.values, end, side="right")] for ds in (a, b))
    return np.array_equal(one, another)


def tell_comparison(found: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """The answer in words; of more than two runs one after the other."""
    for each in found.get("comparisons", ()):
        say(f"{each['runs'][0]} and {each['runs'][1]}")
        tell_comparison(each, lambda line: say(f"  {line}"))
    if "comparisons" in found:
        say(found["reason"])
        return
    apart = "" if found["resolution_steps"] == 1 else f", up to {counted(found['resolution_steps'], 'step')} apart"
    within = f"; of {found['part']} alone" if found["part"] else ""
    say(f"compared: {counted(found['compared'], 'state')}{apart} of {', '.join(found['arrays'])}{within}")
    if found["only_in_one"]:
        say(f"not compared, only in one: {', '.join(found['only_in_one'])}")
    if found["not_compared"]:
        say(f"not compared, recorded at steps of their own: {', '.join(found['not_compared'])}")
    if found["of_the_whole_run"]:
        say(f"not compared, since they belong to all tokens: {', '.join(found['of_the_whole_run'])}")
    if found["moves_left_out"]:
        say(f"not compared, since they belong to other steps: {', '.join(found['moves_left_out'])}")
    if found["array"] is None:
        say(found["reason"])
        return
    say(f"equal for the first {counted(found['equal_steps'], 'state')}")
    places = [f"{name} {found[name]:,}" for name in ("step", "token", "hidden") if found[name] is not None]
    hops = "" if found["hops"] is None else f", {found['hops']:,} hops apart"
    say(f"first difference: {found['array']} at {', '.join(places)}: {found['value_a']} and {found['value_b']}{hops}")

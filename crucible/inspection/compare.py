"""`crucible compare`: the longest equal prefix of two runs, and where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import analysis
from crucible.console import bar
from store.reading.reader import open_trajectory


def compare_runs(run: str | Path, other: str | Path) -> dict[str, Any]:
    """The answer of `analysis.compare` in Python's own numbers, with the two runs' names.

    Raises
    ------
    NotATrajectoryError
        One of them is no run.
    ValueError
        They recorded other tokens, or have no step in common.
    """
    a, b = open_trajectory(run), open_trajectory(other)
    with bar():
        answer = analysis.compare(a, b)
    found: dict[str, Any] = {"runs": [a.attrs["run"], b.attrs["run"]], **analysis.plain(answer)}
    found["array"] = found["array"] or None
    if found["array"]:
        found |= {name: answer[name].values.item() for name in ("value_a", "value_b")}  # NaN and infinity as they are
    found["lengths"] = [int(ds.attrs["committed_steps"]) for ds in (a, b)]
    found["arrays"] = list(answer.attrs["arrays"])
    found["only_in_one"] = list(answer.attrs["only_in_one"])
    found["not_compared"] = list(answer.attrs["not_compared"])
    found["resolution_steps"] = answer.attrs["resolution_steps"]
    return found


def tell_comparison(found: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """The answer in words."""
    apart = "" if found["resolution_steps"] == 1 else f", up to {found['resolution_steps']:,} steps apart"
    say(f"compared: {found['compared']:,} states{apart} of {', '.join(found['arrays'])}")
    if found["only_in_one"]:
        say(f"not compared, only in one: {', '.join(found['only_in_one'])}")
    if found["not_compared"]:
        say(f"not compared, recorded at steps of their own: {', '.join(found['not_compared'])}")
    if found["array"] is None:
        lengths = found["lengths"]
        ends = f"they end at steps {lengths[0]:,} and {lengths[1]:,}"
        say("equal, bit for bit" if lengths[0] == lengths[1] else f"equal as far as both go; {ends}")
        return
    say(f"equal for the first {found['equal_steps']:,} states")
    places = [f"{name} {found[name]:,}" for name in ("step", "token", "hidden") if found[name] is not None]
    hops = "" if found["hops"] is None else f", {found['hops']:,} hops apart"
    say(f"first difference: {found['array']} at {', '.join(places)}: {found['value_a']} and {found['value_b']}{hops}")

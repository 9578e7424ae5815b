"""`crucible watch`: the numbers of a run that another process is writing, as it commits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crucible.inspection.analyze import ask
from crucible.inspection.selection import Selection, Steps, select
from crucible.units import counted
from store.reading.reader import open_trajectory

LONGEST_S = 1_000_000
"""Seconds between two looks: eleven days."""


def watch(
    run: str | Path, interval_s: float, *, threshold: float | None, norm: str, population: str | None = None,
    tokens: Sequence[int] | None = None, steps: Steps | None = None,
) -> Iterator[str]:  # fmt: skip
    """A line for each new commit, until the run is completed; of a part of it, if one is named.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here (yet).
    ValueError
        `interval_s` is below 0 or no number of seconds.
    """
    if not 0 <= interval_s <= LONGEST_S:
        raise ValueError(f"the interval must lie between 0 and {LONGEST_S:,} seconds, not {interval_s}")
    selection = Selection(population, tokens, steps)
    seen: tuple[int, bool] | None = None
    while True:
        ds = open_trajectory(run)
        state = (int(ds.attrs["committed_steps"]), bool(ds.attrs["completed"]))
        if state != seen:
            yield line(ask(select(ds, selection), threshold=threshold, norm=norm))
            seen = state
        if state[1]:
            return
        time.sleep(interval_s)


def line(answers: dict[str, Any]) -> str:
    """The numbers of `crucible analyze` that change most, in one line; that the run diverged before all of them."""
    words = [answers["diverged"]["sentence"].split(". ")[0]] if answers["diverged"] else []
    words += [
        f"step {answers['last_step']:,}",
        f"last motion {_number(answers['global_last_motion'])}",
        f"median freeze {_number(answers['freeze']['median'])}",
    ]
    end = answers["end_state"]
    if end is None:
        return ", ".join([*words, f"states up to {counted(answers['resolution_steps'], 'step')} apart"])
    p = "none" if end["p"] is None else f"{end['p']:.3g}"
    expected = [] if end["E"] is None else [f"E {end['E']:.3g}"]
    return ", ".join([*words, f"still runs {answers['stillness']['count']:,}", f"p {p}", *expected, _verdict(end)])


def _verdict(end: dict[str, Any]) -> str:
    if end["no_verdict"]:
        return f"no verdict: {end['no_verdict']}"
    return "frozen" if end["frozen"] else "not frozen yet"


def _number(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"

"""A run as it goes on, in plain lines: where there is no terminal, and for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from analysis.judgements.sentences import expected_text, p_text
from crucible.inspection.selection import Selection, Steps
from crucible.inspection.summary import populations_together
from crucible.inspection.watch.looking import Look, looks
from crucible.units import counted


def watch(
    run: str | Path, interval_s: float, *, threshold: float | None, norm: str, population: str | None = None,
    tokens: Sequence[int] | None = None, steps: Steps | None = None,
) -> Iterator[str]:  # fmt: skip
    """A line for each new commit, until the run is completed; of a part of it, if one is named.

    Waits where there is no run yet, and says so.

    Raises
    ------
    ValueError
        `interval_s` is below 0 or no number of seconds, or the run has no such part.
    """
    part = Selection(population, tokens, steps)
    yield from lines(looks(run, interval_s, threshold=threshold, norm=norm, part=part))


def lines(found: Iterator[Look]) -> Iterator[str]:
    """A line for each look that tells something new."""
    before: Look | None = None
    told = ""
    for look in found:
        if before is None or look.state != before.state:
            yield from _of_state(look)
        if look.was_replaced:
            yield "another run stands there now"
        if look.is_new and look.answers is not None:
            mixture = populations_together(look.answers)
            if mixture and mixture != told:
                yield mixture
            told = mixture
            yield line(look.answers)
        before = look


def line(answers: dict[str, Any]) -> str:
    """The numbers of `crucible analyze` that change most, in one line; that the run diverged before all of them."""
    words = [answers["diverged"]["sentence"].split(". ")[0]] if answers["diverged"] else []
    last = f"{answers['last_step']:,}"
    words += [
        f"step {last}" if answers["all_steps"] else f"steps {answers['first_step']:,} to {last}",
        f"last motion {_number(answers['global_last_motion'])}",
        f"median freeze {_number(answers['freeze']['median'])}",
    ]
    end = answers["end_state"]
    if end is None:
        return ", ".join([*words, f"states up to {counted(answers['resolution_steps'], 'step')} apart"])
    p = "none" if end["p"] is None else p_text(end["p"], digits=3)
    expected = [] if end["E"] is None else [f"E {expected_text(end['E'], digits=3)}"]
    return ", ".join([*words, f"silences {answers['stillness']['count']:,}", f"p {p}", *expected, _verdict(end)])


def _of_state(look: Look) -> list[str]:
    if look.state == "waiting":
        return [f"waiting for {look.run} to begin"]
    if look.state == "stopped":
        return [f"stopped: the writer is gone{way_on_words(look)}"]
    return []


def way_on_words(look: Look) -> str:
    """How to go on with a run that stopped, where a command does."""
    import shlex

    return "" if look.command is None else f"; go on with: crucible {shlex.join(look.command)}"


def _verdict(end: dict[str, Any]) -> str:
    if end["no_verdict"]:
        return f"no verdict: {end['no_verdict']}"
    return "frozen" if end["frozen"] else "not frozen yet"


def _number(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"

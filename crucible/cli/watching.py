"""`crucible watch`: a screen on a terminal, lines elsewhere, JSON for a program."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from crucible.console import next_command, note, say, say_json, strict

if TYPE_CHECKING:
    from crucible.inspection.watch import Look


def watch_run(
    run: str, interval_s: float, how: Mapping[str, Any], part: Mapping[str, Any], *, once: bool, as_json: bool
) -> int:
    """Show a run as it goes on, or as it is; returns the exit code."""
    from crucible.inspection.selection import Selection
    from crucible.inspection.watch import looks

    found = looks(run, interval_s, **how, part=Selection(**part))
    if once:
        found = itertools.islice(_there(found), 1)
    last = _show(found, once=once, as_json=as_json)
    if not once and last is not None:
        note("the run is completed")
        next_command("report", run)
    return 0


def _there(found: Iterator[Look]) -> Iterator[Look]:
    """The looks; without a run the error of any command that needs one."""
    for look in found:
        if look.answers is None:
            from store.run.commit import read_commit

            read_commit(look.run)
        yield look


def _show(found: Iterator[Look], *, once: bool, as_json: bool) -> Look | None:
    last = None
    if as_json:
        for last in found:
            if once:
                say_json(last.to_json())
            elif last.is_new:
                say(json.dumps(strict(last.to_json()), allow_nan=False))
        return last
    from rich.console import Console

    from crucible.inspection.watch import screen

    console = Console(highlight=False)
    if not console.is_terminal or not console.encoding.startswith("utf") or console.width < screen.NARROWEST:
        return _say_lines(found)
    if once:
        for last in found:
            screen.once(last, console)
        return last
    return screen.show(found, console)


def _say_lines(found: Iterator[Look]) -> Look | None:
    from crucible.inspection.watch.lines import lines

    kept: list[Look] = []

    def remembered() -> Iterator[Look]:
        for look in found:
            kept[:] = [look]
            yield look

    for words in lines(remembered()):
        say(words)
    return kept[0] if kept else None

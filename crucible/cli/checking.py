"""`crucible check` on a terminal: progress, findings, repair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from crucible.console import bar, note, say, say_json
from crucible.inspection.check import check
from crucible.inspection.check import repair as mend
from crucible.units import counted
from store.errors import LockedError
from store.upkeep.findings import Report

WHOLE, DAMAGED = 0, 3
T = TypeVar("T")


def check_run(run: str | Path, *, repair: bool, as_json: bool) -> int:
    """Check a run, mend it if asked, tell what was found; returns the exit code."""
    report, done = _looked_at(run, check), []
    if repair and (report.damage or report.leftovers):
        try:
            done = _looked_at(run, mend)
            report = _looked_at(run, check)
        except LockedError as error:
            if report.damage:
                raise
            stay = "leftovers stay as they are"
            if error.is_held:
                report.leftovers.clear()
                stay = "what looks like leftovers is being written"
            note(f"note: nothing to repair, and {stay}: {error}")
    if as_json:
        say_json(_plain(report, done))
    else:
        for line in (*(f"repaired: {what}" for what in done), *_lines(report)):
            say(line)
    return WHOLE if report.is_whole else DAMAGED


def _looked_at(run: str | Path, look: Callable[..., T]) -> T:
    """What `look` returns for a run, with a progress bar."""
    with bar("check", "block") as progress:
        return look(run, progress=progress)


def _lines(report: Report) -> list[str]:
    lines = [f"damage: {damage}" for damage in report.damage]
    lines += [f"leftover, no damage: {path}" for path in report.leftovers]
    lines += [f"not made by Crucible, no damage, and left alone: {path}" for path in report.foreign]
    if report.is_whole:
        lines += [f"computed again and compared: {', '.join(report.recomputed) or 'nothing'}"]
        lines += [f"as it was written, which nothing else can confirm: {', '.join(report.only_read) or 'nothing'}"]
    verdict = "whole" if report.is_whole else counted(len(report.damage), "damaged place")
    return [
        *lines,
        f"{report.run}: {counted(report.chunks, 'chunk')}, committed step {report.committed_steps:,}: {verdict}",
    ]


def _plain(report: Report, done: list[str]) -> dict[str, Any]:
    return {
        "run": str(report.run),
        "committed_steps": report.committed_steps,
        "chunks": report.chunks,
        "whole": report.is_whole,
        "damage": [
            {"name": d.name, "what": d.what, "steps": d.steps, "tokens": d.tokens, "sentence": str(d)}
            for d in report.damage
        ],
        "leftovers": report.leftovers,
        "foreign": report.foreign,
        "recomputed": report.recomputed,
        "only_read": report.only_read,
        "repaired": done,
    }

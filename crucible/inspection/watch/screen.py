"""A run as one calm screen of at most 80 x 24, redrawn in place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from analysis.judgements.sentences import expected_text, p_text
from crucible.console import printable
from crucible.inspection.report.words import silence, verdict
from crucible.inspection.summary import populations_together
from crucible.inspection.watch.looking import Look
from crucible.units import size_text, time_text

WIDTH, NARROWEST = 80, 40
"""Columns that it takes, and below how many it is told in lines, since numbers would be cut off."""
BARS = "▁▂▃▄▅▆▇█"
LAMPS = {"waiting": ("○", "yellow"), "recording": ("●", "green"), "stopped": ("■", "yellow"), "complete": ("✓", "cyan")}


def show(found: Iterable[Look], console: Console) -> Look | None:
    """Redraw the screen at each look; returns the last one."""
    last = None
    with Live(console=console, auto_refresh=False, transient=False, vertical_overflow="crop") as live:
        for look in found:
            live.update(screen(look, min(WIDTH, console.width)), refresh=True)
            last = look
    return last


def once(look: Look, console: Console) -> None:
    """The screen, printed."""
    console.print(screen(look, min(WIDTH, console.width)))


def screen(look: Look, width: int = WIDTH) -> RenderableType:
    """A look as a panel, `width` wide and less than 24 lines high."""
    lamp, colour = LAMPS[look.state]
    head = Text(f"{lamp} {look.state}", style=f"bold {colour}")
    body: list[RenderableType] = [_path(look, width - 4), Text("")]
    if look.answers is None:
        body.append(Text("Waiting for the run to begin: it shows itself here at its first commit.", style="dim"))
    else:
        body += [_numbers(look, look.answers, width), Text(""), *_verdict(look.answers)]
        if mixture := populations_together(look.answers):
            body.append(Text(mixture, style="yellow"))
    body += _going_on(look)
    at = f" commit of {_moment(look.committed_at)} " if look.committed_at else None
    return Panel(Group(*body), title=head, title_align="left", subtitle=at, subtitle_align="right", width=width,
                 border_style="dim", padding=(0, 1))  # fmt: skip


def _moment(seconds: float) -> str:
    """The time of day; with the day, where that is not today."""
    moment = datetime.fromtimestamp(seconds)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M}"


def sparkline(values: list[float], width: int, *, log: bool = False) -> str:
    """A curve in one line of text, the last value at its right end.

    Parameters
    ----------
    values : list of float
    width : int
        Characters.
    log : bool
        Heights by the logarithm; a 0 is a space.

    Examples
    --------
    >>> sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8), sparkline([5, 5, 5], 3), sparkline([], 5)
    ('▁▂▃▄▅▆▇█', '▁▁▁', '')
    >>> sparkline([1, 0, 0.001], 3, log=True)
    '█ ▁'
    """
    if not values or width < 1:
        return ""
    width = min(width, len(values))
    cuts = [round(at * len(values) / width) for at in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    heights = [math.log(mean) if mean > 0 else math.nan for mean in means] if log else means
    known = [height for height in heights if math.isfinite(height)]
    low, high = min(known, default=0), max(known, default=1)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(" " if not math.isfinite(h) else BARS[round((h - low) * scale)] for h in heights)


def _numbers(look: Look, told: dict[str, Any], width: int) -> Table:
    """The numbers, a row each: its name, the number, what stands beside it."""
    table = Table.grid(padding=(0, 2), expand=True)  # or rich cuts all columns, without a mark
    table.add_column(style="dim", no_wrap=True, min_width=11)
    table.add_column(no_wrap=True, justify="right", min_width=8)
    table.add_column(no_wrap=True, overflow="ellipsis", style="default", ratio=1)
    room = width - 34
    for name, number, beside in _rows(look, told, room):
        table.add_row(name, number, beside)
    return table


def _rows(look: Look, told: dict[str, Any], room: int) -> Iterator[tuple[str, str, str | Text]]:
    step, planned = look.committed or 0, look.planned
    part = 1.0 if step >= (planned or 0) else min(0.99, step / max(1, planned or 0))  # 100 % is nothing less
    of = "" if planned is None else f"of {planned:,} ({part:.0%})"
    yield "step", f"{step:,}", of
    speed = "..." if look.steps_per_s is None else f"{look.steps_per_s:,.1f}"
    left = "" if look.left_s is None else f"a second, {time_text(look.left_s)} left"
    yield "steps", speed, left or "a second"
    if not told["all_steps"]:
        yield "asked of", "", f"steps {told['first_step']:,} to {told['last_step']:,} alone"
    if look.losses and look.loss is not None:
        loss = "unknown" if math.isnan(look.loss) else "infinite" if math.isinf(look.loss) else f"{look.loss:.4g}"
        yield "loss", loss, Text(sparkline(look.losses, room), style="yellow")
    if look.movers is not None:
        yield "moving", f"{look.movers:,}", Text(sparkline(look.moving, room, log=True), style="blue")
        yield "", "", f"of {told['tokens']:,} tokens, on a logarithmic scale"
    last = told["global_last_motion"]
    yield "last motion", "never" if last is None else f"{last:,}", "the last step at which any token moved"
    yield "silence", f"{told['fimbulwinter_duration']:,}", silence(told, " since")
    yield "disk", size_text(look.disk_bytes), "the whole folder"


def _verdict(told: dict[str, Any]) -> list[RenderableType]:
    """The verdict in a sentence, and what its number means."""
    end = told["end_state"]
    style = "bold red" if told["diverged"] else "bold cyan" if end and end["frozen"] else "bold"
    said: list[RenderableType] = [Text(verdict(told), style=style)]
    if end is None or end["p"] is None:
        return said
    words = f"p = {p_text(end['p'])}: so likely is a silence this long if bursts of motion go on for ever, fading like"
    words += " 1/t."
    if end["E"] is not None:
        words += f" E = {expected_text(end['E'])}: moves to be expected by the push in as many steps again."
    elif not end["frozen"] and end["no_push"] is not None:
        words += " At p ≤ 0.01 it counts as the end."
    return [*said, Text(words, style="dim")]


def _going_on(look: Look) -> list[RenderableType]:
    """What to do about a run whose writer is gone, or which was replaced."""
    said: list[RenderableType] = []
    if look.was_replaced:
        said.append(Text("Another run stands there now.", style="yellow"))
    if look.state == "stopped":
        said.append(Text("The writer is gone.", style="yellow"))
        if look.command is not None:
            import shlex

            said.append(Text(f"crucible {shlex.join(look.command)}", style="bold", overflow="fold"))
    return [Text(""), *said] if said else []


def _path(look: Look, width: int) -> Text:
    """The run's folder, its middle left out where it is longer than the line."""
    path = printable(str(look.run))
    if len(path) > width:
        half = (width - 1) // 2
        path = f"{path[:half]}…{path[-(width - 1 - half) :]}"
    return Text(path, style="bold", no_wrap=True)

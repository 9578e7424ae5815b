"""`crucible report`: the answers and the pictures of a run in one HTML file that needs no network."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

import analysis
from analysis import plots
from crucible.console import printable
from crucible.inspection.analyze import ask
from crucible.inspection.selection import Selection, Steps, select
from crucible.inspection.summary import tell_answers
from crucible.progress import Progress, silent
from crucible.units import counted, steps_text
from store.format.files import REPORT, local_path
from store.placed_file import check_target, place
from store.reading.reader import open_trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[xr.Dataset], "Figure"]
PICTURES: tuple[tuple[str, Draw, bool], ...] = (
    ("Cooling", plots.cooling, True),
    ("Survival", lambda ds: plots.survival(analysis.freeze_times(ds)), False),
    ("Stillness", lambda ds: plots.stillness(analysis.stillness(ds)), True),
    ("Life cycle", lambda ds: plots.lifecycle(analysis.lifecycle(ds)), True),
    ("Census of moves", lambda ds: plots.census(analysis.census(ds)), True),
    ("Drift of the centroid", lambda ds: plots.drift(analysis.drift(ds)), False),
    ("The cloud", lambda ds: plots.cloud(analysis.cloud(ds)), False),
)
"""Name, how it is drawn, and whether it counts single steps: those are left out where steps are missing."""
OF_PUSH: tuple[tuple[str, Draw, bool], ...] = (
    ("Push", plots.push, True),
    ("When the end state could be told", plots.verdicts, True),
    ("Headroom", plots.headroom, True),
)
"""The same, of runs that recorded the push."""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ background: #f4f5f7; padding: 1rem; overflow-x: auto; white-space: pre-wrap }} img {{ max-width: 100% }}
td, th {{ text-align: left; padding: .1rem 1rem .1rem 0 }}</style>
<h1>{title}</h1>
<pre>{answers}</pre>
{pictures}
<h2>Configuration</h2>
<table>{config}</table>
</html>
"""


def report(
    run: str | Path, out: str | Path | None = None, *, population: str | None = None,
    tokens: Sequence[int] | None = None, steps: Steps | None = None, force: bool = False, progress: Progress = silent,
) -> Path:  # fmt: skip
    """Write the report of a run, as of its last commit; ``report.html`` in its folder unless `out` is given.

    Of a part of the run where `population`, `tokens` or `steps` name one, see
    `crucible.inspection.selection.Selection`; the heading then says which.

    Raises
    ------
    RunExistsError
        The file is there, and `force` is not.
    ValueError
        The run has no such population, token or step.
    """
    selection = Selection(population, tokens, steps)
    ds = select(open_trajectory(run), selection)
    path = Path(ds.attrs["run"]) / REPORT if out is None else local_path(out)
    check_target(path, replace=force)
    answers = ask(ds)
    lines: list[str] = []
    tell_answers(answers, lines.append)
    span = steps_text(answers["first_step"], answers["last_step"], ds.sizes["step"], answers["resolution_steps"])
    title = f"{Path(ds.attrs['run']).name}: {span}, {counted(answers['tokens'], 'token')}"
    title += f"; {selection}" if selection else ""
    title += f"; diverged at step {answers['diverged']['step']:,}" if answers["diverged"] else ""
    title += "" if answers["completed"] else "; not completed"
    page = PAGE.format(
        title=_text(title),
        answers="\n".join(map(_text, lines)).strip(),
        pictures="\n".join(_pictures(ds, progress, has_every_step=answers["resolution_steps"] == 1)),
        config=_table(json.loads(ds.attrs.get("config", "{}"))),
    )
    place(path, page.encode(), replace=force)
    return path


def _pictures(ds: xr.Dataset, progress: Progress, *, has_every_step: bool) -> Sequence[str]:
    """Each picture as a heading and an image that is part of the page."""
    parts = []
    has_push = "push" in ds and ds["push"].dims == ("step", "token")
    known = (*PICTURES, *(OF_PUSH if has_push else ()))
    chosen = [(name, draw) for name, draw, counts_steps in known if has_every_step or not counts_steps]
    for number, (name, draw) in enumerate(chosen, 1):
        buffer = io.BytesIO()
        draw(ds).savefig(buffer, format="png", dpi=110)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append(f'<h2>{name}</h2>\n<img alt="{name}" src="data:image/png;base64,{data}">')
        progress(number, len(chosen))
    return parts


def _table(config: dict[str, Any]) -> str:
    rows = ((_text(name), _text(value)) for name, value in config.items())
    return "\n".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)


def _text(value: object) -> str:
    """Anything as text of the page, with control characters shown as on a terminal."""
    return html.escape(printable(str(value)))

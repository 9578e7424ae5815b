"""Figures as SVG that is part of a page, and as files."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.plots.style import PALETTE
from store.placed_file import check_target, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (200, 72)
"""Dots per inch of the bitmaps that `crucible report --figures` writes: for paper, and for a screen."""
_NUMBERS = re.compile(r' (?:d|x|y|points|transform|width|height|viewBox|x1|x2|y1|y2)="[^"]*"')
_BEYOND_CENTS = re.compile(r"(?<=\.\d\d)\d+")
_NAME = re.compile(r'<g id="[^"]*"')
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)


def svg(figure: Figure, name: str) -> str:
    """A figure as SVG with words as words; the same bytes each time, ids by `name`."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, dpi=150)
    return buffer.getvalue().decode()


def inline(drawn: str) -> str:
    """An SVG to stand in a page: its colours are the page's, which are others in the dark, its numbers short."""
    short = _NUMBERS.sub(lambda found: _BEYOND_CENTS.sub("", found[0]), _PROLOGUE.sub("", drawn))
    short = re.sub(r"<metadata>.*?</metadata>", "", short, flags=re.DOTALL)
    short = _NAME.sub("<g", short)
    short = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', short, count=1)
    for name, (light, _) in PALETTE.items():
        short = short.replace(f": {light}", f": var(--{name})")
    return re.sub(r">\s+<", "><", short)


def png(figure: Figure, dpi: int) -> bytes:
    """A figure as a bitmap on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def write(figure: Figure, drawn: str, name: str, folder: Path, *, force: bool) -> None:
    """Write a figure as name.svg, name@200.png and name@72.png."""
    ground = re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', drawn, count=1)
    place(folder / f"{name}.svg", ground.encode(), replace=force)
    for dpi in SIZES:
        place(folder / f"{name}@{dpi}.png", png(figure, dpi), replace=force)


def check_folder(folder: Path, names: list[str], *, force: bool) -> None:
    """Make the folder, and refuse what is there before anything is drawn.

    Raises
    ------
    RunExistsError
        One of the files is there, and `force` is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        check_target(folder / f"{name}.svg", replace=force)
        for dpi in SIZES:
            check_target(folder / f"{name}@{dpi}.png", replace=force)

"""The house style: colours that the colour-blind can tell apart, panels without frames, figures without pyplot.

Colours are never all that tells two things apart: lines differ in their dashes too, points in their marks.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = {
    "ground": ("#fefefe", "#12161e"),
    "ink": ("#1d2129", "#e8e6e1"),
    "soft": ("#5b6270", "#98a1ae"),
    "faint": ("#c9c7c0", "#3a424e"),
    "rule": ("#e2dfd7", "#222a35"),
    "supernova": ("#c96a00", "#ffb454"),
    "cooling": ("#97206f", "#e660b0"),
    "stumbling": ("#2f8fd0", "#79ccff"),
    "frozen": ("#9aa1ab", "#6d757b"),
    "blue": ("#0a5c94", "#6db8e8"),
    "rust": ("#b5471b", "#f08f5f"),
    "green": ("#0d3b2e", "#c8e6a0"),
    "alarm": ("#b3122b", "#ff6b7d"),
    "teleporting": ("#5a1a46", "#c04a97"),
    "multicell": ("#c26500", "#e07b1a"),
    "neighbour": ("#e8b23a", "#e8c96a"),
    "face": ("#2e8ecf", "#4a9fe0"),
    "less": ("#a9cfe8", "#b9dcf2"),
    "none": ("#e9e7e1", "#1f2733"),
}
"""Name: the colour on a light ground, and on a dark one. The phases are those of the live page; the last six
are kinds of moves."""
INK, SOFT, FAINT, RULE = (PALETTE[name][0] for name in ("ink", "soft", "faint", "rule"))
SUPERNOVA, COOLING, STUMBLING, FROZEN = (PALETTE[name][0] for name in ("supernova", "cooling", "stumbling", "frozen"))
BLUE, RUST, GREEN, ALARM = (PALETTE[name][0] for name in ("blue", "rust", "green", "alarm"))
KINDS = tuple(PALETTE[name][0] for name in ("teleporting", "multicell", "neighbour", "face", "less", "none"))
"""Of moves, from the wildest to none: they differ in lightness too."""
DOTS = PALETTE["stumbling"][0]
"""Of points so many that they are a bitmap: it is seen on a light ground and on a dark one."""
SERIES = (
    (BLUE, "-", "o"),
    (RUST, (0, (5, 1.6)), "s"),
    (GREEN, (0, (1.2, 1.2)), "^"),
    (COOLING, (0, (6, 1.5, 1.2, 1.5)), "D"),
    (SUPERNOVA, (0, (9, 2)), "v"),
    (STUMBLING, (0, (3, 1, 1, 1, 1, 1)), "P"),
)
"""Colour, dashes and mark of one line beside others."""
PHASES = {
    "supernova": (SUPERNOVA, "-", "o"),
    "cooling": (COOLING, (0, (5, 1.6)), "s"),
    "stumbling": (STUMBLING, (0, (1.2, 1.2)), "^"),
}
"""Colour, dashes and mark of a phase of life."""
WIDTH, HEIGHT = 7.6, 2.9
"""Of a panel with its words, in inches."""
MARGINS = {"left": 0.86, "right": 0.22, "top": 0.34, "bottom": 0.5}
"""Around a panel, in inches: the same for all, so that the steps of pictures one below the other meet."""
TITLE_SIZE, SMALL_SIZE = 10.5, 8.5
NARROW = 5.0
"""Figures below this width in inches are those of a phone: words are broken, those of legends are smaller."""
NOTEBOOK_DPI = 160
STRIP = "strip"
"""Names legends that stand between a title and a panel."""
LINE, LETTER, COLUMN_GAP, BELOW = 1.45, 0.57, 1.6, 0.3
"""Of such a legend, in parts of its letters' size: height of a line, width of a letter, between columns, below."""


def series(index: int) -> dict[str, Any]:
    """How the line of this number is drawn beside others.

    Examples
    --------
    >>> series(0)
    {'color': '#0a5c94', 'linestyle': '-'}
    """
    colour, dashes, _ = SERIES[index % len(SERIES)]
    return {"color": colour, "linestyle": dashes}


def of_phase(name: str, index: int) -> tuple[str, Any, str]:
    """Colour, dashes and mark of a phase; of one with another name those of its number."""
    return PHASES.get(name, SERIES[index % len(SERIES)])


def panel(ax: Axes | None, *, height: float = HEIGHT) -> Axes:
    """The Axes to draw on: the given one, or that of a new figure; either in the house style."""
    if ax is not None:
        require_axes(ax)
        return dress(ax)
    axes = stack((height,))[1][0]
    show_in_notebooks(axes)
    return axes


def require_axes(ax: object) -> None:
    """Refuse what is no Axes, such as a figure or all that ``subplots`` returns."""
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax= takes one Axes of matplotlib, not {type(ax).__name__}; as in figure.subplots()")


def stack(heights: Sequence[float], *, width: float = WIDTH, gap: float = 0.16) -> tuple[Figure, list[Axes]]:
    """A figure with panels one below the other, on one step axis.

    Parameters
    ----------
    heights : sequence of float
        Of each panel with a margin above and below, in inches; panels in between share their margins.
    width : float
        In inches.
    gap : float
        Between panels, in inches, beside the room for a title.

    Returns
    -------
    Figure, list of Axes
        Of matplotlib, in the house style; pyplot knows nothing of them.
    """
    from matplotlib.figure import Figure

    top, bottom = MARGINS["top"] + (0.18 if width < NARROW else 0), MARGINS["bottom"]
    inner = [height - MARGINS["top"] - bottom for height in heights]
    whole = sum(inner) + top + bottom + (len(heights) - 1) * (gap + top)
    figure = Figure(figsize=(width, whole))
    squeeze = 0.8 if width < NARROW else 1
    left, right = squeeze * MARGINS["left"] / width, 1 - squeeze * MARGINS["right"] / width
    made: list[Axes] = []
    at = whole - top
    for height in inner:
        box = (left, (at - height) / whole, right - left, height / whole)
        made.append(dress(figure.add_axes(box, sharex=made[0] if made else None)))
        at -= height + gap + top
    for axes in made[:-1]:
        axes.tick_params(labelbottom=False)
        axes.xaxis.label.set_visible(False)
    return figure, made


def dress(axes: Axes) -> Axes:
    """The house style for an Axes: no frame, a pale grid behind, quiet numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
        axes.spines[side].set_linewidth(0.8)
    axes.grid(True, color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    axes.patch.set_alpha(0)
    axes.tick_params(which="both", colors=SOFT, labelsize=SMALL_SIZE, length=3, width=0.7)
    axes.tick_params(which="minor", length=0)
    axes.yaxis.set_major_formatter("{x:,.10g}")  # each tick says its own number: no factor stands above
    axes.xaxis.label.set(color=SOFT, size=SMALL_SIZE)
    axes.yaxis.label.set(color=SOFT, size=SMALL_SIZE)
    return axes


def title(axes: Axes, words: str) -> None:
    """What a panel shows, above its left edge; in two lines where there is little room."""
    if is_narrow(axes):
        words = textwrap.fill(words, 40)
    above(axes, words, color=INK)


def above(axes: Axes, words: str, **how: Any) -> None:  # noqa: ANN401 - matplotlib's own words
    """Words above a panel, at its left edge unless said otherwise.

    Their height is given: to look for free room there, matplotlib would lay out all ticks of the panel once more.
    """
    legend_above = axes.get_legend()
    room = vars(legend_above)["room"] if legend_above and legend_above.get_gid() == STRIP else 0
    said: dict[str, Any] = {"loc": "left", "fontsize": TITLE_SIZE, "pad": 7 + room} | how
    axes.set_title(words, y=1.0, **said)


def is_narrow(axes: Axes) -> bool:
    """Whether the figure is that of a phone."""
    return bool(figure_of(axes).get_figwidth() < NARROW)


def legend(axes: Axes, **how: Any) -> None:  # noqa: ANN401 - matplotlib's own words
    """A legend between the title and the panel, where nothing that is drawn can cross it; if there is anything to say.

    The panel becomes lower by the room for it. A panel of a layout of matplotlib, such as that of
    ``matplotlib.pyplot.subplots``, keeps its place and has the legend inside. Comes before the title.
    """
    handles = how.pop("handles", axes.get_legend_handles_labels()[0])
    if not handles:
        return
    if is_narrow(axes):
        how |= {"fontsize": SMALL_SIZE - 1, "handlelength": min(2.0, how.get("handlelength", 2.0))}
    words: dict[str, Any] = {"frameon": False, "fontsize": SMALL_SIZE, "labelcolor": INK, "handlelength": 2.6} | how
    if axes.get_subplotspec() is not None:
        axes.legend(handles=handles, **words, loc="best")
        return
    figure, box = figure_of(axes), axes.get_position()
    labels = [str(handle.get_label()) for handle in handles]
    columns = _columns(labels, words, 72 * box.width * figure.get_figwidth())
    room = (-(-len(labels) // columns) * LINE + BELOW) * words["fontsize"]
    axes.set_position((box.x0, box.y0, box.width, box.height - room / 72 / figure.get_figheight()))
    made = axes.legend(
        handles=handles, **words, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=BELOW,
        borderpad=0.2, columnspacing=COLUMN_GAP, labelspacing=LINE - 1.15,
    )  # fmt: skip
    made.set_gid(STRIP)
    vars(made)["room"] = room


def _columns(labels: Sequence[str], words: dict[str, Any], width: float) -> int:
    """In how many columns the entries of a legend fit beside each other; widths in points."""
    size = words["fontsize"]
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        longest = [max(map(len, labels[at : at + rows])) for at in range(0, len(labels), rows)]
        handle = words["handlelength"] + 0.8 + COLUMN_GAP
        if size * sum(handle + LETTER * letters for letters in longest) <= width:
            return len(longest)
    return 1


def note(axes: Axes, words: str, at: tuple[float, float], *, colour: str = SOFT, **how: Any) -> None:  # noqa: ANN401
    """A few words at a point of the panel's data."""
    offset = how.pop("offset", (5, 4))
    axes.annotate(words, at, offset, textcoords="offset points", color=colour, fontsize=SMALL_SIZE, **how)


def show_in_notebooks(axes: Axes) -> None:
    """Let a notebook's cell that ends with these Axes show their figure; IPython knows pyplot's figures only."""
    vars(axes)["_repr_png_"] = functools.partial(_png, figure_of(axes))


def _png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=NOTEBOOK_DPI, facecolor="white")
    width, height = (round(inches * 100) for inches in figure.get_size_inches())
    return buffer.getvalue(), {"width": width, "height": height}


def save(axes: Axes, path: str | PathLike[str] | BinaryIO, *, dpi: int = 200) -> None:
    """Write a picture; the ending of the path (.png, .svg, .pdf) decides how.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        What a picture returned; the whole figure around it is written.
    path : str, path or open file
        A file that is there is replaced. Without an ending, .png is added; what is open gets a PNG.
    dpi : int
        Dots per inch, for pictures made of dots.

    Raises
    ------
    ValueError
        For an unknown ending, or a `dpi` that is not above 0.
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> import pathlib, tempfile, analysis
    >>> axes = analysis.plots.cooling(analysis.simulate.with_last_motion([2], total_steps=3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(axes, pathlib.Path(folder) / "cooling.png", dpi=40)
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['cooling.png']
    """
    figure_of(axes).savefig(path, dpi=dpi, facecolor="white")


def figure_of(axes: Axes) -> Figure:
    """The figure around Axes, that of a notebook's subfigures too."""
    return cast("Figure", axes.get_figure(root=True))

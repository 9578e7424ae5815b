"""What pictures are made of: panels on one step axis, lines and dots on them, and numbers as words.

pyplot and its global state are not touched. `analysis.plots` has the pictures themselves.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#2b6cb0", "#dd7a1f", "#2f855a", "#c0392b", "#718096"
KIND_COLOURS = ("#7f1d1d", "#c2410c", "#eaa221", "#7cb5d2", "#c6dbef", "#eef2f6")
MOST_POINTS = 2000
"""Filled areas are drawn from so many steps at most, evenly spaced: more than there are pixels."""
STILL = 0.25
"""Where a displacement of 0 is drawn on the logarithmic axis: below 0.5, the smallest there is."""


def stack(count: int, *, heights: Sequence[float] | None = None) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels one below the other, on one step axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.4 if count == 1 else 5.2 if count == 2 else 6.6), layout="constrained")
    ratios = heights or (1,) * count
    axes = figure.subplots(count, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, lw=0.6)
        panel.set_axisbelow(True)
        panel.margins(x=0.01)
        panel.xaxis.set_major_formatter("{x:,.0f}")
    # IPython knows figures only once pyplot is there; this shows them without.
    vars(figure)["_repr_png_"] = functools.partial(_png, figure)
    return figure, list(axes)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def line(axes: Axes, told: xr.Dataset, name: str, colour: str, *, log: bool = False, label: str | None = None) -> None:
    """A variable of an answer over its steps, without infinities; `log`: without zeros too, on a logarithmic axis."""
    values = told[name].values
    if log:
        values = np.where(values > 0, values, np.nan)
        if np.isfinite(values).any():
            axes.set_yscale("log")
    axes.plot(told["step"].values, within(values), ".-", ms=1.2, color=colour, lw=1.0, label=label)


def dots(axes: Axes, told: xr.Dataset, name: str, colour: str) -> None:
    """A variable of an answer as dots over its steps, and a line at 0."""
    axes.axhline(0, color=GREY, lw=0.8)
    axes.plot(told["step"].values, told[name].values, ".", ms=2, color=colour)


def cells_axis(axes: Axes, curves: npt.NDArray[Any]) -> None:
    """A logarithmic axis of cells with "still" at its foot."""
    axes.set(yscale="log", ylabel="|ΔW′| in lattice cells")
    top = float(within(curves).max(initial=1.0, where=~np.isnan(within(curves))))
    axes.set_ylim(STILL / 1.25, max(2.0, 1.6 * top))
    ticks = [10.0**power for power in range(int(np.log10(max(top, 1))) + 1)]
    axes.set_yticks([STILL, *ticks], ["still", *(f"{tick:,.0f}" if tick < 1e6 else f"{tick:.0e}" for tick in ticks)])
    axes.axhline(STILL, color=GREY, lw=0.6, ls=":")


def mark_end(told: xr.Dataset, axes: Sequence[Axes]) -> None:
    """The winter since the last motion in grey, if there is one."""
    last = int(told["last_motion"])
    if last < 0 or not int(told["gap"]):
        return
    for panel in axes:
        panel.axvspan(last, int(told["step"][-1]), color=GREY, alpha=0.10, lw=0)
        panel.axvline(last, color=RED, lw=1.0, ls="--")
    late = last > 0.6 * int(told["step"][-1])
    axes[1].annotate(
        f"last motion: step {last:,}",
        (last, 0.75),
        (-6 if late else 6, 0),
        textcoords="offset points",
        color=RED,
        fontsize=9,
        ha="right" if late else "left",
        va="center",
    )


def verdict(told: xr.Dataset) -> str:
    """The verdict on the end state as a title."""
    step, p = int(told.attrs["last_step"]), float(told["p"])
    if bool(told["frozen"]):
        return f"Frozen at step {step:,}: p = {p:.2g} for such a silence if motion went on, fading like 1/t"
    if np.isnan(p):
        return f"No verdict at step {step:,}: too few episodes of motion"
    later = int(told["frozen_from"])
    return f"Not frozen at step {step:,} (p = {p:.2g})" + (f"; at {later:,} if nothing moves" if later > step else "")


def within(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without infinities, which no axis can hold."""
    return np.where(np.isfinite(values), values, np.nan)


def thin(steps: npt.NDArray[Any]) -> slice:
    """So many of the steps as are drawn.

    Examples
    --------
    >>> thin(np.arange(5000))
    slice(None, None, 3)
    """
    return slice(None, None, max(1, -(-len(steps) // MOST_POINTS)))


def colours(count: int) -> list[str]:
    """The last kind is "none" and pale; unknown tables repeat the others."""
    return [*(KIND_COLOURS[index % 5] for index in range(count - 1)), KIND_COLOURS[-1]]


def percent(share: float) -> str:
    """A fraction as text.

    Examples
    --------
    >>> percent(0.25), percent(1e-6), percent(0.0)
    ('25.00%', '< 0.01%', '0%')
    """
    return f"{share:.2%}" if share >= 0.0001 else "< 0.01%" if share else "0%"

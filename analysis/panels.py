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

from analysis.questions.endstate import no_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BLUE, ORANGE, GREEN, RED, GREY = "#2b6cb0", "#dd7a1f", "#2f855a", "#c0392b", "#718096"
INK = "#2d3748"
KIND_COLOURS = ("#7f1d1d", "#c2410c", "#eaa221", "#7cb5d2", "#c6dbef", "#eef2f6")
PIXELS = 2000
"""Filled areas are drawn from the extremes of so many groups of steps: more than there are pixels."""
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
    """A variable of an answer over its steps, infinities as triangles; `log`: without zeros, on a logarithmic axis."""
    values = told[name].values
    infinities(axes, told["step"].values[np.isinf(values)])
    if log:
        values = np.where(values > 0, values, np.nan)
        if np.isfinite(values).any():
            axes.set_yscale("log")
    axes.plot(told["step"].values, within(values), ".-", ms=1.2, color=colour, lw=1.0, label=label)


def dots(axes: Axes, told: xr.Dataset, name: str, colour: str) -> None:
    """A variable of an answer as dots over its steps, and a line at 0."""
    axes.axhline(0, color=GREY, lw=0.8)
    axes.plot(told["step"].values, told[name].values, ".", ms=2, color=colour)


def displacements(axes: Axes, told: xr.Dataset) -> None:
    """The band of quantiles, the middle one, and the largest displacement of each step with motion."""
    steps, largest = told["step"].values[1:], told["largest"].values[1:]
    curves = np.maximum(told["displacement"].values[1:], STILL)
    lowest, highest = told["q"].values[[0, -1]]
    middle = told["q"].values[curves.shape[1] // 2]
    chosen = drawn(curves[:, 0], curves[:, -1])
    edges = within(curves[chosen][:, [0, -1]]).T
    band = f"{100 * lowest:g}-{100 * highest:g} % of tokens"
    axes.fill_between(steps[chosen], *edges, color=BLUE, alpha=0.22, lw=0, label=band)
    name = "median" if middle == 0.5 else f"{100 * middle:g} %"
    axes.plot(steps, within(curves[:, curves.shape[1] // 2]), color=BLUE, lw=1.2, label=name)
    some = largest > 0
    axes.plot(steps[some], within(largest[some]), ".", ms=2, color=ORANGE, label="largest")
    infinities(axes, steps[np.isinf(largest)], label="infinite")
    cells_axis(axes, np.append(curves.ravel(), largest), str(told.attrs["norm"]).capitalize())


def moving(axes: Axes, told: xr.Dataset) -> Line2D:
    """The fraction of tokens that move, and a tick for each step with motion."""
    steps, fraction = told["step"].values[1:], told["moving"].values[1:]
    chosen = drawn(fraction)
    axes.fill_between(steps[chosen], fraction[chosen], color=GREEN, alpha=0.35, lw=0)
    axes.set_xlabel("step")
    return fractions_axis(axes, steps[fraction > 0], f"moving, ≥ {told.attrs['threshold']:.7g}")


def cells_axis(axes: Axes, curves: npt.NDArray[Any], norm: str) -> None:
    """A logarithmic axis of cells with "still" at its foot."""
    axes.set(yscale="log", ylabel=f"{norm} of ΔW′ in lattice cells")
    top = float(within(curves).max(initial=1.0, where=~np.isnan(within(curves))))
    axes.set_ylim(STILL / 1.25, max(2.0, 1.6 * top))
    ticks = [10.0**power for power in range(int(np.log10(max(top, 1))) + 1)]
    axes.set_yticks([STILL, *ticks], ["still", *(f"{tick:,.0f}" if tick < 1e6 else f"{tick:.0e}" for tick in ticks)])
    axes.axhline(STILL, color=GREY, lw=0.6, ls=":")


def mark_end(told: xr.Dataset, axes: Sequence[Axes]) -> None:
    """Shade the time since the last motion in grey, if there is any."""
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
    if reason := no_verdict(told):
        return f"No verdict at step {step:,}: {reason}"
    later = -1 if int(told["nonfinite"]) else int(told["frozen_from"])  # never, where a weight is NaN or infinite
    return f"Not frozen at step {step:,} (p = {p:.2g})" + (f"; at {later:,} if nothing moves" if later > step else "")


def within(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values with NaN for infinities, which no axis can hold."""
    return np.where(np.isfinite(values), values, np.nan)


def drawn(*curves: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The positions at which curves are drawn: of each pixel's steps the first and all that hold an extreme.

    So every maximum and minimum that a pixel could show is in the picture, whatever the number of steps.

    Parameters
    ----------
    *curves : array, shape (step,)
        NaN and infinities are no extremes.

    Examples
    --------
    >>> curve = np.zeros(5000)
    >>> curve[4321] = 1  # the only event
    >>> chosen = drawn(curve)
    >>> len(chosen), bool(4321 in chosen)
    (1669, True)
    """
    steps = len(curves[0])
    width = -(-steps // PIXELS)
    if width <= 1:
        return np.arange(steps)
    starts = np.arange(0, steps, width)
    chosen = [starts, np.array([steps - 1])]
    for curve in curves:
        padded = np.append(within(curve), np.full(len(starts) * width - steps, np.nan))
        groups = padded.reshape(-1, width)
        low, high = (np.where(np.isnan(groups), other, groups) for other in (np.inf, -np.inf))
        chosen += [starts + low.argmin(axis=1), starts + high.argmax(axis=1)]
    return np.unique(np.concatenate(chosen))


def fractions_axis(axes: Axes, steps: npt.NDArray[Any], label: str) -> Line2D:
    """An axis of fractions of tokens, and the ticks at its foot: one for each of these steps with motion.

    However few tokens move at a step, its tick is seen.
    """
    axes.set(ylabel=label, ylim=(-0.07, 1.02))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], minor=False)
    axes.yaxis.set_major_formatter("{x:.0%}")
    foot = np.full(len(steps), -0.035)
    (ticks,) = axes.plot(steps, foot, "|", ms=6, mew=0.5, color=INK, gid="rug", label="steps with motion")
    return ticks


def infinities(axes: Axes, steps: npt.NDArray[Any], *, label: str | None = None) -> None:
    """A triangle at the top of a panel for each of these steps, if there are any: no axis can hold them."""
    if len(steps):
        top = np.full(len(steps), 0.97)
        at = axes.get_xaxis_transform()
        axes.plot(steps, top, "^", ms=4, color=RED, transform=at, gid="infinite", label=label)


def mark_divergence(figure: Figure, told: xr.Dataset) -> Figure:
    """Name the step at which weights became NaN or infinite above everything else, and tint what comes after it."""
    first = int(told["first_nonfinite"]) if "first_nonfinite" in told else -1
    if first < 0:
        return figure
    last = int(told.attrs["last_step"])
    for panel in figure.axes:
        panel.axvspan(first, max(last, first + 0.5), color=RED, alpha=0.07, lw=0)
        panel.axvline(first, color=RED, lw=1.0)
    figure.suptitle(
        f"Diverged at step {first:,}: weights are NaN or infinite, which counts as still", color=RED, fontsize=11
    )
    return figure


def colours(count: int) -> list[str]:
    """The last kind is "none" and pale; unknown tables repeat the others."""
    return [*(KIND_COLOURS[index % 5] for index in range(count - 1)), KIND_COLOURS[-1]]


def percent(share: float) -> str:
    """A fraction as text: 0% and 100% stand for exactly none and all.

    Examples
    --------
    >>> percent(0.25), percent(1e-6), percent(0.0), percent(0.999999), percent(1.0)
    ('25.00%', '< 0.01%', '0%', '> 99.99%', '100%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    return "< 0.01%" if share < 0.0001 else "> 99.99%" if share > 0.9999 else f"{share:.2%}"

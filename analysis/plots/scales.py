"""Axes of steps, of tokens and of cells, and what stands at their edges: the rug, infinities, the end of motion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analysis.plots import style
from analysis.plots.style import ALARM, FAINT, FROZEN, INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

PIXELS = 1600
"""Filled areas and long lines are drawn from the extremes of so many groups of steps: more than there are pixels."""
MANY = 800
"""More marks than this are a bitmap in an SVG."""
STILL = 0.25
"""Where a displacement of 0 is drawn on the logarithmic axis: below 0.5, the smallest there is."""
TICKS = 4000
"""More ticks than this at the foot of a panel are as many as there are places for them."""
RUG = (0.0, 0.035)
"""The ticks of moving steps, in parts of the panel's height."""


def steps_axis(axes: Axes, told: xr.Dataset, *, log: bool) -> Axes:
    """The axis that all pictures over steps share: from the first step to the last, whatever happens in between.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    told : Dataset
        An answer; its attributes ``first_step`` and ``last_step`` are the ends, else its coordinate ``step``.
    log : bool
        A logarithmic axis; even up to a step between a 30th and a 300th of the last, so that it begins at the beginning
        and still has room for what comes late.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    first, last = ends(told)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set_xlabel("step")
    if log:
        even = even_until(last)
        axes.set_xscale("symlog", linthresh=even, linscale=0.3)
        ticks = [
            tick for power in range(12) for tick in (even * 10**power, 3 * even * 10**power) if first < tick <= last
        ]
        axes.set_xticks([first, *ticks], [f"{tick:,}" for tick in (first, *ticks)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f"step, logarithmic from {even:,} on")
    room = 0.01
    low, high = axes.xaxis.get_transform().transform(np.array([first, max(last, first + 1)], float))
    edges = np.array([low - room * (high - low), high + room * (high - low)])
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform(edges))
    return axes


def even_until(last: int) -> int:
    """The step up to which a logarithmic axis is even: a power of ten, a 30th to a 300th of the last step.

    Examples
    --------
    >>> even_until(5000), even_until(3088), even_until(20)
    (100, 100, 1)
    """
    return max(1, int(10.0 ** int(np.floor(np.log10(max(1, last / 30))))))


def evenly(axes: Axes, low: float, high: float, count: int) -> npt.NDArray[np.float64]:
    """So many marks from one step to another, evenly spaced on the axis as it is."""
    scale = axes.xaxis.get_transform()
    first, last = scale.transform(np.array([low, high], float))
    marks: npt.NDArray[np.float64] = scale.inverted().transform(np.linspace(float(first), float(last), count))
    return marks


def ends(told: xr.Dataset) -> tuple[int, int]:
    """The first and the last step of what was asked."""
    if {"first_step", "last_step"} <= set(told.attrs):
        return int(told.attrs["first_step"]), int(told.attrs["last_step"])
    return int(told["step"][0]), int(told["step"][-1])


def tokens_axis(axes: Axes, tokens: int) -> None:
    """An axis of counts of tokens on which one is seen as well as thousands: even from 0 to 1, then logarithmic."""
    from matplotlib.ticker import NullLocator

    axes.set_yscale("symlog", linthresh=1, linscale=0.5)
    axes.set_ylim(-0.28, max(2, tokens) * 1.5)
    ticks = [0, *(10**power for power in range(len(str(max(1, tokens)))))]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def fractions_axis(axes: Axes, words: str) -> None:
    """An axis of fractions, in percent."""
    axes.set(ylabel=words, ylim=(-0.03, 1.03))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter("{x:.0%}")


def cells_axis(axes: Axes, values: npt.NDArray[Any], words: str) -> None:
    """A logarithmic axis of cells with "still" at its foot."""
    from matplotlib.ticker import NullLocator

    axes.set(yscale="log", ylabel=words)
    top = float(within(values).max(initial=1.0, where=~np.isnan(within(values))))
    axes.set_ylim(STILL / 1.35, max(2.0, 1.8 * top))
    ticks = [10.0**power for power in range(int(np.log10(max(top, 1))) + 1)]
    ticks = ticks[:: 1 + len(ticks) // 7]
    axes.set_yticks([STILL, *ticks], ["still", *(power_text(tick) for tick in ticks)])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(STILL, color=FAINT, lw=0.8, zorder=0)


def powers_axis(axes: Axes) -> None:
    """A logarithmic axis with short numbers."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_text(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def power_text(number: float) -> str:
    """A power of ten, short.

    Examples
    --------
    >>> power_text(10.0), power_text(10_000.0), power_text(1e7), power_text(1e-4)
    ('10', '10,000', '10⁷', '10⁻⁴')
    """
    if 0.01 <= number < 1e5 or not np.isclose(np.log10(max(number, 1e-300)) % 1, 0):
        return f"{number:,g}"
    return f"10{raised(round(np.log10(number)))}" if number > 0 else "0"


def raised(exponent: int) -> str:
    """A whole number as an exponent."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def rug(axes: Axes, steps: npt.NDArray[Any]) -> Line2D:
    """A tick at the foot of the panel for each of these steps with motion: however few tokens move, it is seen.

    Of more than 4,000 steps those are left out whose tick would fall upon another one: the axis must have its limits.
    """
    if len(steps) > TICKS:
        low, high = axes.xaxis.get_transform().transform(np.array(axes.get_xlim()))
        at = axes.xaxis.get_transform().transform(np.asarray(steps, float))
        steps = steps[np.unique(((at - low) * (TICKS / 2 / (high - low))).astype(int), return_index=True)[1]]
    x = np.repeat(np.asarray(steps, float), 3)
    y = np.tile([*RUG, np.nan], len(steps))
    (line,) = axes.plot(
        x, y, "-", lw=0.6, color=INK, gid="rug", label="steps with motion", transform=axes.get_xaxis_transform(),
        solid_capstyle="butt",
    )  # fmt: skip
    return line


def infinities(axes: Axes, steps: npt.NDArray[Any], *, label: str | None = None) -> None:
    """A triangle at the top of a panel for each of these steps, if there are any: no axis can hold them."""
    if len(steps):
        top = np.full(len(steps), 0.97)
        axes.plot(
            steps, top, "^", ms=4.5, color=ALARM, transform=axes.get_xaxis_transform(), gid="infinite", label=label
        )


def mark_last_motion(axes: Axes, last: int, until: int, *, words: bool = True) -> None:
    """Shade the time since the last motion, if there is any, and name its step above the panel."""
    if last < 0 or until <= last:
        return
    axes.axvspan(last, until, color=FROZEN, alpha=0.14, lw=0)
    axes.axvline(last, color=SOFT, lw=1.0, ls=(0, (4, 2)), gid="last-motion")
    if words and not style.is_narrow(axes):
        style.above(axes, f"last motion: step {last:,}", loc="right", fontsize=style.SMALL_SIZE, color=SOFT)


def mark_divergence(axes: Axes, told: xr.Dataset) -> None:
    """Say above everything else at which step weights became NaN or infinite, and tint what comes after it."""
    first = int(told["first_nonfinite"]) if "first_nonfinite" in told else -1
    if first < 0:
        return
    last = ends(told)[1]
    axes.axvspan(first, max(last, first + 0.5), color=ALARM, alpha=0.08, lw=0)
    axes.axvline(first, color=ALARM, lw=1.2)
    words = f"Diverged at step {first:,}: weights are NaN or infinite, which counts as still"
    style.above(axes, "", loc="right")
    style.above(axes, words, color=ALARM)


def within(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values with NaN for infinities, which no axis can hold."""
    return np.where(np.isfinite(values), values, np.nan)


def drawn(*curves: npt.NDArray[Any], pixels: int = PIXELS) -> npt.NDArray[np.intp]:
    """The positions at which curves are drawn: of each pixel's steps the first and all that hold an extreme.

    So every maximum and minimum that a pixel could show is in the picture, whatever the number of steps. Where curves
    stay as they are, the ends of the stretch are enough.

    Parameters
    ----------
    *curves : array, shape (step,)
        NaN and infinities are no extremes.
    pixels : int
        Of so many groups of neighbouring steps.

    Examples
    --------
    >>> curve = np.zeros(5000)
    >>> curve[4321] = 1  # the only event
    >>> chosen = drawn(curve)
    >>> chosen.tolist()
    [0, 4320, 4321, 4324, 4999]
    """
    chosen = _extremes(curves, pixels)
    same = np.ones(len(chosen), bool)
    for curve in curves:
        values = curve[chosen]
        differs = (values[1:] != values[:-1]) & ~(np.isnan(values[1:]) & np.isnan(values[:-1]))
        same &= ~np.append(False, differs) & ~np.append(differs, False)
    same[[0, -1][: len(same)]] = False
    return chosen[~same]


def drawn_with_gaps(*curves: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The positions at which curves are drawn, with the ends of what is not known of the first: a gap stays a gap.

    Examples
    --------
    >>> curve = np.ones(5000)
    >>> curve[4321] = np.nan
    >>> drawn_with_gaps(curve).tolist()
    [0, 4320, 4321, 4322, 4999]
    """
    chosen = drawn(*curves)
    if len(chosen) == len(curves[0]):
        return chosen
    edges = np.flatnonzero(np.diff(np.isnan(curves[0]), prepend=True))
    return np.union1d(chosen, np.union1d(edges, np.maximum(edges - 1, 0)))


def _extremes(curves: tuple[npt.NDArray[Any], ...], pixels: int) -> npt.NDArray[np.intp]:
    steps = len(curves[0])
    width = -(-steps // pixels)
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


def quantile_words(q: float) -> str:
    """Of which quantile a line is.

    Examples
    --------
    >>> quantile_words(0.5), quantile_words(0.05)
    ('median', '5 %')
    """
    return "median" if q == 0.5 else f"{100 * q:g} %"


def quantiles_in(told: xr.Dataset, picture: str) -> npt.NDArray[Any]:
    """The quantiles of an answer; a ValueError where it has none."""
    q = told["q"].values
    if not len(q):
        raise ValueError(f"plots.{picture} needs an answer with at least one quantile; this has none: ask with "
                         "quantiles=[0.05, 0.5, 0.95]")  # fmt: skip
    return q


def band_words(q: npt.NDArray[Any]) -> str:
    """Between which quantiles a band is.

    Examples
    --------
    >>> band_words(np.array([0.05, 0.5, 0.95]))
    '5-95 % of tokens'
    """
    return f"{100 * q[0]:g}-{100 * q[-1]:g} % of tokens"


def move_words(told: xr.Dataset) -> str:
    """What lies between the two states of a move.

    Examples
    --------
    >>> move_words(xr.Dataset(attrs={"resolution_steps": 1})), move_words(xr.Dataset(attrs={"resolution_steps": 500}))
    ('a step', 'from one recorded step to the next')
    """
    return "a step" if told.attrs.get("resolution_steps", 1) == 1 else "from one recorded step to the next"


def with_gaps(told: xr.Dataset, *names: str) -> xr.Dataset:
    """The variables with a NaN behind each step that the next does not follow at once, so that no line leads across."""
    steps = told["step"].values
    behind = steps[:-1][np.diff(steps) > 1] + 1
    return told[list(names)].reindex(step=np.union1d(steps, behind)).assign(told.drop_dims("step").data_vars)


def line(axes: Axes, told: xr.Dataset, name: str, *, log: bool = False, **how: Any) -> None:  # noqa: ANN401
    """A variable of an answer over its steps, infinities as triangles; `log`: without zeros, on a logarithmic axis.

    Where steps with a value stand alone, a dot shows them.
    """
    steps, values = told["step"].values, told[name].values
    infinities(axes, steps[np.isinf(values)])
    if log:
        values = np.where(values > 0, values, np.nan)
        if np.isfinite(values).any():
            powers_axis(axes)
    lonely_line(axes, steps, within(values), **how)


def lonely_line(axes: Axes, steps: npt.NDArray[Any], values: npt.NDArray[Any], **how: Any) -> None:  # noqa: ANN401
    """A line, broken where values are NaN; a value without neighbours is a dot, or a `mark` of its own."""
    chosen = drawn_with_gaps(values)
    known = np.isfinite(values)
    edges = np.concatenate([[False], known, [False]])
    alone = known & ~edges[:-2] & ~edges[2:]
    gid, mark = how.pop("gid", None), how.pop("mark", None)
    (made,) = axes.plot(steps[chosen], values[chosen], lw=how.pop("lw", 1.1), gid=gid, **how)
    if mark:
        made.set(marker=mark, ms=3.2, mew=0, markevery=[])  # for the legend
    if alone.any():
        many, size = bool(alone.sum() > MANY), 2.6 if mark else 3.2
        dots: dict[str, Any] = {"ms": size, "mew": 0 if mark else None, "color": made.get_color(), "rasterized": many}
        axes.plot(steps[alone], values[alone], mark or ".", gid="alone", **dots)

"""Pictures of answers: one function each, a Dataset in, a matplotlib Figure out.

Nothing is shown, saved or remembered: pyplot and its global state are not touched, so pictures can be made on machines
without a screen and in threads. `save` writes one; a notebook shows what a cell ends with.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from os import PathLike
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
_STILL = 0.25
"""Where a displacement of 0 is drawn on the logarithmic axis: below 0.5, the smallest there is."""


def cooling(result: xr.Dataset) -> Figure:
    """The cooling curve: the displacement of tokens on a logarithmic axis, below it the fraction that still moves.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.cooling`, or a trajectory, which is then asked. It is computed if it is lazy.

    Returns
    -------
    matplotlib.figure.Figure
        The verdict on the end state is its title. Displacements of 0 are drawn on a line of their own, "still"; what is
        infinite lies above the picture.

    Examples
    --------
    >>> from analysis import simulate
    >>> cooling(simulate.with_last_motion([3, 5, 9], total_steps=20)).axes[1].get_xlabel()
    'step'
    """
    if "displacement" not in result.data_vars or "quantile" not in result.dims:
        from analysis.cooling import cooling as ask

        result = ask(result)
    told = result.load()
    figure, (above, below) = _panels(2, heights=(3, 1.2))
    steps = told["step"].values[1:]
    curves = np.maximum(told["displacement"].values[1:], _STILL)
    lowest, highest = told["quantile"].values[[0, -1]]
    middle = told["quantile"].values[curves.shape[1] // 2]
    thin = _thin(steps)
    band = f"{100 * lowest:g}-{100 * highest:g} % of tokens"
    above.fill_between(steps[thin], *_within(curves[thin][:, [0, -1]]).T, color=BLUE, alpha=0.22, lw=0, label=band)
    name = "median" if middle == 0.5 else f"{100 * middle:g} %"
    above.plot(steps, _within(curves[:, curves.shape[1] // 2]), color=BLUE, lw=1.2, label=name)
    _cells_axis(above, curves)
    below.fill_between(steps[thin], told["moving"].values[1:][thin], color=GREEN, alpha=0.35, lw=0)
    below.set(ylabel="moving", ylim=(0, 1.02), xlabel="step")
    below.yaxis.set_major_formatter("{x:.0%}")
    _mark_end(told, (above, below))
    above.legend(frameon=False, loc="upper right", fontsize=9)
    above.set_title(_verdict(told), loc="left", fontsize=11)
    return figure


def survival(result: xr.Dataset) -> Figure:
    """The fraction of tokens that still move after each step; of `analysis.freeze_times`."""
    told = result.load()
    figure, (axes,) = _panels(1)
    axes.fill_between(told["step"], told["survival"], color=BLUE, alpha=0.2, lw=0, step="post")
    axes.step(told["step"], told["survival"], color=BLUE, lw=1.4, where="post", label="survival")
    for name, colour in (("earliest", GREEN), ("median", ORANGE), ("latest", RED)):
        if int(told[name]) >= 0:
            axes.axvline(int(told[name]), color=colour, lw=1.1, ls="--", label=f"{name}: step {int(told[name]):,}")
    axes.set(xlabel="step", ylabel="tokens that still move later", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("Survival", loc="left", fontsize=11)
    return figure


def stillness(result: xr.Dataset) -> Figure:
    """Every stillness run by its start and length; of `analysis.stillness`."""
    told = result.load()
    figure, (axes,) = _panels(1)
    lengths = told["run_length"].values
    at = np.flatnonzero(lengths)
    last = int(told["step"][-1])
    starts, final = told["step"].values[at], told["step"].values[at] + lengths[at] > last
    for chosen, colour, name in ((~final, BLUE, "ended"), (final, RED, "goes on at the last step")):
        if chosen.any():
            axes.vlines(starts[chosen], 0.8, lengths[at][chosen], color=colour, lw=1.0, alpha=0.5)
            axes.plot(starts[chosen], lengths[at][chosen], "o", ms=4, color=colour, label=name)
            axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.set(xlabel="first step of the run", ylabel="length in steps", yscale="log", ylim=(0.8, None))
    axes.set_xlim(int(told["step"][0]) - 0.5, last + 0.5)
    axes.set_title(f"{len(at):,} stillness runs", loc="left", fontsize=11)
    return figure


def lifecycle(result: xr.Dataset) -> Figure:
    """For each phase the fraction of tokens that are not through with it; of `analysis.lifecycle`."""
    told = result.load()
    figure, (axes,) = _panels(1)
    for index, phase in enumerate(told["phase"].values):
        ends = np.sort(told["exit"].sel(phase=phase).values)
        left = 1 - np.arange(1, len(ends) + 1) / max(1, len(ends))
        colour = (RED, ORANGE, BLUE, GREEN, GREY)[index % 5]
        axes.step(np.append(0, ends), np.append(1, left), where="post", color=colour, lw=1.5, label=str(phase))
        middle = int(told["median_exit"].sel(phase=phase))
        if middle >= 0:
            axes.plot([middle], [0.5], "o", color=colour, ms=5)
            axes.annotate(f"{middle:,}", (middle, 0.5), (6, 4), textcoords="offset points", color=colour, fontsize=9)
    axes.set(xlabel="step of the last exit", ylabel="tokens still in the phase", ylim=(0, 1.02), xlim=(0, None))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(frameon=False, fontsize=9)
    so_far = ", so far" if told.attrs.get("so_far") else ""
    axes.set_title(f"Life cycle{so_far}", loc="left", fontsize=11)
    return figure


def census(result: xr.Dataset) -> Figure:
    """The kinds of moves at every step, as fractions of all tokens; of `analysis.census`."""
    told = result.load()
    figure, (axes,) = _panels(1)
    counts = told["tokens"].transpose("kind", "step").values[:, 1:]
    steps = told["step"].values[1:]
    thin = _thin(steps)
    share = counts[:, thin] / np.maximum(1, counts[:, thin].sum(axis=0))
    names = [
        f"{kind}: {_percent(float(whole))}" for kind, whole in zip(told["kind"].values, told["fraction"], strict=True)
    ]
    axes.stackplot(steps[thin], share, colors=_colours(len(names)), labels=names, lw=0)
    axes.set(xlabel="step", ylabel="tokens", ylim=(0, 1))
    axes.margins(x=0)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, loc="center right", reverse=True)
    axes.set_title("Census of moves", loc="left", fontsize=11)
    return figure


def drift(result: xr.Dataset) -> Figure:
    """The centroid's speed, its way, and whether it keeps its direction; of `analysis.drift`."""
    told = result.load()
    figure, (speed, way, turn) = _panels(3)
    _line(speed, told, "speed", BLUE, log=True)
    speed.set(ylabel="speed")
    _line(way, told, "path", GREY, label="path")
    _line(way, told, "displacement", ORANGE, label="displacement")
    way.set(ylabel="from the start")
    way.legend(frameon=False, fontsize=9)
    _dots(turn, told, "autocorrelation", GREEN)
    turn.set(ylabel="cos(v[t], v[t-1])", ylim=(-1.05, 1.05), xlabel="step")
    efficiency = float(told["efficiency"])
    said = "" if np.isnan(efficiency) else f": {_percent(efficiency)} of the path leads away"
    speed.set_title(f"Drift of the centroid{said}", loc="left", fontsize=11)
    return figure


def cloud(result: xr.Dataset) -> Figure:
    """Radius, bulk and thermal motion, and coherence of the cloud; of `analysis.cloud`."""
    told = result.load()
    figure, (radius, motion, together) = _panels(3)
    for name, colour in (("radius_max", GREY), ("radius_rms", ORANGE), ("radius_mean", BLUE)):
        _line(radius, told, name, colour, label=name.removeprefix("radius_"))
    radius.set(ylabel="radius")
    radius.legend(frameon=False, fontsize=9, ncols=3)
    for name, colour in (("thermal_motion", RED), ("bulk_motion", BLUE)):
        _line(motion, told, name, colour, log=True, label=name.removesuffix("_motion"))
    motion.set(ylabel="motion")
    motion.legend(frameon=False, fontsize=9, ncols=2)
    _dots(together, told, "coherence", GREEN)
    together.set(ylabel="coherence", ylim=(-1.05, 1.05), xlabel="step")
    radius.set_title("The cloud of tokens", loc="left", fontsize=11)
    return figure


def save(figure: Figure, path: str | PathLike[str], *, dpi: int = 150) -> None:
    """Write a picture; the ending of the path (.png, .svg, .pdf) decides how."""
    figure.savefig(path, dpi=dpi)


def _panels(count: int, *, heights: Sequence[float] | None = None) -> tuple[Figure, Sequence[Axes]]:
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


def _line(axes: Axes, told: xr.Dataset, name: str, colour: str, *, log: bool = False, label: str | None = None) -> None:
    values = told[name].values
    if log:
        values = np.where(values > 0, values, np.nan)
        if np.isfinite(values).any():
            axes.set_yscale("log")
    axes.plot(told["step"].values, _within(values), ".-", ms=1.2, color=colour, lw=1.0, label=label)


def _dots(axes: Axes, told: xr.Dataset, name: str, colour: str) -> None:
    axes.axhline(0, color=GREY, lw=0.8)
    axes.plot(told["step"].values, told[name].values, ".", ms=2, color=colour)


def _cells_axis(axes: Axes, curves: npt.NDArray[Any]) -> None:
    """A logarithmic axis of cells with "still" at its foot."""
    axes.set(yscale="log", ylabel="|ΔW′| in lattice cells")
    top = float(_within(curves).max(initial=1.0, where=~np.isnan(_within(curves))))
    axes.set_ylim(_STILL / 1.25, max(2.0, 1.6 * top))
    ticks = [10.0**power for power in range(int(np.log10(max(top, 1))) + 1)]
    axes.set_yticks([_STILL, *ticks], ["still", *(f"{tick:,.0f}" if tick < 1e6 else f"{tick:.0e}" for tick in ticks)])
    axes.axhline(_STILL, color=GREY, lw=0.6, ls=":")


def _mark_end(told: xr.Dataset, panels: Sequence[Axes]) -> None:
    last = int(told["last_motion"])
    if last < 0 or not int(told["gap"]):
        return
    for panel in panels:
        panel.axvspan(last, int(told["step"][-1]), color=GREY, alpha=0.10, lw=0)
        panel.axvline(last, color=RED, lw=1.0, ls="--")
    late = last > 0.6 * int(told["step"][-1])
    panels[1].annotate(
        f"last motion: step {last:,}",
        (last, 0.75),
        (-6 if late else 6, 0),
        textcoords="offset points",
        color=RED,
        fontsize=9,
        ha="right" if late else "left",
        va="center",
    )


def _verdict(told: xr.Dataset) -> str:
    step, p = int(told.attrs["last_step"]), float(told["p"])
    if bool(told["frozen"]):
        return f"Frozen at step {step:,}: p = {p:.2g} for such a silence if motion went on, fading like 1/t"
    if np.isnan(p):
        return f"No verdict at step {step:,}: too few episodes of motion"
    later = int(told["frozen_from"])
    return f"Not frozen at step {step:,} (p = {p:.2g})" + (f"; at {later:,} if nothing moves" if later > step else "")


def _within(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without infinities, which no axis can hold."""
    return np.where(np.isfinite(values), values, np.nan)


def _thin(steps: npt.NDArray[Any]) -> slice:
    return slice(None, None, max(1, -(-len(steps) // MOST_POINTS)))


def _colours(count: int) -> list[str]:
    """The last kind is "none" and pale; unknown tables repeat the others."""
    return [*(KIND_COLOURS[index % 5] for index in range(count - 1)), KIND_COLOURS[-1]]


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else "< 0.01%" if share else "0%"

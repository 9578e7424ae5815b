"""Pictures of answers: one function each, a Dataset in, a matplotlib Figure out.

Nothing is shown, saved or remembered: pyplot and its global state are not touched, so pictures can be made on machines
without a screen and in threads. `save` writes one; a notebook shows what a cell ends with.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analysis import panels
from analysis.panels import BLUE, GREEN, GREY, ORANGE, RED
from analysis.push_plots import headroom, push, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "census", "cloud", "cooling", "drift", "headroom", "lifecycle", "push", "save", "stillness", "survival", "verdicts",
]  # fmt: skip

TAKES = {
    "cooling": ("cooling(ds), or a trajectory", ("displacement", "q", "largest", "moving", "gap")),
    "survival": ("freeze_times(ds)", ("survival", "earliest", "median_freeze", "latest")),
    "stillness": ("stillness(ds)", ("run_length",)),
    "lifecycle": ("lifecycle(ds)", ("exit", "median_exit", "phase")),
    "census": ("census(ds)", ("tokens", "fraction", "kind")),
    "drift": ("drift(ds)", ("speed", "path", "displacement", "autocorrelation", "efficiency")),
    "cloud": ("cloud(ds)", ("radius_max", "thermal_motion", "bulk_motion", "coherence")),
}
"""Whose answer each picture takes, and the variables by which it is known."""
ASKED = {"W", "delta_W_prime", "displacement_l2"}
"""A Dataset with one of these is a trajectory, of which the cooling curve can be asked."""


def cooling(result: xr.Dataset) -> Figure:
    """The cooling curve: the displacement of tokens on a logarithmic axis, below it the fraction that still moves.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.cooling`, or a trajectory, which is then asked. A lazy answer is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        The verdict on the end state is its title. The line is the middle quantile, the band reaches from the first to
        the last, and a dot is the largest displacement of a step with motion. Displacements of 0 are drawn on a line of
        their own, "still"; triangles at the top are infinite ones. At the foot a tick marks each step at which
        anything moved. Of more than 2,000 steps the band and the fraction are drawn at the extremes of each pixel.

    Raises
    ------
    ValueError
        For any other Dataset, or an answer without quantiles.

    Examples
    --------
    >>> from analysis import simulate
    >>> cooling(simulate.with_last_motion([3, 5, 9], total_steps=20)).axes[1].get_xlabel()
    'step'
    """
    there = set(getattr(result, "variables", ()))
    if there & ASKED and not {"displacement", "q"} <= there:
        from analysis.questions.cooling import cooling as ask

        result = ask(result)
    told = _answer(result, "cooling")
    if not told.sizes["q"]:
        raise ValueError(
            "plots.cooling needs an answer with at least one quantile, as by analysis.cooling(ds); this has none"
        )
    figure, (above, below) = panels.stack(2, heights=(3, 1.2))
    panels.displacements(above, told)
    ticks = panels.moving(below, told)
    panels.mark_end(told, (above, below))
    handles = [*above.get_legend_handles_labels()[0], ticks]
    above.legend(handles=handles, frameon=False, loc="upper right", fontsize=9)
    above.set_title(panels.verdict(told), loc="left", fontsize=11)
    return panels.mark_divergence(figure, told)


def survival(result: xr.Dataset) -> Figure:
    """The fraction of tokens that still move after each step.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.freeze_times`, else a ValueError. If it is lazy, it is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        Dashed lines mark the earliest, median and latest last motion. One that does not exist (-1) has no line; without
        tokens (NaN) there is no curve.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_last_motion([-1, 3, 5], total_steps=6)  # the first token never moved
    >>> [line.get_label() for line in survival(analysis.freeze_times(ds)).axes[0].lines]
    ['survival', 'median: step 3', 'latest: step 5']
    """
    told = _answer(result, "survival")
    figure, (axes,) = panels.stack(1)
    axes.fill_between(told["step"], told["survival"], color=BLUE, alpha=0.2, lw=0, step="post")
    axes.step(told["step"], told["survival"], color=BLUE, lw=1.4, where="post", label="survival")
    for name, colour in (("earliest", GREEN), ("median_freeze", ORANGE), ("latest", RED)):
        step, label = int(told[name]), name.removesuffix("_freeze")
        if step >= 0:
            axes.axvline(step, color=colour, lw=1.1, ls="--", label=f"{label}: step {step:,}")
    axes.set(xlabel="step", ylabel="tokens that still move later", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("Survival", loc="left", fontsize=11)
    return panels.mark_divergence(figure, told)


def stillness(result: xr.Dataset) -> Figure:
    """Every stillness run by its start and length.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.stillness`, else a ValueError. If it is lazy, it is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        The length axis is logarithmic. A run that goes on at the last step is red. Without runs the panel is empty.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_moving_steps([1, 4, 5], total_steps=9)
    >>> stillness(analysis.stillness(ds)).axes[0].get_title(loc="left")
    '2 stillness runs'
    """
    told = _answer(result, "stillness")
    figure, (axes,) = panels.stack(1)
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
    return panels.mark_divergence(figure, told)


def lifecycle(result: xr.Dataset) -> Figure:
    """For each phase the fraction of tokens that have not left it yet.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.lifecycle`, else a ValueError. If it is lazy, it is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        A dot marks the median exit, if there is one. A token that never was in a phase (-1) is through with it from the
        start. Without tokens there are no curves. The title says "so far" while the run goes on.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_phases([(1, 3, 4), (2, 2, 6)], total_steps=8)
    >>> [text.get_text() for text in lifecycle(analysis.lifecycle(ds)).axes[0].texts]  # the median exits
    ['1', '2', '4']
    """
    told = _answer(result, "lifecycle")
    figure, (axes,) = panels.stack(1)
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
    return panels.mark_divergence(figure, told)


def census(result: xr.Dataset) -> Figure:
    """The kinds of moves at every step, as fractions of all tokens.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.census`, else a ValueError. If it is lazy, it is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        The legend has the fraction of all moves. The first state is no move and left out; without moves (NaN) the panel
        is empty. At the foot a tick marks each step with a move of a kind that has a name. Of more than 2,000 steps
        those are drawn that hold the extremes of each pixel.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.census(analysis.simulate.trajectory([[[9, 0], [1, 1], [1, 0], [0, 0]]]))
    >>> [text.get_text() for text in census(told).axes[0].get_legend().get_texts()][:3]
    ['none: 25.00%', 'less than a cell: 0%', 'face: 25.00%']
    """
    told = _answer(result, "census")
    figure, (axes,) = panels.stack(1)
    counts = told["tokens"].transpose("kind", "step").values[:, 1:]
    steps = told["step"].values[1:]
    share = counts / np.maximum(1, counts.sum(axis=0))
    chosen = panels.drawn(*np.cumsum(share, axis=0)[:-1])
    wholes = zip(told["kind"].values, told["fraction"].values, strict=True)
    names = [str(kind) if np.isnan(whole) else f"{kind}: {panels.percent(whole)}" for kind, whole in wholes]
    axes.stackplot(steps[chosen], share[:, chosen], colors=panels.colours(len(names)), labels=names, lw=0)
    kinds = axes.get_legend_handles_labels()[0]
    ticks = panels.fractions_axis(axes, steps[counts[:-1].any(axis=0)], "tokens")
    axes.set_xlabel("step")
    axes.margins(x=0)
    legend = axes.legend(handles=[ticks, *kinds], reverse=True, framealpha=0.9, fontsize=9, loc="center right")
    legend.get_frame().set_edgecolor("none")
    axes.set_title("Census of moves", loc="left", fontsize=11)
    return panels.mark_divergence(figure, told)


def drift(result: xr.Dataset) -> Figure:
    """The centroid's speed, path, and whether it keeps its direction.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.drift`, else a ValueError. If it is lazy, it is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        What is NaN is left out, triangles at the top are infinite, and speeds of 0 are left out too: the speed axis is
        logarithmic, if there is any speed. The title gives the efficiency, unless that is NaN.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.drift(analysis.simulate.with_motion([[1, 0], [1, 0]]))  # there and back
    >>> drift(told).axes[0].get_title(loc="left")
    'Drift of the centroid: 0% of the path leads away'
    """
    told = _answer(result, "drift")
    figure, (speed, way, turn) = panels.stack(3)
    panels.line(speed, told, "speed", BLUE, log=True)
    speed.set(ylabel="speed")
    panels.line(way, told, "path", GREY, label="path")
    panels.line(way, told, "displacement", ORANGE, label="displacement")
    way.set(ylabel="from the start")
    way.legend(frameon=False, fontsize=9)
    panels.dots(turn, told, "autocorrelation", GREEN)
    turn.set(ylabel="cos(v[t], v[t-1])", ylim=(-1.05, 1.05), xlabel="step")
    efficiency = float(told["efficiency"])
    said = "" if np.isnan(efficiency) else f": {panels.percent(efficiency)} of the path leads away"
    speed.set_title(f"Drift of the centroid{said}", loc="left", fontsize=11)
    return panels.mark_divergence(figure, told)


def cloud(result: xr.Dataset) -> Figure:
    """Radius, bulk and thermal motion, and coherence of the cloud.

    Parameters
    ----------
    result : xarray.Dataset
        Of `analysis.cloud`, else a ValueError. If it is lazy, it is computed, in place.

    Returns
    -------
    matplotlib.figure.Figure
        What is NaN is left out, triangles at the top are infinite, and motions of 0 are left out too: their axis is
        logarithmic, if there are any.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.cloud(analysis.simulate.with_motion([[1, 1], [1, 0]]))
    >>> [axes.get_ylabel() for axes in cloud(told).axes]
    ['radius', 'motion', 'coherence']
    """
    told = _answer(result, "cloud")
    figure, (radius, motion, together) = panels.stack(3)
    for name, colour in (("radius_max", GREY), ("radius_rms", ORANGE), ("radius_mean", BLUE)):
        panels.line(radius, told, name, colour, label=name.removeprefix("radius_"))
    radius.set(ylabel="radius")
    radius.legend(frameon=False, fontsize=9, ncols=3)
    for name, colour in (("thermal_motion", RED), ("bulk_motion", BLUE)):
        panels.line(motion, told, name, colour, log=True, label=name.removesuffix("_motion"))
    motion.set(ylabel="motion")
    motion.legend(frameon=False, fontsize=9, ncols=2)
    panels.dots(together, told, "coherence", GREEN)
    together.set(ylabel="coherence", ylim=(-1.05, 1.05), xlabel="step")
    radius.set_title("The cloud of tokens", loc="left", fontsize=11)
    return panels.mark_divergence(figure, told)


def save(figure: Figure, path: str | PathLike[str], *, dpi: int = 150) -> None:
    """Write a picture; the ending of the path (.png, .svg, .pdf) decides how.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or path
        A file that is there is replaced. Without an ending, .png is added.
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
    >>> figure = cooling(analysis.simulate.with_last_motion([2], total_steps=3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(figure, pathlib.Path(folder) / "cooling.png", dpi=40)
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['cooling.png']
    """
    figure.savefig(path, dpi=dpi)


def _answer(result: xr.Dataset, picture: str) -> xr.Dataset:
    """The answer, computed, if it is one that the picture takes."""
    question, names = TAKES[picture]
    missing = [name for name in names if name not in getattr(result, "variables", ())]
    if missing:
        given = f"this {type(result).__name__} has no {missing[0]}"
        raise ValueError(f"plots.{picture} takes the answer of {question}; {given}")
    return result.load()

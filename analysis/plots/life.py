"""Life and its end: the phases, the loss, who still moves, when tokens froze."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analysis.plots import scales, style
from analysis.plots.style import BLUE, INK, RUST
from analysis.plots.told import answer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60
"""Bars of the histogram of freeze steps."""
SMOOTHED = 200
"""Groups of steps whose median loss is a point of the line."""


def lifecycle(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = True) -> Axes:
    """For each phase the fraction of tokens that have not left it yet.

    Parameters
    ----------
    result : Dataset
        Of `analysis.lifecycle`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.cooling`.

    Returns
    -------
    matplotlib.axes.Axes
        A mark stands at the median exit, which the legend names, if there is one; not at the last step, at which half
        of the tokens or more were still in the phase. A token that never was in a phase
        (-1) is through with it from the start. Without tokens there are no curves. The title says "so far" while the
        run goes on.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_phases([(1, 3, 4), (2, 2, 6)], total_steps=8)
    >>> [text.get_text() for text in lifecycle(analysis.lifecycle(ds)).get_legend().get_texts()]
    ['supernova, half by 1', 'cooling, half by 2', 'stumbling, half by 4']
    """
    told = answer_of(result, "lifecycle")
    axes = style.panel(ax)
    first, last = scales.ends(told)
    for index, phase in enumerate(map(str, told["phase"].values)):
        colour, dashes, mark = style.of_phase(phase, index)
        exits = np.sort(told["exit"].sel(phase=phase).values)
        left = 1 - np.arange(1, len(exits) + 1) / max(1, len(exits))
        at, share = np.append(first, exits), np.append(1, left)
        middle = int(told["median_exit"].sel(phase=phase))
        if len(exits):
            at, share = np.append(at, last), np.append(share, share[-1])
            half = f", half by {middle:,}" if 0 <= middle < last else ", half still in it" if middle == last else ""
            axes.step(at, share, where="post", color=colour, ls=dashes, lw=1.6, label=phase + half)
        if 0 <= middle < last:
            axes.plot([middle], [0.5], mark, color=colour, ms=5.5, gid="median")
    scales.fractions_axis(axes, "tokens still in the phase")
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    so_far = ", so far" if told.attrs.get("so_far") else ""
    style.title(axes, f"Life cycle{so_far}")
    scales.mark_divergence(axes, told)
    return axes


def loss(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = True) -> Axes:
    """The loss over the steps: pale as it was, and the median of neighbouring steps as a line.

    Parameters
    ----------
    result : Dataset
        A trajectory, or anything else with a loss along `step`, or along `step_loss` where it was recorded at some
        steps only.
    ax, log_steps
        As in `analysis.plots.cooling`.

    Returns
    -------
    matplotlib.axes.Axes
        What is NaN or infinite is left out. Without any finite loss the panel is empty.

    Examples
    --------
    >>> from analysis import simulate
    >>> loss(simulate.with_last_motion([3], total_steps=6)).get_ylabel()
    'loss'
    """
    if "loss" in getattr(result, "data_vars", ()):
        result = result[["loss"]]
        result = result.rename(step_loss="step") if "step_loss" in result.dims else result
    values = answer_of(result, "loss")
    axes = style.panel(ax, height=2.2)
    known = np.isfinite(values["loss"].values)
    steps, found = values["step"].values[known], values["loss"].values[known]
    if len(steps):
        chosen = scales.drawn(found)
        axes.plot(steps[chosen], found[chosen], color=RUST, lw=0.6, alpha=0.4, gid="every-step")
        groups = _groups(steps, log_steps)
        x = [float(np.median(steps[group])) for group in groups]
        axes.plot(x, [float(np.median(found[group])) for group in groups], color=RUST, lw=1.5)
    axes.set_ylabel("loss")
    scales.steps_axis(axes, values, log=log_steps)
    style.title(axes, "Loss")
    return axes


def _groups(steps: np.ndarray, log_steps: bool) -> list[np.ndarray]:
    """Positions of neighbouring steps, evenly many, or evenly wide on a logarithmic axis."""
    if not log_steps:
        return np.array_split(np.arange(len(steps)), min(SMOOTHED, len(steps)))
    marks = np.geomspace(max(1, steps[0]), max(2, steps[-1] + 1), SMOOTHED)
    cuts = np.unique(np.searchsorted(steps, marks[1:-1]))
    return [group for group in np.split(np.arange(len(steps)), cuts) if len(group)]


def survival(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """The fraction of tokens that still move after each step.

    Parameters
    ----------
    result : Dataset
        Of `analysis.freeze_times`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.cooling`, but the steps are even by default.

    Returns
    -------
    matplotlib.axes.Axes
        Lines mark the earliest, median and latest last motion, each with dashes of its own. One that does
        not exist (-1) has no line; without tokens (NaN) there is no curve.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_last_motion([-1, 3, 5], total_steps=6)  # the first token never moved
    >>> [line.get_label() for line in survival(analysis.freeze_times(ds)).lines]
    ['survival', 'median: step 3', 'latest: step 5']
    """
    told = answer_of(result, "survival")
    axes = style.panel(ax)
    curve = told["survival"].values
    chosen = np.union1d(np.flatnonzero(np.diff(curve, prepend=2)), [len(curve) - 1])  # a step where it falls
    axes.fill_between(told["step"][chosen], curve[chosen], color=BLUE, alpha=0.16, lw=0, step="post")
    axes.step(told["step"][chosen], curve[chosen], color=BLUE, lw=1.5, where="post", label="survival")
    marks = {"earliest": (0, (1.2, 1.6)), "median_freeze": (0, (5, 2)), "latest": "-"}
    lines = []
    for name, dashes in marks.items():
        step, label = int(told[name]), name.removesuffix("_freeze")
        if step >= 0:
            lines.append(axes.axvline(step, color=INK, lw=1.0, ls=dashes, label=f"{label}: step {step:,}"))
    scales.fractions_axis(axes, "tokens that still move later")
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes, handles=lines)
    style.title(axes, "Survival")
    scales.mark_divergence(axes, told)
    return axes


def freeze_histogram(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """How many tokens moved for the last time at which steps.

    Parameters
    ----------
    result : Dataset
        Of `analysis.last_motion`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        60 bars of the same width on the axis; on an axis that shows a single token. Tokens that never moved are counted
        in the title alone.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_last_motion([-1, 3, 5], total_steps=6)
    >>> freeze_histogram(analysis.last_motion(ds)).get_title(loc="left")
    'Freeze steps of 2 tokens; 1 never moved'
    """
    told = answer_of(result, "freeze_histogram")
    axes = style.panel(ax)
    steps = told["last_motion"].values
    ever = steps[steps >= 0]
    scales.steps_axis(axes, told, log=log_steps)
    first, last = scales.ends(told)
    low, high = first + 0.5, max(last, first + 1) + 0.5
    edges = scales.evenly(axes, low, high, (BINS if log_steps else min(BINS, max(1, last - first))) + 1)
    counts, _ = np.histogram(ever, edges)
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.75, lw=0)
    scales.tokens_axis(axes, int(counts.max(initial=1)))
    axes.set_ylabel("tokens")
    scales.rug(axes, np.unique(ever))
    never = f"; {len(steps) - len(ever):,} never moved" if len(steps) > len(ever) else ""
    style.title(axes, f"Freeze steps of {len(ever):,} token{'' if len(ever) == 1 else 's'}{never}")
    scales.mark_divergence(axes, told)
    return axes

"""How the centroid of the tokens travels: drift, speed, autocorrelation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analysis.plots import scales, style
from analysis.plots.style import DOTS, FAINT, INK
from analysis.plots.told import answer_of
from analysis.told_numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHED = 80
"""Groups of steps whose mean cosine is a point of the line."""


def drift(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """The length of the centroid's path, and how far from its start it has come.

    Parameters
    ----------
    result : Dataset
        Of `analysis.drift`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        What is NaN is left out, triangles at the top are infinite. The title gives the efficiency, unless that is NaN.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.drift(analysis.simulate.with_motion([[1, 0], [1, 0]]))  # there and back
    >>> drift(told).get_title(loc="left")
    'Drift of the centroid: 0% of its path leads away'
    """
    told = answer_of(result, "drift")
    axes = style.panel(ax)
    scales.line(axes, told, "path", label="path", **style.series(1))
    scales.line(axes, told, "displacement", label="distance from the start", **style.series(0))
    axes.set_ylabel("in units of the weights")
    axes.set_ylim(bottom=0)
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    efficiency = float(told["efficiency"])
    said = "" if np.isnan(efficiency) else f": {percent(efficiency)} of its path leads away"
    style.title(axes, f"Drift of the centroid{said}")
    scales.mark_divergence(axes, told)
    return axes


def speed(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """The length of the centroid's move at each step.

    Parameters
    ----------
    result : Dataset
        Of `analysis.drift`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        Speeds of 0 are left out: the axis is logarithmic, if there is any speed. A dot is a move between two stills.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.drift(analysis.simulate.with_motion([[1, 0], [0, 0]]))
    >>> speed(told).get_title(loc="left")
    'Speed of the centroid, which stood still at 1 step'
    """
    told = answer_of(result, "speed")
    axes = style.panel(ax)
    scales.line(axes, told, "speed", log=True, **style.series(0))
    axes.set_ylabel(f"speed, {scales.move_words(told)}")
    scales.steps_axis(axes, told, log=log_steps)
    still = int(told["frozen_steps"])
    said = f", which stood still at {still:,} step{'' if still == 1 else 's'}" if still else ""
    style.title(axes, f"Speed of the centroid{said}")
    scales.mark_divergence(axes, told)
    return axes


def autocorrelation(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """Whether the centroid keeps its direction: the cosine between its move and the one before.

    Parameters
    ----------
    result : Dataset
        Of `analysis.drift`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        A dot for each step, and the mean of neighbouring steps as a line. The axis is that of the values, from a little
        below the least to a little above the largest. What is NaN is left out.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.drift(analysis.simulate.with_motion([[1, 0], [1, 0]]))  # there and back
    >>> autocorrelation(told).get_title(loc="left")
    'Autocorrelation of the centroid: -1.00 in the mean'
    """
    told = answer_of(result, "autocorrelation")
    axes = style.panel(ax)
    known = np.isfinite(told["autocorrelation"].values)
    steps, values = told["step"].values[known], told["autocorrelation"].values[known]
    axes.axhline(0, color=FAINT, lw=1.0)
    if len(values):
        axes.plot(steps, values, ".", ms=2.4, color=DOTS, alpha=0.7, mew=0, gid="each", rasterized=len(values) > 500)
        groups = np.array_split(np.arange(len(values)), min(SMOOTHED, len(values)))
        x, y = ([float(part[group].mean()) for group in groups] for part in (steps, values))
        axes.plot(x, y, color=INK, lw=1.3, gid="mean")
        low, high = float(values.min()), float(values.max())
        room = 0.06 * (high - low) or 0.05
        axes.set_ylim(max(-1.02, low - room), min(1.02, high + room))
    axes.set_ylabel("cosine with the move before")
    scales.steps_axis(axes, told, log=log_steps)
    mean = f": {values.mean():.2f} in the mean" if len(values) else ""
    style.title(axes, f"Autocorrelation of the centroid{mean}")
    scales.mark_divergence(axes, told)
    return axes

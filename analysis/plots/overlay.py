"""Several runs in one picture: a line for each with their mean and a band, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analysis.plots import scales, style
from analysis.plots.style import BLUE, INK
from analysis.plots.told import answer_of
from analysis.told_numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_OF_ALL = 1.3
"""Where a logarithmic axis of shares ends at most: a little above all."""
NAMED = 6
"""So many runs have a colour and a name each; of more all are alike."""


def overlay(
    curves: Mapping[str, xr.DataArray], *, words: str, ax: Axes | None = None, log_steps: bool = False,
    log: bool = False, fractions: bool = False,
) -> Axes:  # fmt: skip
    """A number of several runs over their steps: each run, the mean where they share steps, and the band about it.

    Parameters
    ----------
    curves : mapping from the name of a run to DataArray
        Each along `step`, labelled: a variable of an answer, such as ``analysis.freeze_times(ds).survival``.
    words : str
        What the axis shows.
    ax, log_steps
        As in `analysis.plots.cooling`, but the steps are even by default.
    log : bool
        A logarithmic axis of values; those that are 0 are left out. The mean is the geometric one then, at the steps at
        which no run is 0, and the band that of the logarithms.
    fractions : bool
        The values are fractions, shown as percent.

    Returns
    -------
    matplotlib.axes.Axes
        The black line is the mean over the runs at the steps that all of them have; the band reaches one standard
        deviation to either side. Of one run there is no band.

    Raises
    ------
    ValueError
        Without runs, or for an array without `step`.

    Examples
    --------
    >>> import analysis
    >>> runs = {name: analysis.simulate.with_last_motion([last], total_steps=6) for name, last in [("a", 3), ("b", 5)]}
    >>> axes = overlay({name: analysis.freeze_times(ds).survival for name, ds in runs.items()}, words="still move")
    >>> [line.get_label() for line in axes.lines]
    ['a', 'b', 'mean of 2 runs']
    """
    if not curves or any("step" not in curve.dims for curve in curves.values()):
        raise ValueError("plots.overlay takes at least one DataArray along 'step', by the name of its run")
    axes = style.panel(ax)
    known = {name: curve.load() for name, curve in curves.items()}
    if log:
        scales.powers_axis(axes)
    for index, (name, curve) in enumerate(known.items()):
        values = np.where(curve.values > 0, curve.values, np.nan) if log else curve.values.astype(float)
        few = len(known) <= NAMED
        how = style.series(index) if few else {"color": style.FROZEN, "linestyle": "-"}
        scales.lonely_line(
            axes, curve["step"].values, scales.within(values), label=name if few else None, lw=0.9, **how
        )
    _mean(axes, list(known.values()), log)
    axes.set_ylabel(words)
    if fractions:
        scales.fractions_axis(axes, words)
    first = min(int(curve["step"][0]) for curve in known.values())
    last = max(int(curve["step"][-1]) for curve in known.values())
    scales.steps_axis(axes, xr.Dataset(attrs={"first_step": first, "last_step": last}), log=log_steps)
    style.legend(axes)
    return axes


def _mean(axes: Axes, curves: list[xr.DataArray], log: bool) -> None:
    """The mean and the band, on the steps that all runs have; on a logarithmic axis those of the logarithms."""
    plain = [curve.reset_coords(drop=True) for curve in curves]
    aligned = np.array([curve.values.astype(float) for curve in xr.align(*plain, join="inner")])
    steps = xr.align(*plain, join="inner")[0]["step"].values
    if len(curves) < 2 or not len(steps):
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(np.where(aligned > 0, aligned, np.nan)) if log else aligned
        mean, width = scaled.mean(axis=0), scaled.std(axis=0)
        low, high = (np.exp(edge) if log else edge for edge in (mean - width, mean + width))
    chosen = scales.drawn_with_gaps(mean, low, high)
    axes.fill_between(steps[chosen], low[chosen], high[chosen], color=INK, alpha=0.13, lw=0, gid="band")
    label = f"{'geometric ' if log else ''}mean of {len(curves)} runs"
    scales.lonely_line(axes, steps, np.exp(mean) if log else mean, color=INK, lw=1.8, label=label)


def apart(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """The share of weights in which two runs differ at each step: how they part.

    Parameters
    ----------
    result : Dataset
        Of `analysis.apart`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.cooling`, but the steps are even by default.

    Returns
    -------
    matplotlib.axes.Axes
        On a logarithmic axis, since two runs that part in one weight differ in most of them soon after. Steps at which
        they are equal are left out; the title says where they part, and whether they meet again. Of two equal runs the
        panel is empty.

    Examples
    --------
    >>> import analysis
    >>> a, b = (analysis.simulate.with_last_motion([5, last], total_steps=12) for last in (9, 7))
    >>> apart(analysis.apart(a, b)).get_title(loc="left")
    'Apart at 1 of 13 compared steps, first at 8, in up to 12.50% of the weights'
    """
    from matplotlib.ticker import FuncFormatter

    told = answer_of(result, "apart")
    axes = style.panel(ax)
    scales.line(axes, told, "share", log=True, color=BLUE)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    axes.set_ylim(top=min(axes.get_ylim()[1], MOST_OF_ALL))
    axes.set_ylabel("weights that differ")
    scales.steps_axis(axes, told, log=log_steps)
    style.title(axes, _parting(told))
    return axes


def hops_apart(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """How many representable numbers lie between the weights in which two runs differ: the median and the largest.

    Parameters
    ----------
    result, ax, log_steps
        As in `apart`.

    Returns
    -------
    matplotlib.axes.Axes
        On a logarithmic axis. Steps at which the two are equal, and those at which -0 against 0 is all that differs,
        are left out.

    Examples
    --------
    >>> import analysis
    >>> a, b = (analysis.simulate.with_last_motion([5, last], total_steps=12) for last in (9, 7))
    >>> [text.get_text() for text in hops_apart(analysis.apart(a, b)).get_legend().get_texts()]
    ['median', 'the largest']
    """
    told = answer_of(result, "hops_apart")
    axes = style.panel(ax)
    for index, (name, label) in enumerate((("hops_median", "median"), ("hops_largest", "the largest"))):
        scales.line(axes, told, name, log=True, label=label, **style.series(index))
    axes.set_ylabel("hops apart")
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    style.title(axes, "Representable numbers between weights that differ")
    return axes


def _parting(told: xr.Dataset) -> str:
    """Where the two part, and how far they come."""
    share, steps = told["share"].values, told["step"].values
    at = np.flatnonzero(share)
    compared = f"{len(steps):,} compared step{'' if len(steps) == 1 else 's'}"
    if not len(at):
        return f"Equal at {compared}, {steps[0]:,} to {steps[-1]:,}"
    first, most = steps[at[0]], percent(float(share.max()))
    when = f"from step {first:,} on" if told.attrs.get("resolution_steps", 1) == 1 else f"by step {first:,}"
    if len(at) < len(steps) - at[0]:  # they met again
        when = f"at {len(at):,} of {compared}, first at {first:,}"
    return f"Apart {when}, in up to {most} of the weights"

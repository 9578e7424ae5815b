"""Silences: how long each was, and how unlikely the silence of each moment was."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analysis.episodes import RULE, Moments, Rule, moments, p_value
from analysis.judgements.sentences import p_text
from analysis.moves import sees_every_change
from analysis.plots import scales, style
from analysis.plots.style import ALARM, BLUE, INK, RUST
from analysis.plots.told import answer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def stillness(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = True) -> Axes:
    """Every stillness run by its start and length, both on logarithmic axes.

    Parameters
    ----------
    result : Dataset
        Of `analysis.stillness`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.cooling`. Silence is judged by its length in ln t, so the axis is logarithmic by default.

    Returns
    -------
    matplotlib.axes.Axes
        Each run is a line from its first step to its last, as high as it is long. Dots are runs that ended; the diamond
        is one that goes on at the last step. Without runs the panel is empty.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_moving_steps([1, 4, 5], total_steps=9)
    >>> stillness(analysis.stillness(ds)).get_title(loc="left")
    '2 stillness runs, the longest of 4 steps'
    """
    told = answer_of(result, "stillness")
    axes = style.panel(ax)
    lengths = told["run_length"].values
    at = np.flatnonzero(lengths)
    last = scales.ends(told)[1]
    starts, lengths = told["step"].values[at], lengths[at]
    final = starts + lengths > last
    looks: tuple[tuple[npt.NDArray[np.bool_], str, str, float, str], ...] = (
        (~final, BLUE, "o", 3.2, "ended"), (final, RUST, "D", 6, "goes on at the last step"),
    )  # fmt: skip
    for chosen, colour, mark, size, name in looks:
        if chosen.any():
            begin, long = starts[chosen], lengths[chosen]
            x = np.stack([begin, begin + long - 1, np.full(len(begin), np.nan)], axis=1).ravel()
            axes.plot(x, np.repeat(long, 3), color=colour, lw=1.4, alpha=0.7)
            many = len(begin) > scales.MANY
            axes.plot(begin, long, mark, ms=size, color=colour, label=name, lw=0, mew=0, rasterized=many)
    axes.set(ylabel="length of the silence, steps", yscale="log", ylim=(0.8, 2 * max(2, lengths.max(initial=1))))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    longest = f", the longest of {lengths.max():,} step{'' if lengths.max() == 1 else 's'}" if len(lengths) else ""
    style.title(axes, f"{len(lengths):,} stillness run{'' if len(lengths) == 1 else 's'}{longest}")
    scales.mark_divergence(axes, told)
    return axes


def p_over_time(
    result: xr.Dataset, *, rule: Rule | None = None, ax: Axes | None = None, log_steps: bool = True
) -> Axes:
    """What the verdict's p was at every step: how likely a silence as long as that of the moment was.

    Parameters
    ----------
    result : Dataset
        Of `analysis.stillness`, else a ValueError. If it is lazy, it is computed, in place.
    rule : Rule, optional
        The constants of the verdict; by default those of `analysis.end_state`, with the memory of the optimizer.
    ax, log_steps
        As in `stillness`.

    Returns
    -------
    matplotlib.axes.Axes
        At each step p is that of `analysis.end_state` of the run up to there; nothing is drawn while there is none, nor
        by a threshold that misses moves. The
        red line is the level at or below which a silence counts as the end. The last p is named.

    Examples
    --------
    >>> import analysis
    >>> ds = analysis.simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=400)
    >>> p_over_time(analysis.stillness(ds)).get_title(loc="left")
    'The silence of each moment: p = 0.53 at step 400'
    """
    told = answer_of(result, "p_over_time")
    rule = rule or replace(RULE, memory=int(told.attrs.get("memory", RULE.memory)))
    axes = style.panel(ax)
    steps, p = p_by_step(told, rule)
    known = np.isfinite(p)
    scales.lonely_line(axes, steps, p, color=BLUE, lw=1.2, gid="p")
    lowest = min(rule.level / 5, 0.5 * p[known].min(initial=1))
    axes.set(ylabel="p of the silence so far", yscale="log", ylim=(lowest, 1.6))
    axes.axhline(rule.level, color=ALARM, lw=1.1, ls=(0, (6, 2)))
    axes.annotate(
        f"counts as the end: p ≤ {rule.level:g}", (0.01, rule.level), (0, -4), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", va="top", color=ALARM, fontsize=style.SMALL_SIZE,
    )  # fmt: skip
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    now = f"p = {p_text(p[-1], rule)} at step {steps[-1]:,}" if len(p) and known[-1] else "none at the last step"
    if not _is_sure(told):
        now = f"no p, since a threshold of {told.attrs['threshold']:.7g} cells misses moves"
    if len(p) and known[-1]:
        axes.plot(steps[-1:], p[-1:], "D", ms=6, color=RUST, mew=0)
        style.note(axes, p_text(p[-1], rule), (float(steps[-1]), float(p[-1])), colour=INK, offset=(-8, 4), ha="right")
    scales.steps_axis(axes, told, log=log_steps)
    style.title(axes, f"The silence of each moment: {now}")
    scales.mark_divergence(axes, told)
    return axes


def p_by_step(told: xr.Dataset, rule: Rule = RULE) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The steps after the first, and p at each of them as of then; NaN where there is none."""
    first = int(told["step"][0])
    moved = told["any_motion"].values[1:]
    steps = told["step"].values[1:].astype(np.int64)
    moving = steps[moved]
    p = np.full(len(steps), np.nan)
    if len(moving) and _is_sure(told):
        known: Moments = moments(moving, first_step=first + 1, rule=rule)
        at = np.searchsorted(moving, steps, side="right") - 1
        after = at >= 0
        parts: dict[str, Any] = {part.name: getattr(known, part.name)[at[after]] for part in fields(Moments)}
        p[after] = p_value(Moments(**parts), steps[after], rule=rule)
    return steps, p


def _is_sure(told: xr.Dataset) -> bool:
    """Whether any change of a weight counted as motion."""
    return sees_every_change(float(told.attrs.get("threshold", 0)))

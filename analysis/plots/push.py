"""Pictures of the push: how near the optimizer came to moving a weight, and when the verdict could be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.plots import scales, style
from analysis.plots.style import ALARM, BLUE, DOTS, FROZEN, INK, RUST
from analysis.plots.told import answer_of, is_trajectory
from analysis.pushes.headroom import headroom as ask_headroom
from analysis.questions.history import verdicts as ask_verdicts
from analysis.questions.motion import last_motion as ask_last_motion
from analysis.questions.stillness import stillness as ask_stillness

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWEST, HIGHEST = 1e-6, 1e6
"""Half cells; what is below or above is drawn there."""


def push(
    result: xr.Dataset, silences: xr.Dataset | None = None, *, ax: Axes | None = None, log_steps: bool = True
) -> Axes:
    """The push over tokens at each step, and the line at 1 from which on a weight moves.

    Parameters
    ----------
    result : Dataset
        Of `analysis.headroom`, or a trajectory of which a push is known, which is then asked.
    silences : Dataset, optional
        Of `analysis.stillness`: then a tick marks each step with motion. Of a trajectory it is asked.
    ax, log_steps
        As in `analysis.plots.cooling`.

    Returns
    -------
    matplotlib.axes.Axes
        The thick line is the middle quantile over tokens, the band reaches from the first to the last (by default the
        median, and from 5 to 95 %), the thin line is the strongest push. What is not known (NaN) is left out;
        a step that is known between two such ones is a dot.
        What lies outside of a millionth to a million half cells is drawn at these, which then are named so on the
        axis; a triangle at the top is a push that is infinite.

    Raises
    ------
    ValueError
        Where no push is known of the run, with the reason; for any other Dataset, and an answer without quantiles.

    Examples
    --------
    >>> from analysis import simulate
    >>> push(simulate.with_pushes([[0.5, 0.25], [1.5, 0.25], [0.5, 0.1]])).get_ylabel()
    'push, half cells'
    """
    if is_trajectory(result) and "strongest" not in result.variables:
        result, silences = ask_headroom(result), ask_stillness(result)
    told = answer_of(result, "push")
    q = scales.quantiles_in(told, "push")
    band, middle = scales.band_words(q), len(q) // 2
    axes = style.panel(ax, height=3.4)
    steps = told["step"].values[1:]
    curves, strongest = _drawable(told["push"].values[1:]), _drawable(told["strongest"].values[1:])
    chosen = scales.drawn(curves[:, 0], curves[:, -1])
    axes.fill_between(steps[chosen], curves[chosen, 0], curves[chosen, -1], color=BLUE, alpha=0.2, lw=0, label=band)
    named = scales.quantile_words(float(q[middle]))
    lines = ((curves[:, middle], BLUE, 1.3, named), (strongest, RUST, 0.8, "the strongest"))
    for values, colour, width, label in lines:
        scales.lonely_line(axes, steps, values, color=colour, lw=width, label=label)
    axes.axhline(1, color=ALARM, lw=1.1, ls=(0, (6, 2)), label="from here on a weight moves")
    scales.infinities(axes, steps[np.isposinf(told["strongest"].values[1:])], label="infinite")
    _pushes_axis(axes, np.concatenate([told["push"].values[1:].ravel(), told["strongest"].values[1:]]))
    scales.steps_axis(axes, told, log=log_steps)
    if silences is not None:
        scales.rug(axes, silences["step"].values[silences["any_motion"].values])
    style.legend(axes)
    style.title(axes, f"Push: how near an update comes to moving a weight{_approximate(told)}")
    return axes


def learning_rate(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = True) -> Axes:
    """The learning rate at each step, which scales the push.

    Parameters
    ----------
    result : Dataset
        Of `analysis.headroom`, or another with a `learning_rate` along `step`.
    ax, log_steps
        As in `analysis.plots.cooling`.

    Returns
    -------
    matplotlib.axes.Axes
        What is NaN is left out.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.headroom(analysis.simulate.with_pushes([[0.5, 0.25], [1.5, 0.25]]))
    >>> learning_rate(told).get_ylabel()
    'learning rate'
    """
    told = answer_of(result, "learning_rate")
    axes = style.panel(ax, height=2.2)
    values = scales.within(told["learning_rate"].values)
    scales.lonely_line(axes, told["step"].values, values, color=BLUE)
    axes.set_ylabel("learning rate")
    axes.set_ylim(0, 1.15 * float(np.nanmax(values, initial=0)) or 1)
    scales.steps_axis(axes, told, log=log_steps)
    style.title(axes, "Learning rate")
    return axes


def verdicts(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = True) -> Axes:
    """P of the silence and E of the push on one logarithmic axis, with the moments at which a verdict could be told.

    Parameters
    ----------
    result : Dataset
        Of `analysis.verdicts`, or a trajectory, which is asked at some 200 of its steps.
    ax, log_steps
        As in `analysis.plots.stillness`.

    Returns
    -------
    matplotlib.axes.Axes
        Dashed lines are the levels that the verdict needs; what is far below them is drawn at the
        lowest tick. A vertical line marks the first step of those asked from which on the run is called frozen until
        the end, by both parts and by the silence alone: "by" that step, where none was asked just before it. Without a
        push there is no E.

    Raises
    ------
    ValueError
        As `analysis.verdicts`, and for any other Dataset.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=900, hidden=1)
    >>> verdicts(ds).get_yscale()
    'log'
    """
    if is_trajectory(result) and "asked" not in result.variables:
        result = ask_verdicts(result)
    told = answer_of(result, "verdicts")
    axes = style.panel(ax)
    steps, has_push = told["asked"].values, not told.attrs["no_push"]
    levels = {"p": told.attrs["level_with_push" if has_push else "level"], "E": told.attrs["most_expected"]}
    names = {"p": "p of the silence", "E": "E, moves expected by the push"}
    lowest = min(levels.values()) / 10
    for index, (name, words) in enumerate(names.items()):
        values = np.maximum(told[name].values, lowest)
        if np.isfinite(values).any():
            scales.lonely_line(axes, steps, values, lw=1.4, label=words, **style.series(index))
            axes.axhline(levels[name], color=style.series(index)["color"], lw=0.8, ls=(0, (6, 2)))
    marks = {"frozen": (INK, "-", "frozen"), "frozen_by_silence": (FROZEN, ":", "by the silence alone,")}
    for name, (colour, dashes, words) in marks.items():
        since = _since(told[name].values)
        if since is not None and (has_push or name == "frozen"):
            when = _when(steps, since, scales.ends(told)[0])
            axes.axvline(steps[since], color=colour, lw=1.3, ls=dashes, label=f"{words} {when}")
    axes.set(yscale="log", ylabel="p and E", ylim=(lowest / 1.5, None))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(
        lambda value, _: f"≤{scales.power_text(value)}" if np.isclose(value, lowest) else f"{value:g}"
    )
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    style.title(axes, f"When the end state could be told{'' if has_push else ', by the silence alone'}")
    scales.mark_divergence(axes, told)
    return axes


def headroom(result: xr.Dataset, last_motion: xr.Dataset | None = None, *, ax: Axes | None = None) -> Axes:
    """By which factor the learning rate could have been higher for each token, against its last motion.

    Parameters
    ----------
    result : Dataset
        Of `analysis.headroom`, or a trajectory of which a push is known, which is then asked.
    last_motion : Dataset, optional
        Of `analysis.last_motion`; of a trajectory it is asked. Without it tokens stand at their position.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        A dot is a token; those that never moved stand at the left edge, and those without any push (an infinite
        headroom) are triangles at the top. The line at 1 is where a weight moves.

    Raises
    ------
    ValueError
        Where no push is known of the run, with the reason; and for any other Dataset.

    Examples
    --------
    >>> from analysis import simulate
    >>> headroom(simulate.with_pushes([[0.5, 0.25], [1.5, 0.25], [0.5, 0.1]])).get_xlabel()
    'last motion, step'
    """
    if is_trajectory(result) and "headroom" not in result.variables:
        result, last_motion = ask_headroom(result), ask_last_motion(result)
    from matplotlib.ticker import LogLocator

    told = answer_of(result, "headroom")
    axes = style.panel(ax)
    room = told["headroom"].values
    at = np.arange(len(room)) if last_motion is None else last_motion["last_motion"].values
    if last_motion is not None:  # a token that never moved has no step: -1 may lie outside of the panel
        at = np.maximum(at, scales.ends(told)[0])
    finite = np.isfinite(room)
    many = bool(finite.sum() > scales.MANY)
    axes.plot(at[finite], room[finite], ".", ms=3.5, mew=0, color=DOTS, alpha=0.8, label="a token", rasterized=many)
    scales.infinities(axes, at[np.isposinf(room)], label="no push at all")
    axes.axhline(1, color=ALARM, lw=1.1, ls=(0, (6, 2)), label="below it something moves")
    scales.powers_axis(axes)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set_ylabel("headroom of the learning rate")
    if last_motion is not None:
        scales.steps_axis(axes, told, log=False)
    axes.set_xlabel("token, by position" if last_motion is None else "last motion, step")
    style.legend(axes)
    style.title(axes, f"Headroom of each token{_approximate(told)}")
    return axes


def _pushes_axis(axes: Axes, values: NDArray[Any]) -> None:
    """A logarithmic axis of pushes, whose ends say so where something is drawn at them that lies beyond."""
    scales.powers_axis(axes)
    axes.set_ylabel("push, half cells")
    signs = {LOWEST: "≤" if (values < LOWEST).any() else "", HIGHEST: "≥" if (values > HIGHEST).any() else ""}

    def text(value: float, _: object) -> str:
        sign = next((sign for end, sign in signs.items() if np.isclose(value, end, rtol=1e-6)), "")
        return f"{sign}{scales.power_text(value)}"

    axes.yaxis.set_major_formatter(text)


def _drawable(values: NDArray[Any]) -> NDArray[Any]:
    """Pushes as a logarithmic axis can hold them."""
    drawable: NDArray[Any] = np.clip(values, LOWEST, HIGHEST)
    return drawable


def _approximate(told: xr.Dataset) -> str:
    return "" if told.attrs.get("exact", True) else " (approximate here)"


def _when(steps: NDArray[np.int64], since: int, first: int) -> str:
    """The step from which on something holds, or by which it does, where the step before was not asked."""
    before = int(steps[since - 1]) if since else first
    return f"{'from' if steps[since] - before == 1 else 'by'} step {steps[since]:,}"


def _since(frozen: NDArray[np.bool_]) -> int | None:
    """From which position on all are True; None where the last is not."""
    if not len(frozen) or not frozen[-1]:
        return None
    others = np.flatnonzero(~frozen)
    return int(others[-1]) + 1 if len(others) else 0

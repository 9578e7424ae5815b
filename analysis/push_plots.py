"""Pictures of the push: how near the optimizer came to moving a weight, and when the verdict could be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import panels
from analysis.panels import BLUE, GREEN, GREY, ORANGE, RED
from analysis.pushes.headroom import headroom as ask_headroom
from analysis.questions.history import verdicts as ask_verdicts
from analysis.questions.motion import last_motion
from analysis.questions.stillness import stillness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWEST = 1e-6
"""Half cells; what is below it is drawn at it."""


def push(ds: xr.Dataset) -> Figure:
    """The push over tokens at each step, the line at 1 from which on a weight moves, and the learning rate below.

    Parameters
    ----------
    ds : xarray.Dataset
        A trajectory of which a push is known; it is asked.

    Returns
    -------
    matplotlib.figure.Figure
        The line is the median over tokens, the band reaches from 5 to 95 %, and a dot is the strongest push of a step
        at which something moved; at the others the strongest is a thin line. At the foot a tick marks each step with
        motion. The lower panel is the learning rate, where it was recorded.

    Raises
    ------
    ValueError
        Where no push is known of the run, with the reason.

    Examples
    --------
    >>> from analysis import simulate
    >>> push(simulate.with_pushes([[0.5, 0.25], [1.5, 0.25], [0.5, 0.1]])).axes[1].get_ylabel()
    'learning rate'
    """
    told, moving = ask_headroom(ds).load(), stillness(ds).any_motion.values[1:]
    steps = told["step"].values[1:]
    figure, (above, below) = panels.stack(2, heights=(3, 1))
    curves, strongest = _drawable(told["push"].values[1:]), _drawable(told["strongest"].values[1:])
    chosen = panels.drawn(curves[:, 0], curves[:, -1], strongest)
    band = curves[chosen][:, [0, -1]].T
    above.fill_between(steps[chosen], *band, color=BLUE, alpha=0.22, lw=0, label="5-95 % of tokens")
    above.plot(steps[chosen], curves[chosen, curves.shape[1] // 2], color=BLUE, lw=1.2, label="median")
    above.plot(steps[chosen], strongest[chosen], color=GREY, lw=0.6, label="strongest")
    above.plot(steps[moving], strongest[moving], ".", ms=3, color=ORANGE, label="strongest, something moved")
    above.axhline(1, color=RED, lw=1.0, ls="--", label="from here on a weight moves")
    above.plot(steps[moving], np.full(int(moving.sum()), 0.02), "|", ms=6, mew=0.5, color="black",
               transform=above.get_xaxis_transform(), gid="rug")  # fmt: skip
    above.set(yscale="log", ylabel="push in half cells")
    above.legend(frameon=False, fontsize=9, loc="upper right")
    above.set_title(f"How near the optimizer comes to moving a weight{_approximate(told)}", loc="left", fontsize=11)
    below.plot(steps, told["learning_rate"].values[1:], color=GREEN, lw=1.2)
    below.set(ylabel="learning rate", xlabel="step", ylim=(0, None))
    return figure


def verdicts(ds: xr.Dataset) -> Figure:
    """P of the silence and E of the push on one logarithmic axis, with the moments at which a verdict could be told.

    Parameters
    ----------
    ds : xarray.Dataset
        A trajectory, which is asked at some 200 of its steps, or an answer of `analysis.verdicts`.

    Returns
    -------
    matplotlib.figure.Figure
        Dashed lines are the levels that the verdict needs. A vertical line marks the first step from which on the run
        is called frozen until the end, by both parts and by the silence alone. Without a push there is no E.

    Raises
    ------
    ValueError
        As `analysis.verdicts`.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=900, hidden=1)
    >>> verdicts(ds).axes[0].get_yscale()
    'log'
    """
    told = (ds if {"asked", "p", "E"} <= set(ds.variables) else ask_verdicts(ds)).load()
    figure, (axes,) = panels.stack(1)
    steps = told["asked"].values
    has_push = not told.attrs["no_push"]
    parts = [("p", BLUE, "p of the silence"), ("E", ORANGE, "E, moves expected by the push")]
    for name, colour, words in parts if has_push else parts[:1]:
        axes.plot(steps, np.maximum(told[name].values, LOWEST), color=colour, lw=1.2, label=words)
    axes.axhline(told.attrs["level_with_push" if has_push else "level"], color=BLUE, lw=0.8, ls="--")
    if has_push:
        axes.axhline(told.attrs["most_expected"], color=ORANGE, lw=0.8, ls="--")
    for name, colour, words in (
        ("frozen", RED, "frozen from"),
        ("frozen_by_silence", GREY, "by the silence alone from"),
    ):
        since = _since(told[name].values)
        if since is not None and (has_push or name == "frozen"):
            axes.axvline(steps[since], color=colour, lw=1.1, ls=":", label=f"{words} step {steps[since]:,}")
    axes.set(yscale="log", xlabel="step asked at", ylabel="p and E", ylim=(LOWEST / 2, None))
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    alone = "" if has_push else ", by the silence alone"
    axes.set_title(f"When the end state could be told{alone}", loc="left", fontsize=11)
    return panels.mark_divergence(figure, told)


def headroom(ds: xr.Dataset) -> Figure:
    """By which factor the learning rate could have been higher for each token, against its last motion.

    Parameters
    ----------
    ds : xarray.Dataset
        A trajectory of which a push is known; it is asked.

    Returns
    -------
    matplotlib.figure.Figure
        A dot is a token; those that never moved stand at the left edge, and those without any push (an infinite
        headroom) are triangles at the top. The line at 1 is where a weight moves.

    Raises
    ------
    ValueError
        Where no push is known of the run, with the reason.

    Examples
    --------
    >>> from analysis import simulate
    >>> headroom(simulate.with_pushes([[0.5, 0.25], [1.5, 0.25], [0.5, 0.1]])).axes[0].get_xlabel()
    'last motion, step'
    """
    told, last = ask_headroom(ds).load(), last_motion(ds).last_motion.values
    room = told["headroom"].values
    figure, (axes,) = panels.stack(1)
    finite = np.isfinite(room)
    axes.plot(last[finite], room[finite], ".", ms=3, color=BLUE, alpha=0.6, label="token")
    panels.infinities(axes, last[np.isposinf(room)], label="no push at all")
    axes.axhline(1, color=RED, lw=1.0, ls="--", label="below it something moves")
    axes.set(yscale="log", xlabel="last motion, step", ylabel="headroom of the learning rate")
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    axes.set_title(f"Headroom of each token{_approximate(told)}", loc="left", fontsize=11)
    return figure


def _drawable(values: NDArray[Any]) -> NDArray[Any]:
    """Pushes as a logarithmic axis can hold them."""
    drawable: NDArray[Any] = np.clip(values, LOWEST, 1e6)
    return drawable


def _approximate(told: xr.Dataset) -> str:
    return "" if told.attrs.get("exact", True) else " (approximate here)"


def _since(frozen: NDArray[np.bool_]) -> int | None:
    """From which position on all are True; None where the last is not."""
    if not len(frozen) or not frozen[-1]:
        return None
    others = np.flatnonzero(~frozen)
    return int(others[-1]) + 1 if len(others) else 0

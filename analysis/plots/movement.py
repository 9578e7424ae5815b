"""How far tokens move, how many do, and which: cooling, moving, stratigraphy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analysis.judgements.sentences import expected_text, p_text
from analysis.plots import scales, style
from analysis.plots.scales import drawn, within
from analysis.plots.style import BLUE, FROZEN, RUST
from analysis.plots.told import answer_of, is_trajectory
from analysis.questions.cooling import cooling as ask_cooling
from analysis.questions.cooling import stratigraphy as ask_stratigraphy
from analysis.questions.endstate import no_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORM_DASHES = {"l1": (0, (5, 1.6)), "l2": "-", "linf": (0, (1.2, 1.2))}
NORM_NAMES = {"l1": "L1", "l2": "L2", "linf": "L∞"}
ROWS, COLUMNS = 420, 1000
"""Of the raster of all tokens: no more than the dots of a picture."""
PALE = 0.26


def cooling(
    result: xr.Dataset, *others: xr.Dataset, ax: Axes | None = None, log_steps: bool = True, height: float = 3.4
) -> Axes:
    """The cooling curve: how far tokens move at each step, on a logarithmic axis of lattice cells.

    Parameters
    ----------
    result : Dataset
        Of `analysis.cooling`, or a trajectory, which is then asked. A lazy answer is computed, in place.
    *others : Dataset
        Of `analysis.cooling` by other norms; of these the middle quantile is drawn.
    ax : matplotlib.axes.Axes, optional
        To draw on; by default a figure of its own is made.
    log_steps : bool
        A logarithmic axis of steps, on which a rate that falls like a power of time is a straight line.
    height : float
        Of a figure that is made, in inches.

    Returns
    -------
    matplotlib.axes.Axes
        The title is the verdict on the end state. The band reaches from the first quantile to the last, the thick
        line is the middle one, the thin line is the largest displacement of each step at which anything moved: a dot
        where that step stands alone. Displacements of 0 are drawn at "still"; triangles at the top are infinite ones.
        Of more than 1,600 steps the lines are drawn at the extremes of each pixel.

    Raises
    ------
    ValueError
        For any other Dataset, or an answer without quantiles.

    Examples
    --------
    >>> from analysis import simulate
    >>> cooling(simulate.with_last_motion([3, 5, 9], total_steps=20)).get_xlabel()
    'step, logarithmic from 1 on'
    """
    told = _cooling_of(result, "cooling")
    more = [_cooling_of(other, "cooling", ("displacement", "q")) for other in others]
    axes = style.panel(ax, height=height)
    steps = told["step"].values[1:]
    curves = np.maximum(told["displacement"].values[1:], scales.STILL)
    largest = told["largest"].values[1:]
    chosen = drawn(curves[:, 0], curves[:, -1])
    low, high = within(curves[chosen][:, [0, -1]]).T
    band = scales.band_words(told["q"].values)
    axes.fill_between(steps[chosen], low, high, color=BLUE, alpha=0.2, lw=0, label=band)
    for answer in (told, *more):
        _middle(axes, answer)
    scales.lonely_line(
        axes, steps, within(np.where(largest > 0, largest, np.nan)), color=RUST, lw=0.8, gid="largest",
        label=f"the largest ({NORM_NAMES[str(told.attrs['norm'])]})",
    )  # fmt: skip
    scales.infinities(axes, steps[np.isinf(largest)], label="infinite")
    every = np.concatenate([curves.ravel(), largest, *(each["displacement"].values[1:].ravel() for each in more)])
    scales.cells_axis(axes, every, "displacement, lattice cells")
    scales.steps_axis(axes, told, log=log_steps)
    scales.mark_last_motion(axes, int(told["last_motion"]), scales.ends(told)[1], words=False)
    style.legend(axes)
    style.title(axes, verdict(told))
    scales.mark_divergence(axes, told)
    return axes


def _middle(axes: Axes, told: xr.Dataset) -> None:
    """The middle quantile of an answer, in the dashes of its norm."""
    norm, at = str(told.attrs["norm"]), told.sizes["q"] // 2
    steps, values = told["step"].values[1:], np.maximum(told["displacement"].values[1:, at], scales.STILL)
    name = scales.quantile_words(float(told["q"][at]))
    chosen = drawn(values)
    axes.plot(
        steps[chosen], within(values[chosen]), color=BLUE, lw=1.3, ls=NORM_DASHES[norm], gid=f"middle-{norm}",
        label=f"{name} {NORM_NAMES[norm]}",
    )  # fmt: skip


def moving(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = True) -> Axes:
    """How many tokens move at each step, on an axis that shows a single one as well as thousands.

    Parameters
    ----------
    result : Dataset
        Of `analysis.cooling`, or a trajectory, which is then asked.
    ax, log_steps
        As in `cooling`.

    Returns
    -------
    matplotlib.axes.Axes
        The axis is even from 0 to 1 token and logarithmic above. At the foot a tick marks each step at which anything
        moved. The grey end is the time since the last motion.

    Examples
    --------
    >>> from analysis import simulate
    >>> moving(simulate.with_last_motion([3, 5, 9], total_steps=20)).get_ylabel()
    'tokens, L2 ≥ 0.1'
    """
    told = _cooling_of(result, "moving")
    axes = style.panel(ax)
    steps, fraction = told["step"].values[1:], told["moving"].values[1:]
    tokens = int(told.attrs["tokens"])
    count = np.rint(fraction * tokens)
    chosen = drawn(count)
    axes.fill_between(steps[chosen], count[chosen], color=BLUE, alpha=0.22, lw=0, gid="moving")
    axes.plot(steps[chosen], count[chosen], color=BLUE, lw=0.8)
    scales.tokens_axis(axes, tokens)
    least, norm = told.attrs["threshold"], NORM_NAMES[str(told.attrs["norm"])]
    axes.set_ylabel(f"tokens, {norm} ≥ {least:.7g}")
    scales.steps_axis(axes, told, log=log_steps)
    scales.rug(axes, steps[fraction > 0])
    scales.mark_last_motion(axes, int(told["last_motion"]), scales.ends(told)[1])
    style.title(axes, f"Tokens that move, of {tokens:,}")
    scales.mark_divergence(axes, told)
    return axes


def verdict(told: xr.Dataset) -> str:
    """The verdict on the end state as a title."""
    step, p = int(told.attrs["last_step"]), float(told["p"])
    if bool(told["frozen"]):
        return f"Frozen at step {step:,}: p = {p_text(p)} for such a silence if motion went on, fading like 1/t"
    if reason := no_verdict(told):
        return f"No verdict at step {step:,}: {reason}"
    said = f"Not frozen at step {step:,} (p = {p_text(p)})"
    later = -1 if int(told["nonfinite"]) else int(told["frozen_from"])  # never, where a weight is NaN or infinite
    if later > step:
        by_silence = bool(told.attrs["no_push"])
        return f"{said}; at {later:,} {'' if by_silence else 'p would do '}if nothing moves"
    expected = float(told["E"])
    if expected > told.attrs["most_expected"]:
        said += f"; by the push {expected_text(expected)} moves are still to be expected"
    return said


def stratigraphy(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False, height: float = 4.6) -> Axes:
    """Every token over all steps: a line for each, the first to freeze on top, in the colour of its phase.

    Parameters
    ----------
    result : Dataset
        Of `analysis.stratigraphy`, or a trajectory, which is then asked.
    ax, log_steps, height
        As in `cooling`, but the steps are even by default.

    Returns
    -------
    matplotlib.axes.Axes
        With a raster of at most 420 rows and 1,000 columns. A dot is full where a token moved, pale where none of its
        tokens did; a single move is never averaged away. A phase is over at its last exit. The line is the freeze step.

    Examples
    --------
    >>> from analysis import simulate
    >>> axes = stratigraphy(simulate.with_phases([(1, 3, 4), (2, 2, 6)], total_steps=8))
    >>> axes.images[0].get_array().shape
    (2, 8, 4)
    """
    from matplotlib.patches import Patch

    if is_trajectory(result) and "moved_within" not in result.variables:
        result = ask_stratigraphy(result)
    told = answer_of(result, "stratigraphy")
    axes = style.panel(ax, height=height)
    scales.steps_axis(axes, told, log=log_steps)
    names = [str(name) for name in told["phase"].values]
    colours = [*(style.of_phase(name, index)[0] for index, name in enumerate(names)), FROZEN]
    freeze = np.sort(told["last_motion"].values)
    if len(freeze) and len(told["column"]):
        left, right = _edges(axes, told)
        axes.imshow(
            _raster(told, left, right, colours), aspect="auto", interpolation="none", transform=axes.transAxes,
            extent=(*_across(axes, left[0], right[-1]), 0, 1), zorder=0.5,
        )  # fmt: skip
        moved = freeze >= 0
        axes.plot(freeze[moved], 1 - (np.flatnonzero(moved) + 0.5) / len(freeze), color=style.INK, lw=0.9,
                  transform=axes.get_xaxis_transform(), gid="freeze")  # fmt: skip
    axes.set_ylim(1, 0)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], [f"{share:.0%}" for share in (0, 0.25, 0.5, 0.75, 1)])
    axes.set_ylabel("tokens, the first to freeze on top")
    axes.grid(False)
    patches = [Patch(color=colour, label=name) for colour, name in zip(colours, [*names, "frozen"], strict=True)]
    style.legend(axes, handles=patches, handlelength=1)
    scales.mark_divergence(axes, told)
    return axes


def _edges(axes: Axes, told: xr.Dataset) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Where each column of dots begins and ends, in steps; evenly spaced on the axis as it is."""
    first, last = scales.ends(told)
    even = axes.get_xscale() == "linear"
    marks = scales.evenly(axes, first + 0.5, last + 0.5, (min(COLUMNS, last - first) if even else COLUMNS) + 1)
    return marks[:-1], marks[1:]


def _across(axes: Axes, left: float, right: float) -> tuple[float, float]:
    """Where two steps are on the axis, in parts of the panel's width."""
    at, (low, high) = (
        axes.xaxis.get_transform().transform(np.array(ends)) for ends in ((left, right), axes.get_xlim())
    )
    ends = (at - low) / (high - low)
    return float(ends[0]), float(ends[1])


def _raster(
    told: xr.Dataset, left: npt.NDArray[Any], right: npt.NDArray[Any], colours: list[str]
) -> npt.NDArray[np.uint8]:
    """The dots (row, column, RGBA): the phase of the middle token of a row; full, and its own, where one moved."""
    from matplotlib.colors import to_rgb

    order = np.argsort(told["last_motion"].values, kind="stable")
    exits = told["exit"].transpose("token", "phase").values[order]
    moved = told["moved_within"].transpose("token", "column").values[order]
    starts = told["column"].values
    first = np.maximum(np.searchsorted(starts, np.ceil(left), side="right") - 1, 0)
    stop = np.maximum(np.searchsorted(starts, np.ceil(right) - 1, side="right"), first + 1)
    within_dot = np.stack([moved[:, a:b].any(axis=1) for a, b in zip(first, stop, strict=True)], axis=1)
    rows = min(ROWS, len(order))
    groups = np.split(np.arange(len(order)), np.round(np.linspace(0, len(order), rows + 1)[1:-1]).astype(int))
    table = np.round(255 * np.array([to_rgb(colour) for colour in colours])).astype(np.uint8)
    dots = np.empty((len(groups), len(left), 4), np.uint8)
    for row, group in enumerate(groups):
        phase = (exits[group][:, None, :] < np.ceil(left)[None, :, None]).sum(axis=2)  # those that are over
        middle = np.sort(phase, axis=0)[(len(group) - 1) // 2]
        here = within_dot[group]
        mover = np.where(here, phase, len(colours)).min(axis=0)
        some = here.any(axis=0)
        dots[row, :, :3] = table[np.where(some, np.minimum(mover, len(colours) - 2), middle)]
        dots[row, :, 3] = np.where(some, 255, round(255 * PALE))
    return dots


def _cooling_of(result: xr.Dataset, picture: str, needs: Sequence[str] | None = None) -> xr.Dataset:
    if is_trajectory(result) and not {"displacement", "q"} <= set(result.variables):
        result = ask_cooling(result)
    told = answer_of(result, picture, needs)
    scales.quantiles_in(told, picture)
    return told

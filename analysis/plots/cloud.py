"""The cloud of tokens: how wide it is, how it moves, and how it looks at some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from analysis.plots import scales, style
from analysis.plots.style import DOTS, FAINT, FROZEN
from analysis.plots.told import answer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REACH, NEARLY_ALL = 1.2, 0.995
"""The frame of the cloud reaches a little farther than this part of the tokens."""


def cloud(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """The radius of the cloud: the largest distance of a token from the centroid, the RMS and the mean one.

    Parameters
    ----------
    result : Dataset
        Of `analysis.cloud`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        What is NaN is left out, triangles at the top are infinite.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.cloud(analysis.simulate.with_motion([[1, 1], [1, 0]]))
    >>> cloud(told).get_ylabel()
    'distance from the centroid'
    """
    told = answer_of(result, "cloud")
    axes = style.panel(ax)
    names = {"radius_max": "largest", "radius_rms": "RMS", "radius_mean": "mean"}
    for index, (name, label) in enumerate(names.items()):
        scales.line(axes, told, name, label=label, **style.series(index))
    axes.set_ylabel("distance from the centroid")
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    style.title(axes, "Radius of the cloud")
    scales.mark_divergence(axes, told)
    return axes


def motion_of_cloud(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """How the cloud moves as a whole (bulk), and how its tokens move about that (thermal).

    Parameters
    ----------
    result : Dataset
        Of `analysis.cloud`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        Motions of 0 are left out: the axis is logarithmic, if there are any. A dot is a move between two stills, or
        between steps that were not asked: no line leads over these.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.cloud(analysis.simulate.with_motion([[1, 1], [1, 0]]))
    >>> motion_of_cloud(told).get_yscale()
    'log'
    """
    told = scales.with_gaps(answer_of(result, "motion_of_cloud"), "thermal_motion", "bulk_motion")
    axes = style.panel(ax)
    scales.line(
        axes, told, "thermal_motion", log=True, label="thermal: RMS about the mean move", mark="s", **style.series(1)
    )
    scales.line(axes, told, "bulk_motion", log=True, label="bulk: length of the mean move", mark="o", **style.series(0))
    axes.set_ylabel(f"{scales.move_words(told)}, units of the weights")
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    style.title(axes, "Motion of the cloud")
    scales.mark_divergence(axes, told)
    return axes


def coherence(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """Whether tokens that move at the same step move in the same direction.

    Parameters
    ----------
    result : Dataset
        Of `analysis.cloud`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        The mean cosine between the moves of two movers: 1, all the same way; 0, no agreement. Steps with fewer than two
        movers are left out. The axis is that of the values.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.cloud(analysis.simulate.with_motion([[1, 1], [1, 0]]))
    >>> coherence(told).lines[1].get_ydata()
    array([1.])
    """
    told = answer_of(result, "coherence")
    axes = style.panel(ax)
    values = told["coherence"].values
    known = np.isfinite(values)
    axes.axhline(0, color=FAINT, lw=1.0)
    axes.plot(told["step"].values[known], values[known], ".", ms=2.6, mew=0, color=DOTS, rasterized=known.sum() > 500)
    if known.any():
        low, high = min(0.0, float(values[known].min())), float(values[known].max())
        room = 0.06 * (high - low) or 0.05
        axes.set_ylim(low - room, high + room)
    axes.set_ylabel("mean cosine of two moves")
    scales.steps_axis(axes, told, log=log_steps)
    style.title(axes, "Coherence of the moves")
    scales.mark_divergence(axes, told)
    return axes


def positions(
    result: xr.Dataset, at: int = 0, *, colours: npt.NDArray[np.str_] | None = None, ax: Axes | None = None
) -> Axes:
    """The tokens at one of some steps, about their centroid, on the two axes along which they differ most at the end.

    Parameters
    ----------
    result : Dataset
        Of `analysis.snapshots`, else a ValueError. If it is lazy, it is computed, in place.
    at : int
        Which of its steps, by position.
    colours : array of str, (token)
        A colour for each token; grey by default.
    ax : matplotlib.axes.Axes, optional
        To draw on; by default a figure of its own is made.

    Returns
    -------
    matplotlib.axes.Axes
        The frame is the same for all steps of an answer, so that pictures beside each other can be compared; a few
        tokens far out may lie beyond it. The
        answer's `share` says how much of the variance the two axes hold.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.snapshots(analysis.simulate.with_motion([[1, 1], [1, 0]]), steps=[0, 2])
    >>> positions(told, 1).get_title(loc="left")
    'step 2'
    """
    told = answer_of(result, "positions")
    axes = _square(ax)
    every = told["position"].transpose("step", "token", "axis").values
    flat = every[..., :2] if every.shape[2] > 1 else np.pad(every, ((0, 0), (0, 0), (0, 1)))
    known = np.hypot(*np.moveaxis(flat, 2, 0))
    finite = known[np.isfinite(known)]
    reach = REACH * float(np.quantile(finite, NEARLY_ALL)) if finite.any() else 1.0
    _dots(axes, flat[at], colours)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    style.title(axes, f"step {int(told['step'][at]):,}")
    return axes


def sky(
    result: xr.Dataset, at: int = 0, *, colours: npt.NDArray[np.str_] | None = None, ax: Axes | None = None
) -> Axes:
    """The directions of the tokens from their centroid at one of some steps, as a map of the sky that keeps areas.

    Parameters
    ----------
    result, at, colours, ax
        As in `positions`. Directions are those on the first three axes.

    Returns
    -------
    matplotlib.axes.Axes
        Mollweide's projection, drawn on plain axes: the ellipse is 2 wide and 1 high.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.snapshots(analysis.simulate.with_motion([[1, 1], [1, 0]]), steps=[0, 2])
    >>> sky(told, 0).get_aspect()
    1.0
    """
    told = answer_of(result, "sky")
    axes = _square(ax, ratio=0.5)
    turn = np.linspace(0, 2 * np.pi, 181)
    axes.plot(2 * np.cos(turn), np.sin(turn), color=FAINT, lw=0.9)
    for longitude in np.radians([-120, -60, 0, 60, 120]):
        axes.plot(*_mollweide(np.full(61, longitude), np.linspace(-np.pi / 2, np.pi / 2, 61)).T, color=FAINT, lw=0.4)
    for latitude in np.radians([-45, 0, 45]):
        axes.plot(*_mollweide(np.linspace(-np.pi, np.pi, 61), np.full(61, latitude)).T, color=FAINT, lw=0.4)
    points = told["position"].transpose("step", "token", "axis").values[at]
    points = np.pad(points, ((0, 0), (0, max(0, 3 - points.shape[1]))))[:, :3]
    with np.errstate(invalid="ignore"):
        length = np.sqrt((points**2).sum(axis=1))
    seen = np.isfinite(length) & (length > 0)
    x, y, z = points[seen].T
    there = _mollweide(np.arctan2(y, x), np.arcsin(np.clip(z / length[seen], -1, 1)))
    _dots(axes, there, None if colours is None else colours[seen])
    axes.set(xlim=(-2.06, 2.06), ylim=(-1.06, 1.06), aspect="equal")
    style.title(axes, f"step {int(told['step'][at]):,}")
    return axes


def _square(ax: Axes | None, ratio: float = 1.0) -> Axes:
    """Axes without an edge and numbers; of a figure of their own by default."""
    if ax is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(4.2, 4.2 * ratio + 0.3)).add_axes((0.02, 0.02, 0.96, 0.9))
        style.show_in_notebooks(axes)
    else:
        style.require_axes(ax)
        axes = ax
    axes.patch.set_alpha(0)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _dots(axes: Axes, points: npt.NDArray[np.float64], colours: npt.NDArray[np.str_] | None) -> None:
    """The tokens as dots, a bitmap where they are many; smaller, the more there are."""
    known = np.atleast_1d(np.isfinite(points).all(axis=1))
    size = float(np.clip(5000 / max(1, known.sum()), 1.4, 14))
    x, y = points[known, 0], points[known, 1]
    axes.scatter(x, y, s=size, c=_rgb(colours, known), lw=0, alpha=0.8,
                 rasterized=bool(known.sum() > 300), gid="tokens")  # fmt: skip


def _rgb(colours: npt.NDArray[np.str_] | None, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The colours of the known tokens, (token, RGB); grey where none are given."""
    from matplotlib.colors import to_rgb

    names, which = np.unique(np.full(len(known), FROZEN) if colours is None else colours, return_inverse=True)
    return np.array([to_rgb(str(name)) for name in names], float).reshape(-1, 3)[which[known]]


def _mollweide(longitude: npt.NDArray[np.float64], latitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points of the map, (point, 2): x in -2..2, y in -1..1. Newton's method for 2 a + sin 2a = pi sin(latitude)."""
    angle = latitude.copy()
    goal = np.pi * np.sin(latitude)
    for _ in range(12):
        slope = 2 + 2 * np.cos(2 * angle)
        angle -= np.where(slope > 1e-9, (2 * angle + np.sin(2 * angle) - goal) / np.maximum(slope, 1e-9), 0)
    angle = np.clip(angle, -np.pi / 2, np.pi / 2)
    return np.stack([2 * longitude / np.pi * np.cos(angle), np.sin(angle)], axis=1)

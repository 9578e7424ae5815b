"""Moves and rows on the lattice: the census of moves, rows that are the same, exponents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analysis.plots import scales, style
from analysis.plots.style import BLUE
from analysis.plots.told import answer_of
from analysis.told_numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


AREAS = 600
"""Groups of steps from whose extremes the areas of the census are drawn: they are many and filled."""
SEEN = 0.001
"""Exponents of fewer weights than this part, at every step, are left out at the edges."""


def census(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False, height: float = 3.4) -> Axes:
    """The kinds of moves at every step, as fractions of all tokens.

    Parameters
    ----------
    result : Dataset
        Of `analysis.census`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps, height
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        The legend has the fraction of all moves. The first state is no move and left out; without moves (NaN) the panel
        is empty. At the foot a tick marks each step with a move of a kind that has a name. Of more than 1,600 steps
        those are drawn that hold the extremes of each pixel.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.census(analysis.simulate.trajectory([[[9, 0], [1, 1], [1, 0], [0, 0]]]))
    >>> [text.get_text() for text in census(told).get_legend().get_texts()][:3]
    ['none: 25.00%', 'less than a cell: 0%', 'face: 25.00%']
    """
    told = answer_of(result, "census")
    axes = style.panel(ax, height=height)
    counts = told["tokens"].transpose("kind", "step").values[:, 1:]
    steps = told["step"].values[1:]
    share = counts / np.maximum(1, counts.sum(axis=0))
    chosen = scales.drawn(*np.cumsum(share, axis=0)[:-1], pixels=AREAS)
    wholes = zip(told["kind"].values, told["fraction"].values, strict=True)
    names = [str(kind) if np.isnan(whole) else f"{kind}: {percent(whole)}" for kind, whole in wholes]
    axes.stackplot(steps[chosen], share[:, chosen], colors=kind_colours(len(names)), labels=names, lw=0)
    kinds = axes.get_legend_handles_labels()[0]
    scales.fractions_axis(axes, "tokens")
    scales.steps_axis(axes, told, log=log_steps)
    ticks = scales.rug(axes, steps[counts[:-1].any(axis=0)])
    style.legend(axes, handles=[ticks, *kinds][::-1])
    style.title(axes, "Census of moves")
    scales.mark_divergence(axes, told)
    return axes


def kind_colours(count: int) -> list[str]:
    """The last kind is "none" and pale; tables of one's own repeat the others.

    Examples
    --------
    >>> kind_colours(2)
    ['#5a1a46', '#e9e7e1']
    """
    return [*(style.KINDS[index % 5] for index in range(count - 1)), style.KINDS[-1]]


def distinct_rows(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """How many different rows there are, and the largest group of tokens with the same one ("black hole").

    Parameters
    ----------
    result : Dataset
        Of `analysis.identical_rows`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        Both on one axis of tokens that shows a single one as well as thousands.

    Examples
    --------
    >>> import analysis
    >>> told = analysis.identical_rows(analysis.simulate.with_motion([[1, 0, 1, 0]]))
    >>> distinct_rows(told).get_title(loc="left")
    'Distinct rows: 2 of 4 tokens at step 1'
    """
    told = answer_of(result, "distinct_rows")
    axes = style.panel(ax)
    scales.line(axes, told, "distinct", label="distinct rows", **style.series(0))
    scales.line(axes, told, "largest", label="tokens in the largest group of one row", **style.series(1))
    known = int(told.attrs.get("tokens", told["distinct"].max()))
    tokens = int(told.sizes.get("token", known))
    scales.tokens_axis(axes, tokens)
    axes.set_ylabel("rows, tokens")
    scales.steps_axis(axes, told, log=log_steps)
    style.legend(axes)
    last = f"{int(told['distinct'][-1]):,} of {tokens:,} tokens at step {int(told['step'][-1]):,}"
    style.title(axes, f"Distinct rows: {last}")
    scales.mark_divergence(axes, told)
    return axes


def exponents(result: xr.Dataset, *, ax: Axes | None = None, log_steps: bool = False) -> Axes:
    """Which part of all weights has which size, step by step: a raster of exponents.

    Parameters
    ----------
    result : Dataset
        Of `analysis.exponents`, else a ValueError. If it is lazy, it is computed, in place.
    ax, log_steps
        As in `analysis.plots.survival`.

    Returns
    -------
    matplotlib.axes.Axes
        A row is the weights of sizes 2^k to 2^(k+1); the lowest one that there can be begins at 0, and the highest is
        of NaN and infinities. The darker, the more of all weights. Rows above and below of which no step has a
        thousandth of the weights are left out.

    Examples
    --------
    >>> import analysis
    >>> axes = exponents(analysis.exponents(analysis.simulate.with_motion([[1, 0]])))
    >>> axes.get_ylabel()
    'size of a weight'
    """
    told = answer_of(result, "exponents")
    axes = style.panel(ax)
    counts = told["weight_count"].transpose("exponent", "step").values.astype(float)
    share = counts / np.maximum(1, counts.sum(axis=0))
    bias = 15 if told.sizes["exponent"] == 32 else 127
    there = np.flatnonzero((share >= SEEN).any(axis=1))
    low, high = (there[0], there[-1]) if len(there) else (bias, bias)
    steps = told["step"].values.astype(float)
    edges = np.concatenate([[steps[0] - 0.5], (steps[1:] + steps[:-1]) / 2, [steps[-1] + 0.5]])
    scales.steps_axis(axes, told, log=log_steps)
    axes.pcolormesh(
        edges, np.arange(low, high + 2) - bias, share[low : high + 1],
        cmap=_ramp(), vmin=0, vmax=max(0.01, float(share.max())), rasterized=True, zorder=0.5,
    )  # fmt: skip
    axes.set_ylim(low - bias, high + 1 - bias)
    powers = [power for power in range(int(low) - bias, int(high) + 2 - bias) if power % max(1, (high - low) // 6) == 0]
    edge = {-bias: "0", len(counts) - bias: "NaN"}
    axes.set_yticks(powers, [edge.get(power, f"2{scales.raised(power)}") for power in powers])
    axes.set_ylabel("size of a weight")
    axes.grid(False)
    largest = int(share[:, -1].argmax()) if share.size else bias
    part = percent(float(share[largest, -1]))
    style.title(axes, f"Exponents: at the last step {part} of the weights {size_words(largest, len(counts))}")
    scales.mark_divergence(axes, told)
    return axes


def size_words(exponent: int, exponents: int) -> str:
    """What weights are whose exponent bits are these, of so many that there are (256, or 32 for float16).

    Examples
    --------
    >>> size_words(120, 256), size_words(0, 256), size_words(31, 32)
    ('lie in 2⁻⁷ to 2⁻⁶', 'are 0 or nearer to it than 2⁻¹²⁶', 'are NaN or infinite')
    """
    bias = 15 if exponents == 32 else 127
    if exponent == exponents - 1:
        return "are NaN or infinite"
    if not exponent:
        return f"are 0 or nearer to it than 2{scales.raised(1 - bias)}"
    return f"lie in 2{scales.raised(exponent - bias)} to 2{scales.raised(exponent + 1 - bias)}"


def _ramp() -> Any:  # noqa: ANN401 - a Colormap, loaded late
    """From nothing to blue: lightness alone tells how much."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("much", [(*_rgb(BLUE), 0.0), (*_rgb(BLUE), 1.0)])


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return red, green, blue

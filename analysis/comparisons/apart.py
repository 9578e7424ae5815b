"""Two trajectories over time: how many weights differ at each step, and how far apart they are."""

from __future__ import annotations

import functools
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from analysis import lattice
from analysis.answers import AnswerDataset
from analysis.comparisons.compare import common_labels, positions
from analysis.engine import inputs, perstep
from analysis.engine.question import Answer, Span
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array

APART = {
    "share": Answer(("step",), "float64", "share of the weights that differ"),
    "hops_median": Answer(("step",), "int64", "median of the hops between weights that differ"),
    "hops_largest": Answer(("step",), "int64", "largest number of hops between two weights"),
}


def apart(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
    """How far two trajectories are apart at each step that both recorded: the divergence of two runs over time.

    Parameters
    ----------
    a, b : xarray.Dataset
        Trajectories of the same tokens and hidden size, on one lattice: select the same population and tokens of both.

    Returns
    -------
    Dataset
        Lazy, along `step`, at the labels that both have:

        share : float64 - share of the weights whose bits differ, in [0, 1]
        hops_median : int64 - median hops between the weights that differ, the lower of two in the middle; 0 if none do
        hops_largest : int64 - the largest number of hops between two weights

        Bits are compared: NaN equals NaN of the same bits, and -0 differs from 0, at 0 hops. NaN lies beyond infinity.
        `compare` finds the first difference, and reads no further than it must.

    Raises
    ------
    ValueError
        Other tokens, hidden sizes or lattices, or no step label in common; see `selections`.

    Notes
    -----
    hops are counted by `lattice.hops`: representable numbers between two weights, -0 and 0 the same, on the lattice
    that moves are measured on. One pass over W of
    both; 8 MB of each are looked at together.

    Examples
    --------
    >>> from analysis import simulate
    >>> a = simulate.with_last_motion([5, 9], total_steps=12)
    >>> b = simulate.with_last_motion([5, 7], total_steps=12)
    >>> told = apart(a, b).load()
    >>> told.share.values[[7, 8]].tolist(), told.hops_largest.values[[7, 8]].tolist()
    ([0.0, 0.125], [0, 1])
    """
    one, other = trajectory_of(a), trajectory_of(b)
    labels = common_labels(one, other)
    first, second = (_weights(each, labels) for each in (one, other))
    if first.dtype != second.dtype:
        raise ValueError(f"W is {first.dtype} in one and {second.dtype} in the other: they lie on two lattices")
    if one.is_projected != other.is_projected:
        raise ValueError(
            "W is float32 in both, but the moves of only one are measured on the lattice of bfloat16: hops would be of "
            "two lattices; compare finds where they part"
        )
    rows = perstep.steps_together(first)
    first, second = (each.rechunk((rows, -1, -1)) for each in (first, second))
    chunks = (first.chunks[0], (len(APART),))
    look = functools.partial(_look, is_projected=one.is_projected)
    made = da.map_blocks(look, first, second, dtype=np.float64, drop_axis=(1, 2), new_axis=1, chunks=chunks)
    span = Span(int(labels[0]), int(labels[-1]), int(np.diff(labels).max(initial=1)))
    return AnswerDataset(
        {
            name: ("step", made[:, column].astype(declared.dtype), declared.attributes)
            for column, (name, declared) in enumerate(APART.items())
        },
        coords={"step": labels},
        attrs=dict(span.attributes),
    )


def _weights(asked: Trajectory, labels: Array) -> Any:  # noqa: ANN401 - dask arrays have no types
    """W as recorded at these steps, (step, token, hidden)."""
    recorded = inputs.recorded_weights(asked).data
    return recorded[positions(asked.steps, labels)]


def _look(first: Array, second: Array, *, is_projected: bool) -> Array:
    """For each step the share of weights that differ, the lower median of their hops, and the largest."""
    told = np.zeros((len(first), len(APART)))
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        differs = lattice.patterns_of(one) != lattice.patterns_of(other)
        if count := int(np.count_nonzero(differs)):
            here, there = one[differs], other[differs]
            if is_projected:
                here, there = lattice.float32_to_bits(here), lattice.float32_to_bits(there)
            hops = lattice.hops(here, there)
            middle = (count - 1) // 2
            told[row] = count / differs.size, np.partition(hops, middle)[middle], hops.max()
    return told

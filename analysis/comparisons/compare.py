"""Two trajectories, bit for bit: how long they are the same, and where they first part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from analysis import lattice
from analysis.answers import AnswerDataset
from analysis.engine.question import NEVER, Answer
from analysis.engine.selections import DERIVED
from analysis.engine.trajectory import Trajectory, trajectory_of

ORDER = ("W", "centroid", "loss")
"""Named first where several arrays part at the same step: what others are derived from."""
COMPARE = {
    "equal": Answer((), "bool", "no difference, and the same step labels"),
    "differs": Answer((), "bool", "a difference at a step that both have"),
    "reason": Answer((), "str", "in what they are equal, or not, in words"),
    "compared": Answer((), "int64", "step labels that both have"),
    "equal_steps": Answer((), "int64", "length of the equal prefix"),
    "array": Answer((), "str", "array of the first difference"),
    "step": Answer((), "int64", "step of the first difference", "step", may_be_missing=True),
    "token": Answer((), "int64", "token id of the first difference", may_be_missing=True),
    "hidden": Answer((), "int64", "hidden index of the first difference", may_be_missing=True),
    "value_a": Answer((), "float64", "value in the first trajectory"),
    "value_b": Answer((), "float64", "value in the second trajectory"),
    "hops": Answer((), "int64", "representable numbers between both values", may_be_missing=True),
}
REDUCED_OVER = {
    "token": ("centroid",),
    "hidden": ("displacement_l1", "displacement_l2", "displacement_linf", "push"),
}
"""Arrays that are made of all tokens, or of all hidden dimensions."""
WHAT_MUST_AGREE = {
    "token": "the same tokens (those that both have, by ds.sel(token=[...]) of both or by --tokens)",
    "hidden": "one hidden size",
}
"""Which trajectories can be compared, by the dimension in which these two do not agree."""
_NONE = np.iinfo(np.int64).max


class _Pair(NamedTuple):
    """One array of both trajectories, on the steps that both have; dask, chunked alike."""

    name: str
    a: Any
    b: Any


def compare(a: xr.Dataset, b: xr.Dataset, *, arrays: Sequence[str] | None = None) -> xr.Dataset:
    """The longest prefix in which two trajectories are equal bit for bit, and their first difference.

    Parameters
    ----------
    a, b : xarray.Dataset
        Trajectories of the same tokens and hidden size. Lengths and chunks may differ; compared are the step labels
        that both have.
    arrays : sequence of str, optional
        Which arrays on the `step` dimension; all that both have, if not given, but for moves of other steps (see
        `moves_of_other_steps`).

    Returns
    -------
    xarray.Dataset
        Numbers without dimensions, in memory:

        equal : bool - no difference, and the same step labels
        differs : bool - a difference at a step that both have; not equal without one are runs of other lengths
        reason : str - in words: where they part, or that one is a prefix of the other, or that they are equal
        compared : int64 - how many step labels both have
        equal_steps : int64 - length of the prefix in which all arrays are equal
        array : str - where the first difference lies; "" without one
        step, token, hidden : int64 - its step label, token id and hidden index; missing (-1) where the array has none
        value_a, value_b : float64 - both values, of W as numbers
        hops : int64 - how many representable numbers they are apart; missing (-1) where that has no meaning, as for
            weights whose moves are measured on two lattices

        The attributes `arrays` and `only_in_one` name what was compared and what was not; `not_compared` are the arrays
        of both that have steps of their own (a schedule), `of_the_whole_run` those that belong to tokens or hidden
        dimensions which were left out here (the centroid); `moves_of_other_steps` are displacements and norms that
        one recorded over several steps and the other did not, or over others, since they lead from other states;
        `resolution_steps` is how many steps the compared labels are apart at most: with more than 1, the two may part
        before `step`.

    Raises
    ------
    ValueError
        If tokens, hidden size, dtypes or the asked arrays differ, no step label or no array is common, only moves are
        to be compared and only the first state is common, or one is no trajectory any more; see `selections`.

    Notes
    -----
    Bits are compared: NaN equals NaN with the same payload, and -0 differs from 0, at 0 hops. What belongs to moves (a
    loss, a displacement) is not compared at the first state of one of the two, or of both, to which no move of it
    leads. Where several arrays part at one step, W is named before centroid, loss and the derived ones, and the lowest
    token and hidden index.
    Reads both trajectories once, in windows that double from one chunk of steps on: two runs that part early are
    told apart early. Memory: some chunks of each, whatever the length.

    Examples
    --------
    >>> from analysis import simulate
    >>> a = simulate.with_last_motion([5, 9], total_steps=12)
    >>> b = simulate.with_last_motion([5, 7], total_steps=20)
    >>> told = compare(a, b)
    >>> int(told.equal_steps), int(told.step), int(told.token), int(told.hops)
    (8, 8, 1, 1)
    """
    both = trajectory_of(a), trajectory_of(b)
    labels = common_labels(*both)
    of_whole, others_moves = _of_whole_run(*both), _moves_of_other_steps(*both, labels)
    names = _names(a, b, arrays, of_whole, others_moves)
    begins = any(each.span.first == labels[0] for each in both)
    if begins and len(labels) == 1 and all(_is_of_moves(name, a, b) for name in names):
        raise ValueError(
            f"{', '.join(names)}: step {labels[0]}, the only one that both have, is a first state, to which no move "
            "leads; compare W, or select one more step"
        )
    pairs = [_pair(name, a, b, labels, begins=begins) for name in names]
    found, name = _first_row(pairs, len(labels))
    equal = not name and np.array_equal(a["step"].values, b["step"].values)
    told: dict[str, Any] = {"equal": equal, "compared": len(labels), "equal_steps": found, "array": name}
    reason = _reason(*both, labels, f"{name} first differs at step {labels[found]:,}" if name else "")
    told |= {"differs": bool(name), "reason": reason}
    told |= dict.fromkeys(("step", "token", "hidden", "hops"), NEVER) | dict.fromkeys(("value_a", "value_b"), np.nan)
    if name:
        told["step"] = int(labels[found])
        told |= _first_place(next(pair for pair in pairs if pair.name == name), found, a, both[0].is_projected)
        if name == "W" and both[0].is_projected != both[1].is_projected:
            told["hops"] = NEVER  # of which lattice
    others = sorted(map(str, set(a.data_vars) ^ set(b.data_vars)))
    answer = {name: ((), np.asarray(told[name], gives.dtype), gives.attributes) for name, gives in COMPARE.items()}
    attributes = {"arrays": names, "only_in_one": others, "not_compared": _on_other_steps(a, b)}
    attributes |= {"of_the_whole_run": of_whole, "moves_of_other_steps": sorted({*others_moves} - {*names})}
    return AnswerDataset(answer, attrs=attributes | {"resolution_steps": int(np.diff(labels).max(initial=1))})


def _reason(a: Trajectory, b: Trajectory, labels: npt.NDArray[np.int64], difference: str) -> str:
    """In what two trajectories are equal, or not."""
    one, other = a.steps, b.steps
    if difference or np.array_equal(one, other):
        return difference or "equal, bit for bit"
    short, long = (("first", one), ("second", other)) if len(one) < len(other) else (("second", other), ("first", one))
    if np.array_equal(short[1], long[1][: len(short[1])]):
        is_cut = any(each.span.last < each.attributes.get("committed_steps", each.span.last) for each in (a, b))
        ends = "what was compared ends" if is_cut else "they end"
        return (
            f"the {short[0]} is a prefix of the {long[0]}: equal as far as both go; {ends} at steps {one[-1]:,} and "
            f"{other[-1]:,}"
        )
    return f"equal at the {len(labels):,} steps that both recorded, of {len(one):,} and {len(other):,}"


def common_labels(a: Trajectory, b: Trajectory) -> npt.NDArray[np.int64]:
    """The step labels that two trajectories of the same tokens and hidden size share.

    Raises
    ------
    ValueError
        Other tokens or sizes, or no label in common.
    """
    one, other = a.tokens, b.tokens
    for dim in ("token", "hidden"):
        if a.sizes.get(dim) != b.sizes.get(dim):
            found = f"{dim}: {a.sizes.get(dim)} in the first and {b.sizes.get(dim)} in the second"
            raise ValueError(f"{found}; trajectories of {WHAT_MUST_AGREE[dim]} can be compared")
    if "token" in a.coords and "token" in b.coords and not np.array_equal(one, other):
        at = int(np.argmax(one != other))
        found = f"token ids differ from position {at} on: {one[at]} in the first and {other[at]} in the second"
        raise ValueError(f"{found}; trajectories of {WHAT_MUST_AGREE['token']} can be compared")
    labels: npt.NDArray[np.int64] = np.intersect1d(a.steps, b.steps)
    if not len(labels):
        raise ValueError("the two have no step label in common")
    return labels


def _of_whole_run(*both: Trajectory) -> list[str]:
    """Arrays that belong to tokens or hidden dimensions which were left out: a difference of these is none of those."""
    lacking = {dim for dim in ("token", "hidden") for each in both if each.has_all(dim) is False}
    names = {name for dim in lacking for name in REDUCED_OVER[dim]}
    return sorted(name for name in names if any(name in each.variables for each in both))


def _moves_of_other_steps(a: Trajectory, b: Trajectory, labels: npt.NDArray[np.int64]) -> list[str]:
    """Displacements and norms of both that were recorded over several steps, and lead to these states from others."""
    one, other = (np.append(-1, each.steps)[np.searchsorted(each.steps, labels[1:])] for each in (a, b))
    if np.array_equal(one, other):
        return []
    both = {
        name: (a.variables[name], b.variables[name]) for name in DERIVED if name in a.variables.keys() & b.variables
    }
    return sorted(
        name for name, pair in both.items() if any(array.attrs.get("resolution_steps", 1) > 1 for array in pair)
    )


def _names(
    a: xr.Dataset, b: xr.Dataset, asked: Sequence[str] | None, of_whole: Sequence[str], others_moves: Sequence[str]
) -> list[str]:
    both = [str(name) for name in a.data_vars if name in b.data_vars and "step" in a[name].dims]
    both = [name for name in both if name not in of_whole]
    for name in asked or ():
        if name in of_whole:
            raise ValueError(f"{name} is that of the whole run, and tokens or hidden dimensions are left out here")
        if name not in both:
            raise ValueError(f"{name!r} is not an array on `step` in both; these are: {', '.join(sorted(both))}")
    names = [name for name in both if (name not in others_moves if asked is None else name in asked)]
    if not names:
        raise ValueError(
            f"there is no array to compare; on `step` the first has {_on_steps(a)}, and the second {_on_steps(b)}"
        )
    for name in names:
        if (a[name].dtype, set(a[name].dims)) != (b[name].dtype, set(b[name].dims)):
            raise ValueError(
                f"{name}: {a[name].dtype} on {a[name].dims} and {b[name].dtype} on {b[name].dims}; compare runs of one "
                f"kind, or name arrays that are alike, as in arrays=['loss']"
            )
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def _on_steps(ds: xr.Dataset) -> str:
    return ", ".join(str(name) for name in ds.data_vars if "step" in ds[name].dims) or "none"


def _on_other_steps(a: xr.Dataset, b: xr.Dataset) -> list[str]:
    """Arrays of both that have a step axis of their own, as one with a schedule has."""
    both = (str(name) for name in a.data_vars if name in b.data_vars)
    return sorted(name for name in both if any(str(dim).startswith("step_") for dim in a[name].dims))


def _pair(name: str, a: xr.Dataset, b: xr.Dataset, labels: npt.NDArray[np.int64], *, begins: bool) -> _Pair:
    """An array of both at these steps; `begins` where the first of them is the first state of one of them, or both."""
    sides = []
    for ds in (a, b):
        dims = ["step", *(dim for dim in a[name].dims if dim != "step")]
        array = ds[name].isel(step=positions(ds["step"].values, labels)).transpose(*dims)
        sides.append(array.data if array.chunks else array.chunk({"step": 128}).data)
    one, other = sides[0], sides[1].rechunk(sides[0].chunks)
    if begins and _is_of_moves(name, a, b):
        other = da.concatenate([one[:1], other[1:]]).rechunk(one.chunks)
    return _Pair(name, one, other)


def _is_of_moves(name: str, a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether an array describes updates, not states."""
    return name in DERIVED or "move" in {ds[name].attrs.get("belongs_to") for ds in (a, b)}


def positions(labels: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> slice | npt.NDArray[np.int64]:
    """Where labels stand; a slice if they stand side by side, since a slice keeps chunks whole."""
    at = np.searchsorted(labels, wanted)
    return slice(int(at[0]), int(at[-1]) + 1) if at[-1] - at[0] + 1 == len(at) else at


def _first_row(pairs: Sequence[_Pair], steps: int) -> tuple[int, str]:
    """Position of the first step with a difference, and the array it is in; (steps, "") if there is none."""
    width = max([1, *(pair.a.chunksize[0] for pair in pairs)])
    start = 0
    while start < steps:
        window = slice(start, start + width)
        parted = compute(*(_parted(pair.a[window], pair.b[window]) for pair in pairs))
        rows = [int(rows.min()) for rows in parted]
        first = min(rows, default=_NONE)
        if first < _NONE:
            return start + first, pairs[rows.index(first)].name
        start, width = start + width, 2 * width
    return steps, ""


def _parted(a: Any, b: Any) -> Any:  # noqa: ANN401 - dask arrays have no types
    """For each chunk the first row that differs, counted from the window's first; lazy."""
    first = np.cumsum([0, *a.chunks[0][:-1]])
    starts = da.from_array(first.reshape(-1, *(1,) * (a.ndim - 1)), chunks=1)
    starts = da.broadcast_to(starts, a.numblocks, chunks=tuple((1,) * blocks for blocks in a.numblocks))
    ones = tuple((1,) * blocks for blocks in a.numblocks)
    return da.map_blocks(
        _first_in_chunk, a, b, starts, dtype=np.int64, chunks=ones, meta=np.empty((0,) * a.ndim, np.int64)
    )


def _first_in_chunk(a: npt.NDArray[Any], b: npt.NDArray[Any], start: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    unequal = lattice.patterns_of(a) != lattice.patterns_of(b)
    rows = unequal.any(axis=tuple(range(1, a.ndim)))
    return np.where(rows.any(), start + np.argmax(rows), _NONE)


def _first_place(pair: _Pair, row: int, ds: xr.Dataset, is_projected: bool) -> dict[str, Any]:
    """Token, hidden index, values and hops of the first difference in a row; hops as moves are measured."""
    a, b = (np.asarray(side) for side in compute(pair.a[row], pair.b[row]))
    place = np.unravel_index(int(np.argmax(lattice.patterns_of(a) != lattice.patterns_of(b))), a.shape)
    told: dict[str, Any] = {}
    for dim, index in zip(ds[pair.name].transpose("step", ...).dims[1:], place, strict=True):
        told[str(dim)] = int(ds[dim].values[index]) if dim in ds.coords else int(index)
    told = {name: index for name, index in told.items() if name in ("token", "hidden")}
    values = a[place], b[place]
    if pair.name == "W" or a.dtype in (np.float32, np.float16):
        on_lattice = map(lattice.float32_to_bits, values) if pair.name == "W" and is_projected else values
        told["hops"] = int(lattice.hops(*on_lattice))
    is_bits = ds[pair.name].attrs.get("bits_of") == "bfloat16" or pair.name == "W"
    numbers = [lattice.as_float32(value) if is_bits else value for value in values]
    return told | {"value_a": float(numbers[0]), "value_b": float(numbers[1])}

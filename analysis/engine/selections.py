"""What a selection may have done to a trajectory: labels, dimensions and bits, refused where an answer would be false.

`trajectory.trajectory_of` looks here first. Labels are whole numbers; those of `step` ascend, and may leave steps out.
Without ``step`` or ``token`` coordinates the labels are 0, 1, ...
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import lattice

DIMS = ("step", "token", "hidden")
NORM_OF = {norm: f"displacement_{norm}" for norm in lattice.NORMS}
"""The array that holds a norm."""
DERIVED = ("delta_W_prime", *NORM_OF.values())
"""What can be made of W."""
DIMS_OF = {
    "W": DIMS,
    "delta_W_prime": DIMS,
    **dict.fromkeys(NORM_OF.values(), ("step", "token")),
    "centroid": ("step", "hidden"),
}
"""The arrays that questions read, and their dimensions."""


def require_trajectory(ds: xr.Dataset) -> None:
    """Refuse a Dataset that an operation of xarray has turned into something else.

    Raises
    ------
    ValueError
        What was selected as one step, token or hidden index instead of a list of one; arrays with other dimensions
        beside their own; bit patterns that were made other numbers, see `refuse_lost_bits`; W at some steps only, or
        in a dtype of another lattice than the one that its moves are measured on.
    """
    refuse_lost_bits(ds)
    _refuse_other_lattice(ds)
    for dim in DIMS:
        if dim in ds.coords and not ds[dim].dims:
            label = ds[dim].item()
            raise ValueError(f"{dim} was selected as a single label; select a list instead: ds.sel({dim}=[{label!r}])")
    for name, dims in DIMS_OF.items():
        found = ds.variables[name].dims if name in ds.data_vars else dims
        if is_on_own_steps(name, found):
            _refuse_own_steps(name)
            continue
        if lost := [dim for dim in dims if dim not in found]:
            raise ValueError(
                f"{name} has no dimension {lost[0]!r}; if one was selected by its position, "
                f"select a list instead: ds.isel({lost[0]}=[position]){_renamed(found, dims, lost[0])}"
            )
        if more := [dim for dim in found if dim not in dims]:
            raise ValueError(
                f"{name} has a dimension {more[0]!r} beside {', '.join(dims)}: it is no longer one trajectory; "
                f"select one, as in ds.isel({more[0]}=0), or leave {name} out, as in ds.drop_vars({name!r})"
            )


def is_on_own_steps(name: str, dims: Collection[Hashable]) -> bool:
    """Whether an array was recorded at some steps only, and so has a step dimension of its own.

    Examples
    --------
    >>> is_on_own_steps("centroid", ("step_centroid", "hidden")), is_on_own_steps("centroid", ("step", "hidden"))
    (True, False)
    """
    return f"step_{name}" in dims and "step" not in dims


def _refuse_own_steps(name: str) -> None:
    """The centroid can be made of W; what all else is about cannot be left out."""
    if name != "centroid":
        raise ValueError(
            f"{name} was recorded at some steps only, those of step_{name}; ask of these as a run with gaps: "
            f"ds[[{name!r}]].rename(step_{name}='step')"
        )


def _refuse_other_lattice(ds: xr.Dataset) -> None:
    """Refuse float16 weights as float32 numbers: their moves would be counted in cells of float32, 8,192 for one."""
    if "W" not in ds.data_vars or ds["W"].dtype != np.float32:
        return
    for name in ("W", *DERIVED):
        if name in ds.data_vars and ds[name].attrs.get("lattice") == "float16":
            raise ValueError(
                f"W is float32, but by the attribute of {name} its moves are measured on the lattice of float16; make "
                "float16 of it again, as in ds.assign(W=ds.W.astype('float16'))"
            )


def _renamed(found: Sequence[Any], dims: Sequence[str], lost: str) -> str:
    """What to do where a dimension may only have another name."""
    others = [str(dim) for dim in found if dim not in dims]
    return f"; if it is {others[0]!r}, name it back: ds.rename({others[0]}={lost!r})" if others else ""


def refuse_lost_bits(ds: xr.Dataset) -> None:
    """Refuse arrays whose attribute ``bits_of`` is no longer true; see `lattice.refuse_lost_bits`."""
    for name in ds.data_vars:
        array = ds.variables[name]
        lattice.refuse_lost_bits(str(name), array.dtype, array.attrs.get("bits_of"))
    if "W" in ds.data_vars and (bits_of := ds["W"].attrs.get("bits_of", "bfloat16")) != "bfloat16":
        raise ValueError(f"W holds the bits of {bits_of} numbers; expected those of bfloat16, or numbers themselves")


def labels(ds: xr.Dataset, dim: str) -> NDArray[np.int64]:
    """The labels of `step` or `token`, or 0, 1, ... where there are none.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If they are not whole numbers.
    """
    if dim not in ds.coords:
        return np.arange(ds.sizes.get(dim, 0), dtype=np.int64)
    found = np.asarray(ds.indexes[dim] if dim in ds.indexes else ds[dim].values)
    if found.dtype.kind not in "iuf":
        raise TypeError(f"labels of {dim!r} must be whole numbers, not of dtype {found.dtype}")
    with np.errstate(invalid="ignore"):
        whole = found.astype(np.int64, copy=False)
    if (odd := np.flatnonzero(whole != found)).size:
        raise ValueError(
            f"labels of {dim!r} must be whole numbers, found {found[odd[0]]} at position {odd[0]}; "
            f"give others, as in ds.assign_coords({dim}=range(ds.sizes[{dim!r}]))"
        )
    return whole


def step_labels(ds: xr.Dataset) -> NDArray[np.int64]:
    """The step labels, ascending; steps may be missing between them.

    Raises
    ------
    ValueError
        If there is no step, one below 0 or twice, or they do not ascend: a move leads from each state to the next.
    """
    steps = labels(ds, "step")
    if not steps.size:
        raise ValueError("the Dataset has no step: expected at least one state along the dimension 'step'")
    wrong = np.flatnonzero(np.diff(steps) <= 0)
    if wrong.size:
        at = int(wrong[0]) + 1
        here, there = steps[at - 1], steps[at]
        if here == there:
            raise ValueError(f"step {here} stands at positions {at - 1} and {at}: keep one of them, as in "
                             "ds.drop_duplicates('step')")  # fmt: skip
        raise ValueError(f"step {there} follows step {here} at position {at}, but labels must ascend: sort them, as in "
                         "ds.sortby('step')")  # fmt: skip
    if steps[0] < 0:
        raise ValueError(f"step {steps[0]}: labels of steps must be 0 or more; 0 is the state before the first update")
    return steps


def refuse_gaps(steps: NDArray[np.int64]) -> None:
    """Refuse labels with steps missing between the first and the last.

    Raises
    ------
    ValueError
        With what can be asked instead.
    """
    gaps = np.flatnonzero(np.diff(steps) != 1)
    if gaps.size:
        here, there = steps[gaps[0]], steps[gaps[0] + 1]
        raise ValueError(
            f"step {there} follows step {here}: this question counts single steps, and none may be missing between the "
            "first and the last; select a range, as in ds.sel(step=slice(first, last)), without a stride. Where "
            "others were not recorded, ask last_motion, freeze_times, fimbulwinter, drift or cloud, which compare "
            "states and need no single steps"
        )

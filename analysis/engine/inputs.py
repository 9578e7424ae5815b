"""What questions are asked of: the arrays of a trajectory, as stored or derived from W, on labels, in dask blocks.

Any Dataset of the shape of format 1 will do: an opened run, a slice of one, an import, arrays in memory. Without
``step`` or ``token`` coordinates the labels are 0, 1, ... In the docstrings T is the number of moves, N of tokens, D of
hidden dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from analysis import lattice
from analysis.engine import outputs as graphs
from analysis.engine.question import Span
from analysis.lattice import Array
from analysis.moves import moves, norms_of_moves

DIMS = ("step", "token", "hidden")
NORM_OF = {norm: f"displacement_{norm}" for norm in lattice.NORMS}
"""The array that holds a norm."""
DERIVED = ("delta_W_prime", *NORM_OF.values())
"""What can be made of W."""
MEMORY_CHUNKS = {"step": 128, "token": 256}
"""How arrays that lie in memory are cut: as the store would."""
HASHED_BYTES = 1 << 26
"""Up to this size, arrays in memory are recognised by their content."""


def weights(ds: xr.Dataset) -> xr.DataArray:
    """The recorded weights as float32, lazily and exactly.

    Parameters
    ----------
    ds : Dataset
        With W (step, token, hidden): uint16 bit patterns of bfloat16, float16 or float32.

    Returns
    -------
    DataArray
        float32 (step, token, hidden), dask-backed. NaN payloads, infinities, subnormals and -0 stay as they are.

    Notes
    -----
    Reads nothing before it is computed; then each chunk once, 6 bytes of memory a weight.

    Examples
    --------
    >>> ds = xr.Dataset({"W": (("step", "token", "hidden"), np.full((1, 1, 2), 0x3F80, np.uint16))})
    >>> weights(ds).values
    array([[[1., 1.]]], dtype=float32)
    """
    W = in_blocks(_variable(ds, "W"))
    lattice.lattice_of(W.dtype)
    data = W.data.map_blocks(lattice.as_float32, dtype=np.float32)
    answer = W.copy(data=data).rename("weights")
    answer.attrs.pop("bits_of", None)
    return answer


def span(ds: xr.Dataset) -> Span:
    """Labels of the first and last state; checks that the steps between them are all there."""
    steps = step_labels(ds)
    return Span(int(steps[0]), int(steps[-1]))


def step_labels(ds: xr.Dataset) -> NDArray[np.int64]:
    """The step labels, which must be consecutive.

    Raises
    ------
    ValueError
        If there is no step, or steps are missing between the first and the last: a move needs the state before it.
    """
    steps = labels(ds, "step")
    if not steps.size:
        raise ValueError("the Dataset has no step: expected at least one state along the dimension 'step'")
    gaps = np.flatnonzero(np.diff(steps) != 1)
    if gaps.size:
        here, there = steps[gaps[0]], steps[gaps[0] + 1]
        raise ValueError(
            f"step {there} follows step {here}: moves are asked of consecutive steps; "
            "select a range, as in ds.sel(step=slice(first, last)), without a stride"
        )
    return steps


def token_labels(ds: xr.Dataset) -> NDArray[np.int64]:
    """The token ids, or 0, 1, ... where there are none."""
    return labels(ds, "token")


def labels(ds: xr.Dataset, dim: str) -> NDArray[np.int64]:
    """The labels of `step` or `token`, or 0, 1, ... where there are none.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If they are not whole numbers, or a dimension was lost; see `refuse_lost_dims`.
    """
    refuse_lost_dims(ds)
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


def refuse_lost_dims(ds: xr.Dataset) -> None:
    """Refuse what was selected as one step or one token instead of a list of one.

    Raises
    ------
    ValueError
        With the selection to make instead.
    """
    for dim in ("step", "token"):
        if dim in ds.coords and not ds[dim].dims:
            label = ds[dim].item()
            raise ValueError(f"{dim} was selected as a single label; select a list instead: ds.sel({dim}=[{label!r}])")
        lost = [name for name in ("W", *DERIVED) if name in ds.data_vars and dim not in ds[name].dims]
        if lost:
            raise ValueError(
                f"{lost[0]} has no dimension {dim!r}; if one was selected by its position, "
                f"select a list instead: ds.isel({dim}=[position])"
            )


def in_blocks(array: xr.DataArray) -> xr.DataArray:
    """An array as dask blocks (step, token, hidden), hidden whole; one that lies in memory is cut, not copied."""
    array = array.transpose(*(dim for dim in DIMS if dim in array.dims), ...)
    if array.chunks is None:
        if isinstance(array.variable._data, np.ndarray):
            chunks = tuple(MEMORY_CHUNKS.get(str(dim), -1) for dim in array.dims)
            # dask names an array by a hash of it, so that work is shared; of a large one that would take seconds.
            name = None if array.nbytes <= HASHED_BYTES else False
            return array.copy(data=da.from_array(array.variable._data, chunks=chunks, name=name))
        array = array.chunk({dim: MEMORY_CHUNKS.get(str(dim), -1) for dim in array.dims})
    assert array.chunks is not None
    wanted = tuple(
        (sum(sizes),) if dim not in ("step", "token") else tuple(size for size in sizes if size) or (0,)
        for dim, sizes in zip(array.dims, array.chunks, strict=True)
    )
    return array if wanted == array.chunks else array.copy(data=array.data.rechunk(wanted))


def arrays(ds: xr.Dataset, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """The named arrays in dask blocks with common borders; what is not there is derived from W.

    Raises
    ------
    ValueError
        If an array is neither there nor can be derived, or a dimension was lost; see `refuse_lost_dims`.
    """
    refuse_lost_dims(ds)
    missing = [name for name in names if name not in ds.data_vars]
    made = _derived(ds, missing) if missing else {}
    found = [made[name] if name in made else in_blocks(_variable(ds, name)) for name in names]
    bare = [array.drop_vars(list(array.coords)) for array in found]
    aligned = xr.unify_chunks(*bare)
    return {name: array for name, array in zip(names, aligned, strict=True) if isinstance(array, xr.DataArray)}


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds.data_vars:
        there = ", ".join(map(str, ds.data_vars)) or "none"
        raise ValueError(f"the Dataset has no {name}, nor what it could be derived from; its variables: {there}")
    return ds[name]


def _derived(ds: xr.Dataset, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """Moves derived from W, or norms from delta_W_prime where W was not kept."""
    source = next((name for name in ("W", "delta_W_prime") if name in ds.data_vars), None)
    for name in names:
        if name not in DERIVED or source is None:
            _variable(ds, name)
    if source == "W":
        return _moves_of(in_blocks(ds["W"]), names, _is_projected(ds))
    return _norms_of(in_blocks(ds["delta_W_prime"]), names)


def _is_projected(ds: xr.Dataset) -> bool:
    """Whether float32 weights are measured on the bfloat16 lattice: `lattice` of W, or of the moves, says so."""
    if ds["W"].dtype != np.float32:
        return False
    return any(ds[name].attrs.get("lattice") == "bfloat16" for name in ("W", *DERIVED) if name in ds.data_vars)


def _moves_of(W: xr.DataArray, names: Sequence[str], projected: bool) -> dict[str, xr.DataArray]:
    """The named moves, lazily: row 0 is NaN, every chunk of W is read once, one row of it crosses a border."""
    lattice.lattice_of(W.dtype)
    data, before = W.data, graphs.last_rows(W.data)
    task = _MovesTask("delta_W_prime" in names, projected)
    name = f"moves-{tokenize(task, data.name)}"
    blocks = [(i, j) for i in range(data.numblocks[0]) for j in range(data.numblocks[1])]
    tasks = {
        (name, i, j): (task, (data.name, i, j, 0), *([(before.name, i - 1, j, 0)] if i else [])) for i, j in blocks
    }
    return _by_blocks(name, tasks, data, names, [data, before])


def _norms_of(delta: xr.DataArray, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """Norms of stored displacements, lazily."""
    data = delta.data
    name = f"norms-{tokenize(data.name)}"
    blocks = [(i, j) for i in range(data.numblocks[0]) for j in range(data.numblocks[1])]
    tasks = {(name, i, j): (_norms_task, (data.name, i, j, 0)) for i, j in blocks}
    return _by_blocks(name, tasks, data, names, [data])


def _by_blocks(
    name: str, tasks: dict[graphs.Key, Any], data: da.Array, names: Sequence[str], dependencies: list[da.Array]
) -> dict[str, xr.DataArray]:
    """Arrays on the blocks of `data`, made by a task a block."""
    outputs = [
        graphs.Output(part, data.chunks if part == "delta_W_prime" else data.chunks[:2], "float32", kept=(0, 1))
        for part in names
    ]
    made = graphs.arrays_of(name, tasks, outputs, dependencies)
    return {part: xr.DataArray(array, dims=DIMS[: array.ndim]) for part, array in made.items()}


def _norms_task(delta: Array) -> dict[str, Array]:
    return dict(zip(NORM_OF.values(), lattice.norms(delta), strict=True))


@dataclass(frozen=True, slots=True)
class _MovesTask:
    """Moves of one block of W: the norms, and the displacements if they are asked for."""

    with_delta: bool
    projected: bool

    def __call__(self, rows: Array, before: Array | None = None) -> dict[str, Array]:
        if self.projected:
            rows = lattice.float32_to_bits(rows)
            before = None if before is None else lattice.float32_to_bits(before)
        previous = rows[0] if before is None else before[0]
        if self.with_delta:
            made = dict(zip(DERIVED, moves(previous, rows), strict=True))
        else:
            made = dict(zip(NORM_OF.values(), norms_of_moves(previous, rows), strict=True))
        if before is None:
            for name, array in made.items():
                made[name] = array if array.flags.writeable else array.copy()  # one zero seen everywhere
                made[name][0] = np.nan
        return made

"""What questions are asked of: the arrays of a trajectory, as stored or derived from W, in dask blocks.

Any Dataset of the shape of format 1 will do: an opened run, a slice of one, an import, arrays in memory. In the
docstrings T is the number of moves, N of tokens, D of hidden dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from analysis import lattice
from analysis.engine import outputs as graphs
from analysis.engine.selections import DIMS, NORM_OF, refuse_lost_bits, require_trajectory, span
from analysis.lattice import Array
from analysis.moves import moves, norms_of_moves

DERIVED = ("delta_W_prime", *NORM_OF.values())
"""What can be made of W."""
MEMORY_CHUNKS = {"step": 128, "token": 256}
"""How arrays that lie in memory are cut: as the store would."""
SMALLEST_BITS = 0x2000
"""The bits of 2^-63 in bfloat16, 8,192: where all whole numbers are below it, they may be weights."""
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

        The attribute ``lattice`` of what were bits says ``"bfloat16"``: where the answer stands for W in a Dataset,
        moves are measured as before.

    Raises
    ------
    ValueError
        Without W, or where xarray made numbers of its bits; see `selections.refuse_lost_bits`.
    TypeError
        If W is of a dtype without a lattice, such as float64.

    Notes
    -----
    Reads nothing before it is computed; then each chunk once, 6 bytes of memory a weight.

    Examples
    --------
    >>> ds = xr.Dataset({"W": (("step", "token", "hidden"), np.full((1, 1, 2), 0x3F80, np.uint16))})
    >>> weights(ds).values
    array([[[1., 1.]]], dtype=float32)
    """
    W = recorded_weights(ds)
    data = W.data.map_blocks(lattice.as_float32, dtype=np.float32)
    answer = W.copy(data=data).rename("weights")
    for name in ("bits_of", "units"):
        answer.attrs.pop(name, None)
    if W.dtype == np.uint16:
        answer.attrs["lattice"] = "bfloat16"
    return answer


def recorded_weights(ds: xr.Dataset) -> xr.DataArray:
    """W as it was recorded, in dask blocks.

    Raises
    ------
    ValueError
        Without W, or where xarray made numbers of its bits: at once where the attribute ``bits_of`` tells, else when
        a block is computed whose weights look like that.
    TypeError
        If it is of a dtype without a lattice.
    """
    refuse_lost_bits(ds)
    W = in_blocks(_variable(ds, "W"))
    lattice.lattice_of(W.dtype)
    if W.dtype == np.float32:
        return W.copy(data=W.data.map_blocks(_refuse_bits_as_numbers, dtype=W.dtype, meta=W.data._meta))
    return W


def _refuse_bits_as_numbers(block: Array) -> Array:
    """Refuse a block whose first or last state consists of whole numbers such as only the bits of bfloat16 are.

    Where attributes were lost with them, only the numbers tell that they are patterns: 16,256 for 1.
    """
    seen = np.concatenate([block[:1], block[-1:]])
    seen = seen[np.isfinite(seen)]
    if seen.size and ((seen >= 0) & (seen < 1 << 16) & (seen == np.floor(seen))).all() and seen.max() >= SMALLEST_BITS:
        raise ValueError(
            f"W is float32, but holds nothing but whole numbers such as {seen.max():.0f}: these look like the bits of "
            f"bfloat16 numbers, which something took for numbers; {lattice.INSTEAD}"
        )
    return block


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

    Stored moves are read only where they are those of these states: where steps are missing between two states, the
    move between them is derived from W, and so are norms where hidden dimensions were left out.

    Raises
    ------
    ValueError
        If an array is neither there nor can be derived, or the Dataset is no trajectory; see `selections`.
    """
    require_trajectory(ds)
    derived = [name for name in names if not _is_stored(ds, name)]
    made = _derived(ds, derived) if derived else {}
    found = [made[name] if name in made else _stored(ds, name) for name in names]
    bare = [array.drop_vars(list(array.coords)) for array in found]
    aligned = xr.unify_chunks(*bare)
    return {name: array for name, array in zip(names, aligned, strict=True) if isinstance(array, xr.DataArray)}


def _stored(ds: xr.Dataset, name: str) -> xr.DataArray:
    return recorded_weights(ds) if name == "W" else in_blocks(_variable(ds, name))


def _is_stored(ds: xr.Dataset, name: str) -> bool:
    """Whether an array is there, and is that of these states and hidden dimensions."""
    if name not in ds.data_vars:
        return False
    is_whole = name not in NORM_OF.values() or _has_all_hidden(ds)
    return is_whole and (name not in DERIVED or span(ds).resolution == 1)


def _has_all_hidden(ds: xr.Dataset) -> bool:
    """Whether no hidden dimension was left out; the attribute ``hidden`` says how many were recorded."""
    here = ds.sizes.get("hidden")
    return here is None or ds.attrs.get("hidden", here) == here


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds.data_vars:
        there = ", ".join(map(str, ds.data_vars)) or "none"
        raise ValueError(f"the Dataset has no {name}, nor what it could be derived from; its variables: {there}")
    return ds[name]


def _derived(ds: xr.Dataset, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """Moves derived from W, or norms from delta_W_prime where W was not kept."""
    for name in names:
        if name not in DERIVED:
            _variable(ds, name)
    if "W" in ds.data_vars:
        return _moves_of(recorded_weights(ds), names, is_projected(ds))
    _refuse_moves_of_others(ds, names)
    if "delta_W_prime" not in ds.data_vars:
        _variable(ds, names[0])
    return _norms_of(in_blocks(ds["delta_W_prime"]), names)


def _refuse_moves_of_others(ds: xr.Dataset, names: Sequence[str]) -> None:
    """Refuse stored moves that are not those of these states, where there is no W to derive the right ones from."""
    resolution = span(ds).resolution
    there = [name for name in DERIVED if name in ds.data_vars]
    if there and resolution > 1:
        raise ValueError(
            f"{there[0]} belongs to single steps, but here states are up to {resolution} steps apart, and there is no "
            "W to derive the moves between them from; keep W, or select steps without a gap"
        )
    stale = [name for name in names if name in there]
    if stale and "delta_W_prime" not in there:
        raise ValueError(
            f"{stale[0]} is that of {ds.attrs['hidden']} hidden dimensions, here are {ds.sizes['hidden']}, and there "
            "is neither W nor delta_W_prime to derive it from; keep one of them, or all hidden dimensions"
        )


def is_projected(ds: xr.Dataset) -> bool:
    """Whether float32 weights are measured on the bfloat16 lattice: `lattice` of W, or of the moves, says so."""
    if "W" not in ds.data_vars or ds["W"].dtype != np.float32:
        return False
    return any(ds[name].attrs.get("lattice") == "bfloat16" for name in ("W", *DERIVED) if name in ds.data_vars)


def _moves_of(W: xr.DataArray, names: Sequence[str], projected: bool) -> dict[str, xr.DataArray]:
    """The named moves, lazily: row 0 is NaN, every chunk of W is read once, one row of it crosses a border."""
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

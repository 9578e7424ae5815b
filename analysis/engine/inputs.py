"""What questions are asked of: the arrays of a trajectory, as stored or derived from W, in dask blocks.

Any Dataset of the shape of format 1 will do: an opened run, a slice of one, an import, arrays in memory. In the
docstrings T is the number of moves, N of tokens, D of hidden dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from analysis import lattice
from analysis.answers import AnswerArray
from analysis.engine import outputs as graphs
from analysis.engine.selections import DERIVED, DIMS, NORM_OF, is_on_own_steps, refuse_lost_bits
from analysis.engine.stored_norms import checked
from analysis.engine.trajectory import Trajectory, require_dataset
from analysis.lattice import Array
from analysis.moves import moves, norms_of_moves

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
        float32 (step, token, hidden), dask-backed; (step_W, token, hidden) where W was recorded at some steps only. NaN
        payloads, infinities, subnormals and -0 stay as they are.

        The attribute ``lattice`` of what were bits says ``"bfloat16"``: where the answer stands for W in a Dataset,
        moves are measured as before. That of what was float16 says so too, and stands for W in float16 alone: every
        question refuses it as float32.

    Raises
    ------
    ValueError
        Without W, or where xarray made numbers of its bits; see `selections.refuse_lost_bits`.
    TypeError
        If W is of a dtype without a lattice, such as float64, and for what is no Dataset.

    Notes
    -----
    Reads nothing before it is computed; then each chunk once, 6 bytes of memory a weight.

    Examples
    --------
    >>> ds = xr.Dataset({"W": (("step", "token", "hidden"), np.full((1, 1, 2), 0x3F80, np.uint16))})
    >>> weights(ds).values
    array([[[1., 1.]]], dtype=float32)
    """
    require_dataset(ds)
    refuse_lost_bits(ds)
    W = _variable(ds.data_vars, "W", ds.attrs)
    has_own_steps = is_on_own_steps("W", W.dims)
    W = _as_recorded(W.rename(step_W="step") if has_own_steps else W)
    data = W.data.map_blocks(lattice.as_float32, dtype=np.float32)
    answer = W.copy(data=data).rename("weights")
    for name in ("bits_of", "units", "comment"):
        answer.attrs.pop(name, None)
    answer.attrs["long_name"] = "weights"
    if W.dtype != np.float32:
        answer.attrs["lattice"] = lattice.lattice_of(W.dtype).name
    return AnswerArray(answer.rename(step="step_W") if has_own_steps else answer)


def recorded_weights(asked: Trajectory) -> xr.DataArray:
    """W as it was recorded, in dask blocks.

    Raises
    ------
    ValueError
        Without W, or where xarray made numbers of its bits: at once where the attribute ``bits_of`` tells, else when
        a block is computed whose weights look like that.
    TypeError
        If it is of a dtype without a lattice.
    """
    return _as_recorded(_variable_of(asked, "W"))


def _as_recorded(W: xr.DataArray) -> xr.DataArray:
    W = in_blocks(W)
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


def arrays(asked: Trajectory, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """The named arrays in dask blocks with common borders; what is not there is derived from W.

    Stored moves are read only where they are those of these states. Where steps are missing between two states, the
    move between them is derived from W; so are all moves where the labels of steps are not those of the recording any
    more, since states may be missing between them, and norms where hidden dimensions were left out, or may have been.

    Raises
    ------
    ValueError
        If an array is neither there nor can be derived; when a block of a stored norm is computed that is none of
        these moves, see `stored_norms`.
    """
    derived = [name for name in names if not _is_stored(asked, name)]
    made = _derived(asked, derived) if derived else {}
    found = [made[name] if name in made else _stored(asked, name) for name in names]
    aligned = xr.unify_chunks(*found)
    return {name: array for name, array in zip(names, aligned, strict=True) if isinstance(array, xr.DataArray)}


def _stored(asked: Trajectory, name: str) -> xr.DataArray:
    if name == "W":
        return recorded_weights(asked)
    array = in_blocks(_variable_of(asked, name))
    kind = next((kind for kind, stored in NORM_OF.items() if stored == name), None)
    if kind is None:
        return array
    return checked(asked, kind, array, recorded_weights(asked) if "W" in asked.variables else None)


def _is_stored(asked: Trajectory, name: str) -> bool:
    """Whether an array is there, and is that of these states and hidden dimensions."""
    if name not in asked.variables or name not in DERIVED:
        return name in asked.variables
    if asked.span.resolution > 1 or (name in NORM_OF.values() and not _has_all_hidden(asked)):
        return False
    return asked.has_recorded_labels or not _tells_moves(asked)


def _has_all_hidden(asked: Trajectory) -> bool:
    """Whether no hidden dimension was left out; the attribute ``hidden`` says how many were recorded.

    Where nothing says it, they are taken for all of them only if there is nothing to derive norms from.
    """
    here, recorded = asked.sizes.get("hidden"), asked.attributes.get("hidden")
    if here is None or recorded is not None:
        return here is None or recorded == here
    return "delta_W_prime" not in asked.variables and not _tells_moves(asked)


def _tells_moves(asked: Trajectory) -> bool:
    """Whether there is a W to derive moves from."""
    return "W" in asked.variables and asked.variables["W"].dtype in lattice.LATTICES


def _variable_of(asked: Trajectory, name: str) -> xr.DataArray:
    return _variable(asked.variables, name, asked.attributes)


def _variable(variables: Mapping[Any, xr.DataArray], name: str, attributes: Mapping[Any, Any]) -> xr.DataArray:
    if name not in variables:
        whose, there = attributes.get("run", "the Dataset"), ", ".join(map(str, variables)) or "none"
        raise ValueError(f"{whose} has no {name}, nor what it could be derived from; its variables: {there}")
    return variables[name]


def _derived(asked: Trajectory, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """Moves derived from W, or norms from delta_W_prime where W was not kept."""
    for name in names:
        if name not in DERIVED:
            _variable_of(asked, name)
    if "W" in asked.variables:
        return _moves_of(recorded_weights(asked), names, asked.is_projected)
    _refuse_moves_of_others(asked, names)
    if "delta_W_prime" not in asked.variables:
        _variable_of(asked, names[0])
    return _norms_of(in_blocks(asked.variables["delta_W_prime"]), names)


def _refuse_moves_of_others(asked: Trajectory, names: Sequence[str]) -> None:
    """Refuse stored moves that are not those of these states, where there is no W to derive the right ones from."""
    resolution, hidden = asked.span.resolution, asked.sizes.get("hidden")
    there = [name for name in DERIVED if name in asked.variables]
    if there and resolution > 1:
        raise ValueError(
            f"{there[0]} belongs to single steps, but here states are up to {resolution} steps apart, and there is no "
            "W to derive the moves between them from; keep W, or select steps without a gap"
        )
    stale = [name for name in names if name in there]
    if stale and "delta_W_prime" not in there:
        raise ValueError(
            f"{stale[0]} is that of {asked.attributes['hidden']} hidden dimensions, here are {hidden}, and there "
            "is neither W nor delta_W_prime to derive it from; keep one of them, or all hidden dimensions"
        )


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

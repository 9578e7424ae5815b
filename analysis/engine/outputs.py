"""Task graphs made by hand: several lazy arrays out of one set of tasks.

Names are made of what the tasks are given, so that two questions which need the same work share it when they are
computed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from analysis.lattice import Array

Chunks = tuple[tuple[int, ...], ...]
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A task that gives what was put aside for others, so that dask does not look into it."""

    value: Any

    def __call__(self) -> Any:  # noqa: ANN401 - whatever was put aside
        """Give it."""
        return self.value


@dataclass(frozen=True, slots=True)
class Output:
    """A lazy array that is to be made.

    Parameters
    ----------
    part : str
        Which part of the mapping that each task makes.
    chunks : tuple of tuple of int
    dtype : str
    kept : tuple of int
        The axes along which each block has a task of its own: block (2, 3, 0) with kept (0, 1) is made by the task
        (name, 2, 3).
    """

    part: str
    chunks: Chunks
    dtype: str
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pick:
    """Take one array out of what a task made."""

    part: str
    dtype: str

    def __call__(self, made: Mapping[str, Array]) -> Array:
        return np.asarray(made[self.part], dtype=self.dtype)


def arrays_of(
    name: str, tasks: Mapping[Key, Any], outputs: Sequence[Output], dependencies: Sequence[Any]
) -> dict[str, da.Array]:
    """Lazy arrays whose blocks are parts of what tasks make.

    Parameters
    ----------
    name : str
        Name of the layer. The tasks that make blocks have keys (name, index, ...), others may be beside them.
    tasks : mapping from key to dask task
        They may refer to keys of `dependencies`. A task that makes blocks gives a mapping from part to array.
    outputs : sequence of Output
    dependencies : sequence of dask arrays

    Returns
    -------
    dict from part to dask array
    """
    below = HighLevelGraph.from_collections(name, dict(tasks), dependencies=dependencies)
    arrays = {}
    for output in outputs:
        layer = f"{name}-{output.part}"
        pick = _Pick(output.part, output.dtype)
        blocks = {
            (layer, *at): (pick, (name, *(at[axis] for axis in output.kept)))
            for at in product(*(range(len(axis)) for axis in output.chunks))
        }
        layers: dict[str, Any] = {**below.layers, layer: blocks}
        graph = HighLevelGraph(layers, {**below.dependencies, layer: {name}})
        arrays[output.part] = da.Array(graph, layer, output.chunks, dtype=output.dtype)
    return arrays


def last_rows(array: da.Array) -> da.Array:
    """The last row of every block along the first axis, one row a block: what the next block must know."""
    chunks = ((1,) * len(array.chunks[0]), *array.chunks[1:])
    name = f"last-row-{array.name}"
    rows: da.Array = da.map_blocks(_last_row, array, chunks=chunks, dtype=array.dtype, name=name, meta=array._meta)
    return rows


def _last_row(rows: Array) -> Array:
    return rows[-1:].copy()

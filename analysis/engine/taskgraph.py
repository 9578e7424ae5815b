"""The tasks of one reduction: a task a block, trees that combine them in order, and the finish."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.engine.outputs import Constant, Key
from analysis.engine.question import Block, Partial, Reduction, Span

FAN_IN = 8
"""Partials that one combining task takes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a reduction is laid over: its arrays in blocks with common borders, and their labels."""

    inputs: Mapping[str, xr.DataArray]
    before: Mapping[str, xr.DataArray]
    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    span: Span

    def sizes(self, dim: str) -> tuple[int, ...]:
        """Chunk sizes along a dimension, which all arrays that have it share; one of 1 where none has it."""
        for array in self.inputs.values():
            if dim in array.dims:
                return tuple(array.chunksizes[dim])
        return (1,)


def tasks_of(name: str, reduction: Reduction, layout: Layout) -> dict[Key, Any]:
    """All tasks. The finishing ones have the keys (name,) or (name, number along the kept dimension)."""
    chunks = _chunk_tasks(name, reduction, layout)
    rows, columns = len(layout.sizes("step")), len(layout.sizes("token"))
    keys = [[(f"{name}-chunk", i, j) for j in range(columns)] for i in range(rows)]
    lines = keys if reduction.keeps == "step" else [list(line) for line in zip(*keys, strict=True)]
    tasks: dict[Key, Any] = dict(chunks)
    fold = functools.partial(_fold, reduction.combine)
    finish = functools.partial(_finish, reduction.finish, layout.span)
    roots = [_tree(tasks, fold, line, f"{name}-{number}") for number, line in enumerate(lines)]
    if reduction.keeps is None:
        tasks[(name,)] = (finish, _tree(tasks, fold, roots, f"{name}-all"))
    else:
        tasks |= {(name, number): (finish, root) for number, root in enumerate(roots)}
    return tasks


def _chunk_tasks(name: str, reduction: Reduction, layout: Layout) -> dict[Key, Any]:
    """One task for every block of steps and tile of tokens."""
    beside: list[Key] = []
    tasks: dict[Key, Any] = {}
    if reduction.aside is not None:
        beside = [(f"{name}-aside",)]
        tasks[beside[0]] = (Constant(reduction.aside),)
    step_ends, token_ends = (list(accumulate(layout.sizes(dim), initial=0)) for dim in ("step", "token"))
    for i, (top, bottom) in enumerate(pairwise(step_ends)):
        for j, (left, right) in enumerate(pairwise(token_ends)):
            names = tuple(layout.before) if i else ()
            empty = Block(layout.steps[top:bottom], layout.tokens[left:right], top, left, layout.span, {}, {})
            task = _ChunkTask(reduction.chunk, empty, tuple(layout.inputs), names)
            keys = [_key(array, i, j) for array in layout.inputs.values()]
            keys += [_key(layout.before[each], i - 1, j) for each in names]
            tasks[(f"{name}-chunk", i, j)] = (task, *keys, *beside)
    return tasks


def _key(array: xr.DataArray, i: int, j: int) -> Key:
    """Key of the block at step block i and token tile j."""
    return (array.data.name, *({"step": i, "token": j}.get(str(dim), 0) for dim in array.dims))


@dataclass(frozen=True, slots=True)
class _ChunkTask:
    """Put the rows into the block and ask the chunk function."""

    chunk: Callable[[Block], Partial]
    block: Block
    names: tuple[str, ...]
    names_before: tuple[str, ...]

    def __call__(self, *arrays: Any) -> Partial:  # noqa: ANN401 - arrays, and what was put aside behind them
        count, end = len(self.names), len(self.names) + len(self.names_before)
        rows = dict(zip(self.names, arrays[:count], strict=True))
        before = {name: row[0] for name, row in zip(self.names_before, arrays[count:end], strict=True)}
        aside = arrays[end] if len(arrays) > end else None
        return self.chunk(replace(self.block, rows=rows, before=before, aside=aside))


def _tree(tasks: dict[Key, Any], fold: Callable[..., Partial], keys: list[Key], name: str) -> Key:
    """Add the tasks that combine `keys` in order; the key of the root."""
    level = 0
    while len(keys) > 1:
        groups = [keys[start : start + FAN_IN] for start in range(0, len(keys), FAN_IN)]
        keys = [(f"{name}-fold", level, number) for number in range(len(groups))]
        tasks |= {key: (fold, *group) for key, group in zip(keys, groups, strict=True)}
        level += 1
    return keys[0]


def _fold(combine: Callable[[Partial, Partial], Partial], *partials: Partial) -> Partial:
    return functools.reduce(combine, partials)


def _finish(finish: Callable[[Partial, Span], Mapping[str, Any]], span: Span, partial: Partial) -> Mapping[str, Any]:
    return finish(partial, span)

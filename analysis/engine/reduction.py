"""Reductions as records: per chunk, combine, finish. One lazy pass, in parallel, whatever the chunks.

A question is declared as a `Reduction`; `reduce` lays its tasks over the blocks of a Dataset. Every chunk becomes
a small *partial* at once, and partials are combined in a tree, so that nothing gathers the trajectory. Questions that
are asked together (one ``dask.compute``, or one merged Dataset) read each chunk once, since their tasks refer to the
same chunks. `conclude` turns small answers, one value a step or a token, into a final one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from analysis.answers import AnswerDataset
from analysis.engine import inputs as sources
from analysis.engine import outputs as graphs
from analysis.engine import selections
from analysis.engine.question import NEVER, Answer, Block, Partial, Reduction, Span
from analysis.engine.taskgraph import Layout, tasks_of
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array

__all__ = ["NEVER", "Answer", "Block", "Partial", "Reduction", "Span", "conclude", "reduce"]


def reduce(ds: xr.Dataset, *reductions: Reduction) -> xr.Dataset:
    """Ask questions of a Dataset, lazily.

    Parameters
    ----------
    ds : Dataset
        A trajectory, a slice of one, or any Dataset of that shape. No step may be missing between two others, unless
        all reductions are `over_gaps`.
    *reductions : Reduction
        With different names of answers.

    Returns
    -------
    Dataset
        Dask-backed answers; coordinates of the dimensions that they keep come along, labels unchanged.
        Attributes ``first_step`` and ``last_step`` say what was asked, ``resolution_steps`` how many steps states are
        apart at most.

    Raises
    ------
    TypeError
        For what is no Dataset.
    ValueError
        If an array that is needed neither exists nor can be derived, steps are missing or do not ascend, or the
        Dataset is no longer a trajectory; see `selections`.

    Notes
    -----
    One pass; in memory a few chunks a worker and the partials.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis import simulate
    >>> def largest(block):
    ...     return {"largest": np.nanmax(block["displacement_linf"], initial=0, where=block.is_move[:, None])}
    >>> def larger(one, other):
    ...     return {"largest": max(one["largest"], other["largest"])}
    >>> question = Reduction(
    ...     "largest", ("displacement_linf",), None, largest, larger,
    ...     {"largest": Answer((), "float32", "largest move", "cell")}, finish=lambda partial, span: partial)
    >>> float(reduce(simulate.trajectory([[[1, 2]], [[5, 0]]]), question).largest)
    5.0
    """
    return answers_to(trajectory_of(ds), *reductions)


def answers_to(asked: Trajectory, *reductions: Reduction) -> xr.Dataset:
    """The answers of `reduce`, behind the door: of the record of a Dataset."""
    if not all(reduction.over_gaps for reduction in reductions):
        selections.refuse_gaps(asked.steps)
    answer: xr.Dataset = AnswerDataset(attrs=dict(asked.span.attributes))
    for reduction in reductions:
        for name, array in _arrays(asked, reduction).items():
            declared = reduction.gives[name]
            answer[name] = xr.DataArray(array, dims=declared.dims, attrs=declared.attributes)
        answer = answer.assign_coords({dim: np.asarray(labels) for dim, labels in reduction.coords.items()})
    return answer.assign_coords(asked.coords_of(answer.dims))


def conclude(
    source: xr.Dataset,
    function: Callable[[Mapping[str, Array], Span], Mapping[str, Any]],
    gives: Mapping[str, Answer],
    *,
    coords: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Turn small answers into a final one, lazily, in one task that sees them whole.

    Parameters
    ----------
    source : Dataset
        Answers of `reduce`, one value a step or a token; all of its variables are handed to `function`.
    function : function of a mapping from name to array, and a Span, to such a mapping
        Importable by name, or a partial of such.
    gives : mapping from name to Answer
        Dims are those of `source` or of `coords`.
    coords : mapping from dim to labels, optional

    Returns
    -------
    Dataset
        Dask-backed.
    """
    coords = coords or {}
    whole = {str(name): array.data.rechunk(-1) for name, array in source.data_vars.items()}
    task = _Conclusion(tuple(whole), function, Span.of_answer(source))
    name = f"conclude-{tokenize(task, *(data.name for data in whole.values()))}"
    tasks = {(name,): (task, *((data.name, *[0] * data.ndim) for data in whole.values()))}
    sizes = dict(source.sizes) | {dim: len(labels) for dim, labels in coords.items()}
    outputs = [
        graphs.Output(part, tuple((sizes[dim],) for dim in declared.dims), declared.dtype)
        for part, declared in gives.items()
    ]
    made = graphs.arrays_of(name, tasks, outputs, list(whole.values()))
    answer: xr.Dataset = AnswerDataset(
        {part: (gives[part].dims, array, gives[part].attributes) for part, array in made.items()}, attrs=source.attrs
    )
    answer = answer.assign_coords(_kept_coords(source, answer.dims))
    return answer.assign_coords({dim: np.asarray(labels) for dim, labels in coords.items()})


def _kept_coords(answer: xr.Dataset, dims: Collection[Any]) -> dict[Any, Any]:
    """Coordinates of an answer that go on to a final one with these dimensions."""
    coords = {name: coord.variable for name, coord in answer.coords.items()}
    return {name: coord for name, coord in coords.items() if coord.dims and set(coord.dims) <= set(dims)}


def _arrays(asked: Trajectory, reduction: Reduction) -> dict[str, da.Array]:
    """The reduction's answers as dask arrays."""
    inputs = sources.arrays(asked, reduction.needs)
    before = {
        name: xr.DataArray(graphs.last_rows(inputs[name].data), dims=inputs[name].dims)
        for name in reduction.needs_before
    }
    layout = Layout(inputs, before, asked.steps, asked.tokens, asked.span)
    parts = [array.data for array in (*inputs.values(), *before.values())]
    name = f"{reduction.name}-{tokenize(reduction, [part.name for part in parts], layout.steps, layout.tokens)}"
    chunks: dict[str, tuple[int, ...]] = {dim: (len(labels),) for dim, labels in reduction.coords.items()}
    chunks |= {str(dim): layout.sizes(str(dim)) for array in inputs.values() for dim in array.dims}
    outputs = [
        graphs.Output(
            part,
            tuple(chunks[dim] for dim in declared.dims),
            declared.dtype,
            kept=(declared.dims.index(reduction.keeps),) if reduction.keeps else (),
        )
        for part, declared in reduction.gives.items()
    ]
    return graphs.arrays_of(name, tasks_of(name, reduction, layout), outputs, parts)


@dataclass(frozen=True, slots=True)
class _Conclusion:
    names: tuple[str, ...]
    function: Callable[[Mapping[str, Array], Span], Mapping[str, Any]]
    span: Span

    def __call__(self, *arrays: Array) -> Mapping[str, Any]:
        return self.function(dict(zip(self.names, arrays, strict=True)), self.span)

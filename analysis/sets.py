"""One question of many runs, or of many parameters: the answers as one Dataset."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

NOT_COORDINATES = frozenset(
    {"run", "config", "provenance", "checkpoint", "run_id", "committed_steps", "completed", "told_before"}
)
"""Attributes of a run that tell where it lies and how it stands, not how it was made."""
SHARED = ("step", "token")
MOST_SHOWN = 8
"""So many labels are shown in an error; of more the first and the last."""
SAID = ("resolution_steps", "part", "projected_on", "asked_in_vain")
"""Attributes of an answer that tell of what it is; where runs differ in them, they are coordinates."""


def over(tree: xr.DataTree | dict[str, xr.Dataset], function: Callable[..., Any], **options: Any) -> xr.Dataset:  # noqa: ANN401 - the function's own
    """Ask one question of every run of a tree: its answers along the dimension ``run``.

    Parameters
    ----------
    tree : DataTree, or dict of str to Dataset
        A child a run, as `crucible.open_runs` gives it. A tree whose attribute
        ``children_are`` is "parameter" gives that dimension.
    function : callable
        Takes a Dataset, and returns a Dataset or a DataArray: `analysis.last_motion`, or one of your own.
    **options
        Handed to `function`.

    Returns
    -------
    Dataset
        Lazy where the answers are. Along ``run`` the names of the children; attributes in which the runs differ, such
        as a learning rate, are coordinates along it, and so is how far apart the states of each answer are, of what
        part of the tokens and on what lattice it is (`SAID`). Values along `step` and `token` are those at the labels
        that all runs share; `only_shared` among the attributes names the dimensions along which runs have more.

    Raises
    ------
    ValueError
        The tree has no run, or an answer is refused: the message names the run. Answers with other variables or
        dimensions, without any common token, with other tokens some of which are there twice, or with other labels
        along a dimension of their own, as those of `analysis.verdicts` of runs of other lengths.
    TypeError
        `function` answered something else.

    Examples
    --------
    >>> import analysis
    >>> made = analysis.simulate.with_last_motion
    >>> runs = {"a": made([3, 5], total_steps=9), "b": made([3, 7], total_steps=9)}
    >>> over(runs, analysis.freeze_times).latest.values.tolist()
    [5, 7]
    """
    runs = _runs(tree)
    dim = str(getattr(tree, "attrs", {}).get("children_are", "run"))
    answers = {name: _asked(name, ds, function, options) for name, ds in runs.items()}
    _refuse_other_variables(answers)
    shared, cut = _shared(answers)
    whole = xr.concat(
        list(shared.values()), dim=dim, data_vars="all", coords="minimal", compat="override", join="exact",
        combine_attrs=_in_all,
    ).assign_coords({dim: np.array(list(answers), dtype=np.str_)})  # fmt: skip
    whole = whole.assign_coords(_told_apart(runs, dim, set(whole.variables)))
    said = {name: xr.Dataset(attrs={each: answer.attrs.get(each) for each in SAID}) for name, answer in answers.items()}
    whole = whole.assign_coords(_told_apart(said, dim, set(whole.variables)))
    return whole.assign_attrs({"only_shared": cut} if cut else {})


def _runs(tree: xr.DataTree | dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The runs of a tree by their names."""
    if isinstance(tree, xr.DataTree):
        found = {str(name): child.to_dataset() for name, child in tree.children.items()}
    elif isinstance(tree, dict):
        found = tree
    else:
        raise TypeError(f"over takes a DataTree with a child a run, or a dict of Datasets, not {type(tree).__name__}")
    if not found:
        raise ValueError("there is no run in this tree")
    return found


def _asked(name: str, ds: xr.Dataset, function: Callable[..., Any], options: Mapping[str, Any]) -> xr.Dataset:
    try:
        answer = function(ds, **options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error
    if isinstance(answer, xr.DataArray):
        return answer.to_dataset(name="answer" if answer.name is None else answer.name)
    if not isinstance(answer, xr.Dataset):
        raise TypeError(f"{name}: the function answered {type(answer).__name__}; expected a Dataset or a DataArray")
    return answer


def _refuse_other_variables(answers: Mapping[str, xr.Dataset]) -> None:
    first = next(iter(answers))
    expected = {name: array.dims for name, array in answers[first].data_vars.items()}
    for name, answer in answers.items():
        found = {variable: array.dims for variable, array in answer.data_vars.items()}
        if found != expected:
            raise ValueError(f"{name} answers {_names(found)}, and {first} answers {_names(expected)}")


def _names(arrays: Mapping[Any, tuple[Any, ...]]) -> str:
    return ", ".join(f"{name} ({', '.join(map(str, dims))})" for name, dims in arrays.items())


def _shared(answers: Mapping[str, xr.Dataset]) -> tuple[dict[str, xr.Dataset], list[str]]:
    """The answers at the labels that all have, and the dimensions along which some have more."""
    shared, cut = dict(answers), []
    for dim in SHARED:
        labels = [answer[dim].values for answer in shared.values() if dim in answer.dims]
        if not labels or all(np.array_equal(labels[0], other) for other in labels[1:]):
            continue
        _refuse_twice(shared, dim)
        common = functools.reduce(np.intersect1d, labels)
        if not common.size:
            raise ValueError(f"the runs have no {dim} in common; select what to compare before asking")
        shared = {name: answer.sel({dim: common}) for name, answer in shared.items()}
        if any(len(each) > len(common) for each in labels):  # else only the order was another
            cut.append(dim)
    _refuse_other_labels(shared)
    lost = _not_the_same(list(shared.values()))
    return {name: answer.drop_vars(lost, errors="ignore") for name, answer in shared.items()}, cut


def _refuse_twice(answers: Mapping[str, xr.Dataset], dim: str) -> None:
    """Refuse labels that stand there twice, where those that all runs have are to be picked."""
    for name, answer in answers.items():
        found, times = np.unique(answer[dim].values, return_counts=True)
        if (times > 1).any():
            raise ValueError(
                f"{name}: {dim} {found[times > 1][0]} stands there more than once, so that the labels that all runs "
                f"share cannot be picked; select each once, as in ds.drop_duplicates({dim!r})"
            )


def _refuse_other_labels(answers: Mapping[str, xr.Dataset]) -> None:
    """Refuse answers that cannot stand side by side, since along a dimension of their own they have other labels."""
    first, *others = answers
    for dim, name in itertools.product(answers[first].dims, others):
        expected, found = answers[first].get_index(dim), answers[name].get_index(dim)
        if not found.equals(expected):
            raise ValueError(
                f"{name} answers with {_labels(found)} along {dim}, and {first} with {_labels(expected)}: cut the runs "
                f"to the same part before asking, as by ds.sel(step=slice(0, 100)), or ask for what has no {dim}"
            )


def _labels(index: pd.Index[Any]) -> str:
    shown = [str(label) for label in index] if len(index) <= MOST_SHOWN else [str(index[0]), "...", str(index[-1])]
    return f"{len(index):,} labels ({', '.join(shown)})"


def _in_all(attributes: Sequence[Mapping[str, Any]], context: object = None) -> dict[str, Any]:  # noqa: ARG001 - xarray's
    """The attributes that every run has, with one value: what is said of some runs is not said of the others."""
    first, *others = attributes or [{}]
    return {
        name: value
        for name, value in first.items()
        if all(name in other and bool(np.array_equal(other[name], value)) for other in others)
    }


def _not_the_same(answers: Sequence[xr.Dataset]) -> set[Any]:
    """The coordinates beside labels that are not the same in every run, as the populations of two corpora."""
    named = {name for answer in answers for name in answer.coords if name not in answer.dims}
    return {name for name in named if not _is_the_same(name, answers)}


def _is_the_same(name: Any, answers: Sequence[xr.Dataset]) -> bool:  # noqa: ANN401 - xarray takes anything for a name
    if any(name not in answer.coords for answer in answers):
        return False
    first, *others = (answer[name].reset_coords(drop=True) for answer in answers)
    return all(other.equals(first) for other in others)


def _told_apart(runs: Mapping[str, xr.Dataset], dim: str, taken: set[Any]) -> dict[str, Any]:
    """Attributes that are single values in every run, and not the same in all, as coordinates."""
    values = {
        name: [ds.attrs.get(name) for ds in runs.values()]
        for name in next(iter(runs.values())).attrs
        if name not in NOT_COORDINATES and name not in taken
    }
    return {
        str(name): (dim, np.array(found))
        for name, found in values.items()
        if len(set(map(type, found))) == 1 and isinstance(found[0], (bool, int, float, str)) and len(set(found)) > 1
    }

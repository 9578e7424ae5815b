"""The door of the engine: a Dataset becomes a record of what questions need, once; nothing behind sees the Dataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from analysis.engine import selections
from analysis.engine.question import Span

OF_A_RUN = {"run", "run_id"}
"""Attributes of a run that was opened, by its own reader or by plain xarray."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """What questions are asked of.

    Parameters
    ----------
    steps, tokens : array of int64
        Labels; 0, 1, ... where the Dataset has none.
    span : Span
        Labels of the first and the last state, and how far apart states are at most.
    sizes : mapping from dim to int
    attributes : mapping
        Those of the Dataset: ``motion_threshold``, ``beta1``, ``tokens``, ``hidden``, ``completed``.
    coords : mapping from name to xarray.Variable
        Coordinates that have dimensions, as they were found. An answer gets those of its own dimensions.
    variables : mapping from name to DataArray
        Without coordinates, not yet in blocks; not a centroid that was recorded at some steps only.
    is_projected : bool
        Whether W is float32, but its moves are measured on the lattice of bfloat16.
    has_recorded_labels : bool
        Whether the labels of steps are those of the recording, by which a gap between two states is seen.
    """

    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    span: Span
    sizes: Mapping[str, int]
    attributes: Mapping[str, Any]
    coords: Mapping[Any, xr.Variable]
    variables: Mapping[str, xr.DataArray]
    is_projected: bool
    has_recorded_labels: bool

    def coords_of(self, dims: Collection[Any]) -> dict[Any, Any]:
        """Labels, and all other coordinates, of the dimensions that an answer has."""
        labels = {dim: made for dim, made in (("step", self.steps), ("token", self.tokens)) if dim in dims}
        return labels | {name: coord for name, coord in self.coords.items() if set(coord.dims) <= set(dims)}

    def has_all(self, dim: str) -> bool | None:
        """Whether all of "token" or "hidden" that was recorded is here, each once; None where it is not known."""
        recorded, here = self.attributes.get({"token": "tokens"}.get(dim, dim)), self.sizes.get(dim)
        if None in (recorded, here):
            return None
        return bool(recorded == here == (np.unique(self.tokens).size if dim == "token" else here))


def trajectory_of(ds: xr.Dataset) -> Trajectory:
    """The record of a Dataset, or why it is no trajectory.

    Raises
    ------
    TypeError
        If it is no Dataset, with what to call instead.
    ValueError
        If it is no trajectory; see `selections`.
    """
    require_dataset(ds)
    selections.require_trajectory(ds)
    steps = selections.step_labels(ds)
    return Trajectory(
        steps=steps,
        tokens=selections.labels(ds, "token"),
        span=Span(int(steps[0]), int(steps[-1]), int(np.diff(steps).max(initial=1))),
        sizes={str(dim): size for dim, size in ds.sizes.items()},
        attributes=_hidden_of_chunks(ds) | ds.attrs,
        coords={name: coord.variable for name, coord in ds.coords.items() if coord.dims},
        variables={
            str(name): array.drop_vars(list(array.coords))
            for name, array in ds.data_vars.items()
            if name != "centroid" or not selections.is_on_own_steps(name, array.dims)
        },
        is_projected=_is_projected(ds),
        has_recorded_labels=_has_recorded_labels(ds, int(steps[-1])),
    )


def _hidden_of_chunks(ds: xr.Dataset) -> dict[str, int]:
    """The attribute ``hidden`` of a run that plain xarray opened: how many hidden dimensions were recorded.

    Chunks of the store hold whole rows: where they are longer than the rows here, these are parts.
    """
    here = ds.sizes.get("hidden", 0)
    chunks = (ds.variables[name].encoding.get("chunks") for name in ("W", "delta_W_prime") if name in ds.data_vars)
    recorded = max((int(sizes[-1]) for sizes in chunks if sizes and len(sizes) == len(selections.DIMS)), default=0)
    return {"hidden": recorded} if recorded >= here > 0 else {}


def require_dataset(given: object) -> None:
    """Refuse what is no Dataset, saying what was given and what to call.

    Raises
    ------
    TypeError
    """
    if not isinstance(given, xr.Dataset):
        raise TypeError(f"expected a trajectory as an xarray.Dataset, found {_what_instead(given)}")


def _what_instead(given: object) -> str:
    """What was given, and what to do about it."""
    kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}".removeprefix("builtins.")
    if isinstance(given, xr.DataArray):
        name = "W" if given.name is None else given.name
        return f"a DataArray; ask of the whole Dataset: of ds, not of ds.{name}"
    if isinstance(given, str | PathLike):
        return f"the path {str(given)!r}; open the run first, as in ds = store.open_trajectory({str(given)!r})"
    if given is None or kind.startswith("zarr."):
        return f"{kind}; open the run as a Dataset, as in ds = store.open_trajectory(path)"
    if isinstance(given, xr.DataTree) or (
        isinstance(given, dict) and any(isinstance(each, xr.Dataset) for each in given.values())
    ):
        return f"{kind} of several; ask of each: analysis.over(runs, function), or function(runs['name'].to_dataset())"
    if isinstance(given, list | tuple) and any(isinstance(each, xr.Dataset) for each in given):
        return f"a {kind} of them; ask of each by itself, or join them first, as with xarray.concat"
    return f"{kind}; make a Dataset of it, as in xarray.Dataset({{'W': (('step', 'token', 'hidden'), array)}})"


def _has_recorded_labels(ds: xr.Dataset, last: int) -> bool:
    """Whether the labels of steps are those of the recording, as far as that can be told.

    Labels that were given later have none of the attributes. Those that were computed, as ``ds.step // 10``, keep them,
    but are neither a range any more, as a run has it that its own reader opened, nor have they an encoding, as labels
    that were read from a file. Behind the last step of a run nothing was recorded: there ``reindex(method="ffill")``
    repeats it.
    """
    if "step" not in ds.coords or not ds["step"].attrs:
        return False
    if OF_A_RUN.isdisjoint(ds.attrs):
        return True
    is_within = last <= ds.attrs.get("committed_steps", last)
    return is_within and (isinstance(ds.indexes.get("step"), pd.RangeIndex) or bool(ds["step"].encoding))


def _is_projected(ds: xr.Dataset) -> bool:
    """Whether float32 weights are measured on the bfloat16 lattice: `lattice` of W, or of the moves, says so."""
    if "W" not in ds.data_vars or ds["W"].dtype != np.float32:
        return False
    named = [name for name in ("W", *selections.DERIVED) if name in ds.data_vars]
    return any(ds[name].attrs.get("lattice") == "bfloat16" for name in named)

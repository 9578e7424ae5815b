"""A run as a lazy xarray.Dataset, clamped to its commit, and strict: damage raises, it never shows as numbers."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from store.errors import DamageError, StaleHandleError
from store.format.files import run_folder, trajectory_of
from store.format.schema import LATTICE
from store.format.step_labels import LABELS
from store.reading.lazy import lazy_array
from store.reading.token_labels import labels_tokens, with_token_labels
from store.run.commit import Commit, read_commit, told_of_changes

COUNTED = {"token": "tokens", "hidden": "hidden"}
"""Dimensions of which an attribute says how many were recorded."""

NUMBERS_OF = {"W": "analysis.weights(ds)", "push": "analysis.push(ds)"}
"""Who makes numbers of an array's bit patterns; of others it is the lattice."""


def open_trajectory(run: str | Path) -> xr.Dataset:
    """Open a run, lazily, at its last commit; also while it is being written.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.

    Returns
    -------
    xarray.Dataset
        Coordinates `step` (int64 labels, ascending, 0 is the state before the first update; a run made of a file with
        gaps has gaps) and `token` (int64 ids), and a dask-backed variable for every array of the run, in its chunks.
        Its attributes are the run's (`config` and `provenance` each as one JSON text; `crucible.info` gives them as
        dictionaries), with `committed_steps`, `completed`, `checkpoint`, `run`, and `tokens` and
        `hidden`, how many of each were recorded (a selection has fewer). To see later steps, open again: it costs
        milliseconds. What is known of the tokens are coordinates: ``ds.sel(token_text=" the")`` is the token that
        decodes to this, without the dimension `token`, or all the tokens that do, with it;
        ``ds.sel(token=ds.token_text.isin([" the", " a"]))`` takes several texts.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here (yet), or one of a later format.
    DamageError
        The metadata is damaged; or later, when a damaged chunk is touched, a named error instead of numbers.
    StaleHandleError
        Later, when the run was cut back or compacted after it was opened.

    Notes
    -----
    Opening reads the commit, the coordinates and what labels tokens; no data. Any of dask's schedulers reads the rest.
    """
    folder = run_folder(run)
    while True:
        commit = read_commit(folder)
        if commit.changed:
            warnings.warn(told_of_changes(folder, commit), stacklevel=2)
        try:
            return _dataset(folder, commit)
        except StaleHandleError:
            continue
        except DamageError:
            if read_commit(folder).generation == commit.generation:
                raise  # else it was cut back or compacted just now: what was read is not that commit's


def _dataset(folder: Path, commit: Commit) -> xr.Dataset:
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for name, metadata in commit.arrays.items():
        dims, attributes = metadata["dimension_names"], _shown(name, metadata["attributes"])
        if name == "step":
            attributes.pop(LABELS, None)  # what the index says
            coordinates[name] = (dims, _step_index(commit), attributes)
        elif name in dims or labels_tokens(name, commit.arrays):
            array = commit.array(trajectory_of(folder), name)
            values = (dims, array.read_rows(0, array.shape[0]), attributes)
            (coordinates if name in dims else variables)[name] = values
        else:
            variables[name] = (dims, lazy_array(folder, commit, name), attributes)
    ds = _with_lattice(xr.Dataset(variables, coordinates))
    state = {name: getattr(commit, name) for name in ("committed_steps", "completed", "checkpoint")}
    recorded = {words: ds.sizes[dim] for dim, words in COUNTED.items() if dim in ds.sizes}
    ds.attrs = _flat(commit.attributes) | state | {"run": str(folder)} | recorded
    return with_token_labels(ds)


def _with_lattice(ds: xr.Dataset) -> xr.Dataset:
    """W with the lattice of what is derived of it, where its dtype does not tell it: W may be selected alone."""
    told = {array.attrs[LATTICE] for array in ds.data_vars.values() if LATTICE in array.attrs}
    if "W" in ds and ds["W"].dtype.kind == "f" and len(told) == 1 and told != {ds["W"].dtype.name}:
        ds["W"].attrs[LATTICE] = told.pop()
    return ds


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with a JSON text for each mapping, which neither a repr nor a NetCDF file has room for."""
    return {
        name: json.dumps(value) if isinstance(value, Mapping) else copy.deepcopy(value)
        for name, value in attributes.items()
    }


def _shown(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """An array's attributes as a person sees them: bit patterns said to be such, and no unit of a pure number."""
    shown = _flat(attributes)
    if shown.get("units") == "1":
        del shown["units"]
    if bits := shown.get("bits_of"):
        shown["long_name"] = f"bits of the {bits} {shown.get('long_name', 'numbers')}"
        numbers = NUMBERS_OF.get(name, f"analysis.lattice.bits_to_float32(ds.{name}.values)")
        shown["comment"] = f"bit patterns; {numbers} gives the numbers"
    return shown


def _step_index(commit: Commit) -> pd.Index[int]:
    """The step labels; as a range where they are one, since a million labels would take 2 s to index."""
    labels = commit.labels()
    span = labels.as_range(commit.rows)
    return pd.Index(labels.values(0, commit.rows)) if span is None else pd.RangeIndex(span)

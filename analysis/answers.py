"""Answers in Python's own numbers.

An answer is a Dataset that a question returned. A step is a label. An answer that does not exist is NaN where it
is a float, and where it is an integer it is the value that its attribute ``missing_value`` names (-1). `plain` turns
both into None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

SHOWN_BYTES = 64 << 20
"""An answer of at most this size is computed when it is looked at."""


class AnswerDataset(xr.Dataset):  # type: ignore[no-untyped-call]
    """A Dataset that is an answer: lazy until it is looked at, and without surprises on its way into other tools.

    xarray has no other door for this than a class of its own; it adds nothing that an answer needs, so that a plain
    Dataset made of one is as good.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str(super(AnswerDataset, self._looked_at()).__repr__())

    def _repr_html_(self) -> str:
        return str(super(AnswerDataset, self._looked_at())._repr_html_())

    def _looked_at(self) -> AnswerDataset:
        """The answer with its numbers, which stay; one that is too large stays lazy."""
        return self.load() if self.nbytes <= SHOWN_BYTES else self

    def to_pandas(self) -> pd.Series[Any] | pd.DataFrame:
        """The numbers in pandas: a Series of single numbers, a frame with a row a label, or a long frame.

        Returns
        -------
        Series or DataFrame
            Of an answer whose arrays have different or several dimensions a frame with a row a number: the columns
            are ``variable``, the dimensions, and ``value``.
        """
        known = self.load()
        dims = {array.dims for array in known.data_vars.values()}
        if dims == {()}:
            return pd.Series({str(name): array.item() for name, array in known.data_vars.items()})
        if len(dims) == 1 and len(next(iter(dims))) == 1:
            return known.to_dataframe()
        return pd.concat(list(_long_frames(known)), ignore_index=True)

    def to_zarr(self, store: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - xarray's own
        """Write the answer as Zarr, of format 2 unless another is asked for: format 3 has no texts and no index yet."""
        return super().to_zarr(store, *arguments, **_in_format_2(options))

    def to_netcdf(self, path: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - xarray's own
        """Write the answer as NetCDF, with attributes that it has room for: truths as 0 and 1, lists as texts."""
        made = self.assign_attrs(_for_netcdf(self.attrs))
        made = made.assign({name: _plain(array) for name, array in made.variables.items()})
        return xr.Dataset.to_netcdf(made, path, *arguments, **options)


class AnswerArray(xr.DataArray):  # type: ignore[no-untyped-call]
    """An answer that is one array, lazy, and without surprises on its way into other tools; see `AnswerDataset`."""

    __slots__ = ()

    def to_zarr(self, store: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - xarray's own
        """Write the answer as Zarr, as `AnswerDataset.to_zarr`."""
        return super().to_zarr(store, *arguments, **_in_format_2(options))

    def to_netcdf(self, path: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - xarray's own
        """Write the answer as NetCDF, as `AnswerDataset.to_netcdf`."""
        made = self.assign_attrs(_for_netcdf(self.attrs))
        made = made.assign_coords({name: _plain(coord.variable) for name, coord in self.coords.items()})
        return xr.DataArray.to_netcdf(made, path, *arguments, **options)


def _in_format_2(options: dict[str, Any]) -> dict[str, Any]:
    return options if "zarr_version" in options else {"zarr_format": 2, **options}


def _plain(variable: xr.Variable) -> xr.Variable:
    """An array with attributes that NetCDF has room for."""
    made = variable.copy(deep=False)
    made.attrs = _for_netcdf(variable.attrs)
    return made


def _long_frames(answer: xr.Dataset) -> Iterator[pd.DataFrame]:
    """A frame for each variable, with its name, its labels, and its values."""
    every = [str(dim) for dim in answer.dims]
    partial = [dim for dim in every if any(dim not in array.dims for array in answer.data_vars.values())]
    as_objects = dict.fromkeys([*partial, "value"], object)  # else pandas 2 warns where a column has labels and gaps
    for name, array in answer.data_vars.items():
        bare = array.reset_coords(drop=True)
        numbers = bare.to_series().reset_index(name="value") if bare.dims else pd.DataFrame({"value": [bare.item()]})
        numbers.insert(0, "variable", str(name))
        missing = {dim: None for dim in every if dim not in numbers}
        yield numbers.assign(**missing)[["variable", *every, "value"]].astype(as_objects)


def _for_netcdf(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes that NetCDF has room for: truths as 0 and 1, lists and tables as texts, nothing as an empty text."""
    return {name: _one_for_netcdf(value) for name, value in attributes.items()}


def _one_for_netcdf(value: Any) -> Any:  # noqa: ANN401 - an attribute
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value) if isinstance(value, Mapping) else value


def as_asked(answer: xr.Dataset) -> xr.Dataset:
    """An answer that is in memory as it was made, where it was read back from a file: integers are integers again.

    xarray makes floats of those that may be missing, with NaN for the ``missing_value``. The answer itself where there
    is none.

    Examples
    --------
    >>> read = xr.Variable((), np.nan, encoding={"dtype": np.dtype("int64"), "missing_value": -1})
    >>> as_asked(xr.Dataset({"median": read}))["median"].item()
    -1
    """
    read = {name: _as_made(array.variable) for name, array in answer.data_vars.items() if _was_read(array.variable)}
    return answer.assign(read) if read else answer


def _was_read(array: xr.Variable) -> bool:
    made = np.dtype(array.encoding.get("dtype", array.dtype))
    return array.dtype.kind == "f" and made.kind == "i" and "missing_value" in array.encoding


def _as_made(array: xr.Variable) -> xr.Variable:
    missing = array.encoding["missing_value"]
    whole = np.where(np.isnan(array.values), missing, array.values).astype(array.encoding["dtype"])
    return xr.Variable(array.dims, whole, array.attrs | {"missing_value": missing})


def plain(answer: xr.Dataset | xr.DataArray) -> Any:  # noqa: ANN401 - numbers, lists, dicts: by the shape
    """An answer in Python's own numbers, ready for JSON: None for what does not exist.

    Parameters
    ----------
    answer : Dataset or DataArray
        It is computed if it is lazy.

    Returns
    -------
    dict, list, int, float, bool or None
        A Dataset becomes a dict of its variables, an array nested lists. NaN, and the ``missing_value`` of integers,
        become None; infinities too, since JSON has none.

    Raises
    ------
    TypeError
        For anything else.

    Examples
    --------
    >>> plain(xr.Dataset({"mean": 2.5, "median": ((), -1, {"missing_value": -1}), "p": np.nan}))
    {'mean': 2.5, 'median': None, 'p': None}
    """
    if isinstance(answer, xr.Dataset):
        return {str(name): plain(array) for name, array in as_asked(answer.compute()).data_vars.items()}
    if not isinstance(answer, xr.DataArray):
        raise TypeError(f"plain takes an answer of a question, a Dataset or DataArray, not {type(answer).__name__}")
    return _plain_values(answer.values.tolist(), answer.attrs)


def _plain_values(value: Any, attributes: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as `plain`
    if isinstance(value, list):
        return [_plain_values(each, attributes) for each in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and value == attributes.get("missing_value"):
        return None
    return value

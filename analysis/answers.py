"""Answers in Python's own numbers.

An answer is a Dataset that a question returned. A step is a label. An answer that does not exist is NaN where it
is a float, and where it is an integer it is the value that its attribute ``missing_value`` names (-1). `plain` turns
both into None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


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
        return {str(name): plain(array) for name, array in answer.compute().data_vars.items()}
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

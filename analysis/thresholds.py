"""What counts as motion unless one says otherwise, and which thresholds miss none; and which quantiles can be asked.

A displacement other than 0 is never below half a cell, so every threshold in (0, 0.5] means "any weight changed".
"""

from __future__ import annotations

from collections.abc import Iterable

DEFAULT_THRESHOLD = 0.1
"""The smallest displacement that counts as motion, in cells, unless a threshold is given."""
SURE_THRESHOLD = 0.5
"""The largest threshold, in cells, by which every change of a weight is motion."""


def quantiles_of(asked: Iterable[float]) -> tuple[float, ...]:
    """The quantiles that were asked for.

    Raises
    ------
    TypeError
        For what is no list of them.
    ValueError
        For one outside [0, 1].
    """
    given: object = asked  # whatever was given for them
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"quantiles must be a list, as in quantiles=[0.5], not {asked!r}")
    quantiles = tuple(asked)
    if not all(0 <= q <= 1 for q in quantiles):
        raise ValueError(f"quantiles must lie in [0, 1], not {list(quantiles)}")
    return quantiles

"""The trajectory store: named channels, step by step, in compressed Zarr chunks that survive a crash.

Examples
--------
>>> import crucible, store
>>> ds = store.open_trajectory("runs/crucible-1")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.format.schema import Channel
    from store.reading.reader import open_trajectory
    from store.upkeep.check import check
    from store.upkeep.repair import repair
    from store.writing.writer import TrajectoryWriter

_WHERE = {
    "Channel": "store.format.schema",
    "TrajectoryWriter": "store.writing.writer",
    "check": "store.upkeep.check",
    "open_trajectory": "store.reading.reader",
    "repair": "store.upkeep.repair",
}
__all__ = ["Channel", "TrajectoryWriter", "check", "open_trajectory", "repair"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Import on first use: the writing half must not load xarray, 42 MB in a training process."""
    if name not in _WHERE:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

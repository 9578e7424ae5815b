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
    from store import errors
    from store.integrity import check
    from store.mending import repair
    from store.reader import open_trajectory
    from store.schema import Channel
    from store.writer import TrajectoryWriter

_WHERE = {
    "Channel": "store.schema",
    "TrajectoryWriter": "store.writer",
    "check": "store.integrity",
    "open_trajectory": "store.reader",
    "repair": "store.mending",
}
_MODULES = ("errors",)
__all__ = ["Channel", "TrajectoryWriter", "check", "errors", "open_trajectory", "repair"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Import on first use: the writing half must not load xarray, 42 MB in a training process."""
    if name in _MODULES:
        return importlib.import_module(f"store.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

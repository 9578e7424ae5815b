"""Questions about a trajectory, as functions of an xarray.Dataset: lazy, in bounded memory, on one core or a cluster.

A trajectory is a Dataset with W (step, token, hidden), and perhaps what was derived from it when it was recorded. Its
slices are trajectories too. Functions take one and answer with a lazy Dataset (`moved` and `weights` with a lazy
DataArray); `compare` takes two, reads them at once and answers in memory:

* A step in an answer is a label of the ``step`` coordinate, never a position.
* An answer that does not exist is NaN where it is a float, and -1, the value of its attribute ``missing_value``,
  where it is an integer. `plain` makes Python's own numbers of an answer, with None for what does not exist.
* Weights that are NaN or infinite are counted in every lazy Dataset: ``nonfinite`` is their number,
  ``first_nonfinite`` the first step that has one. (Not by `drift` of nothing but a centroid.) Such a weight counts as
  still: ask `divergence` first whether a run froze or diverged.
* Step and token labels are whole numbers; those of steps ascend. Of a single step or token, select a list:
  ``ds.sel(token=[5])``.
* Where steps are missing between others (not recorded, or not selected), states are compared with the one before them
  that is there, by W alone: `moved`, `last_motion`, `freeze_times`, `fimbulwinter`, `drift`, `cloud` and all about
  states answer for the steps that are there. The attribute ``resolution_steps`` of an answer says how many steps
  states are apart at most; 1 if none is missing. What counts single steps refuses: `stillness`, `token_stillness`,
  `end_state`, `cooling`, `lifecycle`, `census`.
* Where xarray has made floats of the bit patterns of W (``where``, ``reindex``, outer joins), every function refuses.
* Names are those of ``crucible analyze --json``. Where one is also a method of Dataset, index:
  ``analysis.freeze_times(ds)["median"]``.
* Nothing else is read before it is computed. Ask several questions with one ``dask.compute(a, b)`` and the data is read
  once.

Examples
--------
>>> import analysis
>>> ds = analysis.simulate.trajectory([[[3, 4]], [[1, 0]], [[0, 0]]])
>>> int(analysis.fimbulwinter(ds).global_last_motion)
2
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis import endstate, lattice, plots, reduction, simulate
    from analysis.answers import plain
    from analysis.cloud import cloud, principal_axes
    from analysis.compare import compare
    from analysis.cooling import cooling
    from analysis.divergence import divergence
    from analysis.drift import drift
    from analysis.endstate import end_state
    from analysis.lifecycle import census, lifecycle
    from analysis.motion import fimbulwinter, freeze_times, last_motion, moved
    from analysis.occupancy import bounding_box, exponents, identical_rows
    from analysis.sources import weights
    from analysis.stillness import stillness, token_stillness

_FUNCTIONS = {
    "bounding_box": "analysis.occupancy",
    "census": "analysis.lifecycle",
    "cloud": "analysis.cloud",
    "compare": "analysis.compare",
    "cooling": "analysis.cooling",
    "divergence": "analysis.divergence",
    "drift": "analysis.drift",
    "end_state": "analysis.endstate",
    "exponents": "analysis.occupancy",
    "fimbulwinter": "analysis.motion",
    "freeze_times": "analysis.motion",
    "identical_rows": "analysis.occupancy",
    "last_motion": "analysis.motion",
    "lifecycle": "analysis.lifecycle",
    "moved": "analysis.motion",
    "plain": "analysis.answers",
    "principal_axes": "analysis.cloud",
    "stillness": "analysis.stillness",
    "token_stillness": "analysis.stillness",
    "weights": "analysis.sources",
}
_MODULES = ("endstate", "lattice", "plots", "reduction", "simulate")
__all__ = [  # noqa: RUF022 - the functions, then the modules
    "bounding_box", "census", "cloud", "compare", "cooling", "divergence", "drift", "end_state", "exponents",
    "fimbulwinter", "freeze_times", "identical_rows", "last_motion", "lifecycle", "moved", "plain", "principal_axes",
    "stillness", "token_stillness", "weights",
    "endstate", "lattice", "plots", "reduction", "simulate",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Import on first use: xarray and dask cost half a second and 80 MB that a trainer does not need."""
    if name in _FUNCTIONS:
        found = getattr(importlib.import_module(_FUNCTIONS[name]), name)
    elif name in _MODULES:
        found = importlib.import_module(f"analysis.{name}")
    else:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Functions and modules share names (drift, cloud, ...): ``analysis.drift`` is always the function."""

    def __setattr__(self, name: str, value: object) -> None:
        """Keep the import system from binding a submodule over the function of its name."""
        if not (name in _FUNCTIONS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

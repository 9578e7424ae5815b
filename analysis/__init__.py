"""Questions about a trajectory, as functions of an xarray.Dataset: lazy, in bounded memory, on one core or a cluster.

A trajectory is a Dataset with W (step, token, hidden), and perhaps what was derived from it when it was recorded. Its
slices are trajectories too. A function takes one and returns a Dataset, the answer (`moved` and `weights` return a
DataArray). Answers are lazy, small ones too: nothing is read before ``.load()``, ``int(...)`` or the like asks for
numbers, and each such call reads what it needs anew. Ask several questions with one ``dask.compute(a, b)`` and the
data is read once. `compare` and `apart` take two trajectories; `compare` reads them at once and returns numbers in
memory.

* A step in an answer is a label of the ``step`` coordinate, never a position.
* An answer that does not exist is NaN where it is a float, and -1, the value of its attribute ``missing_value``,
  where it is an integer. `plain` makes Python's own numbers of an answer, with None for what does not exist.
* Weights that are NaN or infinite are counted in every lazy Dataset: ``nonfinite`` is their number,
  ``first_nonfinite`` the first step that has one. (`drift` of a Dataset with only a centroid has neither.) Such a
  weight counts as still: ask `divergence` first whether a run froze or diverged.
* Step and token labels are whole numbers; those of steps ascend. Of a single step or token, select a list:
  ``ds.sel(token=[5])``.
* Where steps are missing between others (not recorded, or not selected), states are compared with the one before them
  that is there, by W alone: `moved`, `last_motion`, `freeze_times`, `fimbulwinter`, `drift`, `cloud` and all questions
  about states are then about the steps that are there. The attribute ``resolution_steps`` of an answer says how many
  steps states are apart at most; 1 if none is missing. Questions that count single steps raise a ValueError instead:
  `stillness`, `token_stillness`, `end_state`, `cooling`, `lifecycle`, `census`.
* Where xarray has made floats of the bit patterns of W (``where``, ``reindex``, outer joins), every function raises a
  ValueError. What is no Dataset is a TypeError that says what to call.
* No variable bears the name of a method of Dataset: ``answer.run_count`` is the variable.

Examples
--------
>>> import analysis
>>> ds = analysis.simulate.trajectory([[[3, 4]], [[1, 0]], [[0, 0]]])
>>> int(analysis.fimbulwinter(ds).global_last_motion)
2
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

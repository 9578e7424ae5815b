"""What an export or an import did: one record for both ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crucible.interchange.importing.differences import Difference
from store.tensorfile.header import TensorSpec


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an export wrote, or an import brought.

    Attributes
    ----------
    run, path : Path
        The run's folder, and the file.
    file_bytes : int
        The file's length.
    arrays : tuple of TensorSpec
        The arrays of the file that were written, or taken, under their names there.
    first_step, last_step : int
        Labels of the first state and of the last.
    states : int
        How many states there are between them, both counted.
    resolution_steps : int
        How many steps states are apart at most: 1, or more where there are gaps. What is derived of them
        (displacements, norms, last motion) is then of the steps between.
    tokens, hidden : int
        Sizes of a row.
    kept : tuple of str
        Arrays that are in the target as they were, under the store's names.
    left_out : dict of str to str
        What is not in the target, and why.
    assumed : tuple of str
        What an imported file does not say, or not so that it makes sense, and what was taken instead; and where a part
        of it seems never to have been filled. A sentence each.
    of_all_tokens : tuple of str
        Arrays of an exported part that are made of all tokens of the run, also of those that are not in the file.
    differences : tuple of Difference
        Derived arrays of an imported file that are not what its weights give; the run holds the computed ones.
    nonfinite : int or None
        Weights that are NaN or infinite, counted at every step; None where nobody looked, as in an export.
    diverged : str or None
        That weights or the loss stopped being finite numbers, if they did, in a sentence.
    resumed_from : int or None
        Last step that an interrupted import had committed.
    lossy : bool
        W was rounded on its way.
    metadata : Path or None
        metadata.json of the target; None while an exported run goes on, unless that of another run lies there.
    elapsed_s : float
        Wall time.
    """

    run: Path
    path: Path
    file_bytes: int
    arrays: tuple[TensorSpec, ...]
    first_step: int
    last_step: int
    states: int
    resolution_steps: int
    tokens: int
    hidden: int
    kept: tuple[str, ...]
    left_out: dict[str, str]
    metadata: Path | None
    elapsed_s: float
    assumed: tuple[str, ...] = ()
    of_all_tokens: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    nonfinite: int | None = None
    diverged: str | None = None
    resumed_from: int | None = None
    lossy: bool = False

    @property
    def steps(self) -> tuple[int, int]:
        """Label of the first state, and one past that of the last."""
        return self.first_step, self.last_step + 1

"""`crucible check`: the store's check, told how to compute the derived arrays again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.thresholds import DEFAULT_THRESHOLD
from crucible.channels.table import LAST_MOTION, CentroidAgreement, deriver, finisher
from crucible.inputs.config import PATHS
from store.errors import DamageError, NotATrajectoryError
from store.format.files import run_folder
from store.run.commit import Commit, read_commit, read_second_copy
from store.upkeep.check import check as check_store
from store.upkeep.findings import Report
from store.upkeep.repair import repair as repair_store
from store.writing.plan import channels_of


def check(run: str | Path, *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Check that every chunk and document of a run is there and whole, and that the arrays agree.

    delta_W_prime, the norms and last_motion_step are computed again from W and must be equal to the bit; the centroid
    within a tolerance. What was given alone is only read; a push too, since the moments are not kept.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.
    progress : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Report
        ``is_whole``, ``damage`` (each with array, steps and tokens) and ``leftovers``.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here.
    """
    folder = run_folder(run)
    try:
        functions = _functions(read_commit(folder))
    except DamageError:
        functions = {}
    return check_store(folder, progress=progress, **functions)


def repair(run: str | Path, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Check a run under the writer's lock, and mend what is found; returns what was done, a sentence each.

    Leftovers are swept, what the commit or the whole rows tell is written anew, and the run is cut back to its last
    whole step; see `store.repair`.

    Raises
    ------
    LockedError
        Somebody writes the run, or compacts it.
    """
    folder = run_folder(run, to_write=True)
    try:
        commit: Commit | None = read_commit(folder)
    except (DamageError, NotATrajectoryError):
        commit = read_second_copy(folder)
    return repair_store(folder, progress=progress, **(_functions(commit) if commit else {}))


def _functions(commit: Commit) -> dict[str, Any]:
    """What the recorder gave the writer, found again in the run's own words."""
    channels = channels_of(commit)
    found: dict[str, Any] = {"derive": deriver(channels), "config_paths": PATHS}
    names = {channel.name for channel in channels}
    if LAST_MOTION.name in names:
        found["finish"] = finisher(float(commit.attributes.get("motion_threshold", DEFAULT_THRESHOLD)))
    if {"W", "centroid"} <= {channel.name for channel in channels if not channel.on_own_axis}:
        found["agree"] = CentroidAgreement
    return found

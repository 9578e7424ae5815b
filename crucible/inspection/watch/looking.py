"""Looks at a run, from its commits alone: nothing is asked of the process that writes it."""

from __future__ import annotations

import json
import time
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

import analysis
from crucible.inspection.analyze import ask
from crucible.inspection.selection import Selection, select
from crucible.inspection.writer_state import stand, way_on
from store.errors import DamageError, NewerFormatError, NotATrajectoryError, StaleHandleError
from store.format.files import DOCUMENT, folder_bytes, run_folder, trajectory_of
from store.reading.reader import open_trajectory
from store.run.commit import Commit

LONGEST_S = 1_000_000
"""Seconds between two looks: eleven days."""
RECENT = 5
"""Commits over which the speed is measured."""
CURVE = 400
"""Points of a curve that a look keeps, each the mean of its neighbours."""
PATIENCE, AGAIN_S = 3, 0.5
"""Looks in a row at which a run may seem damaged, since it may be being replaced just then; and seconds between them
where there is no look before that could stand for them.
"""


@dataclass(frozen=True, slots=True)
class Look:
    """A run at one moment.

    Parameters
    ----------
    run : Path
    state : {"waiting", "recording", "stopped", "complete"}
        Whether its writer lives; "waiting" where there is no run yet.
    command : list of str or None
        The words after `crucible` that go on with a run whose writer is gone.
    is_new : bool
        Whether there is a commit that the look before did not have.
    was_replaced : bool
        Whether another run stands there than at the look before.
    answers : mapping or None
        As of the last commit, see `crucible.analyze`; None while waiting, and the rest is empty then.
    committed : int or None
        Label of the last committed step, whichever steps the answers are of; None while waiting.
    planned : int or None
        Steps in all, if the run says.
    steps_per_s : float or None
        Over the last commits that were seen.
    losses, moving : list of float
        Over all steps, thinned to some hundred points, losses that are NaN or infinite left out; the fraction of tokens
        that move.
    loss : float or None
        Of the last step, NaN where it was or is unknown; None if none is recorded.
    movers : int or None
        Tokens that moved at the last step.
    disk_bytes : int
        Of the whole folder.
    committed_at : float or None
        When the last commit was made, in seconds since 1970.
    """

    run: Path
    state: Literal["waiting", "recording", "stopped", "complete"]
    command: list[str] | None = None
    is_new: bool = False
    was_replaced: bool = False
    answers: dict[str, Any] | None = None
    committed: int | None = None
    planned: int | None = None
    steps_per_s: float | None = None
    losses: list[float] = field(default_factory=list)
    loss: float | None = None
    moving: list[float] = field(default_factory=list)
    movers: int | None = None
    disk_bytes: int = 0
    committed_at: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds until the planned end at this speed; None if unknown, and for a run that does not go on."""
        if self.committed is None or self.planned is None or not self.steps_per_s or self.state != "recording":
            return None
        return max(0, self.planned - self.committed) / self.steps_per_s

    def to_json(self) -> dict[str, Any]:
        """The look as JSON values; ``losses`` and ``moving`` by their last values alone."""
        told = self.answers or {}
        return {
            "run": str(self.run),
            "state": self.state,
            "command": None if self.command is None else ["crucible", *self.command],
            "step": self.committed,
            "planned": self.planned,
            "steps_per_s": self.steps_per_s,
            "left_s": self.left_s,
            "loss": self.loss,
            "movers": self.movers,
            "tokens": told.get("tokens"),
            "disk_bytes": self.disk_bytes,
            "committed_at": self.committed_at,
            "answers": self.answers,
        }


def looks(
    run: str | Path,
    interval_s: float,
    *,
    threshold: float | None = None,
    norm: str = "l2",
    part: Selection | None = None,
) -> Iterator[Look]:
    """Look at a run again and again, until it is completed; wait for it where there is none yet.

    Parameters
    ----------
    run : path
        The run's folder, or its trajectory.zarr; it may not be there yet.
    interval_s : float
        Seconds between two looks.
    threshold, norm
        Of motion, as in `analysis.moved`.
    part : Selection, optional
        Which part of the run.

    Yields
    ------
    Look
        One at each look; ``is_new`` says whether anything was committed. Only then is anything asked anew.

    Raises
    ------
    ValueError
        `interval_s` is below 0 or no number of seconds, or the run has no such part.
    DamageError
        The run is damaged, and was so at three looks in a row.
    """
    if not 0 <= interval_s <= LONGEST_S:
        raise ValueError(f"the interval must lie between 0 and {LONGEST_S:,} seconds, not {interval_s}")
    watcher = _Watcher(run_folder(run), {"threshold": threshold, "norm": norm}, part or Selection())
    while True:
        look = watcher.look()
        yield look
        if look.state == "complete":
            return
        time.sleep(interval_s)


@dataclass(slots=True)
class _Watcher:
    """What is remembered from look to look."""

    run: Path
    how: dict[str, Any]
    part: Selection
    key: tuple[Any, ...] | None = None
    last: Look | None = None
    seen: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    failures: int = 0

    def look(self) -> Look:
        """A look, now; the last one where the run seems damaged, and may not be."""
        while True:
            try:
                found = self._look()
            except (DamageError, StaleHandleError):
                self.failures += 1
                if self.failures >= PATIENCE:
                    raise
                if self.last is not None:
                    return self.last
                time.sleep(AGAIN_S)
            else:
                self.failures = 0
                return found

    def _look(self) -> Look:
        try:
            commit, state = stand(self.run)
        except NewerFormatError:
            raise
        except NotATrajectoryError:
            self.key, self.last = None, None
            self.seen.clear()
            return Look(self.run, "waiting")
        key = (_name_of(commit), commit.generation, commit.committed_steps, commit.completed)
        command = way_on(self.run, commit)
        if key == self.key and self.last is not None:
            self.last = _again(self.last, state, command)
            return self.last
        was_replaced = self.key is not None and key[0] != self.key[0]
        if was_replaced or (self.key is not None and key[1] != self.key[1]):
            self.seen.clear()
        found = self._asked(commit, state, command, was_replaced=was_replaced)
        self.key, self.last = key, found
        return found

    def _asked(self, commit: Commit, state: Any, command: list[str] | None, *, was_replaced: bool) -> Look:  # noqa: ANN401
        whole = open_trajectory(self.run)
        ds, committed = select(whole, self.part), int(whole.attrs["committed_steps"])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no token moved")  # the look tells it, at every commit
            answers = ask(ds, **self.how)
        at = (trajectory_of(self.run) / DOCUMENT).stat().st_mtime
        self.seen.append((at, committed))
        config = commit.attributes.get("config") or {}
        planned = config.get("total_steps")
        losses = _losses(ds)
        moving = _moving(ds, self.how) if answers["resolution_steps"] == 1 else np.empty(0)
        return Look(
            self.run, state, command, is_new=True, was_replaced=was_replaced, answers=answers, committed=committed,
            planned=planned if isinstance(planned, int) else None, steps_per_s=_speed(self.seen),
            losses=_thinned(losses[np.isfinite(losses)]), loss=float(losses[-1]) if len(losses) > 1 else None,
            moving=_thinned(moving),
            movers=round(float(moving[-1]) * answers["tokens"]) if len(moving) else None,
            disk_bytes=folder_bytes(self.run), committed_at=at,
        )  # fmt: skip


def _again(last: Look, state: Any, command: list[str] | None) -> Look:  # noqa: ANN401
    """The same commit, looked at later."""
    return replace(last, state=state, command=command, is_new=False, was_replaced=False)


def _name_of(commit: Commit) -> str:
    """What tells a run from another one in the same folder."""
    return commit.run_id or json.dumps(commit.attributes.get("provenance", {}), sort_keys=True)


def _speed(seen: deque[tuple[float, int]]) -> float | None:
    """Steps a second between the first and the last of some commits."""
    (begun, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - begun) if ended > begun and last > first else None


def _losses(ds: xr.Dataset) -> np.ndarray[Any, Any]:
    if "loss" not in ds or ds["loss"].dims != ("step",):
        return np.empty(0)
    values: np.ndarray[Any, Any] = ds["loss"].values
    return values


def _moving(ds: xr.Dataset, how: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The fraction of tokens that move, at each step after the first."""
    values: np.ndarray[Any, Any] = analysis.moved(ds, **how).mean("token").values[1:]
    return values


def _thinned(values: np.ndarray[Any, Any]) -> list[float]:
    """The means of neighbours; the last value stays as it is."""
    if not len(values):
        return []
    groups = np.array_split(values, min(CURVE, len(values)))
    return [*(float(group.mean()) for group in groups[:-1]), float(values[-1])]

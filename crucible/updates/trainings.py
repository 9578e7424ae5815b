"""Where each training of a callback is recorded: in its folder, in one of its own, or on with the run that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.run.whereabouts import is_there


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training is recorded.

    Parameters
    ----------
    folder : Path
        Of the run.
    resume : int, optional
        The step after which the run goes on.
    first_step : int
        Label of the first state of a new run, where that is known.
    overwrite : bool
        Begin in the place of the run that is there.
    notice : str
        What is to be told of it; "" for nothing.
    """

    folder: Path
    resume: int | None = None
    first_step: int | None = None
    overwrite: bool = False
    notice: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """As `crucible.attach` takes them; `first_step` where it is known here."""
        first = {} if self.first_step is None else {"first_step": self.first_step}
        return {"resume": self.resume, "overwrite": self.overwrite, **first}


class Trainings:
    """The trainings of one callback, one after the other.

    Parameters
    ----------
    run : Path
        Folder of the first; others get folders beside it, or within it where they are trials of a search.
    overwrite : bool
        Each training begins in the place of what is there.
    """

    def __init__(self, run: Path, *, overwrite: bool) -> None:
        self.run, self._overwrite = run, overwrite
        self._last: Path | None = None
        self._batch_size: int | None = None

    def kept(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps of the training that is recorded now: the last step, the folder, and of which run."""
        folder = self._last or self.run
        return {"step": step, "folder": str(folder.relative_to(self.run.parent)), "run": self.run.name}

    def resumed(self, kept: Mapping[str, Any] | None, step: int) -> Place:
        """Of a training that goes on from a checkpoint with what `kept` left in it, made at the Trainer's own `step`.

        Where there is no run here that it went on from, the training is recorded from this step on. A run of another
        name is left as it is: it may have gone on without this training, which is a branch of it.
        """
        known = kept or {}
        step = int(known.get("step", step))  # updates that a scaler skipped are not counted as steps
        own = known.get("folder") if self._is_own(known) else None
        self._last = self.run.parent / (own or self.run.name)
        if is_there(self._last):
            return Place(self._last, resume=step, first_step=0)
        before = known.get("folder", self.run.name)
        told = (
            f"{self._last}: is not there, and the training that goes on was recorded in {before!r} until the "
            f"checkpoint: from step {step:,} on it is recorded here, and what was recorded before is left as it is"
        )
        return Place(self._last, first_step=step, notice=told if known else "")

    def _is_own(self, kept: Mapping[str, Any]) -> bool:
        """Whether a callback on a run of this name has left it; an older one kept the name of the folder alone."""
        folder = str(kept.get("folder", ""))
        if "run" in kept:
            return bool(kept["run"] == self.run.name)
        number = folder.removeprefix(f"{self.run.name}-")
        is_later = number != folder and number.isdecimal()
        return folder == self.run.name or is_later or folder.startswith(f"{self.run.name}/")

    def trial(self, name: str | None) -> Place:
        """Of a trial of a hyper-parameter search, by its name, or numbered from 0."""
        self._last = self.run / name if name else _free(self.run / "trial-{}", 0)
        return Place(self._last, overwrite=self._overwrite)

    def next(self, batch_size: int | None, *, may_shrink: bool) -> Place:
        """Of a training from the beginning.

        The first takes the folder of the callback, those after it ``<folder>-2``, ``<folder>-3``. One that the Trainer
        begins again with a smaller batch, since the last did not fit into memory, takes the place of that one.
        """
        before, self._batch_size = self._batch_size, batch_size
        is_retry = may_shrink and None not in (before, batch_size) and batch_size < before  # type: ignore[operator]
        if self._last is None or self._overwrite:
            self._last = self.run
        elif not is_retry:
            self._last = _free(self.run.with_name(self.run.name + "-{}"), 2)
        return Place(self._last, overwrite=self._overwrite or is_retry)


def _free(pattern: Path, number: int) -> Path:
    """The first folder of this pattern, from this number on, that has no run."""
    while is_there(folder := pattern.with_name(pattern.name.format(number))):
        number += 1
    return folder


def from_state(state: Any, key: str) -> dict[str, Any] | None:  # noqa: ANN401 - the Trainer's own
    """What a callback has left in the state that the Trainer keeps in its checkpoints; None for nothing."""
    found = state.stateful_callbacks.get(key)
    return found if isinstance(found, dict) else None

"""What a recorder needs of a store, and what stands in for either where nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from torch import Tensor

from crucible.updates.handed import Reduce
from store.format.schema import Channel

Folder = tuple[int, int]
"""What tells a folder from another of its name: device and inode."""


def folder_at(run: Path) -> Folder | None:
    """Which folder lies at a path now; None where there is none."""
    try:
        status = run.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Writer(Protocol):
    """What a recorder needs of a store; `store.TrajectoryWriter` is one."""

    @property
    def steps(self) -> int:
        """Label of the last appended step."""

    @property
    def committed_steps(self) -> int:
        """Label of the last committed step."""

    @property
    def waited_s(self) -> float:
        """Seconds that `append` has waited for the disk or the encoder."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the run tells of itself, as far as it is known."""

    def append(self, **rows: Any) -> None:  # noqa: ANN401 - arrays and numbers
        """Take the next step's rows."""

    def last_row(self, name: str) -> Any:  # noqa: ANN401 - an array, or None where it is not known
        """The row of a channel that was appended last."""

    def room(self, name: str) -> Any:  # noqa: ANN401 - an array, or None
        """Memory where the next row of a channel may be made, so that `append` need not copy it."""

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Take the training state after `step`."""

    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Have these attributes in the run from the next commit on."""

    def commit(self) -> None:
        """Return when all appended steps are durable."""

    def complete(self, describe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None) -> None:
        """End the run."""

    def close(self) -> None:
        """Commit what waits and let go of the run."""


class NoWriter:
    """Counts the steps of a process that writes nothing.

    Parameters
    ----------
    steps : int
        Label of the step before the first.
    """

    waited_s = 0.0

    def __init__(self, steps: int = -1) -> None:
        self.steps = steps

    @property
    def committed_steps(self) -> int:
        """As many as there are: nothing can be lost."""
        return self.steps

    @property
    def attributes(self) -> dict[str, Any]:
        """None are known here."""
        return {}

    def append(self, **rows: Any) -> None:  # noqa: ANN401, ARG002 - as of a writer
        """Count the step."""
        self.steps += 1

    def last_row(self, name: str) -> None:
        """No row is known here."""

    def room(self, name: str) -> None:
        """No row is kept here."""

    def checkpoint(self, step: int, files: object) -> None:
        """Keep nothing."""

    def tell(self, attributes: object) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """There is nothing to make durable."""

    def complete(self, describe: object = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


Open = Callable[[Sequence[Channel]], Writer]


class LateWriter:
    """The writer of a run that is made at its first update, or at whatever asks for the run before.

    Parameters
    ----------
    run : path
        Folder of the run.
    open_run : callable
        Makes the run, with these channels beside those that were declared.
    first_step : int
        Label of the first state.
    """

    def __init__(self, run: Path, open_run: Open, first_step: int) -> None:
        self.run, self._open_run, self._first_step = run, open_run, first_step
        self._first_row: dict[str, Any] | None = None
        self._told: dict[str, Any] = {}
        self._writer: Writer | None = None
        self._folder: Folder | None = None

    @property
    def folder(self) -> Folder | None:
        """Which folder the run was made in; None before."""
        return self._folder

    @property
    def is_begun(self) -> bool:
        """Whether the run is made, so that no more channels can be added."""
        return self._writer is not None

    @property
    def is_closed(self) -> bool:
        """Whether writing has failed or ended."""
        return bool(getattr(self._writer, "is_closed", False))

    @property
    def steps(self) -> int:
        """Label of the last appended step."""
        if self._writer is not None:
            return self._writer.steps
        return self._first_step - (self._first_row is None)

    @property
    def committed_steps(self) -> int:
        """Label of the last committed step."""
        return self._first_step - 1 if self._writer is None else self._writer.committed_steps

    @property
    def waited_s(self) -> float:
        """Seconds that `append` has waited."""
        return 0.0 if self._writer is None else self._writer.waited_s

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What was told of a run that is not made yet; afterwards what it tells of itself."""
        return self._told if self._writer is None else self._writer.attributes

    def begin(self, scalars: Iterable[Channel] = ()) -> Writer:
        """Make the run, if it is not made yet, with these channels beside the declared ones."""
        if self._writer is None:
            added = list(scalars)
            self._writer = self._open_run(added)
            self._folder = folder_at(self.run)
            self._writer.tell(self._told)
            if self._first_row is not None:
                self._writer.append(**self._first_row, **{channel.name: None for channel in added})
        return self._writer

    def append(self, **rows: Any) -> None:  # noqa: ANN401 - as of a writer
        """Take the next step's rows; the first ones wait."""
        if self._writer is None and self._first_row is None:
            self._first_row = {name: _copied(row) for name, row in rows.items()}
        else:
            self.begin().append(**rows)

    def last_row(self, name: str) -> Any:  # noqa: ANN401 - as of a writer
        """The row of a channel that was appended last."""
        return (self._first_row or {}).get(name) if self._writer is None else self._writer.last_row(name)

    def room(self, name: str) -> Any:  # noqa: ANN401 - as of a writer
        """Memory for the next row of a channel; None while the first ones wait."""
        return None if self._writer is None else self._writer.room(name)

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Take the training state after `step`."""
        self.begin().checkpoint(step, files)

    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Have these attributes in the run from the next commit on."""
        if self._writer is None:
            self._told |= attributes
        else:
            self._writer.tell(attributes)

    def commit(self) -> None:
        """Return when all appended steps are durable."""
        self.begin().commit()

    def complete(self, describe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None) -> None:
        """End the run."""
        self.begin().complete(describe)

    def close(self) -> None:
        """Commit what waits and let go of the run."""
        if self._writer is not None or self._first_row is not None:
            self.begin().close()


class NoRecorder:
    """Takes what a recorder takes and keeps nothing: the bare loop, for measuring what recording costs."""

    def log(self, *, reduce: Reduce = "mean", **values: Tensor | float) -> None:
        """Keep nothing."""

    def record(self) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """Nothing waits."""

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep nothing."""

    def complete(self, describe: object = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def _copied(row: Any) -> Any:  # noqa: ANN401 - an array, a number or None
    return np.array(row) if isinstance(row, np.ndarray) else row

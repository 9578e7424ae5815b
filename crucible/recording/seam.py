"""What a recorder needs of a store, and what stands in for either where nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from torch import Tensor

from crucible.updates.handed import Reduce


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

    def append(self, **rows: Any) -> None:  # noqa: ANN401 - arrays and numbers
        """Take the next step's rows."""

    def last_row(self, name: str) -> Any:  # noqa: ANN401 - an array, or None where it is not known
        """The row of a channel that was appended last."""

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Take the training state after `step`."""

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

    def append(self, **rows: Any) -> None:  # noqa: ANN401, ARG002 - as of a writer
        """Count the step."""
        self.steps += 1

    def last_row(self, name: str) -> None:
        """No row is known here."""

    def checkpoint(self, step: int, files: object) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """There is nothing to make durable."""

    def complete(self, describe: object = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


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

"""How a training ended, and what is said of it."""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crucible.inspection.summary import numbers, opening, say_all
from crucible.units import counted, size_text
from store.format.files import TRAJECTORY, folder_bytes, local_path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a loop ended: the last update, its loss, passes over the corpus begun, seconds spent in the loop.

    `signum` is the signal that ended it before its end, or None.
    """

    steps: int
    loss: float | None
    epochs: int
    elapsed_s: float
    signum: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it came to its end."""
        return self.signum is None


def tell_end(outcome: Outcome, run: str | Path | None, say: Callable[[str], None]) -> int:
    """Tell how a run ended, first of all that it diverged; returns the exit code, 128 + signal where one ended it."""
    if outcome.signum is not None:
        by = "" if outcome.signum == signal.SIGINT else f" by {signal.Signals(outcome.signum).name}"
        again = f", which is committed; to go on: crucible resume {shlex.quote(str(run))}" if run else ""
        say_all([*_alarm(outcome), f"interrupted{by} after step {outcome.steps:,}{again}"], say)
        return 128 + outcome.signum
    loss = "none" if outcome.loss is None else f"{outcome.loss:.4f}"
    steps, epochs = counted(outcome.steps, "step"), counted(outcome.epochs, "epoch")
    complete = f"training complete: {steps}, final loss {loss}, {epochs} begun"
    complete += f", {outcome.elapsed_s:.1f} s in this process"
    if run is None:
        say_all([*_alarm(outcome), complete], say)
        return 0
    from crucible.inspection.analyze import analyze

    answers = analyze(run)
    say_all([*(opening(answers) or _alarm(outcome)), complete, *numbers(answers)], say)
    store = local_path(run) / TRAJECTORY
    say(f"trajectory: {store}, {size_text(folder_bytes(store))}")
    return 0


def _alarm(outcome: Outcome) -> list[str]:
    """That the last loss is no finite number, where nothing else is known of divergence."""
    if outcome.loss is None or math.isfinite(outcome.loss):
        return []
    return [f"Diverged: the loss of step {outcome.steps:,} is {outcome.loss}."]

"""What is said when a run has ended."""

from __future__ import annotations

from collections.abc import Callable

from crucible.trainer import Outcome
from crucible.units import time_text

INTERRUPTED = 130
Say = Callable[[str], None]


def tell_end(outcome: Outcome, run: str | None, say: Say) -> int:
    """Tell how a run ended, and answer the exit code."""
    loss = "none" if outcome.loss is None else f"{outcome.loss:.4f}"
    if not outcome.is_complete:
        say(f"interrupted after step {outcome.steps:,}, which is committed: crucible resume {run}")
        return INTERRUPTED
    took = time_text(outcome.elapsed_s)
    say(f"training complete: {outcome.steps:,} steps, final loss {loss}, {outcome.epochs} epochs, {took}")
    return 0

"""What a recorder tells while it records: each thing once, in whole sentences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

Say = Callable[[str], None]
LOGGER = logging.getLogger("crucible")


def log_notice(words: str) -> None:
    """Where notices go unless `say` is given: to the logger `crucible`, as warnings."""
    LOGGER.warning(words)


class Once:
    """Hands sentences on, one for each topic."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._told: set[str] = set()

    def __call__(self, topic: str, words: str) -> None:
        """Say this, unless something of the topic was said before."""
        if topic not in self._told:
            self._told.add(topic)
            self.say(words)


def never_stepped(step: int, optimizer: str) -> str:
    """At the end, where nothing was recorded but the first state."""
    return (
        f"no step of this {optimizer} was seen since recording began, so nothing but step {step} is recorded: was "
        "another optimizer stepped, one made anew after attach?"
    )


def written_before(update: int) -> str:
    """Something else than the optimizer writes to the weights."""
    return (
        f"the parameter was written to before update {update} by something that is no step of this optimizer "
        "(max_norm, a constraint, load_state_dict); what that changed is recorded as part of the update"
    )


def written_after(step: int) -> str:
    """At the end: the weights are not what the run holds last."""
    return (
        f"the parameter was written to after step {step}, the last that was recorded: by another optimizer (one made "
        "anew?), load_state_dict, or code of yours; the run does not hold that"
    )


def slow(waited_s: float, elapsed_s: float) -> str:
    """The loop waits for the writer."""
    return (
        f"recording is slower than training here: the loop has waited {waited_s:.1f} s of {elapsed_s:.0f} s "
        "for the disk or the encoder; nothing is lost"
    )


def not_taken(name: str, taken: Iterable[str]) -> str:
    """A logged name that no channel is made of."""
    return (
        f"recorder.log({name}=...): no channel of this run takes {name!r}, so it is not recorded; it takes "
        f"{', '.join(sorted(taken)) or 'none'}, and one more by channels=(..., Channel({name!r}, (), 'float32'))"
    )


def late(name: str, update: int) -> str:
    """The second update has a value and the first has none: it may be that of the first."""
    return (
        f"update {update - 1} had no {name}, and update {update} has one: recorder.log belongs before "
        f"optimizer.step(); called after it, each {name} stands one step late"
    )

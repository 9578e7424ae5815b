"""The verdict on the end state in words: what was seen, by which threshold, under which assumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.episodes import Rule
from analysis.questions.motion import sees_every_change
from analysis.thresholds import SURE_THRESHOLD


@dataclass(frozen=True, slots=True)
class Motion:
    """What counted as motion: a norm of the displacement of at least so many cells.

    Examples
    --------
    >>> Motion(0.1, "l2").words
    'by L2 >= 0.1 cells'
    """

    threshold: float
    norm: str

    @property
    def words(self) -> str:
        """As a sentence names it; enough digits for any float32."""
        return f"by {self.norm.capitalize()} >= {self.threshold:.7g} cells"

    @property
    def is_sure(self) -> bool:
        """Whether any change of a weight was motion."""
        return sees_every_change(self.threshold)


def why_none(told: Mapping[str, Any], motion: Motion) -> str | None:
    """Why there is no verdict, in a few words; None if there is one."""
    if not motion.is_sure:
        return f"a threshold of {motion.threshold:.7g} cells misses moves"
    if told["last_motion"] is None:
        return "nothing moved"
    return "too few episodes of motion" if told["p"] is None else None


def words_of(told: Mapping[str, Any], last_step: int, finite: bool, rule: Rule, motion: Motion) -> str:
    """The verdict in some sentences, from the numbers of `endstate.END_STATE` with None for what does not exist."""
    if not motion.is_sure:
        said = (
            f"by a threshold of {motion.threshold:.7g} cells ({motion.norm.capitalize()}) a weight that moves to its "
            f"neighbour at every step may count as still; ask with one of at most {SURE_THRESHOLD}."
        )
    elif told["last_motion"] is None:
        said = f"nothing moved ({motion.words}), so there is no silence to compare with."
    elif told["p"] is None:
        count, noun = told["episodes"], "episode" if told["episodes"] == 1 else "episodes"
        needed = f"{rule.fewest + 1} are needed to know how long its silences are"
        said = f"{count} {noun} of motion so far ({motion.words}), {needed}."
    else:
        return _judgement(told, last_step, finite, rule, motion)
    return f"No verdict at step {last_step}: {said}" + ("" if finite else " Some weights are NaN or infinite.")


def _judgement(told: Mapping[str, Any], last_step: int, finite: bool, rule: Rule, motion: Motion) -> str:
    head = "Frozen" if told["frozen"] else "Not frozen yet"
    seen = (
        f"{head} at step {last_step}: {told['gap']} still steps since the last motion at step {told['last_motion']} "
        f"({motion.words})."
    )
    assumed = (
        f"If episodes of motion (moving steps less than {rule.memory} still steps apart) went on for ever at a rate "
        f"that falls like 1/t, a silence this long would have a chance of at most p = {told['p']:.2g}, with "
        f"{told['looks']} looks paid for."
    )
    return " ".join([seen, assumed, _reservation(told, finite)])


def _reservation(told: Mapping[str, Any], finite: bool) -> str:
    if told["frozen"]:
        return (
            f"The confidence {told['confidence']:.4f} is 1 - p, not the probability that the run has ended, and it is "
            "too high if motion dies out faster than 1/t without having died."
        )
    if not finite:
        return "Some weights are NaN or infinite, so the run is not called frozen."
    if told["frozen_from"] is None:
        return "No silence within reach would be long enough."
    return f"Without further motion it would be called frozen at step {told['frozen_from']}."

"""The verdict on the end state in words: what was seen, by which of its two parts, and under which assumption."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from analysis.episodes import RULE, Rule
from analysis.moves import sees_every_change
from analysis.optimizers.expected_moves import LIMITS
from analysis.thresholds import SURE_THRESHOLD
from analysis.told_numbers import at_least, at_most, beside


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


ABOUT_AS_HIGH = 0.999
"""A learning rate is lower than another only below so much of it: it may have been rounded to be stored."""


NO_MOVE = "no move is looked at, but a single state"


WHOLE = 10
"""From so many expected moves on they are told as a whole number."""


class Against(NamedTuple):
    """How often a token moved, or stayed, against what its push says, the step at which one did last, and how often
    one did so by a push of about 1.
    """

    times: int = 0
    last: int | None = None
    nearly: int = 0


NOTHING_AGAINST = Against()


@dataclass(frozen=True, slots=True)
class Judged:
    """How a verdict was found, as far as its words need it.

    Parameters
    ----------
    last_step : int
        T.
    finite : bool
        Whether every weight is.
    rule : Rule
    motion : Motion
    no_push : str
        Why no push is known; "" where it is.
    inexact : str
        Why the push is approximate; "" where it is exact.
    push_memory : int
        The memory of the optimizer's momentum in steps.
    rates_below : float
        From this learning rate on weight decay alone can move a weight.
    asked_in_vain : str
        A learning rate for which the end was asked, where no push is known that could tell it; else "".
    """

    last_step: int
    finite: bool = True
    rule: Rule = RULE
    motion: Motion = Motion(0.1, "l2")
    no_push: str = ""
    inexact: str = ""
    push_memory: int = 10
    rates_below: float = math.inf
    asked_in_vain: str = ""

    @property
    def level(self) -> float:
        """The p that is asked for."""
        return self.rule.level if self.no_push else self.rule.level_with_push


def why_none(told: Mapping[str, Any], judged: Judged) -> str | None:
    """Why there is no verdict, in a few words; None if there is one."""
    if not judged.motion.is_sure:
        return f"a threshold of {judged.motion.threshold:.7g} cells misses moves"
    if told["last_motion"] is None:
        return "nothing moved" if told["gap"] else NO_MOVE
    if told["p"] is None:
        return "too few episodes of motion"
    return _why_no_estimate(told, judged) if _waits_for_push(told, judged) else None


def words_of(told: Mapping[str, Any], judged: Judged) -> str:
    """The verdict in some sentences, from the numbers of `verdict.END_STATE` with None for what does not exist."""
    motion, last_step = judged.motion, judged.last_step
    if not motion.is_sure:
        said = (
            f"by a threshold of {motion.threshold:.7g} cells ({motion.norm.capitalize()}) a weight that moves to its "
            f"neighbour at every step may count as still; ask with one of at most {SURE_THRESHOLD}."
        )
    elif told["last_motion"] is None and not told["gap"]:
        said = f"{NO_MOVE}, so there is nothing to judge."
    elif told["last_motion"] is None:
        said = f"nothing moved ({motion.words}), so there is no silence to compare with."
    elif told["p"] is None:
        count, noun = told["episodes"], "episode" if told["episodes"] == 1 else "episodes"
        needed = f"{judged.rule.fewest + 1} are needed to know how long its silences are"
        said = f"{count} {noun} of motion so far ({motion.words}), {needed}."
    else:
        return _judgement(told, judged)
    push = [_outlook(told, judged)] if motion.is_sure and told["E"] is not None else []
    bad = [] if judged.finite else ["Some weights are NaN or infinite."]
    return " ".join([f"No verdict at step {last_step}: {said}", *push, *_in_vain(judged), *bad])


def _judgement(told: Mapping[str, Any], judged: Judged) -> str:
    """A verdict, or that one part of it is missing."""
    waits = _waits_for_push(told, judged)
    head = "Frozen" if told["frozen"] else "No verdict" if waits else "Not frozen yet"
    seen = (
        f"{head} at step {judged.last_step}: {told['gap']} still steps since the last motion at step "
        f"{told['last_motion']} ({judged.motion.words})."
    )
    by_push = _weaker(told, judged) if judged.no_push else _outlook(told, judged)
    parts = [seen, _silence(told, judged), by_push, *_in_vain(judged)]
    if not judged.finite:
        parts.append("Some weights are NaN or infinite, so the run is not called frozen.")
    elif told["p"] > judged.level:
        parts.append(_until(told, judged))
    return " ".join(parts)


def _silence(told: Mapping[str, Any], judged: Judged) -> str:
    """What the silence alone says."""
    rare = "This silence is unusually long for this run" if told["p"] <= judged.level else "This silence is not rare"
    looks = f", counting that one could have asked after {told['looks']} silences" if told["looks"] > 1 else ""
    return (
        f"{rare} (p = {p_text(told['p'], judged.rule)}, frozen needs at most {judged.level:g}): if episodes of motion "
        f"(moving steps less than {judged.rule.memory} still steps apart) went on for ever at a rate that falls like "
        f"1/t, t being the label of the step, a silence as long would come with a chance of at most p{looks}."
    )


def _weaker(told: Mapping[str, Any], judged: Judged) -> str:
    """That the silence alone was judged, and what that verdict cannot see."""
    said = f"This is the weaker verdict, by the silence alone, since the push is not known: {judged.no_push}."
    if told["frozen"]:
        said += " It errs where motion dies out faster than 1/t without having died."
    if told["reference_learning_rate"] == 0:
        said += " The learning rate is 0 at the end, so nothing can move, frozen or not."
    elif higher := _was_higher(told):
        said += f" The learning rate is {told['reference_learning_rate']:.4g}{higher}."
    return said


def in_vain(rate: str) -> str:
    """That a learning rate was asked for which nothing depends on.

    Examples
    --------
    >>> in_vain("0.5")
    'The learning rate of 0.5 that was asked for changes nothing: no push is known.'
    """
    return f"The learning rate of {rate} that was asked for changes nothing: no push is known."


def _in_vain(judged: Judged) -> list[str]:
    return [in_vain(judged.asked_in_vain)] if judged.asked_in_vain else []


def p_text(p: float, rule: Rule = RULE, digits: int = 2) -> str:
    """A p as it is read beside the levels of the verdict.

    Examples
    --------
    >>> p_text(0.0312), p_text(0.0502)
    ('0.031', '0.0502')
    """
    return beside(p, rule.level, rule.level_with_push, digits=digits)


def expected_text(moves: float, rule: Rule = RULE, digits: int = 2) -> str:
    """Expected moves as they are read.

    Examples
    --------
    >>> expected_text(0.0123), expected_text(514.59), expected_text(0.01004)
    ('0.012', '515', '0.01004')
    """
    return f"{moves:,.0f}" if moves >= WHOLE else beside(moves, rule.most_expected, digits=digits)


def _was_higher(told: Mapping[str, Any]) -> str:
    """That a silence may be that of the schedule: the learning rate was higher when something moved."""
    rate, before = told["reference_learning_rate"], told["rate_at_last_motion"]
    if None in (rate, before) or rate >= ABOUT_AS_HIGH * before:
        return ""
    return f"; at the last motion it was {before:.4g}"


def _outlook(told: Mapping[str, Any], judged: Judged) -> str:
    """What the push says."""
    if told["E"] is None:
        return f"The optimizer's push tells nothing: {_why_no_estimate(told, judged)}."
    rate, steps = told["reference_learning_rate"], LIMITS.headroom_memories * judged.push_memory
    push = told["push"]
    distance = "not known" if push is None else f"at most {at_most(push)} of it in the last {steps} steps"
    if (told["fluctuations"] or 0) > 0:
        distance += f", {told['fluctuations']:.2g} times its usual fluctuation away at the end"
    expected = expected_text(told["E"], judged.rule)
    if told["E"] <= judged.rule.most_expected:
        said = (
            "The optimizer's strongest push is so far below half a cell by now, from where a weight moves "
            f"({distance}), that it would move nothing in as many steps again (E = {expected}), at a learning "
            f"rate no larger than {rate:.4g}{_was_higher(told)}."
        )
    else:
        why = "strongest push is too near half a cell, from where a weight moves"
        if push == 0:
            why = "push fell to 0 within this silence, unevenly, from near half a cell, from where a weight moves"
        said = (
            f"The optimizer's {why} ({distance}): up to {expected} moves are to be expected in as many steps again, at "
            f"a learning rate of {rate:.4g}."
        )
    if told["headroom"] is not None:
        said += f" In these {steps} steps the learning rate could have been {at_least(told['headroom'])} times as high"
        said += " before anything moved."
    if push == 0:
        said += " A push of 0 pushes nowhere: no gradient has reached these tokens, or their momentum has died out."
    inexact = judged.inexact
    if told["nearly"] and not inexact:
        inexact = f"{told['nearly']:,} times a token moved, or stayed, against a push of about 1"
    return said + (f" The push is approximate here: {inexact}." if inexact else "")


def _waits_for_push(told: Mapping[str, Any], judged: Judged) -> bool:
    """Whether the silence would do, but the push tells nothing."""
    return not judged.no_push and told["E"] is None and told["p"] is not None and told["p"] <= judged.level


def _why_no_estimate(told: Mapping[str, Any], judged: Judged) -> str:
    if told["unexplained"]:
        return _against(told)
    if (rate := told["reference_learning_rate"]) is None:
        return "no learning rate is known"
    if not rate:
        return (
            "the learning rate is 0 at the end, so nothing can move, frozen or not; ask with a reference learning rate"
        )
    if rate >= judged.rates_below:
        return (
            f"at a learning rate of {rate:.4g} weight decay alone can move a weight, and the push does not tell what "
            f"moves; ask with one below {judged.rates_below:.4g}"
        )
    if told["blocks"] < LIMITS.fewest_blocks:
        return _too_few_blocks(told, judged)
    return "it is not known at every step of the silence"


def _against(told: Mapping[str, Any]) -> str:
    """That the push is not what moves the weights."""
    often, last = f"{told['unexplained']:,} times", "last "
    if told["unexplained"] == 1:
        often, last = "once", ""
    return (
        f"{often} a token moved, or stayed, against what its push says ({last}at step {told['last_unexplained']}), so "
        "something else than the recorded update makes the weights: a second parameter on the same memory, a "
        "constraint, weights that were put back"
    )


def _too_few_blocks(told: Mapping[str, Any], judged: Judged) -> str:
    said = f"the silence holds {told['blocks']} of the {LIMITS.fewest_blocks} blocks of steps that are needed"
    if told["gap"] < (LIMITS.fewest_blocks + 1) * judged.push_memory:
        return said
    return (
        f"{said}; steps do not count at which the learning rate was 0, nor those before the optimizer's own count "
        "(optimizer_step) last began anew or was not known"
    )


def _until(told: Mapping[str, Any], judged: Judged) -> str:
    """From which step on the silence would do."""
    if told["frozen_from"] is None:
        return "No silence within reach would be long enough."
    if judged.no_push:
        return f"Without further motion it would be called frozen at step {told['frozen_from']}."
    return f"Without further motion p would reach {judged.level:g} at step {told['frozen_from']}."

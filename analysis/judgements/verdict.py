"""The verdict on a silence, in numbers and in words, from plain arrays: by the silence, by the push, and by both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.engine.question import Answer
from analysis.episodes import RULE, Moments, Rule, frozen_from, moments, p_value
from analysis.judgements.sentences import NOTHING_AGAINST, Against, Judged, Motion, words_of
from analysis.optimizers.expected_moves import Outlook
from analysis.thresholds import DEFAULT_THRESHOLD

END_STATE = {
    "gap": Answer((), "int64", "still steps since the last motion", "step"),
    "longest_earlier": Answer((), "int64", "longest stillness run before the last motion", "step"),
    "ratio": Answer((), "float64", "gap over the longest earlier stillness run"),
    "episodes": Answer((), "int64", "episodes of motion that were used"),
    "looks": Answer((), "int64", "silences worth a look until now"),
    "p": Answer((), "float64", "chance of such a silence if motion goes on at a rate that falls like 1/t"),
    "confidence": Answer((), "float64", "1 - p, which is not the probability that the run has ended"),
    "push": Answer((), "float64", "strongest push in the last 20 memories of the momentum", "half cell"),
    "headroom": Answer((), "float64", "factor by which the learning rate could have been higher in these steps"),
    "E": Answer((), "float64", "moves to be expected in as many steps again, by the push"),
    "reference_learning_rate": Answer((), "float64", "the learning rate for which E holds"),
    "rate_at_last_motion": Answer((), "float64", "the learning rate of the last step at which any token moved"),
    "unexplained": Answer((), "int64", "times that a token moved, or stayed, against what its push says"),
    "last_unexplained": Answer((), "int64", "last step at which one did", "step", True),
    "nearly": Answer((), "int64", "times that a token did so by a push of about 1, which is approximate then"),
    "blocks": Answer((), "int64", "blocks of a memory of steps in the silence, by which the push is judged"),
    "fluctuations": Answer((), "float64", "how many of its usual fluctuations the push is away from moving a weight"),
    "frozen_by_silence": Answer((), "bool", "p is at most the level of the silence alone, and every weight is finite"),
    "frozen_by_push": Answer((), "bool", "E is at most its level, and every weight is finite"),
    "frozen": Answer((), "bool", "frozen by silence and push together; by the silence alone where no push is known"),
    "last_motion": Answer((), "int64", "last step at which any token moved", "step", True),
    "since": Answer((), "int64", "step from which the mean gap between episodes is measured", "step", True),
    "frozen_from": Answer((), "int64", "step at which p reaches its level if nothing moves", "step", True),
}
_OF_PUSH = {
    "push": "push",
    "headroom": "headroom",
    "E": "expected",
    "reference_learning_rate": "reference_learning_rate",
    "rate_at_last_motion": "rate_at_last_motion",
}
"""Names here, and in `Outlook`."""
_NO = math.nan


def verdict(
    moving: npt.ArrayLike, *, last_step: int, first_step: int = 1, finite: bool = True, rule: Rule = RULE,
    threshold: float = DEFAULT_THRESHOLD, norm: str = "l2", outlook: Outlook | None = None,
    against: Against = NOTHING_AGAINST, no_push: str = "it was not asked for", inexact: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Judge the silence since the last motion from the labels of the moving steps alone; with the push, by both.

    Parameters
    ----------
    moving : array of int, (moving step)
        Labels of the steps with motion, ascending.
    last_step : int
        T, the label of the last step looked at.
    first_step : int
        Label of the first move looked at.
    finite : bool
        Whether every weight is finite. A run with NaN or infinite weights is never called frozen.
    rule : Rule
        The constants.
    threshold, norm : float, {"l1", "l2", "linf"}
        By which the moving steps were found. A threshold above 0.5 misses moves of a weight: there is no verdict then.
    outlook : Outlook, optional
        Of `analysis.optimizers.expected_moves`: what the pushes of this silence say.
    against : Against
        What did otherwise than its push says; then the push is not judged by.
    no_push, inexact : str
        Why there is no push, where there is none; why it is approximate, else "". Both for the sentence.

    Returns
    -------
    dict
        The numbers of `end_state` by their names, None for what does not exist, and the ``sentence``.
        ``frozen_by_silence`` and ``frozen_by_push`` are the verdicts of the two parts, each on its own.

    Raises
    ------
    ValueError
        If labels do not ascend, or lie outside first_step..last_step, or `first_step` is below 1.

    Examples
    --------
    >>> told = verdict([20, 40, 60, 80, 100, 120], last_step=400)
    >>> told["gap"], told["longest_earlier"], told["episodes"], told["looks"], told["frozen"]
    (280, 19, 6, 7, False)
    >>> round(told["p"], 4), told["frozen_from"]
    (0.5335, 15332)
    """
    motion = Motion(threshold, norm)
    has_push = outlook is not None
    known = moments(moving, first_step=first_step, rule=rule)
    steps = known.motion
    if len(steps) and int(steps[-1]) > last_step:
        raise ValueError(f"motion at step {steps[-1]}, after the last step {last_step}")
    told: dict[str, Any] = dict.fromkeys(END_STATE)
    told |= {"gap": last_step - first_step + 1, "longest_earlier": 0, "episodes": 0, "looks": 1, "blocks": 0}
    if len(steps):
        level = rule.level_with_push if has_push else rule.level
        told |= _judge(known, first_step, last_step, replace(rule, level=level))
        if not motion.is_sure:
            told |= dict.fromkeys(("p", "confidence", "since", "frozen_from"))
    if outlook is not None:
        told |= _by_push(replace(outlook, expected=_NO, push=_NO, headroom=_NO) if against.times else outlook)
    told |= {"unexplained": against.times, "last_unexplained": against.last, "nearly": against.nearly}
    told |= _verdicts(told, rule, finite, has_push=has_push)
    judged = Judged(last_step, finite, rule, motion, "" if has_push else no_push, inexact, rule.memory)
    if outlook is not None:
        judged = replace(judged, push_memory=outlook.memory, rates_below=outlook.rates_below)
    return told | {"sentence": words_of(told, judged)}


def _verdicts(told: Mapping[str, Any], rule: Rule, finite: bool, *, has_push: bool) -> dict[str, bool]:
    """The verdict of each part on its own, and that of both: what does not exist is never frozen."""
    p, expected = told["p"], told["E"]
    by_push = expected is not None and expected <= rule.most_expected and finite
    by_silence = p is not None and p <= rule.level and finite
    both = p is not None and p <= rule.level_with_push and by_push
    return {"frozen_by_silence": by_silence, "frozen_by_push": by_push, "frozen": both if has_push else by_silence}


def _by_push(outlook: Outlook) -> dict[str, Any]:
    """What the pushes say, None for what does not exist."""
    told = {name: getattr(outlook, part) for name, part in _OF_PUSH.items()}
    told["fluctuations"] = -outlook.level / outlook.spread if outlook.spread else math.nan
    return {name: None if math.isnan(value) else value for name, value in told.items()} | {"blocks": outlook.blocks}


def _judge(known: Moments, first_step: int, last_step: int, rule: Rule) -> dict[str, Any]:
    steps = known.motion
    last = int(steps[-1])
    earlier = int(np.diff(steps, prepend=first_step - 1).max()) - 1
    p = float(p_value(known, last_step, rule=rule)[-1])
    frozen_at = float(frozen_from(known, rule=rule)[-1])
    return {
        "gap": last_step - last,
        "longest_earlier": earlier,
        "ratio": (last_step - last) / earlier if earlier else None,
        "episodes": int(known.gaps[-1]) + 1,
        "looks": int(known.looks[-1]),
        "p": None if math.isnan(p) else p,
        "confidence": None if math.isnan(p) else 1 - p,
        "last_motion": last,
        "since": None if math.isnan(p) else int(known.anchor[-1]),
        "frozen_from": int(frozen_at) if frozen_at < 2**63 else None,  # NaN is not below either
    }

"""Has it really ended? The silence since the last motion, judged against all the silences before it.

The statistics stand in `analysis.episodes`; here they become a verdict in numbers and in words.
docs/explanation/end-state.md holds its measured error rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.episodes import RULE, Moments, Rule, frozen_from, moments, p_value


def verdict(
    moving: npt.ArrayLike,
    *,
    last_step: int,
    first_step: int = 1,
    finite: bool = True,
    rule: Rule = RULE,
) -> dict[str, Any]:
    """Judge the silence since the last motion.

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

    Returns
    -------
    dict
        gap : int - F, still steps since the last motion; all steps if there was none.
        longest_earlier : int - the longest run of still steps before the last motion.
        ratio : float or None - gap / longest_earlier; None if that is 0.
        episodes : int - n + 1, the episodes that were used. looks : int - m.
        p, confidence : float or None - p and 1 - p; None with fewer than ``rule.fewest`` gaps.
        frozen : bool - p is at most ``rule.level`` and every weight is finite.
        last_motion, since : int or None - g and e_0.
        frozen_from : int or None - the step at which silence from g on reaches the level.
        sentence : str - all this in words, with the assumption.

    Examples
    --------
    >>> told = verdict([20, 40, 60, 80, 100, 120], last_step=400)
    >>> told["gap"], told["longest_earlier"], told["episodes"], told["looks"], told["frozen"]
    (280, 19, 6, 7, False)
    >>> round(told["p"], 4), told["frozen_from"]
    (0.5335, 15332)
    """
    known = moments(moving, first_step=first_step, rule=rule)
    steps = known.motion
    if len(steps) and int(steps[-1]) > last_step:
        raise ValueError(f"motion at step {steps[-1]}, after the last step {last_step}")
    told: dict[str, Any] = {"gap": last_step - first_step + 1, "longest_earlier": 0, "ratio": None, "episodes": 0}
    told |= {"looks": 1, "p": None, "confidence": None, "frozen": False}
    told |= {"last_motion": None, "since": None, "frozen_from": None}
    if len(steps):
        told |= _judge(known, first_step, last_step, rule)
        told["frozen"] = bool(told["p"] is not None and told["p"] <= rule.level and finite)
    return told | {"sentence": sentence(told, last_step=last_step, finite=finite, rule=rule)}


def sentence(told: Mapping[str, Any], *, last_step: int, finite: bool = True, rule: Rule = RULE) -> str:
    """The verdict in words: what was seen, under which assumption, and what the confidence is not.

    Examples
    --------
    >>> told = verdict([5], last_step=30)
    >>> print(told["sentence"])
    No verdict at step 30: 1 episode of motion so far, 5 are needed to know how long its silences are.
    """
    if told["last_motion"] is None:
        return f"No verdict at step {last_step}: nothing moved, so there is no silence to compare with."
    if told["p"] is None:
        said, noun = told["episodes"], "episode" if told["episodes"] == 1 else "episodes"
        needed = f"{rule.fewest + 1} are needed to know how long its silences are"
        return f"No verdict at step {last_step}: {said} {noun} of motion so far, {needed}."
    return " ".join(_parts(told, last_step, finite, rule))


def _parts(told: Mapping[str, Any], last_step: int, finite: bool, rule: Rule) -> list[str]:
    head = "Frozen" if told["frozen"] else "Not frozen yet"
    parts = [
        f"{head} at step {last_step}: {told['gap']} still steps since the last motion at step {told['last_motion']}."
    ]
    parts.append(
        f"If episodes of motion (moving steps less than {rule.memory} still steps apart) went on for ever at a rate "
        f"that falls like 1/t, a silence this long would have a chance of at most p = {told['p']:.2g}, "
        f"{told['looks']} looks paid for."
    )
    if told["frozen"]:
        parts.append(
            f"The confidence {told['confidence']:.4f} is 1 - p, not the probability that the run has ended, and it is "
            "too high if motion dies out faster than 1/t without having died."
        )
    elif not finite:
        parts.append("Some weights are NaN or infinite, so the run is not called frozen.")
    else:
        parts.append(f"Without further motion it would be called frozen at step {told['frozen_from']}.")
    return parts


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
        "frozen_from": int(frozen_at) if math.isfinite(frozen_at) else None,
    }

"""Has motion really ended? The silence since the last motion, judged against all the silences before it.

The statistics stand in `analysis.episodes`; here they become a verdict in numbers and in words.
docs/explanation/end-state.md holds its measured error rates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analysis.answers import plain
from analysis.engine import nonfinite as finite
from analysis.engine.question import NEVER, Answer, Span
from analysis.engine.reduction import conclude
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.episodes import RULE, Moments, Rule, frozen_from, moments, p_value
from analysis.lattice import Array
from analysis.questions.sentences import Motion, why_none, words_of
from analysis.questions.stillness import any_motion
from analysis.thresholds import DEFAULT_THRESHOLD

END_STATE = {
    "gap": Answer((), "int64", "still steps since the last motion", "step"),
    "longest_earlier": Answer((), "int64", "longest stillness run before the last motion", "step"),
    "ratio": Answer((), "float64", "gap over the longest earlier stillness run"),
    "episodes": Answer((), "int64", "episodes of motion that were used"),
    "looks": Answer((), "int64", "silences worth a look until now"),
    "p": Answer((), "float64", "chance of such a silence if motion goes on at a rate that falls like 1/t"),
    "confidence": Answer((), "float64", "1 - p, which is not the probability that the run has ended"),
    "frozen": Answer((), "bool", "p is at most the level, and every weight is finite"),
    "last_motion": Answer((), "int64", "last step at which any token moved", "step", True),
    "since": Answer((), "int64", "step from which the mean gap between episodes is measured", "step", True),
    "frozen_from": Answer((), "int64", "step at which p reaches the level if nothing moves", "step", True),
}


def end_state(
    ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2", rule: Rule | None = None
) -> xr.Dataset:
    """Whether the true end state has been reached, with the confidence in it.

    Parameters
    ----------
    ds, threshold, norm
        As in `motion.moved`.
    rule : Rule, optional
        The constants of the verdict; by default those of `analysis.episodes` with the memory 1 / (1 - beta1) of the
        Dataset's attribute ``beta1`` (10 steps without it).

    Returns
    -------
    Dataset
        gap : int64 - F = T - g, still steps since the last motion g; all moves if nothing moved
        longest_earlier : int64 - the longest stillness run before g
        ratio : float64 - gap / longest_earlier; NaN if that is 0
        episodes : int64 - n + 1, the episodes of motion that were used, at most 11
        looks : int64 - m, the silences that were worth a look
        p, confidence : float64 - p and 1 - p; NaN with fewer than 5 episodes, and by a threshold above 0.5, which
            misses moves of a weight
        frozen : bool - p <= 0.01 and every weight finite
        last_motion, since, frozen_from : int64 - g, e_0, and the step at which silence from g on reaches p = 0.01; -1
            if there is none
        nonfinite, first_nonfinite : int64

        `sentence` says it in words.

    Raises
    ------
    ValueError
        If ``beta1`` is not in [0, 1) and no rule is given, where steps are missing, and as `motion.moved`.
    TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    Moving steps with fewer than 10 still steps between them are one episode; e_0 < ... < e_n are the starts of the last
    11 (the end of the first, if that is among them). If episodes go on as a Poisson process with a rate that falls like
    1/t, then ln((T + 1) / g) over the mean log-gap follows F(2, 2n), and
    p = min(1, m (1 + ln((T + 1) / g) / ln(g / e_0))^-n). The factor m pays for looking after each silence. The
    confidence is not the probability that the run has ended, and it is too high where motion dies out faster than 1/t
    without having died, or bursts hold silences longer than the memory: docs/explanation/end-state.md has the rates.

    On a slice labels stay, and silences before it are unknown. One pass over the norm; one bool a step in memory.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_moving_steps([20, 30, 45, 60, 80, 100, 120], total_steps=400)
    >>> told = end_state(ds).load()
    >>> int(told.gap), int(told.episodes), bool(told.frozen), round(float(told.p), 4), int(told.frozen_from)
    (280, 6, False, 0.3059, 5116)
    """
    return end_state_of(trajectory_of(ds), threshold, norm, rule)


def end_state_of(asked: Trajectory, threshold: float | None, norm: str, rule: Rule | None = None) -> xr.Dataset:
    """The answer of `end_state`, for other questions."""
    rule = rule or Rule.for_beta1(float(asked.attributes.get("beta1", 0.9)))
    source = any_motion(asked, threshold, norm)
    least = float(source.attrs["threshold"])
    answer = conclude(source, functools.partial(_end_state, rule=rule, threshold=least, norm=norm), END_STATE)
    answer = answer.assign({name: source[name] for name in finite.GIVES}).assign_attrs(asdict(rule))
    return answer.assign_attrs(projected_on="bfloat16") if asked.is_projected else answer


def sentence(answer: xr.Dataset) -> str:
    """An answer of `end_state` in words: what was seen, under which assumption, and what the confidence is not.

    Parameters
    ----------
    answer : Dataset
        Of `end_state`, or another that holds all of it, such as that of `cooling`. It is computed.

    Returns
    -------
    str
        Some sentences. What does not exist (-1, NaN) is not named.

    Raises
    ------
    TypeError
        For anything else.

    Examples
    --------
    >>> from analysis import simulate
    >>> print(sentence(end_state(simulate.with_moving_steps([5], total_steps=30))).split(",")[0])
    No verdict at step 30: 1 episode of motion so far (by L2 >= 0.1 cells)
    """
    told, motion = _read(answer, "sentence")
    attributes = answer.attrs
    rule = Rule(**{name: attributes[name] for name in asdict(RULE)})
    said = words_of(told, int(attributes["last_step"]), told["nonfinite"] == 0, rule, motion)
    if "projected_on" not in attributes:
        return said
    return f"{said} Motion is seen on the lattice of bfloat16; float32 weights may move below it."


def no_verdict(answer: xr.Dataset) -> str | None:
    """Why an answer of `end_state` holds no verdict, in a few words; None if it holds one.

    Examples
    --------
    >>> from analysis import simulate
    >>> no_verdict(end_state(simulate.with_moving_steps([5], total_steps=30)))
    'too few episodes of motion'
    """
    return why_none(*_read(answer, "no_verdict"))


def _read(answer: object, function: str) -> tuple[dict[str, Any], Motion]:
    """The numbers of an answer, and what counted as motion; a TypeError if it is no answer of `end_state`."""
    if not isinstance(answer, xr.Dataset) or not END_STATE.keys() <= set(answer.data_vars):
        raise TypeError(f"{function} takes the answer of analysis.end_state(ds); this {type(answer).__name__} is none")
    return plain(answer), Motion(float(answer.attrs["threshold"]), str(answer.attrs["norm"]))


def verdict(
    moving: npt.ArrayLike, *, last_step: int, first_step: int = 1, finite: bool = True, rule: Rule = RULE,
    threshold: float = DEFAULT_THRESHOLD, norm: str = "l2",
) -> dict[str, Any]:  # fmt: skip
    """Judge the silence since the last motion from the labels of the moving steps alone.

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

    Returns
    -------
    dict
        The numbers of `end_state` by their names, None for what does not exist, and the ``sentence``.

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
    known = moments(moving, first_step=first_step, rule=rule)
    steps = known.motion
    if len(steps) and int(steps[-1]) > last_step:
        raise ValueError(f"motion at step {steps[-1]}, after the last step {last_step}")
    told: dict[str, Any] = dict.fromkeys(END_STATE)
    told |= {"gap": last_step - first_step + 1, "longest_earlier": 0, "episodes": 0, "looks": 1, "frozen": False}
    if len(steps):
        told |= _judge(known, first_step, last_step, rule)
        if not motion.is_sure:
            told |= dict.fromkeys(("p", "confidence", "since", "frozen_from"))
        told["frozen"] = bool(told["p"] is not None and told["p"] <= rule.level and finite)
    return told | {"sentence": words_of(told, last_step, finite, rule, motion)}


def _end_state(known: Mapping[str, Array], span: Span, *, rule: Rule, threshold: float, norm: str) -> Mapping[str, Any]:
    moving = span.first + np.flatnonzero(known["any_motion"])
    finite = not known["nonfinite"]
    how: dict[str, Any] = {"rule": rule, "threshold": threshold, "norm": norm}
    told = verdict(moving, last_step=span.last, first_step=span.first + 1, finite=finite, **how)
    missing = {name: NEVER if declared.may_be_missing else np.nan for name, declared in END_STATE.items()}
    return {name: missing[name] if told[name] is None else told[name] for name in END_STATE}


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

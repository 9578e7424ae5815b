"""What the verdict on the end state would have been at earlier steps of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from analysis.engine.question import Answer, Span
from analysis.engine.reduction import conclude
from analysis.engine.trajectory import trajectory_of
from analysis.episodes import Rule
from analysis.judgements.sentences import NOTHING_AGAINST, Motion
from analysis.judgements.verdict import verdict
from analysis.lattice import Array
from analysis.pushes.source import COUNT, RATE
from analysis.questions.endstate import (
    Optimizer,
    against_of,
    checked_reference,
    known_of,
    optimizer_of,
    outlook_of,
    rule_for,
    with_pushes,
)
from analysis.questions.stillness import any_motion

MOMENTS = 200
"""At about so many steps it is asked, unless one says otherwise."""
_BY_STEP = ("strongest", "unexplained", "nearly", RATE, COUNT)
_GIVES = {
    "p": Answer(("asked",), "float64", "p of the silence at the step"),
    "E": Answer(("asked",), "float64", "moves to be expected in as many steps again, by the push"),
    "frozen_by_silence": Answer(("asked",), "bool", "the verdict by the silence alone"),
    "frozen_by_push": Answer(("asked",), "bool", "the verdict by the push alone"),
    "frozen": Answer(("asked",), "bool", "the verdict"),
}


def verdicts(
    ds: xr.Dataset,
    *,
    every: int | None = None,
    threshold: float | None = None,
    norm: str = "l2",
    rule: Rule | None = None,
    reference_learning_rate: float | None = None,
) -> xr.Dataset:
    """What `end_state` would have said at earlier steps: each of them asked with what was known until then.

    Parameters
    ----------
    ds, threshold, norm, rule, reference_learning_rate
        As in `endstate.end_state`.
    every : int, optional
        Ask at every so many steps, and at the last; at some 200 steps unless given.

    Returns
    -------
    Dataset
        Lazy, along ``asked``, the labels of the steps: ``p``, ``E`` (float64, NaN where there is none), ``frozen``,
        ``frozen_by_silence`` and ``frozen_by_push`` (bool). ``any_motion`` (step) bool; ``nonfinite`` and
        ``first_nonfinite``, from which on nothing is called frozen.

    Raises
    ------
    ValueError
        For `every` below 1, and as `endstate.end_state`.
    TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    One pass over the norm and the push, and about a millisecond for each step that is asked at.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=16_000)
    >>> told = verdicts(ds, every=4_000)
    >>> told.asked.values, told.frozen.values
    (array([ 4000,  8000, 12000, 16000]), array([False, False, False,  True]))
    """
    asked = trajectory_of(ds)
    every = max(1, asked.span.moves // MOMENTS) if every is None else every
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}")
    if int(every) != every:
        raise ValueError(f"every must be a whole number of steps, not {every}")
    every = int(every)
    rule = rule or rule_for(asked.attributes)
    motion = any_motion(asked, threshold, norm)
    span = asked.span
    labels = np.unique(np.append(np.arange(span.first + every, span.last + 1, every), span.last))
    labels = labels[labels > span.first]
    judge = functools.partial(
        _judged, labels=labels, rule=rule, motion=Motion(float(motion.attrs["threshold"]), norm),
        optimizer=optimizer_of(asked), reference=checked_reference(reference_learning_rate),
    )  # fmt: skip
    answer = conclude(with_pushes(asked, motion), judge, _GIVES, coords={"asked": labels})
    kept = {name: motion[name] for name in ("any_motion", "nonfinite", "first_nonfinite")}
    return answer.assign(kept).assign_attrs({**asdict(rule), **known_of(asked)})


def _judged(
    source: Mapping[str, Array], span: Span, *, labels: Array, rule: Rule, motion: Motion,
    optimizer: Optimizer, reference: float | None,
) -> Mapping[str, Any]:  # fmt: skip
    moving = span.first + np.flatnonzero(source["any_motion"])
    first_bad = int(source["first_nonfinite"])
    told: dict[str, list[Any]] = {name: [] for name in _GIVES}
    for last in labels.tolist():
        until = moving[moving <= last]
        outlook, against = None, NOTHING_AGAINST
        if "strongest" in source:
            known = {name: source[name][: last - span.first + 1] for name in _BY_STEP}
            recorded = int(until[-1]) - span.first if len(until) else 0
            outlook, against = outlook_of(known, recorded, optimizer, reference), against_of(known, span)
        said = verdict(
            until, last_step=last, first_step=span.first + 1, finite=not 0 <= first_bad <= last, rule=rule,
            threshold=motion.threshold, norm=motion.norm, outlook=outlook, against=against,
        )  # fmt: skip
        for name, values in told.items():
            values.append(np.nan if said[name] is None else said[name])
    return {name: np.asarray(values) for name, values in told.items()}

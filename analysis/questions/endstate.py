"""Has motion really ended? By the silence since the last motion, and by how far the optimizer is from moving a weight.

The statistics stand in `analysis.episodes` and `analysis.optimizers.expected_moves`; here they become a verdict in
numbers and in words. docs/explanation/end-state.md holds its measured error rates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from analysis.answers import plain
from analysis.engine import nonfinite as finite
from analysis.engine.inputs import in_blocks
from analysis.engine.question import NEVER, Span
from analysis.engine.reduction import conclude
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.episodes import RULE, Rule
from analysis.judgements.sentences import NOTHING_AGAINST, Against, Judged, Motion, why_none, words_of
from analysis.judgements.verdict import END_STATE, verdict
from analysis.lattice import Array
from analysis.optimizers.expected_moves import LIMITS, Outlook, expected_moves
from analysis.optimizers.update_rules import VARIANTS, memory_decay, update_of
from analysis.pushes import source as pushes
from analysis.pushes.agreement import disagreements
from analysis.questions.stillness import any_motion

__all__ = ["END_STATE", "end_state", "end_state_of", "no_verdict", "sentence", "verdict"]


def end_state(
    ds: xr.Dataset,
    *,
    threshold: float | None = None,
    norm: str = "l2",
    rule: Rule | None = None,
    reference_learning_rate: float | None = None,
) -> xr.Dataset:
    """Whether the true end state has been reached: by the silence, and by how far the optimizer is from a move.

    Parameters
    ----------
    ds, threshold, norm
        As in `motion.moved`. With `push`, or what it can be computed of (see `analysis.push`), both parts are judged.
    rule : Rule, optional
        The constants of the verdict; by default those of `analysis.episodes` with the memory 1 / (1 - beta1) of the
        Dataset's attribute ``beta1``; without it that of SGD's ``momentum``, but at least 10 steps.
    reference_learning_rate : float, optional
        The learning rate for which E is asked; the last recorded one unless given, and wherever no push is known.

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
        push, headroom : float64 - the strongest push of the last 20 memories of the momentum, in half cells, and 1 over
            it: the factor by which the learning rate could have been higher before anything moved. NaN without a push
        E : float64 - how many moves are to be expected in as many steps as were recorded, an upper estimate; NaN with
            fewer than 20 blocks in the silence, where a push in it is not known or any is contradicted by what moved,
            and for a learning rate of 0
        reference_learning_rate, rate_at_last_motion : float64 - the learning rate for which E holds (where no push is
            known, the last recorded one), and that of step g; NaN if it is not known
        unexplained, last_unexplained : int64 - how often a token moved by a push below 0.9, or stayed by one above 1.1,
            and when last (-1: never). Something else than the recorded update made the weights then, and there is no E
        nearly : int64 - how often one did so by a push of about 1: the push is approximate
        blocks, fluctuations : int64, float64 - by how many blocks E was told, and how many of its usual fluctuations
            the push is away from moving a weight
        frozen_by_silence, frozen_by_push : bool - p <= 0.01; E <= 0.01; and every weight finite
        frozen : bool - p <= 0.05 and E <= 0.01 and every weight finite; where no push is known, `frozen_by_silence`,
            which is the weaker verdict
        last_motion, since, frozen_from : int64 - g, e_0, and the step at which silence from g on reaches the p that is
            asked for; -1 if there is none
        nonfinite, first_nonfinite : int64

        `sentence` says it in words. The attribute ``no_push`` says why there is none.

    Raises
    ------
    ValueError
        If ``beta1`` is not in [0, 1) and no rule is given, for a `reference_learning_rate` that is not above 0, where
        steps are missing, and as `motion.moved`.
    TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    Moving steps with fewer than 10 still steps between them are one episode; e_0 < ... < e_n are the starts of the last
    11 (the end of the first, if that is among them). If episodes go on as a Poisson process with a rate that falls like
    1/t, then ln((T + 1) / g) over the mean log-gap follows F(2, 2n), and
    p = min(1, m (1 + ln((T + 1) / g) / ln(e_n / e_0))^-n). The factor m pays for looking after each silence. E is that
    of `analysis.optimizers.expected_moves`. docs/explanation/end-state.md has both rules and their error rates.

    On a slice labels stay, and silences before it are unknown. One pass over the norm and the push; some numbers a step
    in memory.

    Examples
    --------
    >>> from analysis import simulate
    >>> ds = simulate.with_moving_steps([20, 30, 45, 60, 80, 100, 120], total_steps=400)
    >>> told = end_state(ds).load()
    >>> int(told.gap), int(told.episodes), bool(told.frozen), round(float(told.p), 4), int(told.frozen_from)
    (280, 6, False, 0.3059, 5116)
    """
    return end_state_of(trajectory_of(ds), threshold, norm, rule, reference_learning_rate)


def rule_for(attributes: Mapping[str, Any]) -> Rule:
    """The rule with the memory of a run's momentum: one kick of SGD with momentum 0.99 moves weights for 100 steps.

    Examples
    --------
    >>> [rule_for(each).memory for each in ({"beta1": 0.5}, {"momentum": 0.99}, {"momentum": 0.0}, {})]
    [2, 100, 10, 10]
    """
    return Rule.for_beta1(memory_decay(attributes))


def end_state_of(
    asked: Trajectory, threshold: float | None, norm: str, rule: Rule | None = None, reference: float | None = None
) -> xr.Dataset:
    """The answer of `end_state`, for other questions."""
    rule = rule or rule_for(asked.attributes)
    motion = any_motion(asked, threshold, norm)
    how = Motion(float(motion.attrs["threshold"]), norm)
    source, known = with_pushes(asked, motion), known_of(asked)
    judge = functools.partial(
        _end_state, rule=rule, motion=how, optimizer=optimizer_of(asked), reference=checked_reference(reference)
    )
    answer = conclude(source, judge, END_STATE)
    seen = {
        "part": _part_of(asked),
        "projected_on": "bfloat16" if asked.is_projected else "",
        "asked_in_vain": f"{reference:.4g}" if reference is not None and known["no_push"] else "",
    }
    answer = answer.assign({name: motion[name] for name in finite.GIVES})
    return answer.assign_attrs({**asdict(rule), **known, **seen})


def _part_of(asked: Trajectory) -> str:
    """Which of the recorded tokens, hidden dimensions and steps these are, in words; "" for all of them."""
    here, recorded = asked.sizes.get("hidden"), asked.attributes.get("hidden")
    kinds = [_tokens_of(asked)] if asked.has_all("token") is False else []
    if asked.has_all("hidden") is False:
        kinds.append(f"{here:,} of the {recorded:,} recorded hidden dimensions")
    first, last = asked.span.first, asked.span.last
    is_cut = first > 0 or last < asked.attributes.get("committed_steps", last)
    steps = [f"steps {first} to {last}" if first < last else f"step {first}"] if is_cut else []
    return " at ".join([*([" and ".join(kinds)] if kinds else []), *steps])


def _tokens_of(asked: Trajectory) -> str:
    """Which of the recorded tokens these are, in words."""
    distinct, recorded = np.unique(asked.tokens).size, int(asked.attributes["tokens"])
    if distinct > recorded:
        return f"{distinct:,} tokens, more than the {recorded:,} that one run recorded"
    twice = ", some of them more than once" if distinct < len(asked.tokens) else ""
    return f"{distinct:,} of the {recorded:,} recorded tokens{twice}"


def checked_reference(rate: float | None) -> float | None:
    """The learning rate, or a ValueError for one that cannot be."""
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"reference_learning_rate must be above 0 and finite, not {rate}")
    return rate


def with_pushes(asked: Trajectory, motion: xr.Dataset) -> xr.Dataset:
    """The answer of `any_motion` with the learning rate; where known, the strongest push, the count of each step, and
    how many tokens did otherwise than their push says.
    """
    if pushes.why_not_judged(asked):
        return motion.assign({pushes.RATE: ("step", in_blocks(pushes.numbers_of(asked, pushes.RATE)).data)})
    known = pushes.with_push(asked)
    against = disagreements(known, str(motion.attrs["norm"]))
    return motion.assign(pushes.strongest(known).data_vars).assign(against.data_vars)


def known_of(asked: Trajectory) -> dict[str, Any]:
    """Attributes: why no push is judged, why it is approximate ("" for none), the memory of the momentum, and below
    which learning rates a push tells what moves.
    """
    update = update_of(asked.attributes)
    inexact = "" if update.get("exact", True) else str(update.get("inexact", "its numbers are not known"))
    memory = pushes.memory_of(asked.attributes)
    no_push = pushes.why_not_judged(asked) or ""
    below = math.inf if no_push else pushes.rates_below(asked)
    return {"no_push": no_push, "inexact": inexact, "push_memory": memory, "rates_below": below}


class Optimizer(NamedTuple):
    """By what the optimizer's momentum decays, and its second moment (None where it has none); and `rates_below`."""

    beta1: float
    beta2: float | None
    rates_below: float = math.inf


def optimizer_of(asked: Trajectory) -> Optimizer:
    """What the attributes of a run tell of its optimizer."""
    update = update_of(asked.attributes)
    if pushes.why_not_judged(asked):
        return Optimizer(float(asked.attributes.get("beta1", 0.9)), None)
    below = pushes.rates_below(asked)
    if VARIANTS[update["variant"]].adam:
        return Optimizer(float(update["beta1"]), float(update["beta2"]), below)
    return Optimizer(float(update["momentum"] if "momentum" in update else asked.attributes.get("beta1", 0.9)), None)


def sentence(answer: xr.Dataset) -> str:
    """An answer of `end_state` in words: what was seen, under which assumption, and by which of the two parts.

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
    told, judged = _read(answer, "sentence")
    said = words_of(told, judged)
    if answer.attrs["part"]:
        said += f" This is said of {answer.attrs['part']}."
    if not answer.attrs["projected_on"]:
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


_NEEDED = {
    "last_step", "threshold", "norm", "no_push", "inexact", "push_memory", "rates_below", "part", "projected_on",
    "asked_in_vain",
}  # fmt: skip
"""Attributes of an answer without which it cannot be told in words."""


def _read(answer: object, function: str) -> tuple[dict[str, Any], Judged]:
    """The numbers of an answer, and how it was judged; a TypeError if it is no answer of `end_state`."""
    if not isinstance(answer, xr.Dataset) or not END_STATE.keys() <= set(answer.data_vars):
        raise TypeError(f"{function} takes the answer of analysis.end_state(ds); this {type(answer).__name__} is none")
    if several := [str(dim) for dim in answer["frozen"].dims]:
        raise TypeError(f"{function} takes the answer of analysis.end_state(ds) about one run, and this one has a "
                        f"dimension {several[0]!r}: ask of each by itself")  # fmt: skip
    if lost := sorted(_NEEDED - set(answer.attrs)):
        raise TypeError(f"{function} takes the answer of analysis.end_state(ds) as it is, and this one has lost the "
                        f"attribute {lost[0]!r}: ask of the run by itself")  # fmt: skip
    told, attributes = plain(answer[list(END_STATE | finite.GIVES)]), answer.attrs
    judged = Judged(
        last_step=int(attributes["last_step"]),
        finite=told["nonfinite"] == 0,
        rule=Rule(**{name: attributes[name] for name in asdict(RULE)}),
        motion=Motion(float(attributes["threshold"]), str(attributes["norm"])),
        no_push=str(attributes["no_push"]),
        inexact=str(attributes["inexact"]),
        push_memory=int(attributes["push_memory"]),
        rates_below=float(attributes["rates_below"]),
        asked_in_vain=str(attributes["asked_in_vain"]),
    )
    return told, judged


def _end_state(
    source: Mapping[str, Array], span: Span, *, rule: Rule, motion: Motion, optimizer: Optimizer,
    reference: float | None,
) -> Mapping[str, Any]:  # fmt: skip
    moving = span.first + np.flatnonzero(source["any_motion"])
    outlook = None
    if "strongest" in source:
        recorded = int(moving[-1]) - span.first if len(moving) else 0
        outlook = outlook_of(source, recorded, optimizer, reference)
    told = verdict(
        moving, last_step=span.last, first_step=span.first + 1, finite=not source["nonfinite"], rule=rule,
        threshold=motion.threshold, norm=motion.norm, outlook=outlook, against=against_of(source, span),
    )  # fmt: skip
    if outlook is None and source[pushes.RATE].size > 1:
        rate = float(source[pushes.RATE][-1])  # not the reference: the silence alone is judged
        then = float(source[pushes.RATE][moving[-1] - span.first]) if len(moving) else math.nan
        rates = {"reference_learning_rate": rate, "rate_at_last_motion": then}
        told |= {name: None if math.isnan(value) else value for name, value in rates.items()}
    missing = {name: NEVER if declared.may_be_missing else np.nan for name, declared in END_STATE.items()}
    return {name: missing[name] if told[name] is None else told[name] for name in END_STATE}


def against_of(source: Mapping[str, Array], span: Span) -> Against:
    """How often a token moved, or stayed, against what its push says."""
    if "unexplained" not in source:
        return NOTHING_AGAINST
    found = np.flatnonzero(source["unexplained"])
    last = span.first + int(found[-1]) if found.size else None
    return Against(int(source["unexplained"].sum()), last, int(source["nearly"].sum()))


def outlook_of(source: Mapping[str, Array], last_motion: int, optimizer: Optimizer, reference: float | None) -> Outlook:
    """What the pushes of each step (row 0 is no move) say, after `last_motion` recorded steps."""
    counts = None if optimizer.beta2 is None else source[pushes.COUNT][1:]
    return expected_moves(
        source["strongest"][1:], source[pushes.RATE][1:], counts, last_motion=last_motion, beta1=optimizer.beta1,
        beta2=optimizer.beta2, reference_learning_rate=reference, rates_below=optimizer.rates_below, limits=LIMITS,
    )  # fmt: skip

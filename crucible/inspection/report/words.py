"""The verdict of a report in a sentence, and its four key figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.episodes import RULE
from analysis.judgements.sentences import ABOUT_AS_HIGH, expected_text, p_text
from crucible.inspection.selection import share_of_silence
from crucible.units import counted


def verdict(told: Mapping[str, Any], reference: float | None = None) -> str:
    """The end of the run in one plain sentence; for a learning rate, where one was asked for."""
    end, last = told["end_state"], told["last_step"]
    if told["diverged"]:
        return f"The run diverged at step {told['diverged']['step']:,}: what follows is that of a training that broke."
    if end is None:
        return "No verdict: steps are missing between the recorded ones, so silences cannot be counted."
    if end["no_verdict"]:
        return f"No verdict at step {last:,}: {end['no_verdict']}."
    if not end["gap"]:
        return f"Not frozen yet: something moved at the last step, {last:,}."
    still = f"nothing has moved for {counted(end['gap'], 'step')}"
    said = f"Frozen: {still}{_why_frozen(end)}" if end["frozen"] else f"Not frozen yet: {still}{_why_not(end)}"
    if reference is not None and end["no_push"] is None:
        return f"{said} {judged_for(reference)}."
    return said + _fell(end["rate_at_last_motion"], end["reference_learning_rate"]) if end["frozen"] else said


def _why_frozen(end: Mapping[str, Any]) -> str:
    if end["E"] is None:
        return ", and such a silence is too long for this run to be chance."
    return ", and the optimizer no longer comes near to moving anything."


def _why_not(end: Mapping[str, Any]) -> str:
    if end["nonfinite"]:
        return ", but some weights were NaN or infinite."
    if end["E"] is not None and end["p"] <= RULE.level_with_push:
        return ", but the optimizer still comes near to moving something."
    return ", which is not long enough for this run to be its end."


def judged_for(rate: float) -> str:
    """That the end was judged for a learning rate which was asked for. Without a push the silence alone is judged.

    Examples
    --------
    >>> judged_for(0.003)
    'Judged for a learning rate of 0.003'
    """
    return f"Judged for a learning rate of {rate:.4g}"


def _fell(before: float | None, now: float | None) -> str:
    """That the learning rate was higher when something moved: the silence may be that of the schedule."""
    if before is None or now is None or now >= ABOUT_AS_HIGH * before:
        return ""
    return f" The learning rate fell from {before:.4g} to {now:.4g} meanwhile."


def key_figures(told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Four figures: what it is, the figure, and a few words about it."""
    last, end = told["global_last_motion"], told["end_state"]
    median, latest = told["freeze"]["median"], told["freeze"]["latest"]
    p = None if end is None else end["p"]
    level = "0.01 counts as the end" if p is not None else "steps are missing"
    if end is not None and p is None:
        level = f"no verdict: {end['no_verdict']}"
    elif p is not None and end["no_push"] is None:
        known = "there is no E" if end["E"] is None else f"E is {expected_text(end['E'])}"
        level = f"0.05 with E ≤ 0.01; {known}"
    first, of = told["first_step"], f"of {counted(told['last_step'], 'step')}"
    of = f"of steps {first:,} to {told['last_step']:,}" if first else of
    half = f"the last one at {latest:,}" if latest is not None else "nothing moved"
    frozen_by = "the start" if median is None else f"{median:,}"
    if median == told["last_step"]:
        frozen_by, half = "not yet", "half of the tokens or more moved at the last step"
    if not told["steps"]:
        of, frozen_by, half = f"of a single state, step {first:,}", "none", "no move is looked at"
    return [
        ("last motion", "never" if last is None else f"{last:,}", of),
        ("silence since", f"{told['fimbulwinter_duration']:,}", silence(told, "")),
        ("p of this silence", "none" if p is None else p_text(p), level),
        ("half were frozen by", frozen_by, half),
    ]  # fmt: skip


def silence(told: Mapping[str, Any], since: str) -> str:
    """What stands behind the number of steps of the silence; `since` behind the word for them.

    Examples
    --------
    >>> silence({"fimbulwinter_duration": 999, "fimbulwinter_fraction": 0.999, "all_steps": True}, " since")
    'steps since, 99% of the run'
    >>> silence({"fimbulwinter_duration": 1, "fimbulwinter_fraction": 0.001, "all_steps": False}, "")
    'step, < 1% of these steps'
    """
    share, steps = told["fimbulwinter_fraction"], "step" if told["fimbulwinter_duration"] == 1 else "steps"
    if not share:
        return steps
    part = "< 1%" if share < 0.01 else f"{share if share == 1 else min(share, 0.99):.0%}"
    return f"{steps}{since}, {part} {share_of_silence(told)}"

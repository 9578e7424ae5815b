"""What the pictures of a report show, in numbers: for who does not see them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.judgements.sentences import p_text
from analysis.plots.lattice import size_words
from analysis.plots.movement import NORM_NAMES
from analysis.told_numbers import at_least, percent
from crucible.inspection.report.asking import Story
from crucible.units import counted


def _stratigraphy(story: Story) -> str:
    told = story.told
    raster = f"Raster of {counted(told['tokens'], 'token')} over {counted(told['steps'], 'step')}."
    return " ".join([raster, _halves(story), f"Freeze steps: {_freeze(story)}"])


def _freeze(story: Story) -> str:
    """The freeze steps in order; those who never moved."""
    told = story.told
    never = f" {counted(told['never_moved'], 'token')} never moved." if told["never_moved"] else ""
    return ", ".join(f"{name} {_step(step)}" for name, step in told["freeze"].items()) + f".{never}"


def _cooling(story: Story) -> str:
    told = story["cooling"]
    moving = told["moving"].values[1:]
    all_move = int((moving == 1).sum())
    late = np.flatnonzero(moving > 0)
    tokens = int(told.attrs["tokens"])
    last = round(float(moving[late[-1]]) * tokens) if len(late) else 0
    largest = float(np.nanmax(told["largest"].values, initial=0))
    if not len(late):
        return f"None of {counted(tokens, 'token')} moved at any of {counted(len(moving), 'step')}."
    return (
        f"All of {counted(tokens, 'token')} moved at {counted(all_move, 'step')}, some at "
        f"{counted(len(late), 'step')} of {len(moving):,}. The "
        f"largest displacement was {largest:,.3g} cells by {NORM_NAMES[story.told['norm']]}. "
        f"At the last step with motion, "
        f"{_step(story.told['global_last_motion'])}, "
        f"{counted(last, 'token')} moved."
    )


def _lifecycle(story: Story) -> str:
    if "loss" not in story.answers:
        return _halves(story)
    loss = story["loss"]["loss"].values
    known = loss[np.isfinite(loss)]
    fell = f" The loss went from {known[0]:.3g} to {known[-1]:.3g}." if len(known) else ""
    last = "infinite" if np.isinf(loss[-1]) else "unknown"
    lost = f" At the last step it is {last}." if len(known) and not np.isfinite(loss[-1]) else ""
    return f"{_halves(story)}{fell}{lost}"


def _halves(story: Story) -> str:
    """By which step half of the tokens have left each phase; one that half of them never were in has no step."""
    phases = {name: value["median_exit"] for name, value in (story.told["lifecycle"] or {}).items()}
    last = story.told["last_step"]
    left = ", ".join(f"{name} by step {step:,}" for name, step in phases.items() if step is not None and step < last)
    there = ", ".join(name for name, step in phases.items() if step == last)
    never = ", ".join(name for name, step in phases.items() if step is None)
    said = [f"Half of the tokens have left the phases: {left}."] if left else []
    said += [f"Half or more are in them at the last step: {there}."] if there else []
    return " ".join([*said, *([f"Half or more never were in: {never}."] if never else [])])


def _survival(story: Story) -> str:
    return f"Freeze steps of {counted(story.told['tokens'], 'token')}: {_freeze(story)}"


def _silences(story: Story) -> str:
    told, end = story.told["stillness"], story.told["end_state"]
    longest = ", ".join(f"{length:,}" for length in told["longest"][:3]) or "none"
    p = "There is no p" if end["p"] is None else f"p is {p_text(end['p'])}"
    now = f"The one that goes on is {counted(end['gap'], 'step')} long" if end["gap"] else "None goes on at the end"
    return f"{counted(told['count'], 'silence')}; the longest, in steps: {longest}. {now}. {p} at step {story.last:,}."


def _push(story: Story) -> str:
    strongest = story["headroom"]["strongest"].values[1:]
    known = strongest[~np.isnan(strongest)]
    if not len(known):
        return "No push is known at any step."
    above = counted(int((known >= 1).sum()), "step")
    last = float(strongest[-1])
    now = "is unknown" if np.isnan(last) else "is infinite" if np.isinf(last) else f"is {last:.3g} of it"
    return f"The strongest push was at least half a cell at {above}; at the last step it {now}."


def _headroom(story: Story) -> str:
    room = story["headroom"]["headroom"].values
    finite, never = room[np.isfinite(room)], int(np.isposinf(room).sum())
    unknown = len(room) - len(finite) - never
    said = f"Of {counted(len(room), 'token')} {len(finite):,} have a push in the last steps"
    if len(finite):
        said += f"; their headroom is at least {at_least(finite.min())}, {np.median(finite):.3g} in the median"
    return f"{said}; {never:,} have none" + (f", and of {unknown:,} it is not known." if unknown else ".")


def _census(story: Story) -> str:
    told = story["census"]
    kinds = zip(told["kind"].values, told["fraction"].values, strict=True)
    shares = ", ".join(f"{kind} {percent(share)}" for kind, share in kinds if np.isfinite(share))
    return f"Of all token-steps: {shares}." if shares else "No move is recorded."


def _drift(story: Story) -> str:
    told = story.told["drift"]
    if told["path"] is None or told["net"] is None:
        return "The path of the centroid is unknown."
    efficiency = "unknown" if told["efficiency"] is None else percent(told["efficiency"], 1)
    return (
        f"The centroid's path is {told['path']:.4g} long and ends {told['net']:.4g} from its start, an "
        f"efficiency of {efficiency}. It stood "
        f"still at {counted(int(story['drift']['frozen_steps']), 'step')}."
    )


def _autocorrelation(story: Story) -> str:
    values = story["drift"]["autocorrelation"].values
    known = values[np.isfinite(values)]
    if not len(known):
        return "No two moves of the centroid in a row are known."
    span = f"from {known.min():.2f} to {known.max():.2f}"
    return f"Over {len(known):,} pairs of moves the cosine is {known.mean():.3f} in the mean, {span}."


def _cloud(story: Story) -> str:
    told = story["cloud"]
    first, last = (told["radius_rms"].values[at] for at in (0, -1))
    largest = told["radius_max"].values
    return (
        f"The RMS radius went from {_known(first)} to {_known(last)}, the largest distance from "
        f"{_known(largest[0])} to {_known(largest[-1])}."
    )


def _sky(story: Story) -> str:
    told = story["snapshots"]
    spread = np.sqrt((told["position"].values[..., :2] ** 2).sum(axis=2))
    reach = ", ".join(
        f"{_known(np.median(row))} at step {int(step):,}" for row, step in zip(spread, told["step"].values, strict=True)
    )
    return f"Median distance from the centroid on the two axes: {reach}."


def _lattice(story: Story) -> str:
    rows, exponents = story["identical_rows"], story["exponents"]
    last = exponents["weight_count"].transpose("step", "exponent").values[-1]
    part = percent(float(last.max() / max(1, last.sum())))
    return (
        f"At the last step {int(rows['distinct'][-1]):,} of {story.told['tokens']:,} rows are distinct, and the "
        f"largest group of identical ones has {counted(int(rows['largest'][-1]), 'token')}. {part} of the weights "
        f"{size_words(int(last.argmax()), len(last))}."
    )


def _known(number: float) -> str:
    return f"{number:.4g}" if np.isfinite(number) else "unknown"


def _step(step: int | None) -> str:
    return "never" if step is None else f"{step:,}"


ALTERNATIVES: dict[str, Callable[[Story], str]] = {
    "stratigraphy": _stratigraphy,
    "cooling": _cooling,
    "lifecycle": _lifecycle,
    "survival": _survival,
    "silences": _silences,
    "push": _push,
    "headroom": _headroom,
    "census": _census,
    "drift": _drift,
    "autocorrelation": _autocorrelation,
    "cloud": _cloud,
    "sky": _sky,
    "lattice": _lattice,
}
"""Of each picture by its name."""

"""The words of a report: the verdict in a sentence, captions that define what they name, alternatives with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.plots.scales import percent
from crucible.inspection.report.asking import Story
from crucible.units import counted


def verdict(told: Mapping[str, Any]) -> str:
    """The end of the run in one plain sentence."""
    end, last = told["end_state"], told["last_step"]
    if told["diverged"]:
        return f"The run diverged at step {told['diverged']['step']:,}: what follows is that of a training that broke."
    if end is None:
        return "No verdict: steps are missing between the recorded ones, so silences cannot be counted."
    if end["no_verdict"]:
        return f"No verdict at step {last:,}: {end['no_verdict']}."
    gap = counted(end["gap"], "step")
    if end["frozen"]:
        return f"Frozen: nothing has moved for {gap}, and such a silence is too long for this run to be chance."
    return f"Not frozen yet: nothing has moved for {gap}, which is not long enough for this run to be its end."


def key_figures(told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Four figures: what it is, the figure, and a few words about it."""
    last, end = told["global_last_motion"], told["end_state"]
    median, latest = told["freeze"]["median"], told["freeze"]["latest"]
    p = None if end is None else end["p"]
    level = "0.01 counts as the end" if p is not None else "none without five episodes of motion"
    share = told["fimbulwinter_fraction"]
    return [
        ("last motion", "never" if last is None else f"{last:,}", f"of {told['last_step']:,} steps"),
        ("silence since", f"{told['fimbulwinter_duration']:,}", f"steps, {share:.0%} of the run" if share else "steps"),
        ("p of this silence", "none" if p is None else f"{p:.2g}", level),
        ("half were frozen by", "never" if median is None else f"{median:,}",
         "the median freeze step" if latest is None else f"the last one at {latest:,}"),
    ]  # fmt: skip


def stratigraphy(story: Story) -> str:
    return (
        "A line for each token, the first to freeze on top; the black line is its *freeze step*, the last at which any of its "
        "weights changed. Colours are the *phases* of its life, each over when its rule is true for the last time: "
        "*supernova*, a move longer than √D lattice cells; *cooling*, some weight moves more than one cell; "
        "*stumbling*, it moves at all; then it is *frozen*. Full colour: it moved there; pale: it stood still. "
        "See how steep the black line is, and whether late full specks lie right of a long pale stretch."
    )


def stratigraphy_alt(story: Story) -> str:
    told = story.told
    exits = ", ".join(f"{name} {_step(value['median_exit'])}" for name, value in (told["lifecycle"] or {}).items())
    freeze = told["freeze"]
    return (
        f"Raster of {told['tokens']:,} tokens over {told['steps']:,} steps. Half of the tokens have left each phase by step: "
        f"{exits}. Freeze steps: earliest {_step(freeze['earliest'])}, median {_step(freeze['median'])}, latest "
        f"{_step(freeze['latest'])}."
    )


def cooling(story: Story) -> str:
    told = story.told
    return (
        "Above, the *displacement* of a token in a step, in *lattice cells*: a cell is the distance from a weight to the next "
        "number that its format can hold. L1 adds up the cells of all its weights, L2 is their length, L∞ the largest. The thick "
        "lines are medians over tokens, the band 90 % of them by L2, the thin line the largest of the step; a dot is a step that "
        "moved alone. Below, how many tokens moved at all, even from 0 to 1 and logarithmic above, so that a single one is seen; "
        f"ticks at the foot are the steps with motion. Grey is the silence since the last motion, {_step(told['global_last_motion'])}. "
        "See how the thin line stays at one cell long after the median lies still: late motion is rare, and decides."
    )


def cooling_alt(story: Story) -> str:
    told = story["cooling"]
    moving = told["moving"].values[1:]
    all_move = int((moving == 1).sum())
    late = np.flatnonzero(moving > 0)
    tokens = int(told.attrs["tokens"])
    last = round(float(moving[late[-1]]) * tokens) if len(late) else 0
    largest = float(np.nanmax(told["largest"].values, initial=0))
    return (
        f"All {tokens:,} tokens moved at {counted(all_move, 'step')}, some at {counted(len(late), 'step')} of {len(moving):,}. The "
        f"largest displacement was {largest:,.3g} cells. At the last step with motion, {_step(story.told['global_last_motion'])}, "
        f"{counted(last, 'token')} moved."
    )


def lifecycle(story: Story) -> str:
    return (
        "Above, which part of the tokens is still in each *phase*; a mark is the step by which half of them have left it. Below, the "
        "*loss* of each step, pale, and the median of its neighbours. See whether the phases end while the loss still falls: tokens "
        "that the model never sees are driven by the optimizer alone."
    )


def lifecycle_alt(story: Story) -> str:
    phases = story.told["lifecycle"] or {}
    exits = ", ".join(f"{name} by step {_step(value['median_exit'])}" for name, value in phases.items())
    if "loss" not in story.answers:
        return f"Half of the tokens have left the phases: {exits}."
    loss = story["loss"]["loss"].values
    known = loss[np.isfinite(loss)]
    fell = f" The loss went from {known[0]:.3g} to {known[-1]:.3g}." if len(known) else ""
    return f"Half of the tokens have left the phases: {exits}.{fell}"


def survival(story: Story) -> str:
    return (
        "Above, the fraction of tokens that still move after each step: it falls by a token's share at its *freeze step*. Below, how "
        "many froze when, on an axis that shows a single one. See whether tokens freeze one by one or in crowds: a cliff is a moment "
        "that moved many for the last time together."
    )


def survival_alt(story: Story) -> str:
    told, freeze = story.told, story.told["freeze"]
    never = f" {told['never_moved']:,} never moved." if told["never_moved"] else ""
    return (
        f"Freeze steps of {told['tokens']:,} tokens: earliest {_step(freeze['earliest'])}, median {_step(freeze['median'])}, latest "
        f"{_step(freeze['latest'])}.{never}"
    )


def silences(story: Story) -> str:
    return (
        "Above, every *silence*: a stretch of steps at which no token moved, at its place and as high as it is long; the diamond goes on "
        "at the last step. Below, the *p* of the silence of each moment: how likely one at least so long would be if bursts of motion went "
        "on for ever, fading like 1/t, with a factor for having looked so often. It falls while nothing moves and jumps back "
        "when something does. At or below the dashed line a silence counts as the end. 1 − p is not the probability that the run has ended."
    )


def silences_alt(story: Story) -> str:
    told, end = story.told["stillness"], story.told["end_state"]
    longest = ", ".join(f"{length:,}" for length in told["longest"][:3]) or "none"
    p = "There is no p" if end["p"] is None else f"p is {end['p']:.2g}"
    return (
        f"{counted(told['count'], 'silence')}; the longest, in steps: {longest}. The one that goes on is {counted(end['gap'], 'step')} "
        f"long. {p} at step {story.last:,}."
    )


def census(story: Story) -> str:
    return (
        "Each step's tokens by the kind of their move: *teleporting*, longer than √D cells; *multi-cell*, some weight more than one cell; "
        "*neighbour*, several weights one cell each; *face*, one weight one cell; *less than a cell*, where a weight crosses to finer numbers; "
        "or *none*. The legend has their part of all moves; ticks are the steps with motion. See how moves shrink to single steps of the "
        "lattice before they end."
    )


def census_alt(story: Story) -> str:
    told = story["census"]
    kinds = zip(told["kind"].values, told["fraction"].values, strict=True)
    return "Of all token-steps: " + ", ".join(f"{kind} {percent(share)}" for kind, share in kinds if share == share) + "."


def drift(story: Story) -> str:
    return (
        "The *centroid* is the mean of all tokens. Above, how long its path is and how far from its start it has come; where the two part it "
        "turns back or wanders. Below, its *speed*, the length of its move, on a logarithmic axis; a dot is a move between two stills."
    )


def drift_alt(story: Story) -> str:
    told = story.told["drift"]
    if told["path"] is None:
        return "The path of the centroid is unknown."
    efficiency = "unknown" if told["efficiency"] is None else f"{told['efficiency']:.1%}"
    return (
        f"The centroid's path is {told['path']:.4g} long and ends {told['net']:.4g} from its start, an efficiency of {efficiency}. It stood "
        f"still at {counted(int(story['drift']['frozen_steps']), 'step')}."
    )


def autocorrelation(story: Story) -> str:
    return (
        "The cosine between the centroid's move and the one before, a dot for each pair of moves, and the mean of neighbours: 1 straight on, "
        "0 no memory, −1 back again. The axis is that of the values. See whether late moves still go the way of the early ones: then it is "
        "the optimizer's momentum that carries them."
    )


def autocorrelation_alt(story: Story) -> str:
    values = story["drift"]["autocorrelation"].values
    known = values[np.isfinite(values)]
    if not len(known):
        return "There are no two moves of the centroid in a row."
    return f"Over {len(known):,} pairs of moves the cosine is {known.mean():.3f} in the mean, from {known.min():.2f} to {known.max():.2f}."


def cloud(story: Story) -> str:
    told = story["cloud"]
    return (
        "Above, the *radius* of the cloud: distances of tokens from their centroid. Below, its *bulk* motion, the length of the mean move, "
        "and its *thermal* motion, the RMS of moves about that. Where bulk lies above thermal, tokens go together. Looked at "
        f"at {told.sizes['step']:,} of {story.told['steps'] + 1:,} states, wherever the weights still change."
    )


def cloud_alt(story: Story) -> str:
    told = story["cloud"]
    first, last = (told["radius_rms"].values[at] for at in (0, -1))
    return (
        f"The RMS radius went from {first:.4g} to {last:.4g}, the largest distance from {told['radius_max'].values[0]:.4g} to "
        f"{told['radius_max'].values[-1]:.4g}."
    )


def sky(story: Story) -> str:
    share = story["snapshots"]["share"].values
    held = f"{share[:2].sum():.0%} of the variance" if np.isfinite(share).all() else "an unknown part of the variance"
    return (
        "The tokens about their centroid on the two axes along which they differ most at the last step (they hold "
        f"{held}), in the same frame at each step; and below, only their directions, as a map of the whole sky that keeps areas. Colours are "
        "the phases. See whether the cloud only shrinks or takes a shape, which then freezes."
    )


def sky_alt(story: Story) -> str:
    told = story["snapshots"]
    spread = np.sqrt((told["position"].values[..., :2] ** 2).sum(axis=2))
    reach = ", ".join(f"{np.median(row):.3g} at step {int(step):,}" for row, step in zip(spread, told["step"].values, strict=True))
    return f"Median distance from the centroid on the two axes: {reach}."


def lattice(story: Story) -> str:
    return (
        "Above, how many different *rows* of weights there are, and how many tokens share the most common one, bit for bit (a *black hole*). "
        "Below, which part of all weights has which *exponent*, that is, lies between two powers of two: the darker, the more. The larger a "
        "weight, the wider its cells, and the harder it is to move."
    )


def lattice_alt(story: Story) -> str:
    rows, exponents = story["identical_rows"], story["exponents"]
    last = exponents["weight_count"].values[-1]
    bias = 15 if exponents.sizes["exponent"] == 32 else 127
    power = int(last.argmax()) - bias
    return (
        f"At the last step {int(rows['distinct'][-1]):,} of {story.told['tokens']:,} rows are distinct, and the largest group of identical "
        f"ones has {counted(int(rows['largest'][-1]), 'token')}. {percent(float(last.max() / max(1, last.sum())))} of the weights lie between "
        f"2^{power} and 2^{power + 1}."
    )


def _step(step: int | None) -> str:
    return "never" if step is None else f"{step:,}"

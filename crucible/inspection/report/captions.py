"""The captions of a report's pictures: what is seen, what the words mean, and what to look for.

Words between asterisks are those that a caption defines. Names in braces are filled in by `caption_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.plots.movement import NORM_NAMES
from analysis.told_numbers import percent
from crucible.inspection.report.asking import Story
from crucible.inspection.summary import motion_words

CAPTIONS = {
    "stratigraphy": (
        "A line for each token, the first to freeze on top; the line is its *freeze step*, the last at "
        "which it moved by {motion}. Colours are the *phases* of its life, each over when its rule is true "
        "for the last time: *supernova*, a move longer than √D lattice cells; *cooling*, some weight moves more "
        "than one cell; *stumbling*, it moves at all; then it is *frozen*. Full colour: it moved there; pale: it "
        "stood still. See how steep that line is, and whether late full specks lie right of a long pale "
        "stretch."
    ),
    "cooling": (
        "Above, the *displacement* of a token in a step, in *lattice cells*: a cell is the distance from a weight"
        " to the next number that its format can hold. L1 adds up the cells of all its weights, L2 is their "
        "length, L∞ the largest. The thick lines are medians over tokens, the band 90 % of them by {norm}, the thin "
        "line the largest of the step; a dot is a step that moved alone. Below, how many tokens moved by {motion}, "
        "even from 0 to 1 and logarithmic above, so that a single one is seen; ticks at the foot are the steps "
        "with motion. {grey} See whether the thin line stays at one cell long after the median lies still: then late "
        "motion is rare, and decides."
    ),
    "lifecycle": (
        "Above, which part of the tokens is still in each *phase*; a mark is the step by which half of them have "
        "left it. {loss}"
    ),
    "survival": (
        "Above, the fraction of tokens that still move after each step: it falls by a token's share at its "
        "*freeze step*. Below, how many froze when, on an axis that shows a single one. See whether tokens freeze"
        " one by one or in crowds: a cliff is a moment that moved many for the last time together."
    ),
    "silences": (
        "Above, every *silence*: a stretch of steps at which no token moved by {motion}, at its place and as high as "
        "it is long; the diamond goes on at the last step. Below, the *p* of the silence of each moment: how likely one"
        " at least so long would be if bursts of motion went on for ever, fading like 1/t, with a factor for "
        "having looked so often. It falls while nothing moves and jumps back when something does. {end} 1 − p is "
        "not the probability that the run has ended."
    ),
    "push": (
        "Above, the *push*: the change of a weight that the optimizer proposes, as a part of *half a cell* in its "
        "direction, which it must pass to move the weight at all; of a token the largest of its weights. The thick "
        "line is the median over tokens, the thin one the strongest of the step; from the dashed line on a weight "
        "moves. Below, the *learning rate*, which scales it. See whether the strongest push stays below the line, how "
        "far, and whether it still falls: that distance is what keeps a silence."
    ),
    "headroom": (
        "The *headroom* of a token is the factor by which the learning rate could have been higher over the last 20 "
        "memories of the momentum before one of its weights moved; here against its freeze step. Triangles have no "
        "push at all. See which tokens would move first if the rate rose."
    ),
    "census": (
        "Each step's tokens by the kind of their move: *teleporting*, longer than √D cells; *multi-cell*, some "
        "weight more than one cell; *neighbour*, several weights at most one cell each; *face*, one weight one cell; "
        "*less than a cell*, where a weight crosses to finer numbers; or *none*. The legend has their part of all"
        " moves; ticks are the steps with motion. See whether moves shrink to single steps of the lattice before"
        " they end."
    ),
    "drift": (
        "The *centroid* is the mean of all tokens. Above, how long its path is and how far from its start it has "
        "come; where the two part it turns back or wanders. Below, its *speed*, the length of its move, on a "
        "logarithmic axis; a dot is a move between two stills."
    ),
    "autocorrelation": (
        "The cosine between the centroid's move and the one before, a dot for each pair of moves, and the mean of"
        " neighbours: 1 straight on, 0 no memory, −1 back again. The axis is that of the values. See whether late"
        " moves still go the way of the early ones: then it is the optimizer's momentum that carries them."
    ),
    "cloud": (
        "Above, the *radius* of the cloud: distances of tokens from their centroid. Below, its *bulk* motion, the"
        " length of the mean move, and its *thermal* motion, the RMS (root of the mean square) of moves about "
        "that. Where bulk lies above thermal, tokens go together. Looked at are {looked_at} of {states} states"
        "{last_moves}; a dot is the move into one of them."
    ),
    "sky": (
        "The tokens about their centroid on the two axes along which they differ most at the last step (they hold"
        " {held}), in the same frame at each step; and below, only their directions, as a map of the whole sky "
        "that keeps areas.{colours} See whether the cloud only shrinks or takes a shape, which "
        "then freezes."
    ),
    "lattice": (
        "Above, how many different *rows* of weights there are, and how many tokens share the most common one, "
        "bit for bit (a *black hole*). Below, which part of all weights has which *exponent*, that is, lies "
        "between two powers of two: the fuller the colour, the more. The larger a weight, the wider its cells, and the "
        "harder it is to move."
    ),
}


BY_SILENCE = "At or below the dashed line a silence counts as the end."
BY_BOTH = (
    "Beside it stands *E*: the moves to be expected by the push in as many steps again. A silence counts as the end "
    "where both are at or below their dashed lines."
)
"""When a silence counts as the end: by p alone, or where the push is known."""
THE_LOSS = (
    "Below, the *loss* of each step that has one, pale, and the median of its neighbours. See whether the phases end "
    "while the loss still falls: tokens that the model never sees are driven by the optimizer alone."
)
NO_LOSS = "No step has a loss that is a number, so there is no curve of it below."


def has_loss(story: Story) -> bool:
    """Whether there is a loss to be drawn: a loop may log none, and one that diverged has no number from there on."""
    return "loss" in story.answers and bool(np.isfinite(story["loss"]["loss"].values).any())


def _grey(last: int | None, end: int) -> str:
    """What is grey in a picture over steps: the silence at the end, if there is one."""
    if last is None:
        return "Nothing moved."
    if last == end:
        return "Something moved at the last step, so that no silence is grey."
    return f"Grey is the silence since the last motion, {last:,}."


def _end(end: Mapping[str, Any] | None, rate: float | None) -> str:
    """When a silence counts as the end, and for which learning rate E is, where one was asked for."""
    if end is None or end["no_push"]:
        return BY_SILENCE
    return BY_BOTH if rate is None else f"{BY_BOTH} E is that of a learning rate of {rate:.4g}."


def caption_of(name: str, story: Story) -> str:
    """The caption of a picture, with this run's numbers."""
    unknown = "an unknown part"
    share = story["snapshots"]["share"].values if "snapshots" in story.answers else np.array([np.nan])
    last, end = story.told["global_last_motion"], story.told["end_state"]
    known = {
        "grey": _grey(last, story.told["last_step"]),
        "loss": THE_LOSS if has_loss(story) else NO_LOSS,
        "last_moves": "" if last is None else ", among them those of the last moves",
        "looked_at": f"{story['cloud'].sizes['step']:,}" if "cloud" in story.answers else "0",
        "states": f"{story['drift'].sizes['step']:,}",
        "colours": " Colours are the phases." if "stratigraphy" in story.answers else "",
        "norm": NORM_NAMES[story.told["norm"]],
        "motion": motion_words(story.told),
        "end": _end(end, story.reference),
        "held": percent(round(float(share[:2].sum()), 12), 0) if np.isfinite(share).all() else unknown,
    }
    return CAPTIONS[name].format_map(known)

"""Several runs beside each other: a sentence, a table with a row for each, and their curves with mean and band."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analysis import plots
from analysis.judgements.sentences import in_vain, p_text
from analysis.plots import style
from analysis.told_numbers import percent
from crucible.inspection.report import page
from crucible.inspection.report.asking import Story
from crucible.inspection.report.facts import footer
from crucible.inspection.report.picture import Picture
from crucible.inspection.report.words import judged_for
from crucible.inspection.runs import told_of_copies
from crucible.inspection.summary import of_several
from crucible.units import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ("run", "steps", "tokens", "last motion", "silence", "p", "verdict", "median freeze", "efficiency")


def pictures(stories: Sequence[Story]) -> list[Picture[list[Story]]]:
    """The overlays of which at least two runs can tell, and how far others are apart from the first, if any can be."""
    overlays = [each for each in OVERLAYS if sum(set(each.needs) <= set(story.answers) for story in stories) > 1]
    return [*overlays, *([APART] if _apart(stories) else [])]


def body_of_several(stories: Sequence[Story], part: str, drawn: Mapping[str, str]) -> tuple[str, list[str]]:
    """The title and the parts of the page."""
    sentence = verdict(stories)
    answers = {name: story.told for name, story in zip(named(stories), stories, strict=True)}
    copies = told_of_copies({name: Path(told["run"]) for name, told in answers.items() if told["run"]})
    notes = "".join(f"<p>{page.text(line)}</p>" for line in (*copies, *of_several(answers), *_judged(stories)))
    facts = " · ".join([*answers, *([part] if part else [])])
    head = [
        f'<header><p class="over">{len(stories)} runs</p>',
        f"<h1>{page.text(sentence)}</h1>",
        f'<p class="facts">{page.text(facts)}</p></header>',
        f"<section><h2>Run by run</h2>{table(stories)}{notes}</section>",
    ]
    return f"{len(stories)} runs: {sentence}", [*head, *drawn.values(), footer()]


def _judged(stories: Sequence[Story]) -> list[str]:
    """For which learning rate the ends were judged, where one was asked for: by the push alone."""
    rate = stories[0].reference
    if rate is None:
        return []
    ends = zip(named(stories), (story.told["end_state"] for story in stories), strict=True)
    names = [name for name, end in ends if end is not None and end["no_push"] is None]
    if not names:
        return [in_vain(f"{rate:.4g}")]
    where = "" if len(names) == len(stories) else f" where the push is known: {', '.join(names)}"
    return [f"{judged_for(rate)}{where}."]


def verdict(stories: Sequence[Story]) -> str:
    """How many of the runs are frozen, in one plain sentence."""
    kinds = [_kind(story) for story in stories]
    frozen, diverged = kinds.count("frozen"), kinds.count("diverged")
    last = [story.told["global_last_motion"] for story in stories if story.told["global_last_motion"] is not None]
    when = f"; {_last_motions(last)}{' where anything moved' if len(last) < len(stories) else ''}" if last else ""
    broke = f", {diverged} diverged" if diverged else ""
    broke += f", {unknown} without a verdict" if (unknown := kinds.count("no verdict")) else ""
    return f"{frozen} of {len(stories)} runs are frozen{broke}{when}."


def _last_motions(last: Sequence[int]) -> str:
    """When the last motions of some runs were."""
    first, end = min(last), max(last)
    return (
        f"the last motion came at step {end:,}"
        if first == end
        else (f"the last motion came between steps {first:,} and {end:,}")
    )


def table(stories: Sequence[Story]) -> str:
    """A row a run, and below them the means."""
    rows = [(name, *_row(story)) for name, story in zip(named(stories), stories, strict=True)]
    return page.table(HEADER, rows, numbers=(1, 2, 3, 4, 5, 7, 8))


def named(stories: Sequence[Story]) -> list[str]:
    """A name for each run; a number behind those that share theirs.

    Examples
    --------
    >>> from types import SimpleNamespace as Run
    >>> named([Run(name="a"), Run(name="b"), Run(name="a")])
    ['a (1)', 'b', 'a (2)']
    """
    names = [story.name for story in stories]
    many, seen, found = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if many[name] > 1 else name)
    return found


def _row(story: Story) -> tuple[str, ...]:
    told, end = story.told, story.told["end_state"]
    last, median, efficiency = told["global_last_motion"], told["freeze"]["median"], told["drift"]["efficiency"]
    p = None if end is None else end["p"]
    return (
        f"{told['steps']:,}", f"{told['tokens']:,}", "never" if last is None else f"{last:,}",
        f"{told['fimbulwinter_duration']:,}", "none" if p is None else p_text(p), _kind(story),
        "never" if median is None else f"{median:,}", "" if efficiency is None else percent(efficiency, 1),
    )  # fmt: skip


def _kind(story: Story) -> str:
    end = story.told["end_state"]
    if story.told["diverged"]:
        return "diverged"
    if end is None or end["no_verdict"]:
        return "no verdict"
    return "frozen" if end["frozen"] else "not frozen yet"


def _moving(story: Story) -> xr.DataArray:
    return story["cooling"]["moving"]


def _survival(story: Story) -> xr.DataArray:
    return story["freeze_times"]["survival"]


def _largest(story: Story) -> xr.DataArray:
    return story["cooling"]["largest"]


def _loss(story: Story) -> xr.DataArray:
    loss = story["loss"]["loss"]
    return loss.rolling(step=max(1, loss.sizes["step"] // 200), center=True, min_periods=1).median()


def _displacement(story: Story) -> xr.DataArray:
    return story["drift"]["displacement"]


def _drawn(
    needs: str, curve: Callable[[Story], xr.DataArray], words: str, **how: bool
) -> Callable[[list[Story], float], Figure]:
    def draw(stories: list[Story], width: float) -> Figure:
        figure, (axes,) = plots.stack((3.4,), width=width)
        known = {name: curve(s) for name, s in zip(named(stories), stories, strict=True) if needs in s.answers}
        plots.overlay(known, words=words, ax=axes, **how)
        style.title(axes, f"{words[:1].upper()}{words[1:]}")
        return figure

    return draw


def _alt(needs: str, curve: Callable[[Story], xr.DataArray], words: str) -> Callable[[list[Story]], str]:
    def alt(stories: list[Story]) -> str:
        ends = []
        for name, story in zip(named(stories), stories, strict=True):
            values = curve(story).values if needs in story.answers else np.empty(0)
            values = values[np.isfinite(values)]
            if len(values):
                ends.append(f"{name} from {values[0]:.3g} to {values[-1]:.3g}")
        return f"{words}: {'; '.join(ends)}."

    return alt


MEAN = " The thick line is the mean over the runs at the steps that all of them have, the band one standard deviation."
GEOMETRIC = (
    " The thick line is the geometric mean over the runs, that of their logarithms, at the steps at which none is left "
    "out, the band one standard deviation of the logarithms."
)


def _overlay(  # noqa: PLR0917 - a row of a table
    name: str,
    heading: str,
    needs: str,
    curve: Callable[[Story], xr.DataArray],
    words: str,
    caption: str,
    **how: bool,
) -> Picture[list[Story]]:
    said = caption + (GEOMETRIC if how.get("log") else MEAN)
    return Picture(
        name, heading, (needs,), _drawn(needs, curve, words, **how), lambda _: said, _alt(needs, curve, words)
    )


OVERLAYS = (
    _overlay("survival-of-runs", "When they freeze", "freeze_times", _survival, "tokens that still move later",
             "The fraction of each run's tokens that still move after a step.", fractions=True),
    _overlay("moving-of-runs", "How many move", "cooling", _moving, "tokens that move, fraction",
             "The fraction of each run's tokens that move at a step; steps without motion are left out.", log=True,
             log_steps=True),
    _overlay("largest-of-runs", "How far they move", "cooling", _largest, "largest displacement, lattice cells",
             "The largest displacement of any token at a step with motion. A lattice cell is the distance from a "
             "weight to the next number that its format can hold.", log=True, log_steps=True),
    _overlay("loss-of-runs", "The loss", "loss", _loss, "loss", "The loss, each point the median of its neighbours.",
             log_steps=True),
    _overlay("drift-of-runs", "How far the cloud has come", "drift", _displacement, "distance from the start",
             "The distance of the mean of all tokens from where it started."),
)  # fmt: skip
"""In the order of the page."""


def _apart(stories: Sequence[Story]) -> dict[str, xr.Dataset]:
    """By the name of a run: how far it is apart from the first; without those that cannot be compared with it."""
    known = zip(named(stories), stories, strict=True)
    return {name: story["apart"] for name, story in known if "apart" in story.answers}


def _draw_apart(stories: list[Story], width: float) -> Figure:
    figure, (upper, lower) = plots.stack((2.6, 2.6), width=width)
    known = _apart(stories)
    if len(known) == 1:
        (told,) = known.values()
        plots.apart(told, ax=upper, log_steps=True)
        plots.hops_apart(told, ax=lower, log_steps=True)
        return figure
    for axes, name, words in (
        (upper, "share", "share of the weights that differ"),
        (lower, "hops_median", "hops apart, median"),
    ):
        plots.overlay({run: told[name] for run, told in known.items()}, words=words, ax=axes, log=True, log_steps=True)
        style.title(axes, f"{words[:1].upper()}{words[1:]}: each run beside {named(stories)[0]}")
    return figure


def _caption_apart(stories: list[Story]) -> str:
    left_out = [name for name in named(stories)[1:] if name not in _apart(stories)]
    without = f" Not comparable, for other tokens, steps or number formats: {', '.join(left_out)}." if left_out else ""
    return (
        f"The share of weights whose bits differ from those of {named(stories)[0]} at the same step, and "
        "how many *hops* lie between those that differ: representable numbers from one to the other. Steps at which "
        f"two runs are equal are left out; of long runs some 180 steps are looked at.{without}"
    )


def _alt_apart(stories: list[Story]) -> str:
    ends = (
        f"{name}: {percent(float(told['share'][-1]))} of the weights at step {int(told['step'][-1]):,}, "
        f"{counted(int(told['hops_median'][-1]), 'hop')} apart in the median, {int(told['hops_largest'][-1]):,} at most"
        for name, told in _apart(stories).items()
    )
    return f"Apart from {named(stories)[0]} at last: {'; '.join(ends)}."


APART: Picture[list[Story]] = Picture(
    "apart-of-runs", "How far they are apart", ("apart",), _draw_apart, _caption_apart, _alt_apart
)

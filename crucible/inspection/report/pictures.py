"""The pictures of a report: what each needs, how it is drawn, and its words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis import plots
from analysis.episodes import Rule
from analysis.plots import style
from crucible.inspection.report.alternatives import ALTERNATIVES
from crucible.inspection.report.asking import Story
from crucible.inspection.report.captions import caption_of, has_loss
from crucible.inspection.report.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def of_story(story: Story) -> list[Picture[Story]]:
    """The pictures that there are of a run."""
    return [picture for picture in PICTURES if set(picture.needs) <= set(story.answers)]


def _stacked(*heights: float, panels: Callable[[Story, Sequence[Axes]], object]) -> Callable[[Story, float], Figure]:
    """A picture of panels one below the other."""

    def draw(story: Story, width: float) -> Figure:
        figure, axes = plots.stack(heights, width=width)
        panels(story, axes)
        return figure

    return draw


def _cooling(story: Story, axes: Sequence[Axes]) -> None:
    others = [story.answers[name] for name in ("cooling_l1", "cooling_l2", "cooling_linf") if name in story.answers]
    plots.cooling(story["cooling"], *others, ax=axes[0])
    plots.moving(story["cooling"], ax=axes[1])


def _life(story: Story, axes: Sequence[Axes]) -> None:
    plots.lifecycle(story["lifecycle"], ax=axes[0])
    if has_loss(story):
        plots.loss(story["loss"], ax=axes[1])
    else:
        axes[1].set_axis_off()


def _survival(story: Story, axes: Sequence[Axes]) -> None:
    plots.survival(story["freeze_times"], ax=axes[0])
    plots.freeze_histogram(story["last_motion"], ax=axes[1])


def _silence(story: Story, axes: Sequence[Axes]) -> None:
    plots.stillness(story["stillness"], ax=axes[0])
    if "verdicts" in story.answers:
        plots.verdicts(story["verdicts"], ax=axes[1])
        return
    attributes = story["end_state"].attrs
    names = ("memory", "gaps", "fewest", "level")
    rule = Rule(**{name: attributes[name] for name in names if name in attributes})
    plots.p_over_time(story["stillness"], rule=rule, ax=axes[1])


def _push(story: Story, axes: Sequence[Axes]) -> None:
    plots.push(story["headroom"], story["stillness"], ax=axes[0])
    plots.learning_rate(story["headroom"], ax=axes[1])


def _headroom(story: Story, axes: Sequence[Axes]) -> None:
    plots.headroom(story["headroom"], story["last_motion"], ax=axes[0])


def _drift(story: Story, axes: Sequence[Axes]) -> None:
    plots.drift(story["drift"], ax=axes[0])
    plots.speed(story["drift"], ax=axes[1])


def _cloud(story: Story, axes: Sequence[Axes]) -> None:
    plots.cloud(story["cloud"], ax=axes[0])
    plots.motion_of_cloud(story["cloud"], ax=axes[1])


def _lattice(story: Story, axes: Sequence[Axes]) -> None:
    plots.distinct_rows(story["identical_rows"], ax=axes[0])
    plots.exponents(story["exponents"], ax=axes[1])


def _sky(story: Story, width: float) -> Figure:
    """The cloud above, its sky below, at each of the steps; two beside each other where there is less room."""
    from matplotlib.figure import Figure

    told, colours = story["snapshots"], _phase_colours(story)
    count = told.sizes["step"]
    columns = min(count, 4 if width > style.NARROW else 2)
    rows = -(-count // columns)
    side, gap, head = (width - 0.1) / columns, 0.12, 0.26
    tall = side + side / 2 + head
    figure = Figure(figsize=(width, rows * tall))
    for at in range(count):
        left = (0.05 + at % columns * side + gap / 2) / width
        top = 1 - (at // columns) * tall / (rows * tall) - head / (rows * tall)
        share = (side - gap) / width
        high = (side - gap) / (rows * tall)
        plots.positions(told, at, colours=colours[at], ax=figure.add_axes((left, top - high, share, high)))
        sky = figure.add_axes((left, top - high - high / 2 - 0.04 / tall, share, high / 2))
        plots.sky(told, at, colours=colours[at], ax=sky).set_title("", loc="left")
    return figure


def _phase_colours(story: Story) -> list[NDArray[np.str_] | None]:
    """The colour of the phase in which each token is, at each of the four steps."""
    steps = story["snapshots"]["step"].values
    if "stratigraphy" not in story.answers:
        return [None] * len(steps)
    told = story["stratigraphy"]
    names = [str(name) for name in told["phase"].values]
    table = np.array([*(style.of_phase(name, index)[0] for index, name in enumerate(names)), style.FROZEN])
    exits = told["exit"].transpose("token", "phase").values
    return [table[(exits < step).sum(axis=1)] for step in steps]


def _one(function: Callable[..., Axes], answer: str, **how: Any) -> Callable[[Story, Sequence[Axes]], object]:  # noqa: ANN401
    return lambda story, axes: function(story[answer], ax=axes[0], **how)


def _picture(name: str, heading: str, *needs: str, draw: Callable[[Story, float], Figure]) -> Picture[Story]:
    return Picture(name, heading, needs, draw, functools.partial(caption_of, name), ALTERNATIVES[name])


PICTURES: tuple[Picture[Story], ...] = (
    _picture("stratigraphy", "Every token, every step", "stratigraphy",
             draw=_stacked(4.7, panels=_one(plots.stratigraphy, "stratigraphy"))),
    _picture("cooling", "How far they move, and how many", "cooling", draw=_stacked(3.7, 2.5, panels=_cooling)),
    _picture("lifecycle", "The phases of a life, and the loss", "lifecycle", draw=_stacked(2.9, 2.1, panels=_life)),
    _picture("survival", "When they freeze", "freeze_times", "last_motion", draw=_stacked(2.9, 2.4, panels=_survival)),
    _picture("silences", "Silences, and whether this one is the last", "stillness", "end_state",
             draw=_stacked(2.9, 2.7, panels=_silence)),
    _picture("push", "Why it moves or is still: the push", "headroom", "stillness",
             draw=_stacked(3.4, 2.0, panels=_push)),
    _picture("headroom", "What the learning rate could have been", "headroom", "last_motion",
             draw=_stacked(3.1, panels=_headroom)),
    _picture("census", "What kind of moves", "census", draw=_stacked(3.4, panels=_one(plots.census, "census"))),
    _picture("drift", "Where the whole cloud goes", "drift", draw=_stacked(2.6, 2.3, panels=_drift)),
    _picture("autocorrelation", "Whether it keeps its direction", "drift",
             draw=_stacked(2.5, panels=_one(plots.autocorrelation, "drift"))),
    _picture("cloud", "How wide the cloud is, and how it moves", "cloud", draw=_stacked(2.7, 2.8, panels=_cloud)),
    _picture("sky", "The cloud at some steps", "snapshots", draw=_sky),
    _picture("lattice", "Where they sit on the lattice", "identical_rows", "exponents",
             draw=_stacked(2.5, 2.7, panels=_lattice)),
)  # fmt: skip
"""In the order of the page. Those of the push join where it was recorded."""

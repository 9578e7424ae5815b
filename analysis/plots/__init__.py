"""Pictures of answers: each a function of a result, which draws on an Axes and returns it.

Each takes ``ax=`` to draw on, for example one of ``matplotlib.pyplot.subplots``; without it a figure of its own is
made, in the house style, and a notebook shows it where a cell ends with the picture. Nothing is shown, saved or
remembered: pyplot and its global state are not touched, so pictures can be made on machines without a screen and in
threads. `save` writes one.

All pictures over steps have the same axis, from the first step to the last. ``log_steps`` switches between an even and
a logarithmic one: the latter is the default where the verdict on the end state lives in ln t (cooling, life cycle,
silences).
"""

from analysis.plots.centroid import autocorrelation, drift, speed
from analysis.plots.cloud import cloud, coherence, motion_of_cloud, positions, sky
from analysis.plots.lattice import census, distinct_rows, exponents
from analysis.plots.life import freeze_histogram, lifecycle, loss, survival
from analysis.plots.movement import cooling, moving, stratigraphy
from analysis.plots.overlay import apart, hops_apart, overlay
from analysis.plots.push import headroom, learning_rate, push, verdicts
from analysis.plots.silence import p_over_time, stillness
from analysis.plots.style import save, stack

__all__ = [
    "apart",
    "autocorrelation",
    "census",
    "cloud",
    "coherence",
    "cooling",
    "distinct_rows",
    "drift",
    "exponents",
    "freeze_histogram",
    "headroom",
    "hops_apart",
    "learning_rate",
    "lifecycle",
    "loss",
    "motion_of_cloud",
    "moving",
    "overlay",
    "p_over_time",
    "positions",
    "push",
    "save",
    "sky",
    "speed",
    "stack",
    "stillness",
    "stratigraphy",
    "survival",
    "verdicts",
]

"""Simulated ways of moving, each with a truth that the verdict cannot see: does anything move later?

A process draws many runs at once: at which of the steps 1..T something moves, and whether anything moves after T.
tests/benchmarks/end_state_errors.py asks the verdict at every step of each, docs/explanation/end-state.md shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], tuple[Bools, Bools]]


@dataclass(frozen=True, slots=True)
class Process:
    """A way of moving.

    Attributes
    ----------
    family : str
        What it is called in the table.
    says : str
        Its numbers, in words.
    draw : callable
        ``draw(rng, runs, steps) -> (moved (runs, steps), moves_later (runs,))``, both bool.
    """

    family: str
    says: str
    draw: Draw


def by_rate(family: str, says: str, rate: Callable[[Floats], Floats], left: Callable[[int], float]) -> Process:
    """Motion as a Poisson process: `rate(t)` a step, `left(T)` expected motions after T (inf if it never ends).

    Examples
    --------
    >>> always = by_rate("constant", "one step in two", lambda t: np.full(t.shape, np.log(2)), lambda T: np.inf)
    >>> moved, later = always.draw(np.random.default_rng(1), 100, 100)
    >>> moved.shape, bool(later.all()), 0.45 < moved.mean() < 0.55
    ((100, 100), True, np.True_)
    """

    def draw(rng: np.random.Generator, runs: int, steps: int) -> tuple[Bools, Bools]:
        chance = -np.expm1(-rate(np.arange(1.0, steps + 1)))
        return rng.random((runs, steps)) < chance, rng.random(runs) < -math.expm1(-left(steps))

    return Process(family, says, draw)


def power(exponent: float, scale: float) -> Process:
    """A rate of (t / scale)^-exponent; above 1 it ends by itself, some time."""

    def left(last: int) -> float:
        return math.inf if exponent <= 1 else scale**exponent * last ** (1 - exponent) / (exponent - 1)

    name = "1/t" if exponent == 1 else f"t^-{exponent:g}"
    return by_rate(name, f"rate (t / {scale:g})^-{exponent:g}", lambda t: (t / scale) ** -exponent, left)


def constant(rate: float) -> Process:
    """Motion that never tires."""
    return by_rate("constant", f"rate {rate:g}", lambda t: np.full(t.shape, rate), lambda _: math.inf)


def exponential(time: float, start: float = 300.0) -> Process:
    """A rate that falls by e in `time` steps and is 1 at `start`."""

    def rate(t: Floats) -> Floats:
        return np.exp(-(t - start) / time)

    return by_rate("exponential", f"time {time:g}", rate, lambda last: time * math.exp(-(last - start) / time))


def bursts(scale: float, size: float, gap: float) -> Process:
    """Bursts begin at the rate scale / t and go on for ever; each has `size` motions, `gap` still steps apart."""

    def draw(rng: np.random.Generator, runs: int, steps: int) -> tuple[Bools, Bools]:
        moved = rng.random((runs, steps)) < -np.expm1(-scale / np.arange(1.0, steps + 1))
        run, step = np.nonzero(moved)
        more = rng.geometric(1 / size, len(run)) - 1
        while len(run):  # one round for each further motion of the bursts that still go on
            run, step, more = run[more > 0], step[more > 0], more[more > 0] - 1
            step = step + 1 + np.floor(rng.exponential(gap, len(run))).astype(np.int64)
            run, more, step = run[step < steps], more[step < steps], step[step < steps]
            moved[run, step] = True
        return moved, np.ones(runs, bool)

    return Process("bursts", f"rate {scale:g} / t, {size:g} motions {gap:g} steps apart", draw)


def own_lives(says: str, tokens: int, life: Callable[[np.random.Generator, int], Floats]) -> Process:
    """Each token lives a time of its own and moves at its own rate, 0.001 to 0.1 a step, until it is over."""

    def draw(rng: np.random.Generator, runs: int, steps: int) -> tuple[Bools, Bools]:
        moved, later = np.zeros((runs, steps), bool), np.zeros(runs, bool)
        for run in range(runs):
            end = np.floor(life(rng, tokens))
            rate = np.exp(rng.uniform(math.log(0.001), math.log(0.1), tokens))
            ending = np.bincount(np.minimum(end, steps).astype(np.int64), weights=rate, minlength=steps + 1)
            alive = np.cumsum(ending[::-1])[::-1][1:]  # summed rate of the tokens that still live at steps 1..T
            moved[run] = rng.random(steps) < -np.expm1(-alive)
            later[run] = rng.random() < -math.expm1(-float((rate * np.maximum(end - steps, 0)).sum()))
        return moved, later

    return Process("tokens with own lives", f"{tokens:,} tokens, {says}", draw)


def ending(process: Process, earliest: int = 1000, latest: int = 4000) -> Process:
    """Another process that really ends, at a step between `earliest` and `latest`."""

    def draw(rng: np.random.Generator, runs: int, steps: int) -> tuple[Bools, Bools]:
        moved, _ = process.draw(rng, runs, steps)
        end = rng.integers(earliest, latest, runs, endpoint=True)
        return moved & (np.arange(1, steps + 1) <= end[:, None]), np.zeros(runs, bool)

    return Process("really ends", f"{process.family}, {process.says}, ends at {earliest:,}-{latest:,}", draw)


def lognormal_life(median: float, spread: float) -> Callable[[np.random.Generator, int], Floats]:
    """Lives around `median` steps, as the freeze times of real runs are."""
    return lambda rng, tokens: median * np.exp(spread * rng.standard_normal(tokens))


def pareto_life(shortest: float, tail: float) -> Callable[[np.random.Generator, int], Floats]:
    """Lives with a power law as tail: a few are many times longer than the rest."""
    return lambda rng, tokens: np.minimum(shortest * (1 - rng.random(tokens)) ** (-1 / tail), 1e12)


FAMILIES = (
    *(constant(rate) for rate in (0.001, 0.01, 0.05)),
    *(power(1, scale) for scale in (3, 10, 30, 100)),
    *(power(1.5, scale) for scale in (30, 100, 300)),
    *(power(2, scale) for scale in (100, 300)),
    *(power(3, scale) for scale in (100, 300)),
    *(exponential(time) for time in (100, 300, 600)),
    bursts(10, 5, 3),
    bursts(10, 5, 10),
    bursts(10, 5, 30),
    bursts(3, 20, 30),
    own_lives("lives 1,300 x e^(0.3 normal)", 3000, lognormal_life(1300, 0.3)),
    own_lives("lives 1,300 x e^(0.4 normal)", 100, lognormal_life(1300, 0.4)),
    own_lives("lives from 300, tail t^-2", 1000, pareto_life(300, 2)),
    own_lives("lives from 300, tail t^-1", 100, pareto_life(300, 1)),
    ending(power(1, 30)),
    ending(constant(0.02)),
    ending(bursts(10, 5, 3)),
)
"""What docs/explanation/end-state.md measures."""

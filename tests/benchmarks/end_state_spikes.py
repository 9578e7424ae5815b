"""Spikes that come so rarely that a silence holds none: how often the verdict errs, and what stricter rules would do.

    python tests/benchmarks/end_state_spikes.py --write docs/explanation/end-state.md

Lives as the row "far below, with rare spikes" of end_state_evidence.py, by how often a spike comes. None of them ever
ends: a spike of the median size lifts the push from 0.22 to 1.8 half cells, so each later one may move something.
"""

import argparse
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np

from analysis.episodes import moments


def _beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(Path(__file__).parents[1]))
evidence, errors = _beside("end_state_evidence"), _beside("end_state_errors")

STEPS, FEWEST = 5000, 200
EVERY_SO_MANY = (200, 500, 2_000, 8_000, 32_000)
"""Steps from one spike to the next, in the mean."""
RULES = {
    "as it is": lambda silence: silence.both,
    "p <= 0.01": lambda silence: silence.both & (silence.p <= 0.01),
    "E never wrong before": lambda silence: silence.both & (not silence.was_wrong),
    "1,000 still steps": lambda silence: silence.both & (silence.asks - silence.last >= 1_000),
    "T >= 3 g": lambda silence: silence.both & (silence.asks >= 3 * silence.last),
    "T >= 5 g": lambda silence: silence.both & (silence.asks >= 5 * silence.last),
}
"""Each but the first asks for more than the rule as it is."""


class Silence:
    """p and E of a silence at the steps at which it is asked, and whether an earlier silence had a small E."""

    def __init__(self, push, last, end, known, was_wrong):
        run = evidence.Recorded(push[:, None], push[:, None] > 1, np.full(len(push), 1e-3))
        asks = np.unique(
            np.append(np.arange((last // evidence.EVERY + 1) * evidence.EVERY, end + 1, evidence.EVERY), end)
        )
        self.asks, self.last, self.was_wrong = asks[asks - last >= FEWEST], last, was_wrong
        span, gaps, looks = known
        with np.errstate(invalid="ignore"):
            self.p = np.minimum(1, looks * np.exp(-gaps * np.log1p(np.log((self.asks + 1) / last) / span)))
        self.by_push = np.array([evidence._expected(push, run, int(ask), int(last)) for ask in self.asks]) <= 0.01
        self.both = self.by_push & (self.p <= 0.05)


def lives(number, every, seed):
    """Pushes of each life, (step,), and whether something moves later than the last of them."""
    random, t = np.random.default_rng([seed, every]), np.arange(1, 3 * STEPS + 1)
    noise = random.normal(0, 1, (number, len(t)))
    for k in range(1, len(t)):
        noise[:, k] = 0.9 * noise[:, k - 1] + math.sqrt(1 - 0.81) * noise[:, k]
    level = np.maximum(-0.002 * t, -2.0) + 0.5
    for own in noise:
        spikes = np.where(random.random(len(t)) < 1 / every, random.exponential(3, len(t)), 0)
        push = np.exp(level + 0.2 * own + spikes)
        yield push[:STEPS], bool((push[STEPS:] > 1).any())


def wrong(push, moves_later):
    """The rules that call this life frozen at some step after which something moves."""
    moving = np.flatnonzero(push > 1) + 1
    known, was_wrong, found = moments(moving), False, set()
    spans = known.span(4)
    for k, (last, end) in enumerate(zip(moving, np.append(moving[1:] - 1, STEPS), strict=True)):
        if end - last < FEWEST or (end == STEPS and not moves_later):
            continue
        silence = Silence(push, last, end, (spans[k], known.gaps[k], known.looks[k]), was_wrong)
        found |= {name for name, rule in RULES.items() if rule(silence).any()}
        was_wrong |= bool(silence.by_push.any())
    return found


def measure(number, seed):
    """The table, by the name of its markers in the page."""
    rows = []
    for every in EVERY_SO_MANY:
        counted = dict.fromkeys(RULES, 0)
        for push, later in lives(number, every, seed):
            for name in wrong(push, later):
                counted[name] += 1
        rows.append([f"{every:,} steps", f"{number:,}", *map(str, counted.values())])
        print(rows[-1], flush=True)
    head = ["a spike every", "lives", *(f"{name}: wrong" for name in RULES)]
    return {"spikes": errors.table(head, rows)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=200, metavar="N", help="of each kind (200)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table of this page")
    options = parser.parse_args(arguments)
    tables = measure(options.lives, options.seed)
    if options.write:
        errors.write(options.write, tables)
    else:
        print(tables["spikes"])


if __name__ == "__main__":
    sys.exit(main())

"""The answer to every question of the package analysis by plain loops over a Trajectory, by the question's name.

For questions about long runs, and about steps with gaps. Each question has its Hypothesis tests in a file of its own.
"""

import itertools
import math
from collections import Counter

import numpy as np
from analysis_oracles import is_finite, lower_median, runs_of_still_steps, weight

from analysis.questions.endstate import verdict  # its own loop stands in test_verdict


def loop_weights(known):
    return {None: [[[weight(p) for p in row] for row in state] for state in known.bits.tolist()]}


def loop_moved(known):
    return {None: [[known.moved(step, i) for i in range(len(known.tokens))] for step in known.steps]}


def loop_last_motion(known):
    return {"last_motion": [known.last(i) for i in range(len(known.tokens))]}


def loop_freeze_times(known):
    last = loop_last_motion(known)["last_motion"]
    survival = [sum(x > step for x in last) / len(last) for step in known.steps]
    told = {"earliest": min(last), "median_freeze": lower_median(last), "latest": max(last)}
    return told | {"survival": survival, "never_moved": last.count(-1)}


def loop_fimbulwinter(known):
    latest = max(loop_last_motion(known)["last_motion"])
    duration = known.steps[-1] - latest
    fraction = duration / (known.steps[-1] - known.steps[0])
    return {
        "global_last_motion": latest, "fimbulwinter_duration": duration, "fimbulwinter_fraction": fraction,
    }  # fmt: skip


def loop_stillness(known):
    moving = known.any_moved()
    runs = sorted(runs_of_still_steps(moving[1:]), key=lambda run: (-run[1], run[0]))
    lengths = sorted(length for _, length in runs)
    return {
        "any_motion": moving,
        "run_count": len(runs),
        "longest": ([length for _, length in runs] + [-1] * 10)[:10],
        "start": ([known.moves[at] for at, _ in runs] + [-1] * 10)[:10],
        "mean_length": sum(lengths) / len(lengths),
        "median_length": lengths[len(lengths) // 2],
        "final_vs_second": lengths[-1] / lengths[-2],
    }


def loop_token_stillness(known):
    told = {"longest": [], "current": [], "run_count": []}
    for i in range(len(known.tokens)):
        moving = [known.moved(step, i) for step in known.moves]
        lengths = [length for _, length in runs_of_still_steps(moving)]
        told["longest"].append(max(lengths, default=0))
        told["current"].append(0 if moving[-1] else lengths[-1])
        told["run_count"].append(len(lengths))
    return told


def loop_end_state(known):
    moving = [step for step, moved in zip(known.steps, known.any_moved(), strict=True) if moved]
    told = verdict(moving, last_step=known.steps[-1], first_step=known.steps[1])
    return {name: told[name] for name in ("gap", "longest_earlier", "episodes", "looks", "last_motion")}


def loop_lifecycle(known):
    exits = []
    for i in range(len(known.tokens)):
        last = [-1, -1, -1]
        for step in known.moves:
            l2, linf = known.norms["l2"][step][i], known.norms["linf"][step][i]
            for phase, holds in enumerate((l2 > np.float32(math.sqrt(known.bits.shape[2])), linf > 1, linf > 0)):
                if holds:
                    last[phase] = step
        exits.append(last)
    return {"exit": exits, "median_exit": [lower_median(column) for column in zip(*exits, strict=True)]}


def loop_census(known):
    root = np.float32(math.sqrt(known.bits.shape[2]))
    counts = [[0] * 6]
    for step in known.moves:
        row = [0] * 6
        for i in range(len(known.tokens)):
            l1, l2, linf = (known.norms[norm][step][i] for norm in ("l1", "l2", "linf"))
            row[(l2 > root, linf > 1, l1 > 1, l1 == 1, l1 > 0, True).index(True)] += 1
        counts.append(row)
    total = sum(map(sum, counts))
    return {"tokens": counts, "fraction": [sum(column) / total for column in zip(*counts, strict=True)]}


def loop_cooling(known):
    count = len(known.tokens)
    told = {"displacement": [[math.nan] * 3], "largest": [math.nan], "moving": [math.nan]}
    for step in known.moves:
        ordered = sorted(known.norms["l2"][step])
        told["displacement"].append([ordered[math.floor(q * (count - 1))] for q in (0.05, 0.5, 0.95)])
        told["largest"].append(ordered[-1])
        told["moving"].append(sum(known.moved(step, i) for i in range(count)) / count)
    return told | loop_end_state(known)


def loop_stratigraphy(known, columns=1000):
    width = max(1, math.ceil(len(known.moves) / columns))
    starts = range(0, len(known.moves), width)
    tokens = range(len(known.tokens))
    moved = [[any(known.moved(step, i) for step in known.moves[at : at + width]) for at in starts] for i in tokens]
    return {"moved_within": moved, "exit": loop_lifecycle(known)["exit"], **loop_last_motion(known)}


def loop_divergence(known):
    """Of the weights; there is no loss."""
    count, first = known.nonfinite()
    nonfinite = [sum(not is_finite(pattern) for pattern in row) for row in known.bits[-1].tolist()]
    told = {"nonfinite": count, "first_nonfinite": first, "diverged": count > 0}
    return told | {"weights_now": sum(nonfinite), "tokens_now": sum(map(bool, nonfinite)), "loss_from": -1}


def loop_drift(known):
    """Of the mean of the weights, rounded to float32 once."""
    numbers = by_state(known, lambda state: [[float(weight(p)) for p in row] for row in state])
    centres = [
        [float(np.float32(math.fsum(column) / len(state))) for column in zip(*state, strict=True)] for state in numbers
    ]
    return drift_of(centres)


def drift_of(centres):
    """Of any centres (step, hidden), as lists of floats."""
    told = {"speed": [math.nan], "displacement": [0.0], "path": [0.0], "autocorrelation": [math.nan], "frozen": [False]}
    before = None
    for earlier, now in itertools.pairwise(centres):
        v = [x - y for x, y in zip(now, earlier, strict=True)]
        told["speed"].append(math.hypot(*v))
        told["displacement"].append(math.dist(now, centres[0]))
        told["path"].append(told["path"][-1] + told["speed"][-1])
        told["frozen"].append(list(map(float.hex, now)) == list(map(float.hex, earlier)))
        known_turn = before is not None and any(v) and any(before)
        dot = math.fsum(x * y for x, y in zip(v, before, strict=True)) if known_turn else math.nan
        told["autocorrelation"].append(dot / math.hypot(*v) / math.hypot(*before) if known_turn else math.nan)
        before = v
    net, path = told["displacement"][-1], told["path"][-1]
    told |= {"net": net, "path_length": path, "efficiency": net / path if path else math.nan}
    return told | {"frozen_steps": sum(told["frozen"])}


def loop_cloud(known):
    numbers = by_state(known, lambda state: [[float(weight(p)) for p in row] for row in state])
    radii = by_state(known, radii_of)
    told = {name: list(column) for name, column in zip(RADII, zip(*radii, strict=True), strict=True)}
    told |= {"bulk_motion": [math.nan], "thermal_motion": [math.nan], "movers": [0], "coherence": [math.nan]}
    for before, now in itertools.pairwise(numbers):
        if now is before:
            motion = (0.0, 0.0, 0, math.nan)
        else:
            motion = motion_of(before, now)
        for name, value in zip(("bulk_motion", "thermal_motion", "movers", "coherence"), motion, strict=True):
            told[name].append(value)
    return told


RADII = ("radius_mean", "radius_max", "radius_rms")


def radii_of(state):
    points = [[float(weight(p)) for p in row] for row in state]
    centre = [math.fsum(column) / len(points) for column in zip(*points, strict=True)]
    distances = [math.dist(point, centre) for point in points]
    mean_square = math.fsum(x * x for x in distances) / len(points)
    return math.fsum(distances) / len(points), max(distances), math.sqrt(mean_square)


def motion_of(before, now):
    """Bulk and thermal motion, number of movers, and their coherence, of two states as lists of floats."""
    moves = [[x - y for x, y in zip(row, old, strict=True)] for row, old in zip(now, before, strict=True)]
    mean = [math.fsum(column) / len(moves) for column in zip(*moves, strict=True)]
    thermal = math.sqrt(math.fsum(math.dist(move, mean) ** 2 for move in moves) / len(moves))
    movers = [move for move in moves if any(move)]
    cosines = [
        math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        for i, a in enumerate(movers)
        for j, b in enumerate(movers)
        if i != j
    ]
    coherence = math.fsum(cosines) / len(cosines) if cosines else math.nan
    return math.hypot(*mean), thermal, len(movers), coherence


def loop_principal_axes(known):
    """The covariance's trace alone: the axes themselves have a test of their own."""
    squares = by_state(known, lambda state: radii_of(state)[2] ** 2)
    return {"variance": math.fsum(squares) / len(squares)}


def loop_identical_rows(known):
    def groups(state):
        rows = [tuple(row) for row in state]
        count = Counter(rows)
        group = [known.tokens[rows.index(row)] for row in rows]
        return len(count), max(count.values()), group, [count[row] for row in rows]

    names = ("distinct", "largest", "group", "group_size")
    return dict(zip(names, zip(*by_state(known, groups), strict=True), strict=True))


def loop_exponents(known):
    def histogram(state):
        count = Counter((p >> 7) & 255 for row in state for p in row)
        return [count[e] for e in ONES]

    return {"weight_count": by_state(known, histogram)}


def loop_bounding_box(known):
    """Of positive weights, whose bits are in order."""

    def box(state):
        columns = list(zip(*state, strict=True))
        low, high = list(map(min, columns)), list(map(max, columns))
        return list(map(weight, low)), list(map(weight, high)), [b - a for a, b in zip(low, high, strict=True)]

    return dict(zip(("low", "high", "cells"), zip(*by_state(known, box), strict=True), strict=True))


def by_state(known, function):
    """A function of every state, as lists of patterns; asked once of each different state."""
    seen = {}
    answers = []
    for state in known.bits:
        key = state.tobytes()
        if key not in seen:
            seen[key] = function(state.tolist())
        answers.append(seen[key])
    return answers


LOOPS = {name.removeprefix("loop_"): loop for name, loop in list(vars().items()) if name.startswith("loop_")}


ONES = range(120, 136)
"""Exponents about that of 1; all 256 of a long run would fill the memory."""


ASKED_OF_OTHERS = {
    "Answer", "Block", "NormRule", "Reduction", "Rule", "Span", "compare", "conclude", "plain", "reduce", "sentence",
    "verdict", "verdicts", "push", "headroom", "why", "apart", "over", "snapshots",
}  # fmt: skip
"""Public functions that are not asked of one trajectory, or need what the optimizer holds: see test_analysis/pushes."""


def assert_is_the_loop(name, answer, known):
    """Every number that the loop tells is the answer's."""
    for variable, expected in LOOPS[name](known).items():
        found = answer if variable is None else answer[variable]
        if name == "principal_axes":
            found = found.sum()
        if name == "exponents":
            found = found.sel(exponent=ONES)
        np.testing.assert_allclose(
            np.asarray(found.values, float), np.asarray(expected, float), rtol=1e-9, atol=1e-12, err_msg=str(variable)
        )

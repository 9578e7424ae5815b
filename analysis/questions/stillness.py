"""Silences, steps without motion: of all tokens together, and of each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.engine import nonfinite
from analysis.engine.question import NEVER, Answer, Block, Partial, Reduction, Span
from analysis.engine.reduction import answers_to, conclude
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.episodes import Rule
from analysis.lattice import Array
from analysis.optimizers.update_rules import memory_decay
from analysis.questions.motion import moved_in, norm_name, threshold_of

LONGEST = 10
"""How many of the longest runs are named."""
ANY_MOTION = {"any_motion": Answer(("step",), "bool", "any token moved")}
_BY_STEP = {
    "any_motion": ANY_MOTION["any_motion"],
    "run_length": Answer(("step",), "int64", "length of the stillness run that starts at the step", "step"),
}
_PLACED = {
    "longest": Answer(("place",), "int64", "length of a stillness run", "step", True),
    "start": Answer(("place",), "int64", "first step of a stillness run", "step", True),
    "final": Answer(("place",), "bool", "the stillness run lasts to the end"),
}
_SUMMARY = {
    "run_count": Answer((), "int64", "stillness runs"),
    "final_vs_second": Answer((), "float64", "longest stillness run / second longest"),
    "mean_length": Answer((), "float64", "mean length of stillness runs", "step"),
    "median_length": Answer((), "int64", "median length of stillness runs", "step", True),
}
_BY_TOKEN = {
    "longest": Answer(("token",), "int64", "longest stillness run of the token", "step"),
    "current": Answer(("token",), "int64", "steps since the token's last motion", "step"),
    "run_count": Answer(("token",), "int64", "stillness runs of the token"),
}


def any_motion(asked: Trajectory, threshold: float | None, norm: str) -> xr.Dataset:
    """Whether any token moved, step by step: what `stillness` and `end_state` are made of.

    Parameters
    ----------
    asked, threshold, norm
        As in `motion.moved`, of the record of a Dataset.

    Returns
    -------
    Dataset
        Lazy: ``any_motion`` (step) bool, False at the first step, which is no move, and at all steps without tokens;
        ``nonfinite``, ``first_nonfinite``. An infinite norm is motion, NaN is none.

    Notes
    -----
    One pass over the norm; one byte a step in memory.
    """
    name, least = norm_name(norm), threshold_of(asked.attributes, threshold)
    chunk = functools.partial(_any_chunk, norm=norm, threshold=least)
    question = Reduction("any-motion", (name,), "step", chunk, _either, ANY_MOTION)
    answer = answers_to(asked, question, nonfinite.nonfinite(asked, norm=norm))
    return answer.assign_attrs(threshold=float(least), norm=norm)


def _any_chunk(block: Block, *, norm: str, threshold: np.float32) -> Partial:
    return {"any_motion": moved_in(block, norm=norm, threshold=threshold).any(axis=1)}


def _either(one: Partial, other: Partial) -> Partial:
    return {"any_motion": one["any_motion"] | other["any_motion"]}


def stillness(ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2") -> xr.Dataset:
    """The silences: maximal stretches of steps at which no token moved.

    Parameters
    ----------
    ds, threshold, norm
        As in `motion.moved`.

    Returns
    -------
    Dataset
        Lazy:

        run_count : int64 - how many silences there are; a run, here and below, is a silence
        longest, start : int64 (place) - lengths of the ten longest in descending order, the earlier first where equal,
            and the steps at which they start; -1 beyond the last
        final : bool (place) - whether that run lasts to the end
        final_vs_second : float64 - longest / second longest; NaN with fewer than two
        mean_length : float64 - NaN with none
        median_length : int64 - the ascending lengths at index run_count // 2; -1 with none
        any_motion : bool (step) - whether any token moved
        run_length : int64 (step) - the length of the run that starts at the step, else 0. All runs are
            ``answer.run_length[answer.run_length > 0]``
        nonfinite, first_nonfinite : int64

        The attribute ``memory`` is that of the optimizer's momentum in steps, by which `endstate.end_state` joins
        bursts of motion; it is not there where that of the Dataset cannot be.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `motion.moved`; a ValueError also where steps are missing.

    Notes
    -----
    One pass over the norm; 9 bytes a step in memory. An infinite norm is motion, NaN is none. The first step is no
    move and in no run; without any motion, and without tokens, all moves are one run.

    Examples
    --------
    >>> from analysis import simulate
    >>> found = stillness(simulate.with_moving_steps([1, 4, 5], total_steps=9))
    >>> int(found.run_count), found.longest.values[:3], found.start.values[:3], float(found.final_vs_second)
    (2, array([ 4,  2, -1]), array([ 6,  2, -1]), 2.0)
    """
    asked = trajectory_of(ds)
    source = any_motion(asked, threshold, norm)
    coords = {"place": np.arange(1, LONGEST + 1)}
    answer = conclude(source[["any_motion"]], _stillness, _BY_STEP | _PLACED | _SUMMARY, coords=coords)
    return answer.assign({name: source[name] for name in nonfinite.GIVES}).assign_attrs(_memory(asked.attributes))


def _memory(attributes: Mapping[str, Any]) -> dict[str, int]:
    decay = memory_decay(attributes)
    return {"memory": Rule.for_beta1(decay).memory} if 0 <= decay < 1 else {}


def runs(any_moved: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions where the runs of False start, and their lengths; both empty if there are none.

    Examples
    --------
    >>> runs(np.array([True, False, False, True, False]))
    (array([1, 4]), array([2, 1]))
    """
    edges = np.diff(np.concatenate([[True], any_moved, [True]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
    return starts, ends - starts


def _stillness(known: Mapping[str, Array], span: Span) -> Mapping[str, Any]:
    moving = known["any_motion"]
    starts, lengths = runs(moving[1:])
    starts = starts + 1  # the first state is no move
    order = np.argsort(-lengths, kind="stable")
    top = order[:LONGEST]
    by_step = np.zeros(len(moving), np.int64)
    by_step[starts] = lengths
    none = np.full(LONGEST, NEVER, np.int64)
    placed = {"longest": none.copy(), "start": none.copy(), "final": np.zeros(LONGEST, bool)}
    placed["longest"][: len(top)] = lengths[top]
    placed["start"][: len(top)] = starts[top] + span.first
    placed["final"][: len(top)] = starts[top] + lengths[top] == len(moving)
    return placed | {
        "any_motion": moving,
        "run_length": by_step,
        "run_count": len(lengths),
        "final_vs_second": lengths[order[0]] / lengths[order[1]] if len(lengths) > 1 else np.nan,
        "mean_length": lengths.mean() if len(lengths) else np.nan,
        "median_length": np.sort(lengths)[len(lengths) // 2] if len(lengths) else NEVER,
    }


def token_stillness(ds: xr.Dataset, *, threshold: float | None = None, norm: str = "l2") -> xr.Dataset:
    """The silences of each token by itself.

    Parameters
    ----------
    ds, threshold, norm
        As in `motion.moved`.

    Returns
    -------
    Dataset
        Lazy, by token:

        longest : int64 - the longest silence; 0 for a token that always moved
        current : int64 - steps since its last motion; all moves if it never moved
        run_count : int64 - how many silences it has, the current one too
        nonfinite, first_nonfinite : int64 - without dimension

        An infinite norm is motion, NaN is none. Of a single state all are 0.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `motion.moved`; a ValueError also where steps are missing.

    Notes
    -----
    One pass over the norm; 32 bytes a token and block in memory.

    Examples
    --------
    >>> from analysis import simulate
    >>> found = token_stillness(simulate.with_motion([[1, 0], [0, 0], [1, 0], [0, 0], [0, 0]]))
    >>> found.longest.values, found.current.values, found.run_count.values
    (array([2, 5]), array([2, 5]), array([2, 1]))
    """
    asked = trajectory_of(ds)
    name, least = norm_name(norm), threshold_of(asked.attributes, threshold)
    chunk = functools.partial(_token_chunk, norm=norm, threshold=least)
    question = Reduction("token-stillness", (name,), "token", chunk, _follow, _BY_TOKEN, finish=_token_finish)
    answer = answers_to(asked, question, nonfinite.nonfinite(asked, norm=norm))
    return answer.assign_attrs(threshold=float(least), norm=norm)


def _token_chunk(block: Block, *, norm: str, threshold: np.float32) -> Partial:
    """Per token: first and last motion, and between them the longest run and the number of runs."""
    moved = moved_in(block, norm=norm, threshold=threshold)
    token, row = np.nonzero(moved.T)
    tokens = moved.shape[1]
    found = {name: np.full(tokens, NEVER, np.int64) for name in ("first", "last")}
    found |= {name: np.zeros(tokens, np.int64) for name in ("longest", "run_count")}
    found["last"][token] = block.steps[row]  # in order of steps: the last one stays
    found["first"][token[::-1]] = block.steps[row[::-1]]
    gap = np.diff(row) - 1
    inside = (np.diff(token) == 0) & (gap > 0)
    np.maximum.at(found["longest"], token[1:][inside], gap[inside])
    np.add.at(found["run_count"], token[1:][inside], 1)
    return found


def _follow(one: Partial, other: Partial) -> Partial:
    """Combine two stretches of steps, the earlier first: a run may lie across the border between them."""
    both = (one["last"] != NEVER) & (other["first"] != NEVER)
    across = np.where(both, other["first"] - one["last"] - 1, 0)
    return {
        "first": np.where(one["first"] != NEVER, one["first"], other["first"]),
        "last": np.where(other["last"] != NEVER, other["last"], one["last"]),
        "longest": np.maximum(np.maximum(one["longest"], other["longest"]), across),
        "run_count": one["run_count"] + other["run_count"] + (across > 0),
    }


def _token_finish(partial: Partial, span: Span) -> Partial:
    ever = partial["last"] != NEVER
    before = np.where(ever, partial["first"] - span.first - 1, 0)
    current = np.where(ever, span.last - partial["last"], span.moves)
    return {
        "longest": np.maximum(np.maximum(partial["longest"], before), current),
        "current": current,
        "run_count": partial["run_count"] + (before > 0) + (current > 0),
    }

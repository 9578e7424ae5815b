"""Moves of whole blocks of states at once: displacement, norms, last motion; computed only where something moved."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import lattice
from analysis.lattice import Array, Floats, Norms
from analysis.thresholds import SURE_THRESHOLD

Tokens = NDArray[np.intp]
LOOK_BYTES = 4 << 20
"""Bytes of states that are looked through at once for what moved: those of a chunk of the store."""


class Moves(NamedTuple):
    """Displacements of consecutive states and their norms, float32, in cells."""

    delta: Floats
    l1: Floats
    l2: Floats
    linf: Floats


def moves(previous: Array, rows: Array) -> Moves:
    """Displacement and norms of a block of consecutive states, computed only where something moved.

    Equal to the bit to `lattice.displacement` of each state from the one before it, and to `lattice.norms` of that:
    values do not depend on how a trajectory is cut into blocks and tiles, nor on the memory layout.

    Parameters
    ----------
    previous : array, shape (token, hidden)
        The state before the block. uint16 (bits of bfloat16), float32 or float16.
    rows : array of the same dtype, shape (step, token, hidden)
        The block's states. A memory order of (token, hidden, step), step fastest, is the quickest.

    Returns
    -------
    Moves
        ``delta`` (step, token, hidden), in memory (token, hidden, step) as the store encodes it, or, if nothing
        moved, a single zero broadcast to that shape (read-only); and ``l1``, ``l2``,
        ``linf`` (step, token), step fastest too.

    Notes
    -----
    Up to 12 MB of scratch memory beside the answer. Safe to call from any thread.

    Examples
    --------
    >>> states = np.array([[[0x3F80, 0x3F80]], [[0x3F80, 0x3F80]], [[0x3F83, 0x3F7C]]], np.uint16)
    >>> found = moves(states[0], states[1:])
    >>> found.delta[:, 0]
    array([[ 0.,  0.],
           [ 3., -2.]], dtype=float32)
    >>> found.l1[:, 0]
    array([0., 5.], dtype=float32)
    """
    norms, delta = _moves(previous, rows, keeps_delta=True)
    if delta is None:
        return Moves(np.broadcast_to(np.float32(0), rows.shape), *norms)
    return Moves(delta.transpose(2, 0, 1), *norms)


def norms_of_moves(previous: Array, rows: Array) -> Norms:
    """The norms alone, as `moves` has them, without ever holding all displacements.

    Examples
    --------
    >>> states = np.array([[[0x3F80, 0x3F80]], [[0x3F83, 0x3F7C]]], np.uint16)
    >>> norms_of_moves(states[0], states[1:]).l1
    array([[5.]], dtype=float32)
    """
    return _moves(previous, rows, keeps_delta=False)[0]


def last_true(condition: NDArray[np.bool_], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per column the last step at which a condition (step, token) holds, -1 for none.

    Examples
    --------
    >>> last_true(np.array([[True, False], [True, False]]), np.array([7, 8]))
    array([ 8, -1])
    """
    if not len(steps):
        return np.full(condition.shape[1:], -1, np.int64)
    back = condition[::-1].argmax(axis=0)
    return np.where(condition.any(axis=0), steps[len(steps) - 1 - back], -1)


def _moves(previous: Array, rows: Array, *, keeps_delta: bool) -> tuple[Norms, Floats | None]:
    """Norms (step, token), and displacements (token, hidden, step) where they are kept and any row changed."""
    lattice.lattice_of(rows.dtype)
    if previous.dtype != rows.dtype or previous.shape != rows.shape[1:]:
        raise ValueError(
            f"previous state: expected {rows.dtype} of shape {rows.shape[1:]} to go before rows of shape {rows.shape}, "
            f"found {previous.dtype} of shape {previous.shape}"
        )
    lattice.require_subnormals()
    steps, tokens, hidden = rows.shape
    norms = Norms(*(np.zeros((tokens, steps), np.float32) for _ in lattice.NORMS))
    delta: Floats | None = None
    width = max(1, LOOK_BYTES // max(1, hidden * steps * rows.itemsize))
    for start in range(0, tokens, width):
        strip = slice(start, start + width)
        before, states = previous[strip], np.ascontiguousarray(rows[:, strip].transpose(1, 2, 0))
        changed, is_odd = _changed(before, states), _any(_is_nonfinite(before))
        moving = np.flatnonzero(_any(changed) | is_odd)
        if not moving.size:
            continue
        if keeps_delta and delta is None:
            delta = np.zeros((tokens, hidden, steps), np.float32)
        into = _Answer(None if delta is None else delta[strip], Norms(*(norm[strip] for norm in norms)))
        alive = np.any(changed[_as_slice(moving)], axis=1)
        is_dense = is_odd[moving] | (3 * np.count_nonzero(alive, axis=1) > steps)
        token, step = np.nonzero(alive & ~is_dense[:, None])
        became_odd = _fill_some(before, states, moving[token], step, into)
        _fill_all(before, states, np.union1d(moving[is_dense], became_odd), into)
    return Norms(*(norm.T for norm in norms)), delta


class _Answer(NamedTuple):
    """What is filled in, with zeros where nothing moved: of some tokens, (token, hidden, step) and (token, step)."""

    delta: Floats | None
    norms: Norms


def _changed(previous: Array, states: Array) -> NDArray[np.bool_]:
    """Whether each weight has other bits than a step before; `states` is (token, hidden, step), in memory as well."""
    patterns, changed = lattice.patterns_of(states), np.empty(states.shape, bool)
    if states.size:
        flat = patterns.reshape(-1)
        np.not_equal(flat[1:], flat[:-1], out=changed.reshape(-1)[1:])  # in one pass; wrong where a row begins
        np.not_equal(patterns[..., 0], lattice.patterns_of(previous), out=changed[..., 0])
    return changed


def _fill_all(previous: Array, states: Array, tokens: Tokens, into: _Answer) -> None:
    """Compute all moves of these tokens."""
    _, hidden, steps = states.shape
    width = max(1, lattice.WORK_ELEMENTS // max(1, hidden * (steps + 1)))
    for first in range(0, len(tokens), width):
        some = _as_slice(tokens[first : first + width])
        # Hidden first: then every hidden dimension is one contiguous vector over tokens and steps.
        planes = np.empty((hidden, len(tokens[first : first + width]), 1 + steps), states.dtype)
        planes[..., 0], planes[..., 1:] = previous[some].T, states[some].swapaxes(0, 1)
        wide = lattice.as_float32(planes)
        dense = lattice.displacement_of_floats(wide[..., :-1], wide[..., 1:], lattice.lattice_of(states.dtype))
        if into.delta is not None:
            into.delta[some] = dense.swapaxes(0, 1)
        for whole, part in zip(into.norms, lattice.norms_over_first(dense), strict=True):
            whole[some] = part


def _fill_some(previous: Array, states: Array, tokens: Tokens, steps: Tokens, into: _Answer) -> Tokens:
    """Compute these moves alone, and put them in their places.

    Returns the tokens in which a weight became NaN or infinite: where that stays, d is NaN, not 0, at each later step.
    """
    odd = []
    flat, most = states.reshape(-1), max(1, lattice.WORK_ELEMENTS // max(1, states.shape[1]))
    for first in range(0, len(tokens), most):
        token, step = tokens[first : first + most], steps[first : first + most]
        places = _places(token, step, states.shape)
        before, after = flat[places - 1], flat[places]
        before[:, step == 0] = previous[token[step == 0]].T
        wide = lattice.as_float32(before), lattice.as_float32(after)
        sparse = lattice.displacement_of_floats(*wide, lattice.lattice_of(states.dtype))
        if into.delta is not None:
            into.delta.reshape(-1)[places] = sparse
        norms = lattice.norms_over_first(sparse)
        for whole, part in zip(into.norms, norms, strict=True):
            whole[token, step] = part
        odd.append(token[~np.isfinite(norms.l1)])
    return np.concatenate(odd) if odd else np.empty(0, np.intp)


def _places(token: Tokens, step: Tokens, shape: tuple[int, ...]) -> Tokens:
    """Where moves lie in an array (token, hidden, step), counted through: (hidden, move).

    One index for all hidden dimensions is quicker than two, and than a call for each dimension.
    """
    _, hidden, steps = shape
    return (token * (hidden * steps) + step) + steps * np.arange(hidden)[:, None]


def _is_nonfinite(weights: Array) -> NDArray[np.bool_]:
    mask = lattice.lattice_of(weights.dtype).exponent_mask
    answer: NDArray[np.bool_] = (lattice.patterns_of(weights) & mask) == mask
    return answer


def _any(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether anything of a token is marked."""
    answer: NDArray[np.bool_] = np.any(marks.reshape(len(marks), math.prod(marks.shape[1:])), axis=1)
    return answer


def _as_slice(tokens: Tokens) -> Tokens | slice:
    """Ascending tokens as a slice where they follow each other: what it takes is no copy."""
    first, last = int(tokens[0]), int(tokens[-1])
    return slice(first, last + 1) if last - first + 1 == len(tokens) else tokens


def sees_every_change(threshold: float) -> bool:
    """Whether any change of any weight counts as motion by this threshold, whatever the norm.

    Examples
    --------
    >>> sees_every_change(0.5), sees_every_change(0.8)
    (True, False)
    """
    with np.errstate(over="ignore"):
        return bool(np.float32(threshold) <= SURE_THRESHOLD)

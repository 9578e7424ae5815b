"""Moves of whole blocks of states at once: displacement, norms, last motion; computed only where something moved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import lattice
from analysis.lattice import Array, Floats, Norms
from analysis.thresholds import SURE_THRESHOLD


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
    Some 4 MB of scratch memory beside the answer. Safe to call from any thread.

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
    steps, tokens, hidden = rows.shape
    delta = np.zeros((tokens, hidden, steps), np.float32)  # memory that is never touched costs nothing
    norms, is_touched = _fill(previous, rows, delta)
    if not is_touched:
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
    return _fill(previous, rows, None)[0]


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


def _fill(previous: Array, rows: Array, delta: Floats | None) -> tuple[Norms, bool]:
    """Norms (step, token), and whether any row changed; displacements are added to the zeros of `delta`, if given."""
    lattice.lattice_of(rows.dtype)
    if previous.dtype != rows.dtype or previous.shape != rows.shape[1:]:
        raise ValueError(
            f"previous state: expected {rows.dtype} of shape {rows.shape[1:]} to go before rows of shape {rows.shape}, "
            f"found {previous.dtype} of shape {previous.shape}"
        )
    lattice.require_subnormals()
    steps, tokens, hidden = rows.shape
    answer = Norms(*(np.empty((tokens, steps), np.float32) for _ in lattice.NORMS))
    width = max(1, lattice.WORK_ELEMENTS // max(1, hidden * (steps + 1)))
    is_touched = False
    for start in range(0, tokens, width):
        strip = slice(start, start + width)
        # Hidden first: then every hidden dimension is one contiguous vector over tokens and steps.
        states = np.empty((hidden, min(width, tokens - start), steps + 1), rows.dtype)
        states[..., 0] = previous[strip].T
        states[..., 1:] = rows[:, strip].transpose(2, 1, 0)
        part = Norms(*(norm[strip] for norm in answer))
        is_touched |= _strip(states, None if delta is None else delta[strip], part)
    return Norms(*(norm.T for norm in answer)), is_touched


def _strip(states: Array, delta: Floats | None, answer: Norms) -> bool:
    """Fill in the answers for some tokens; `states` is (hidden, token, 1 + step), the rest (token, [hidden,] step).

    False when nothing changed, and `delta` was left as it was.
    """
    patterns = lattice.patterns_of(states)
    alive = (patterns[..., 1:] != patterns[..., :-1]).any(axis=0)
    if 3 * np.count_nonzero(alive) > alive.size:
        wide = lattice.as_float32(states)
        dense = lattice.displacement_of_floats(wide[..., :-1], wide[..., 1:], lattice.lattice_of(states.dtype))
        if delta is not None:
            delta[...] = dense.swapaxes(0, 1)
        for whole, part in zip(answer, lattice.norms_over_first(dense), strict=True):
            whole[...] = part
        return True
    for norm in answer:
        norm[...] = 0
    _mark_nonfinite(alive, patterns, lattice.lattice_of(states.dtype).exponent_mask)
    token, step = np.nonzero(alive)
    if token.size:
        _scatter_moves(states, token, step, delta, answer)
    return bool(token.size)


def _scatter_moves(
    states: Array, token: NDArray[np.intp], step: NDArray[np.intp], delta: Floats | None, answer: Norms
) -> None:
    """Compute the named (token, step) moves alone and put them in their places."""
    hidden, steps = len(states), states.shape[2] - 1
    planes, source = states.reshape(hidden, -1), token * (steps + 1) + step
    before, after = (lattice.as_float32(planes.take(source + later, axis=1)) for later in (0, 1))
    sparse = lattice.displacement_of_floats(before, after, lattice.lattice_of(states.dtype))
    if delta is not None:
        # One flat index for all hidden dimensions: quicker than two indices, and than a call for each dimension.
        target = (token * (hidden * steps) + step) + np.arange(0, hidden * steps, steps)[:, None]
        delta.reshape(-1)[target] = sparse
    for whole, part in zip(answer, lattice.norms_over_first(sparse), strict=True):
        whole[token, step] = part


def _mark_nonfinite(alive: NDArray[np.bool_], patterns: Array, mask: int) -> None:
    """Mark all moves of tokens that have a weight that is NaN or infinite: where that stays, d is NaN, not 0.

    It must have been there from the start or have come with a move, so that looking at the first state and at the
    rows that changed finds every such token.
    """
    nonfinite = ((patterns[..., 0] & mask) == mask).any(axis=0)
    token, step = np.nonzero(alive)
    if token.size:
        arrived = patterns.reshape(len(patterns), -1).take(token * patterns.shape[2] + step + 1, axis=1)
        nonfinite[token[((arrived & mask) == mask).any(axis=0)]] = True
    alive[nonfinite] = True


def sees_every_change(threshold: float) -> bool:
    """Whether any change of any weight counts as motion by this threshold, whatever the norm.

    Examples
    --------
    >>> sees_every_change(0.5), sees_every_change(0.8)
    (True, False)
    """
    with np.errstate(over="ignore"):
        return bool(np.float32(threshold) <= SURE_THRESHOLD)

"""Small trajectories made so that their answers are known: for docs, tests and benchmarks.

All weights stay between 1 and 2, where a lattice cell is 2^-7, so a displacement of k cells is k steps of the bit
pattern. The displacements are chosen, the weights follow from them, and nothing here asks the lattice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import xarray as xr

MIDDLE = 0x3FC0
"""The bits of 1.5, in the middle of the 128 numbers of its binade."""
REACH = 63
"""The furthest move, in cells, that never leaves the binade."""
STEP = {"long_name": "optimizer step"}
"""Attributes of the step labels, as a run has some."""


class Options(TypedDict, total=False):
    """Keyword arguments that every function here passes on to `trajectory`."""

    tokens: Sequence[int] | None
    motion_threshold: float
    chunks: Mapping[str, int] | None


def trajectory(
    cells: npt.ArrayLike,
    *,
    tokens: Sequence[int] | None = None,
    motion_threshold: float = 0.1,
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """A trajectory with these displacements.

    Parameters
    ----------
    cells : array of int, (move, token, hidden)
        How far each weight moves at steps 1..T, in lattice cells, 0 to 63. Signs are chosen so that weights stay in
        their binade: up from the middle or below, else down.
    tokens : sequence of int, optional
        Token ids; 0, 1, ... if not given.
    motion_threshold : float
        For the attribute, and for last_motion_step.
    chunks : mapping, optional
        Chunk sizes by dimension; 128 steps x 256 tokens if not given.

    Returns
    -------
    xarray.Dataset
        Lazy, as `store.open_trajectory` gives it: W, delta_W_prime, displacement_l1, displacement_l2,
        displacement_linf, centroid, loss, last_motion_step, dead_mask on step 0..T.

    Raises
    ------
    ValueError
        Not three dimensions, or a displacement outside 0..63.

    Examples
    --------
    >>> ds = trajectory([[[3, 4]], [[0, 0]], [[0, 1]]])
    >>> ds.displacement_l2.values.ravel()
    array([nan,  5.,  0.,  1.], dtype=float32)
    >>> ds.last_motion_step.values
    array([3], dtype=int32)
    """
    size = np.asarray(cells, dtype=np.int64)
    if size.ndim != 3 or (size < 0).any() or (size > REACH).any():
        raise ValueError(f"cells must be (move, token, hidden) integers from 0 to {REACH}, not of shape {size.shape}")
    bits, moves = _walk(size)
    norms = _norms(moves)
    ids = np.arange(size.shape[1]) if tokens is None else np.asarray(tokens)
    mask = np.zeros(int(ids.max(initial=-1)) + 1, bool)
    mask[ids] = True
    ds = xr.Dataset(
        {
            "W": (("step", "token", "hidden"), bits, {"bits_of": "bfloat16", "units": "1"}),
            "delta_W_prime": (("step", "token", "hidden"), moves, {"units": "cell"}),
            **{f"displacement_{name}": (("step", "token"), rows, {"units": "cell"}) for name, rows in norms.items()},
            "centroid": (("step", "hidden"), _floats(bits).mean(axis=1, dtype=np.float64).astype(np.float32)),
            "loss": (("step",), np.append(np.nan, 1 + 4 * 0.9 ** np.arange(len(size))).astype(np.float32)),
            "last_motion_step": (("token",), _last(norms["l2"] >= np.float32(motion_threshold))),
            "dead_mask": (("vocabulary",), mask),
        },
        coords={"step": ("step", np.arange(len(bits), dtype=np.int64), STEP), "token": ids.astype(np.int64)},
        attrs={"motion_threshold": motion_threshold, "beta1": 0.9, "committed_steps": len(size), "completed": True}
        | {"hidden": size.shape[2]},
    )
    return ds.chunk(dict(chunks or {"step": 128, "token": 256}))


def with_motion(moved: npt.ArrayLike, *, hidden: int = 4, cells: int = 1, **options: Unpack[Options]) -> xr.Dataset:
    """Tokens that move `cells` cells, in one hidden dimension, exactly where `moved` (move, token) is true.

    Examples
    --------
    >>> with_motion([[True, False], [False, False], [True, False]]).last_motion_step.values
    array([ 3, -1], dtype=int32)
    """
    moved = np.asarray(moved, dtype=bool)
    size = np.zeros((*moved.shape, hidden), np.int64)
    size[..., 0] = cells * moved
    return trajectory(size, **options)


def with_moving_steps(
    steps: Sequence[int], *, total_steps: int, size: int = 3, **options: Unpack[Options]
) -> xr.Dataset:
    """`size` tokens of which one moves at each of these steps, in turn; at all others nothing does.

    A ValueError says if a step is not in 1..total_steps.

    Examples
    --------
    >>> ds = with_moving_steps([1, 2, 10], total_steps=12)  # stillness runs: steps 3-9 and 11-12
    >>> ds.last_motion_step.values
    array([ 1,  2, 10], dtype=int32)
    """
    if any(not 1 <= step <= total_steps for step in steps):
        raise ValueError(f"moving steps must lie in 1..{total_steps}, not {list(steps)}")
    moved = np.zeros((total_steps, size), bool)
    for turn, step in enumerate(steps):
        moved[step - 1, turn % size] = True
    return with_motion(moved, **options)


def with_pushes(
    pushes: npt.ArrayLike, *, learning_rate: float | Sequence[float] = 1e-3, **options: Unpack[Options]
) -> xr.Dataset:
    """Tokens with these pushes (step, token) at steps 1..T, which move where theirs is above 1, as AdamW does it.

    Examples
    --------
    >>> ds = with_pushes([[0.5, 0.25], [1.5, 0.25]])
    >>> ds.last_motion_step.values, ds.optimizer_step.values
    (array([ 2, -1], dtype=int32), array([nan,  1.,  2.]))
    """
    size = np.asarray(pushes, np.float32)
    ds = with_motion(size > 1, **options)
    stored = np.full((len(size) + 1, size.shape[1]), 0x7FC0, np.uint16)
    stored[1:] = (np.minimum(size.view(np.uint32), np.uint32(0x7FC00000)) + np.uint32(0xFFFF)) >> np.uint32(16)
    update = {"variant": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "exact": True}
    rates = np.append(np.nan, np.broadcast_to(np.asarray(learning_rate, np.float64), len(size)))
    return ds.assign(
        push=(("step", "token"), stored, {"bits_of": "bfloat16"}),
        learning_rate=("step", rates),
        optimizer_step=("step", np.append(np.nan, np.arange(1.0, len(size) + 1))),
    ).assign_attrs(optimizer_update=update)


def with_last_motion(last: Sequence[int], *, total_steps: int, **options: Unpack[Options]) -> xr.Dataset:
    """Tokens that move at every step up to a last one; -1 never moves.

    Examples
    --------
    >>> with_last_motion([7, -1, 3], total_steps=9).last_motion_step.values
    array([ 7, -1,  3], dtype=int32)
    """
    labels = np.arange(1, total_steps + 1)
    return with_motion(labels[:, None] <= np.asarray(last)[None, :], **options)


def with_phases(
    exits: Sequence[tuple[int, int, int]], *, total_steps: int, hidden: int = 4, **options: Unpack[Options]
) -> xr.Dataset:
    """Tokens that leave supernova, cooling and stumbling at chosen steps.

    Parameters
    ----------
    exits : sequence of (int, int, int)
        For each token the last step of each phase, none later than the next phase's.
    total_steps : int
        T.
    hidden : int
        D, at least 4, so that two cells are not yet a supernova.
    **options
        As for `trajectory`.

    Returns
    -------
    xarray.Dataset
        In supernova a token moves more than sqrt(D) cells a step, in cooling 2, in stumbling 1.

    Examples
    --------
    >>> ds = with_phases([(2, 4, 5)], total_steps=6)
    >>> ds.displacement_linf.values.ravel()
    array([nan,  3.,  3.,  2.,  2.,  1.,  0.], dtype=float32)
    """
    ends = np.asarray(exits)
    if hidden < 4 or ends.ndim != 2 or (np.diff(ends, axis=1) < 0).any():
        raise ValueError("need hidden >= 4 and three exits a token, none later than the next")
    step = np.arange(1, total_steps + 1)[:, None]
    size = np.zeros((total_steps, len(ends), hidden), np.int64)
    far = math.isqrt(hidden) + 1
    size[..., 0] = np.select([step <= ends[:, 0], step <= ends[:, 1], step <= ends[:, 2]], [far, 2, 1], 0)
    return trajectory(size, **options)


def _walk(size: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32]]:
    """Bits of all states and the signed moves, row 0 of the moves NaN."""
    offset = np.zeros((len(size) + 1, *size.shape[1:]), np.int64)
    for step, far in enumerate(size):
        offset[step + 1] = offset[step] + np.where(offset[step] > 0, -far, far)
    moves = np.full(offset.shape, np.nan, np.float32)
    moves[1:] = np.diff(offset, axis=0)
    return (MIDDLE + offset).astype(np.uint16), moves


def _norms(moves: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    size = np.abs(moves.astype(np.float64))
    rows = {"l1": size.sum(-1), "l2": np.sqrt((size**2).sum(-1)), "linf": size.max(-1)}
    return {name: row.astype(np.float32) for name, row in rows.items()}


def _floats(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _last(moved: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    label = np.arange(len(moved), dtype=np.int32)[:, None]
    last: npt.NDArray[np.int32] = np.where(moved, label, np.int32(-1)).max(axis=0, initial=-1)
    return last

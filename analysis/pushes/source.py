"""The push of a trajectory as it was recorded, or computed of stored moments; and what else the optimizer told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from analysis import lattice
from analysis.engine import inputs
from analysis.engine import outputs as graphs
from analysis.engine.question import Answer, Block, Partial, Reduction
from analysis.engine.reduction import answers_to
from analysis.engine.selections import refuse_gaps
from analysis.engine.trajectory import Trajectory
from analysis.lattice import Array
from analysis.optimizers.push_arithmetic import bits_rounded_up
from analysis.optimizers.update_rules import (
    GRADIENT_IS_DIRECTION,
    MADE_OF,
    NO_PUSH,
    UPDATE,
    VARIANTS,
    Update,
    smallest_decay,
    update_of,
)

NAME, RATE, COUNT = "push", "learning_rate", "optimizer_step"
MOMENTS = ("adam_m", "adam_v")
"""Adam's."""
STRONGEST = {"strongest": Answer(("step",), "float32", "largest push of all tokens", "half cell")}


def strongest(asked: Trajectory) -> xr.Dataset:
    """The largest push of all tokens at each step, with the learning rate and the optimizer's count, lazily.

    `asked` is one of `with_push`.
    """
    question = Reduction("strongest-push", (NAME,), "step", _strongest, larger, STRONGEST)
    answer = answers_to(asked, question)
    beside = {name: ("step", asked.variables[name].data) for name in (RATE, COUNT)}
    return answer.assign(beside)


def memory_of(attributes: Mapping[str, Any]) -> int:
    """The memory of the momentum in steps: round(1 / (1 - beta1)), for SGD of its momentum."""
    update = update_of(attributes)
    is_adam = VARIANTS[update["variant"]].adam if update.get("variant") in VARIANTS else True
    decay = float(update.get("beta1", attributes.get("beta1", 0.9)) if is_adam else update.get("momentum", 0.0))
    return max(1, round(1 / (1 - decay)))


def rates_below(asked: Trajectory) -> float:
    """Below which learning rates a push tells what moves: from there on decoupled weight decay alone can."""
    known = update_of(asked.attributes)
    decay = float(known.get("weight_decay", 0.0))
    if not decay or known.get("fused") or not VARIANTS[known["variant"]].decays_weights:
        return math.inf
    W = asked.variables.get("W")
    is_short = W is None or W.dtype == np.float16  # where it is not known, the lower bound
    return smallest_decay(lattice.LATTICES[np.dtype(np.float16 if is_short else np.uint16)].mantissa_bits) / decay


def why_unknown(asked: Trajectory) -> str | None:
    """Why no push is known of a run; None where it is."""
    if not _has_every_step(asked, NAME, ("step", "token")):
        return _why_not_computable(asked)
    here = asked.sizes.get("hidden")
    if here is not None and asked.attributes.get("hidden", here) != here:
        return f"the push is that of {asked.attributes['hidden']} hidden dimensions, here are {here}"
    return None


def why_not_judged(asked: Trajectory) -> str | None:
    """Why no verdict can rest on the push of a run; None where one can."""
    if reason := why_unknown(asked):
        return reason
    if not asked.has_recorded_labels:
        return (
            "it is that of single steps, and the labels of steps have lost their attributes or were computed, so that "
            "steps may be missing between two states"
        )
    update = update_of(asked.attributes)
    if not update:
        return (
            f"the attribute {UPDATE} is not there, which tells of what optimizer the push is (xarray drops attributes "
            "where it computes; take them back by ds.assign_attrs(opened.attrs))"
        )
    if (variant := update.get("variant")) not in VARIANTS:
        return f"its attribute {UPDATE} names the variant {variant!r}; known are {', '.join(VARIANTS)}"
    needed = {"beta1", "beta2"} if VARIANTS[variant].adam else set()
    missing = sorted(needed - update.keys())
    return f"its attribute {UPDATE} lacks {', '.join(missing)}" if missing else None


def with_push(asked: Trajectory) -> Trajectory:
    """The record with push as float32 (step, token), and learning_rate and optimizer_step, all in dask blocks.

    Raises
    ------
    ValueError
        Where no push is known, with the reason.
    """
    if reason := why_unknown(asked):
        raise ValueError(f"no push is known of this run: {reason}")
    refuse_gaps(asked.steps)
    if _has_every_step(asked, NAME, ("step", "token")):
        stored = inputs.in_blocks(asked.variables[NAME])
        made = stored.copy(data=stored.data.map_blocks(lattice.as_float32, dtype=np.float32)).assign_attrs(exact=True)
        for told_of_bits in ("bits_of", "comment", "long_name"):
            made.attrs.pop(told_of_bits, None)
    else:
        made = _computed(asked)
    update = update_of(asked.attributes)
    exact = bool(update.get("exact", False)) and bool(made.attrs["exact"])
    made = made.assign_attrs(exact=exact, memory=memory_of(asked.attributes))
    numbers = {name: inputs.in_blocks(numbers_of(asked, name)) for name in (RATE, COUNT)}
    return replace(asked, variables={**asked.variables, NAME: made, **numbers})


def _has_every_step(asked: Trajectory, name: str, dims: tuple[str, ...]) -> bool:
    return name in asked.variables and set(asked.variables[name].dims) == set(dims)


def numbers_of(asked: Trajectory, name: str) -> xr.DataArray:
    """What was recorded once a step, as float64; NaN where it was not."""
    if _has_every_step(asked, name, ("step",)):
        return asked.variables[name].astype(np.float64)
    return xr.DataArray(np.full(len(asked.steps), np.nan), dims="step")


def _why_not_computable(asked: Trajectory) -> str | None:
    """Why a push that was not recorded cannot be computed either."""
    if reason := asked.attributes.get(NO_PUSH):
        return str(reason)
    update = update_of(asked.attributes)
    variant = update.get("variant")
    if update.get(GRADIENT_IS_DIRECTION):
        return "the optimizer writes the direction of its step into the gradient (SGD with nesterov and foreach does)"
    moments = MADE_OF.get(str(variant), MADE_OF["adamw"])
    whole = ("step", "token", "hidden")
    shapes = {"W": whole, **dict.fromkeys(moments.values(), whole), RATE: ("step",)}
    missing = [name for name, dims in shapes.items() if not _has_every_step(asked, name, dims)]
    if missing:
        return f"it was not recorded, nor, at every step, {', '.join(missing)}, of which it could be computed"
    if variant not in MADE_OF:
        return f"its attribute {UPDATE} names the variant {variant!r}; known are {', '.join(MADE_OF)}"
    dtype = asked.variables["W"].dtype
    if dtype not in (np.uint16, np.float16):
        return "its weights are not of 16 bits"
    others = [name for name in moments.values() if asked.variables[name].dtype != dtype]
    return f"{', '.join(others)} has another dtype than W" if others else None


def _computed(asked: Trajectory) -> xr.DataArray:
    """The push from W and the moments, a task a block: one row of W crosses a border."""
    update = update_of(asked.attributes)
    moments = MADE_OF[str(update["variant"])]
    rows = [inputs.recorded_weights(asked), *(inputs.in_blocks(asked.variables[name]) for name in moments.values())]
    has_count = _has_every_step(asked, COUNT, ("step",))
    counts = numbers_of(asked, COUNT) if has_count else xr.DataArray(asked.steps.astype(np.float64), dims="step")
    beside = [inputs.in_blocks(array) for array in (numbers_of(asked, RATE), counts)]
    whole = [array.data for array in xr.unify_chunks(*rows, *beside)]
    W, *arrays, rate, count = whole
    before = graphs.last_rows(W)
    known = {each.name for each in fields(Update)}
    numbers = tuple(each for each in sorted(update.items()) if each[0] in known)
    is_told = has_count or not VARIANTS[str(update["variant"])].adam
    is_exact = is_told and bool(update.get("exact", False))
    task = _PushTask(numbers, tuple(moments), bool(update.get("lr_is_float32")), is_exact)
    parts = [*whole, before]
    name = f"push-{tokenize(task, [part.name for part in parts])}"
    blocks = [(i, j) for i in range(W.numblocks[0]) for j in range(W.numblocks[1])]
    tasks = {
        (name, i, j): (
            task, (rate.name, i), (count.name, i), *((part.name, i, j, 0) for part in (W, *arrays)),
            *([(before.name, i - 1, j, 0)] if i else []),
        )
        for i, j in blocks
    }  # fmt: skip
    made = graphs.arrays_of(name, tasks, [graphs.Output(NAME, W.chunks[:2], "float32", kept=(0, 1))], parts)[NAME]
    return xr.DataArray(made, dims=("step", "token"), attrs={"exact": is_told})


@dataclass(frozen=True, slots=True)
class _PushTask:
    """The push of each row of a block; NaN at the first state, and where a step's numbers tell none.

    So it is where the update that they tell of is not the one that W shows, and the push is called exact: nobody has
    looked whether the optimizer's numbers stayed what they were when recording began.
    """

    update: tuple[tuple[str, Any], ...]
    arguments: tuple[str, ...]
    rate_is_float32: bool
    is_exact: bool

    def __call__(self, rates: Array, counts: Array, W: Array, *rows: Array) -> dict[str, Array]:
        moments, border = dict(zip(self.arguments, rows, strict=False)), rows[len(self.arguments) :]
        made = np.full(W.shape[:2], np.nan, np.float32)
        previous = np.concatenate([border[0], W[:-1]]) if border else W[:-1]
        for row in range(len(W) - len(previous), len(W)):
            rate = np.float32(rates[row]) if self.rate_is_float32 else float(rates[row])
            numbers = self._numbers(rate, float(counts[row]))
            if numbers is not None and numbers.refusal(lattice.lattice_of(W.dtype).mantissa_bits) is None:
                here = {name: array[row] for name, array in moments.items()}
                made[row] = self._pushes(previous[row - len(W)], W[row], here, numbers)
        return {NAME: made}

    def _pushes(self, before: Array, after: Array, moments: Mapping[str, Array], numbers: Update) -> Array:
        """Of each row in a step; of rows that other weights came out of than these numbers tell, NaN."""
        sums = lattice.proposed(before, **moments, **_as_mapping(numbers))
        with np.errstate(all="ignore"):
            told = np.max(lattice.half_cells(before, sums), axis=-1, initial=0)
        found = lattice.bits_to_float32(bits_rounded_up(told))
        if self.is_exact:
            new = lattice.as_float32(lattice.rounded(sums, before.dtype))
            is_new = (new == lattice.as_float32(after)) | np.isnan(new)
            found[~is_new.all(axis=-1)] = np.nan
        return found

    def _numbers(self, rate: float | np.float32, count: float) -> Update | None:
        """The numbers of a step; None where they are not known."""
        known = dict(self.update)
        is_adam = VARIANTS[known["variant"]].adam
        if np.isnan(rate) or (is_adam and not count >= 1):
            return None
        return Update(**known, lr=rate, optimizer_step=count if is_adam else None)


def _as_mapping(numbers: Update) -> dict[str, Any]:
    return {each.name: getattr(numbers, each.name) for each in fields(numbers)}


def _strongest(block: Block) -> Partial:
    found = block[NAME].max(axis=1, initial=0 if len(block.tokens) else np.nan)
    found[~block.is_move] = np.nan
    return {"strongest": found}


def larger(one: Partial, other: Partial) -> Partial:
    """The larger of each number of two partials; NaN where one is."""
    return {name: np.maximum(one[name], other[name]) for name in one}

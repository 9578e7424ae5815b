"""A file that is to be imported: checked as far as it can be before a byte is written, and what the run will be."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import lattice
from crucible.channels import table
from crucible.channels.table import ADAM_V, CENTROID, DEAD_MASK, DELTA, KEPT, LAST_MOTION, LOSS, NORMS, W, over_gaps
from crucible.channels.vocabulary import describe
from crucible.interchange.file_table import BESIDE, beside_channel
from crucible.interchange.matching import Match, refuse_unknown, view
from crucible.interchange.notebook import (
    DEAD_INDICES,
    LIVE_INDICES,
    MASKS,
    TOKEN,
    check_arrays,
    read_mask,
    read_steps,
    read_tokens,
)
from crucible.interchange.schedules import Schedule, read_schedules, without_arrays, without_rows
from crucible.interchange.sources.named import NamedArrays
from crucible.interchange.sources.source import Source
from crucible.interchange.words import (
    beta1_of,
    doubt_beta1,
    parameters,
    read_words,
    steps_of_words,
    threshold_of,
)
from store.errors import BudgetError, TensorFileError
from store.format.chunking import project
from store.format.schema import Channel
from store.format.step_labels import StepLabels

Array = NDArray[Any]
MEMORY_CAP = 1 << 30
WEIGHT_DTYPE = {"U16": "bfloat16", "BF16": "bfloat16", "F32": "float32", "F16": "float16"}
_WEIGHTS = (1e-10, 1e10)
"""Sizes between which the median of weights lies as a rule when a training begins."""
_LARGE_STATE, _LOOKED_AT = 64 << 20, 8 << 20
"""Bytes of weights that are looked at before the import begins."""


@dataclass(frozen=True)
class ImportPlan:
    """A checked file: what it holds and what the run will be."""

    source: NamedArrays
    found: Match
    sizes: dict[str, int]
    left_out: dict[str, str]
    assumed: list[str]
    steps: StepLabels
    schedules: dict[str, Schedule]
    tokens: NDArray[np.int64]
    statics: dict[str, Array]
    static_channels: tuple[Channel, ...]
    beside: tuple[Channel, ...]
    lattice: str
    words: dict[str, Any]
    parameters: dict[str, Any]
    threshold: float

    @property
    def first_step(self) -> int:
        """The label of the first row."""
        return self.steps.label(0)

    @property
    def last_step(self) -> int:
        """The label of the last row."""
        return self.steps.label(self.sizes["step"] - 1)

    @property
    def resolution_steps(self) -> int:
        """How many steps recorded states are apart at most: 1 where none is missing."""
        return self.steps.furthest_apart(self.sizes["step"])

    @property
    def weight_dtype(self) -> str:
        """The format of the weights: bfloat16, float32 or float16."""
        return WEIGHT_DTYPE[self.source.tensors["W"].code]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The run's table: the notebook's, less what the file lacks, plus what it brings beside that."""
        loss = [replace(LOSS, dtype=self._dtype("loss"))] if "loss" in self.source.tensors else []
        is_rounded = self.weight_dtype == "bfloat16" and self.parameters.get(table.ROUNDED_FROM) == "float32"
        weights = table.rounded(W) if is_rounded else table.in_dtype(W, self.weight_dtype)
        measured = table.on_lattice((DELTA, *NORMS), self.lattice)
        given = [self.schedules[c.name].of(c) if c.name in self.schedules else c for c in (CENTROID, *loss)]
        made = (weights, *measured, *given, LAST_MOTION)
        return (*over_gaps(made, self.resolution_steps), *self.beside, *self.static_channels)

    def _dtype(self, name: str) -> str:
        return str(self.source.tensors[name].dtype.name)

    def is_short(self, name: str) -> bool:
        """Whether an array has one row fewer than there are states: its rows are of the steps 1 to T."""
        return self.source.tensors[name].shape[0] < self.sizes["step"]

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes: what analysis needs, and where the run came from."""
        beta1 = beta1_of(self.parameters)
        known = {} if beta1 is None else {"beta1": beta1}
        provenance = self._identity | ({"said_by_the_file": self.source.words} if self.source.words else {})
        return {"motion_threshold": self.threshold, **known, "config": self.config, "provenance": provenance}

    @property
    def config(self) -> dict[str, Any]:
        """config.json: the parameters that are known, and by what an interrupted import knows its file again."""
        return self.parameters | self._identity | {"motion_threshold": self.threshold}

    @property
    def _identity(self) -> dict[str, Any]:
        named = {name: there for name, there in self.found.names.items() if name != there}
        return {
            "imported_from": self.source.path.name,
            "file_bytes": self.source.file_bytes,
            "header_sha256": self.source.header_sha256,
            "lossy": self.source.lossy,
            "skipped": sorted(self.found.left_out),
            "motion_threshold": self.threshold,
            **({"named_in_file": named} if named else {}),
            **({"run_in_file": self.found.run} if self.found.run else {}),
        }


def plan_import(
    source: Source, found: Match, *, motion_threshold: float | None = None, lossy: bool = False
) -> ImportPlan:
    """Check everything that can be checked before a byte is written."""
    try:
        refuse_unknown(found)
        found = without_rows(source, found)
        arrays = view(source, found, lossy=lossy)
        sizes = check_arrays(arrays.raw)
        tokens = read_tokens(arrays, sizes)
        words, foreign = read_words(source.path, arrays.tensors["W"].shape)
        steps = read_steps(arrays) or steps_of_words(source.path, words, sizes["step"])
        schedules = read_schedules(arrays, steps, sizes["step"])
        statics, static_channels = _statics(arrays, tokens)
        _look_at_weights(arrays, sizes)
        _refuse_negative(arrays)
    except TensorFileError as error:
        if str(error).startswith(str(source.path)):
            raise
        raise TensorFileError(f"{source.path}: {error}") from None
    known = parameters(arrays.words, words)
    threshold, doubts = threshold_of(motion_threshold, arrays.words | words)
    measured, why = _lattice(arrays, sizes)
    if schedules:  # these take single steps that follow each other, and as many as come
        steps = StepLabels(((steps.label(0), 1, None),))
    told_first = _told_first(arrays, sizes, steps.label(0), schedules)
    beside = _beside(arrays, sizes, schedules, told_first)
    sizes |= {dim: size for c in beside for dim, size in zip(c.dims, arrays.tensors[c.name].shape[1:], strict=True)}
    left_out = found.left_out | foreign | _first_rows(arrays, beside, told_first)
    left_out |= dict.fromkeys(without_arrays(arrays.tensors), "it holds the steps of an array that does not come in")
    assumed = [
        *source.doubts,
        *_doubt_bits(arrays, sizes),
        *doubts,
        *doubt_beta1(words),
        *_unnamed_tokens(arrays, sizes),
        *why,
    ]
    plan = ImportPlan(
        arrays, found, sizes, left_out, assumed, steps, schedules, tokens, statics, static_channels, beside, measured,
        words, known, threshold,
    )  # fmt: skip
    _refuse_too_large(plan)
    return plan


def _statics(arrays: NamedArrays, tokens: NDArray[np.int64]) -> tuple[dict[str, Array], tuple[Channel, ...]]:
    """The masks and counts that a file brings, and the population of each token where that is known."""
    found: dict[str, Array] = {name: arrays.read(name) for name in (DEAD_MASK.name, *KEPT) if name in arrays.tensors}
    found |= {name: read_mask(found[name], name) for name in MASKS if name in found}
    if DEAD_MASK.name not in found and "live_mask" in found:
        found = {DEAD_MASK.name: ~found["live_mask"], **found}
    populations: dict[str, Array] = {}
    if (mask := found.get(DEAD_MASK.name)) is not None:
        if tokens[-1] < len(mask):
            populations = {"dead": np.flatnonzero(mask), "live": np.flatnonzero(found.get("live_mask", ~mask))}
    elif lists := {name: arrays.read(name) for name in (DEAD_INDICES, LIVE_INDICES) if name in arrays.tensors}:
        members = _members(tokens, lists)
        populations = {name: tokens[chosen] for name, chosen in members.items() if chosen.any()}
        if _are_vocabulary(tokens, lists):
            found = {DEAD_MASK.name: members["dead"], **found}
    found |= {name: values.astype(KEPT[name].dtype) for name, values in found.items() if name in KEPT}
    channels = [DEAD_MASK if name == DEAD_MASK.name else KEPT[name] for name in found]
    known = describe(tokens, populations=populations)
    return found | known.arrays, (*channels, *known.channels)


def _are_vocabulary(tokens: NDArray[np.int64], lists: Mapping[str, Array]) -> bool:
    """Whether the rows are the ids 0, 1, 2, ... of which each list names some: of other rows there is no mask."""
    is_whole = tokens[-1] == len(tokens) - 1
    return bool(is_whole and all(len(ids) < len(tokens) > ids.max(initial=-1) for ids in lists.values()))


def _members(tokens: NDArray[np.int64], lists: Mapping[str, Array]) -> dict[str, NDArray[np.bool_]]:
    """Which rows are dead and which live, by lists of ids; what a lone list does not name is of the other kind.

    Examples
    --------
    >>> found = _members(np.array([10, 20, 30]), {"dead_indices": np.array([10])})
    >>> found["dead"].tolist(), found["live"].tolist()
    ([True, False, False], [False, True, True])
    """
    dead, live = (np.isin(tokens, lists[name]) if name in lists else None for name in (DEAD_INDICES, LIVE_INDICES))
    if dead is None:
        dead = ~live if live is not None else np.zeros(len(tokens), np.bool_)
    return {"dead": dead, "live": ~dead if live is None else live}


def _refuse_negative(arrays: NamedArrays) -> None:
    """A second moment is a mean of squares; one below 0 is another array under its name. Two rows are looked at."""
    if ADAM_V.name not in arrays.tensors:
        return
    tensor = arrays.tensors[ADAM_V.name]
    for row in sorted({0, tensor.shape[0] - 1} if tensor.shape[0] else ()):
        values = arrays.rows(ADAM_V.name, row, row + 1)
        numbers = lattice.as_float32(values) if values.dtype == np.uint16 else values
        if (numbers < 0).any():
            raise TensorFileError(
                f"{tensor.name} would come in as {ADAM_V.name}, the second moment of Adam, but has numbers below "
                f"0, which that never has; say what it is with --map {shlex.quote(tensor.name[:80])}=NAME, or --skip it"
            )


def _look_at_weights(arrays: NamedArrays, sizes: Mapping[str, int]) -> None:
    """Read the first and the last state where they are converted: what cannot be taken is mostly seen there."""
    if arrays.raw["W"].dtype != arrays.tensors["W"].dtype and arrays.raw["W"].nbytes // sizes["step"] < _LOOKED_AT:
        arrays.rows("W", 0, 1)
        arrays.rows("W", sizes["step"] - 1, sizes["step"])


def _doubt_bits(arrays: NamedArrays, sizes: Mapping[str, int]) -> list[str]:
    """A sentence where integers that are taken for bits of bfloat16 would be no weights that anybody begins with."""
    raw = arrays.raw["W"]
    if raw.code not in ("U16", "I16") or raw.nbytes // sizes["step"] > _LARGE_STATE:
        return []
    size = np.abs(lattice.as_float32(arrays.rows("W", 0, 1)))
    size = size[np.isfinite(size) & (size > 0)]
    if not size.size or _WEIGHTS[0] < (median := float(np.median(size))) < _WEIGHTS[1]:
        return []
    return [
        f"W is {raw.dtype} and is taken for bits of bfloat16; the median of its first weights is then {median:.1e} in "
        "size, which is unusual: if they are bits of float16, or integers, save them as float16 or float32"
    ]


def _lattice(arrays: NamedArrays, sizes: Mapping[str, int]) -> tuple[str, list[str]]:
    """Where displacements are measured, and a sentence where the file does not tell.

    float32 weights have their own lattice. Some are bfloat16 numbers all the same: where a file brings displacements,
    they say on which lattice they were measured; else it is bfloat16's if every state lies on it. The first and the
    last state are looked at before the others, so that only such a file is read once more.
    """
    own = WEIGHT_DTYPE[arrays.tensors["W"].code]
    state_bytes = arrays.tensors["W"].nbytes // sizes["step"]
    if own != "float32" or state_bytes > _LARGE_STATE:
        return own, [KEPT_FLOAT16] if own == "float16" else []
    if "delta_W_prime" in arrays.tensors and sizes["step"] > 1:
        rows = min(sizes["step"], max(2, _LOOKED_AT // state_bytes))
        states, moves = arrays.rows("W", 0, rows), arrays.rows("delta_W_prime", 0, rows - 1)
        fitting = [
            name
            for name, on in ((own, states), ("bfloat16", lattice.float32_to_bits(states)))
            if np.array_equal(lattice.displacement(on[:-1], on[1:]), moves, equal_nan=True)
        ]
        if len(fitting) < 2:  # where nothing moved yet, both do
            return (fitting or [own])[0], []
    if not _are_rounded(arrays, sizes["step"], max(1, _LOOKED_AT // max(1, state_bytes))):
        return own, []
    return "bfloat16", ["every weight of every state is a bfloat16 number, though kept as float32; displacements are "
                        "measured on bfloat16's lattice"]  # fmt: skip


def _are_rounded(arrays: NamedArrays, states: int, at_once: int) -> bool:
    """Whether every weight of every state is a bfloat16 number, and not all of them are 0."""
    spans = [
        (0, 1),
        (states - 1, states),
        *((start, min(start + at_once, states)) for start in range(0, states, at_once)),
    ]
    is_any = False
    for span in spans:
        values = arrays.rows("W", *span)
        if (values.view(np.uint32) & 0xFFFF).any():
            return False
        is_any |= bool(values.any())
    return is_any


def _beside(
    arrays: NamedArrays, sizes: Mapping[str, int], schedules: Mapping[str, Schedule], told_first: Collection[str]
) -> tuple[Channel, ...]:
    """The channels of what is kept as it is."""
    made = [
        beside_channel(name, arrays.tensors[name], sizes, has_first=name in told_first)
        for name in BESIDE
        if name in arrays.tensors
    ]
    return tuple(schedules[c.name].of(c) if c.name in schedules else c for c in made)


def _told_first(
    arrays: NamedArrays, sizes: Mapping[str, int], first: int, schedules: Mapping[str, Schedule]
) -> set[str]:
    """The arrays beside the weights that have a row for the first state, and not one that is all NaN."""
    found = set()
    for name in (LOSS.name, *BESIDE):
        if name not in arrays.tensors:
            continue
        own = schedules.get(name)
        if own.labels[0] != first if own else arrays.tensors[name].shape[0] < sizes["step"]:
            continue
        row = arrays.rows(name, 0, 1)
        if row.dtype.kind != "f" or not np.isnan(row).all():
            found.add(name)
    return found


KEPT_FLOAT16 = (
    "W is float16 and is kept so; if the weights were bfloat16, small ones and mantissas were changed when the file "
    "was written, and --lossy rounds them to bfloat16"
)


def _first_rows(arrays: NamedArrays, beside: Sequence[Channel], told_first: Collection[str]) -> dict[str, str]:
    """Rows that a file has for the first state, to which no update leads."""
    of_moves = [LOSS.name, *(channel.name for channel in beside if channel.belongs_to == "move")]
    return {
        f"the {name} of the first state": "it is of an update before it"
        for name in of_moves
        if name in told_first and arrays.tensors[name].dtype.kind == "f"
    }


def _unnamed_tokens(arrays: NamedArrays, sizes: Mapping[str, int]) -> list[str]:
    """A sentence where the rows of a file bear no ids, and nothing says that they are a whole vocabulary."""
    if TOKEN in arrays.tensors or "vocabulary" in sizes or sizes["token"] in (sizes.get("dead"), sizes.get("live")):
        return []
    return [f"no array names the tokens; they are called 0 to {sizes['token'] - 1:,}"]


def _refuse_too_large(plan: ImportPlan) -> None:
    projection = project(plan.channels, plan.sizes | _static_sizes(plan), plan.sizes["step"])
    if projection.memory_bytes > MEMORY_CAP:
        raise BudgetError(
            f"{plan.source.path}: rows of {plan.sizes['token']:,} tokens x {plan.sizes['hidden']:,} need "
            f"{projection.memory_bytes:,} bytes of memory to write, more than {MEMORY_CAP:,}"
        )


def _static_sizes(plan: ImportPlan) -> dict[str, int]:
    return {
        dim: size
        for channel in plan.static_channels
        for dim, size in zip(channel.dims, plan.statics[channel.name].shape, strict=True)
    }

"""A file that is to be imported: checked as far as it can be before a byte is written, and what the run will be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.channels import table
from crucible.channels.table import CENTROID, DELTA, LAST_MOTION, LOSS, NORMS, W, over_gaps
from crucible.interchange.file_table import BESIDE, beside_channel
from crucible.interchange.importing.populations import doubt_counts, read_statics
from crucible.interchange.importing.schedules import Schedule, read_schedules, without_arrays, without_rows
from crucible.interchange.importing.weights import (
    WEIGHT_DTYPE,
    doubt_bits,
    find_lattice,
    look_at_weights,
    refuse_negative,
)
from crucible.interchange.matching import Match, refuse_unknown, view
from crucible.interchange.notebook import (
    TOKEN,
    check_arrays,
    read_steps,
    read_tokens,
)
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
        measured = table.on_lattice((weights, DELTA, *NORMS), self.lattice)
        given = [self.schedules[c.name].of(c) if c.name in self.schedules else c for c in (CENTROID, *loss)]
        made = (*measured, *given, LAST_MOTION)
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
        statics, static_channels = read_statics(arrays, tokens)
        look_at_weights(arrays, sizes)
        refuse_negative(arrays)
    except TensorFileError as error:
        if str(error).startswith(str(source.path)):
            raise
        raise TensorFileError(f"{source.path}: {error}") from None
    known = parameters(arrays.words, words)
    threshold, doubts = threshold_of(motion_threshold, arrays.words | words)
    measured, why = find_lattice(arrays, sizes)
    if schedules:  # these take single steps that follow each other, and as many as come
        steps = StepLabels(((steps.label(0), 1, None),))
    told_first = _told_first(arrays, sizes, steps.label(0), schedules)
    beside = _beside(arrays, sizes, schedules, told_first)
    sizes |= {dim: size for c in beside for dim, size in zip(c.dims, arrays.tensors[c.name].shape[1:], strict=True)}
    left_out = found.left_out | foreign | _first_rows(arrays, beside, told_first)
    left_out |= dict.fromkeys(without_arrays(arrays.tensors), "it holds the steps of an array that does not come in")
    looks_odd = [*doubt_bits(arrays, sizes), *_unnamed_tokens(arrays, sizes), *doubt_counts(statics)]
    assumed = [*source.doubts, *doubts, *doubt_beta1(words), *looks_odd, *why]
    plan = ImportPlan(
        arrays, found, sizes, left_out, assumed, steps, schedules, tokens, statics, static_channels, beside, measured,
        words, known, threshold,
    )  # fmt: skip
    _refuse_too_large(plan)
    return plan


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

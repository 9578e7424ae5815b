"""A file that is to be imported: checked as far as it can be before a byte is written, and what the run will be."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.thresholds import DEFAULT_THRESHOLD
from crucible.channels.table import DEAD_MASK, KEPT, LOSS, NOTEBOOK, over_gaps
from crucible.inputs.config import ConfigError
from crucible.interchange import hdf5
from crucible.interchange.hdf5 import Hdf5File
from crucible.interchange.notebook import (
    DEAD_INDICES,
    LARGEST_STEP,
    MASKS,
    NAME_SHOWN,
    TOKEN,
    check_arrays,
    read_mask,
    read_steps,
    read_tokens,
)
from store.errors import BudgetError, TensorFileError
from store.format.chunking import project
from store.format.files import METADATA, local_path
from store.format.schema import Channel
from store.format.step_labels import StepLabels
from store.small_file import read_small
from store.tensorfile.file import TensorFile

Array = NDArray[Any]
MEMORY_CAP = 1 << 30
WORDS_CAP = 1 << 20


@dataclass(frozen=True)
class ImportPlan:
    """A checked file: what it holds and what the run will be."""

    source: TensorFile | Hdf5File
    sizes: dict[str, int]
    left_out: list[str]
    assumed: list[str]
    steps: StepLabels
    tokens: NDArray[np.int64]
    statics: dict[str, Array]
    words: dict[str, Any]
    threshold: float
    skip: frozenset[str] = frozenset()

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
    def channels(self) -> tuple[Channel, ...]:
        """The run's table: the notebook's, less what the file lacks, plus the masks that it brings."""
        table = [c for c in over_gaps(NOTEBOOK, self.resolution_steps)
                 if c.name != LOSS.name or LOSS.name in self.source.tensors]  # fmt: skip
        return (*(c for c in table if c.name != DEAD_MASK.name or c.name in self.statics),
                *(KEPT[name] for name in self.statics if name in KEPT))  # fmt: skip

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes: what analysis needs, and where the run came from."""
        beta1 = _beta1(self.words)
        known = {} if beta1 is None else {"beta1": beta1}
        return {"motion_threshold": self.threshold, **known, "config": self.config, "provenance": self.config}

    @property
    def config(self) -> dict[str, Any]:
        """config.json, by which an interrupted import knows its file again."""
        return {
            "imported_from": self.source.path.name,
            "file_bytes": self.source.file_bytes,
            "header_sha256": self.source.header_sha256,
            "lossy": isinstance(self.source, Hdf5File) and self.source.lossy,
            "skipped": sorted(self.skip),
            "motion_threshold": self.threshold,
        }


def open_source(
    path: str | os.PathLike[str], *, lossy: bool = False, skip: Collection[str] = ()
) -> TensorFile | Hdf5File:
    """The file, its header checked: HDF5 by its first bytes, else safetensors."""
    file = local_path(os.fspath(path))
    if file.is_file():
        with file.open("rb") as start:
            if start.read(len(hdf5.MAGIC)) == hdf5.MAGIC:
                return Hdf5File(file, lossy=lossy, skip=skip)
    return TensorFile(file)


def plan_import(
    source: TensorFile | Hdf5File, motion_threshold: float | None, skip: Collection[str] = ()
) -> ImportPlan:
    """Check everything that can be checked before a byte is written."""
    try:
        _leave_out(source, skip)
        sizes = check_arrays(source.tensors, getattr(source, "others", ()))
        tokens = read_tokens(source, sizes)
        told = read_steps(source)
        statics = {name: source.read(name) for name in (DEAD_MASK.name, *KEPT) if name in source.tensors}
        statics |= {name: read_mask(statics[name], name) for name in MASKS if name in statics}
        statics |= {name: values.astype(KEPT[name].dtype) for name, values in statics.items() if name in KEPT}
    except TensorFileError as error:
        if str(error).startswith(str(source.path)):
            raise
        raise TensorFileError(f"{source.path}: {error}") from None
    words, foreign = read_words(source.path, source.tensors["W"].shape)
    threshold, doubts = _threshold(motion_threshold, words)
    left_out = [*skip, *foreign]
    left_out += [f"the attribute {name[:NAME_SHOWN]} of the file" for name in getattr(source, "attributes", ())]
    if LOSS.name in source.tensors and not np.isnan(source.rows(LOSS.name, 0, 1)[0]):
        left_out.append("the loss of the first state, which is of an update before it")
    steps = told or _steps_of_words(source.path, words, sizes["step"])
    assumed = [*doubts, *_doubt_beta1(words), *_unnamed_tokens(source, sizes)]
    plan = ImportPlan(
        source, sizes, left_out, assumed, steps, tokens, statics, words, threshold, skip=frozenset(skip)
    )  # fmt: skip
    _refuse_too_large(plan)
    return plan


def _leave_out(source: TensorFile | Hdf5File, skip: Collection[str]) -> None:
    """Forget the arrays that are to be left out; each must be there, and W must stay."""
    there = {*source.tensors, *getattr(source, "skipped", ())}
    if missing := sorted(set(skip) - there):
        raise TensorFileError(f"there is no {missing[0]} to be left out")
    if "W" in skip:
        raise TensorFileError("W cannot be left out: all else is about it")
    source.tensors = {name: tensor for name, tensor in source.tensors.items() if name not in skip}


def _steps_of_words(path: Path, words: Mapping[str, Any], rows: int) -> StepLabels:
    """The steps of a file without labels: 0, 1, 2, ... but for a part that its words say is of other steps."""
    exported = words.get("exported")
    span = exported.get("steps") if isinstance(exported, dict) else None
    if not isinstance(span, list) or [type(end) for end in span] != [int, int]:
        return StepLabels()
    first, stop = span
    if not 0 <= first < stop <= LARGEST_STEP or stop - first != rows:
        raise TensorFileError(
            f"{path}: its metadata.json says that it is of the steps {first}:{stop}, but it has {rows:,} rows and no "
            "array `step` that names them; export it with `step`, or move the metadata.json away"
        )
    return StepLabels.of(range(first, stop))


def _unnamed_tokens(source: TensorFile | Hdf5File, sizes: Mapping[str, int]) -> list[str]:
    """A sentence where the rows of a file bear no ids, and nothing says that they are a whole vocabulary."""
    if {TOKEN, DEAD_INDICES} & source.tensors.keys() or "vocabulary" in sizes:
        return []
    return [f"no array names the tokens; they are called 0 to {sizes['token'] - 1:,}"]


def _refuse_too_large(plan: ImportPlan) -> None:
    projection = project(plan.channels, plan.sizes, plan.sizes["step"])
    if projection.memory_bytes > MEMORY_CAP:
        raise BudgetError(
            f"{plan.source.path}: rows of {plan.sizes['token']:,} tokens x {plan.sizes['hidden']:,} need "
            f"{projection.memory_bytes:,} bytes of memory to write, more than {MEMORY_CAP:,}"
        )


def _threshold(asked: float | None, words: Mapping[str, Any]) -> tuple[float, list[str]]:
    """As asked, else as the words say where that makes sense, else the notebook's; and a sentence where it does not.

    It is compared in float32.
    """
    if asked is not None and not (math.isfinite(asked) and np.float32(asked) > 0):
        raise ConfigError(f"motion_threshold: expected a number above 0, in cells, not {asked}")
    if asked is not None:
        return float(asked), []
    said = _number(words.get("motion_threshold"))
    if said is not None and math.isfinite(said) and np.float32(said) > 0:
        return said, []
    told = f"metadata.json says motion_threshold {str(words.get('motion_threshold'))[:40]}, which is no number above 0"
    return DEFAULT_THRESHOLD, [f"{told}; {DEFAULT_THRESHOLD} is taken"] if "motion_threshold" in words else []


def _beta1(words: Mapping[str, Any]) -> float | None:
    """Adam's beta1, where the words say one that makes sense."""
    said = _number(words.get("beta1"))
    return said if said is not None and 0 <= said < 1 else None


def _doubt_beta1(words: Mapping[str, Any]) -> list[str]:
    """A sentence where the words say a beta1 that makes no sense."""
    if "beta1" not in words or _beta1(words) is not None:
        return []
    return [f"metadata.json says beta1 {str(words['beta1'])[:40]}, which is no number from 0 to below 1; none is taken"]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def read_words(path: Path, shape: Sequence[int]) -> tuple[dict[str, Any], list[str]]:
    """metadata.json beside a file: under the file's own name, else the folder's; empty if there is none.

    One whose data_shapes tell of another W belongs to another file: it is not taken, but named.
    """
    foreign: list[str] = []
    for candidate in (path.with_name(f"{path.stem}.{METADATA}"), path.with_name(METADATA)):
        if not candidate.is_file():
            continue
        words = _parse_words(candidate)
        shapes = words.get("data_shapes")
        told = shapes.get("W") if isinstance(shapes, dict) else None
        if told is None or told == list(shape):
            return words, foreign
        foreign.append(f"{candidate.name}, which tells of another file (W of shape {str(told)[:60]})")
    return {}, foreign


def _parse_words(path: Path) -> dict[str, Any]:
    """The words, with None for numbers that JSON cannot hold."""
    try:
        words = json.loads(read_small(path, WORDS_CAP), parse_constant=lambda _: None, parse_float=_finite)
    except OSError as error:
        raise TensorFileError(f"{path}: {error.strerror}; mend it or move it away") from None
    except (ValueError, RecursionError):
        raise TensorFileError(f"{path}: not JSON; mend it or move it away") from None
    if not isinstance(words, dict):
        raise TensorFileError(f"{path}: no JSON object; mend it or move it away")
    return words


def _finite(text: str) -> float | None:
    return value if math.isfinite(value := float(text)) else None

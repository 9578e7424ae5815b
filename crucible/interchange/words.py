"""What is known of a file in words: metadata.json beside it, and the hyper-parameters in it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from analysis.thresholds import DEFAULT_THRESHOLD
from crucible.inputs.config import Config, ConfigError
from crucible.interchange.notebook import LARGEST_STEP
from store.errors import RunExistsError, TensorFileError
from store.format.files import METADATA
from store.format.step_labels import StepLabels
from store.small_file import read_small

WORDS_CAP = 1 << 20
PARAMETERS = frozenset(each.name for each in fields(Config)) | {"experiment", "series"}
"""What of metadata.json is a parameter of the training; the rest are results and notes."""
TOLD_OF_A_PART = frozenset({"data_shapes", "exported"})
"""What the words of a part tell anew."""
OF_THE_WHOLE_RUN = "of_the_whole_run"
"""Where the words of a part keep the results of the run that it is a part of."""


def read_words(path: Path, shape: Sequence[int]) -> tuple[dict[str, Any], dict[str, str]]:
    """metadata.json beside a file: under the file's own name, else the folder's; empty if there is none.

    One whose data_shapes tell of another W belongs to another file: it is not taken, but named.
    """
    foreign: dict[str, str] = {}
    for candidate in [path / METADATA] if path.is_dir() else _beside(path):
        if not candidate.is_file():
            continue
        words = _parse_words(candidate)
        shapes = words.get("data_shapes")
        told = shapes.get("W") if isinstance(shapes, dict) else None
        if told is None or told == list(shape):
            return words, foreign
        foreign[candidate.name] = f"it tells of another file, with W of shape {str(told)[:60]}"
    return {}, foreign


def target_of_words(data: bytes | None, path: Path, *, force: bool, is_needed: bool = False) -> Path | None:
    """Where the words of an exported file go, so that an import reads these and no others for it.

    metadata.json beside the file; under the file's own name where there are such already, or where metadata.json is
    another run's.

    Parameters
    ----------
    data : bytes or None
        The words; None for a run that has none yet, whose file needs some only where it would get those of another,
        or where nothing else tells its steps: `is_needed`.

    Raises
    ------
    RunExistsError
        Other words have the file's own name, and `force` is not given.
    """
    own, shared = _beside(path)
    if data is None and not is_needed and not os.path.lexists(own) and not os.path.lexists(shared):
        return None
    if data is not None and not os.path.lexists(own) and not _is_another(shared, data):
        return shared
    if not force and _is_another(own, data):
        raise RunExistsError(f"{own} exists and is another run's; name another file, or say --force")
    return own


def _beside(path: Path) -> tuple[Path, Path]:
    """Where the words of a file may stand, never in its own place; the first one that is there counts."""
    own, shared = path.with_name(f"{path.stem}.{METADATA}"), path.with_name(METADATA)
    return own, own if shared == path else shared


def _is_another(target: Path, data: bytes | None) -> bool:
    """Whether something else than these words is there; a dangling link or a pipe, too."""
    if not target.is_file():
        return os.path.lexists(target)
    try:
        return data is None or bool(json.loads(read_small(target)) != json.loads(data))
    except (OSError, ValueError, RecursionError):
        return True


def parameters(said: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the training: all that the file itself says, and those of metadata.json before them."""
    told = {name: value for name, value in words.items() if name in PARAMETERS and _is_plain(value)}
    return {name: value for name, value in said.items() if _is_plain(value)} | told


def without_results(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words for a part of the run: all that is no parameter is of the whole run, and of the part may be untrue.

    Examples
    --------
    >>> without_results({"beta1": 0.9, "global_last_motion": 3088})
    {'beta1': 0.9, 'of_the_whole_run': {'global_last_motion': 3088}}
    """
    found = {name: value for name, value in words.items() if name not in PARAMETERS | TOLD_OF_A_PART}
    before = found.pop(OF_THE_WHOLE_RUN, None)
    whole = found | (dict(before) if isinstance(before, Mapping) else {})
    kept = {name: value for name, value in words.items() if name in PARAMETERS}
    return kept | ({OF_THE_WHOLE_RUN: whole} if whole else {})


def steps_of_words(path: Path, words: Mapping[str, Any], rows: int) -> StepLabels:
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


def threshold_of(asked: float | None, words: Mapping[str, Any]) -> tuple[float, list[str]]:
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


def beta1_of(words: Mapping[str, Any]) -> float | None:
    """Adam's beta1, where the words say one that makes sense."""
    said = _number(words.get("beta1"))
    return said if said is not None and 0 <= said < 1 else None


def doubt_beta1(words: Mapping[str, Any]) -> list[str]:
    """A sentence where the words say a beta1 that makes no sense."""
    if "beta1" not in words or beta1_of(words) is not None:
        return []
    return [f"metadata.json says beta1 {str(words['beta1'])[:40]}, which is no number from 0 to below 1; none is taken"]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_plain(value: object) -> bool:
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


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

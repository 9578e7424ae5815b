"""A folder of checkpoints as one file of states: safetensors per step, or the folders of a Trainer."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import TensorFileError
from store.tensorfile.file import TensorFile
from store.tensorfile.header import TensorSpec

Array = NDArray[Any]
MOST_CHECKPOINTS = 100_000
ENDING = ".safetensors"
_STEP = re.compile(r"(?:^|[^0-9])([0-9]{1,18})$")
_NAMED_STEP = re.compile(r"step[=_-]?([0-9]+(?:[.,e][0-9+-]*)?)", re.IGNORECASE)
"""The step in ``step=500-epoch=3``, where another number stands at the end."""
_SHARD = re.compile(r"[0-9]+-of-[0-9]+$")
_NO_WHOLE_NUMBER = re.compile(r"[0-9](?:[.,]|e[+-]?)[0-9]+$", re.IGNORECASE)
"""The end of 2.5 and of 1e3, whose last digits are no step."""
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A state: its step, the file that holds it, and what that says of it."""

    step: int
    file: Path
    tensor: TensorSpec
    sha256: str
    stamp: tuple[int, int]


class CheckpointFolder:
    """A folder of checkpoints; a `crucible.interchange.sources.source.Source` with the arrays W and step.

    A checkpoint is ``<anything><step>.safetensors``, or a folder ``<anything><step>`` with such files in it, as a
    Trainer's ``checkpoint-500``. Of several numbers in a name the one behind ``step`` counts, else the last. One file
    is open at a time.

    Parameters
    ----------
    path : path-like
        The folder.
    parameter : str, optional
        The array of two dimensions to take; needed where there are several.

    Raises
    ------
    TensorFileError
        There is no checkpoint, or they do not hold one parameter of one shape and dtype.
    """

    def __init__(self, path: str | os.PathLike[str], parameter: str | None = None) -> None:
        self.path = Path(path)
        try:
            found, self.ignored = self._find()
            self.doubts = _called_otherwise(found.values())
            self._states = [self._open(step, entry, parameter) for step, entry in sorted(found.items())]
        except TensorFileError as error:
            raise TensorFileError(str(error) if str(self.path) in str(error) else f"{self.path}: {error}") from None
        first = self._states[0]
        for state in self._states:
            if state.tensor.name != first.tensor.name:
                raise TensorFileError(
                    f"{state.file}: holds {state.tensor.name}, and {first.file} holds {first.tensor.name}; say which "
                    "of them with --parameter, or leave one file out of the folder"
                )
            if (state.tensor.code, state.tensor.shape) != (first.tensor.code, first.tensor.shape):
                raise TensorFileError(
                    f"{state.file}: {state.tensor.name} is {state.tensor.code} of shape {state.tensor.shape}; expected "
                    f"{first.tensor.code} {first.tensor.shape}, as in {first.file}"
                )
        count = len(self._states)
        self.parameter = first.tensor.name
        self.tensors: Mapping[str, TensorSpec] = {
            "W": TensorSpec("W", first.tensor.code, (count, *first.tensor.shape)),
            "step": TensorSpec("step", "I64", (count,)),
        }
        self.others: Mapping[str, str] = {}
        self.words = {"parameter": self.parameter, "checkpoints": count}
        self.file_bytes = sum(state.tensor.nbytes for state in self._states)
        text = repr([(state.step, state.file.name, state.sha256) for state in self._states])
        self.header_sha256 = hashlib.sha256(text.encode()).hexdigest()

    def _find(self) -> tuple[dict[int, Path], dict[str, str]]:
        """The entry of each step, and the names of all that is no checkpoint."""
        found: dict[int, Path] = {}
        others: dict[str, str] = {}
        for entry in sorted(self.path.iterdir()):
            if entry.name.startswith("."):
                continue
            stem = entry.stem if entry.suffix == ENDING else entry.name
            step = _STEP.search(stem)
            is_one = entry.is_dir() or entry.suffix == ENDING
            if step is None or not is_one or _SHARD.search(stem):
                others[entry.name] = "is no checkpoint with a step in its name"
                continue
            named = _NAMED_STEP.findall(stem)
            told = named[0] if len(named) == 1 else step[1]
            if _NO_WHOLE_NUMBER.search(stem) or not told.isdigit() or len(told) > 18:
                others[entry.name] = "has no whole number as its step"
                continue
            number = int(told)
            if number in found:
                raise TensorFileError(f"{found[number].name} and {entry.name} are both of step {number}")
            found[number] = entry
        if len(found) > MOST_CHECKPOINTS:
            raise TensorFileError(f"{len(found):,} checkpoints, more than {MOST_CHECKPOINTS:,}")
        if not found:
            raise TensorFileError(self._nothing(others))
        return found, others

    def _nothing(self, others: Mapping[str, str]) -> str:
        names = ", ".join(name[:80] for name in list(others)[:_SHOWN]) or "nothing"
        if any(name.endswith(_PICKLES) for name in others):
            return f"a folder with {names}, which are never read. {NO_PICKLES}"
        return (
            f"no checkpoints in this folder; expected files like step-500.safetensors or folders like checkpoint-500 "
            f"with model.safetensors in them, found {names}"
        )

    def _open(self, step: int, entry: Path, parameter: str | None) -> _Checkpoint:
        """The parameter in one checkpoint, which may be several files."""
        files = sorted(entry.glob(f"*{ENDING}")) if entry.is_dir() else [entry]
        if not files:
            names = sorted(path.name for path in entry.iterdir())
            pickles = f". {NO_PICKLES}" if any(name.endswith(_PICKLES) for name in names) else ""
            raise TensorFileError(f"{entry}: no {ENDING} file in this checkpoint{pickles}")
        tables: dict[str, tuple[Path, TensorSpec, str, tuple[int, int]]] = {}
        for file in files:
            with TensorFile(file) as opened:
                of_two = (tensor for tensor in opened.tensors.values() if len(tensor.shape) == 2)
                found = {tensor.name: (file, tensor, opened.header_sha256, opened.stamp) for tensor in of_two}
            twice = [name for name in found if name in tables and parameter in (None, name)]
            if twice:
                raise TensorFileError(
                    f"{entry}: {tables[twice[0]][0].name} and {file.name} both hold {twice[0]}; leave one of them out "
                    "of the folder"
                )
            tables |= found
        name = parameter or (next(iter(tables)) if len(tables) == 1 else None)
        if name is None or name not in tables:
            some = ", ".join(list(tables)[:_SHOWN]) + (" ..." if len(tables) > _SHOWN else "")
            asked = f"no array {name!r} of two dimensions" if name else "more than one array of two dimensions"
            what = asked if tables else "no array of two dimensions"
            raise TensorFileError(f"{entry}: {what}; say --parameter NAME, one of: {some or 'none'}")
        return _Checkpoint(step, *tables[name])

    def rows(self, name: str, start: int, stop: int, out: Array | None = None) -> Array:
        """States ``[start, stop)``, or their steps, into the head of `out` if that is given."""
        tensor = self.tensors[name]
        rows = np.empty((stop - start, *tensor.shape[1:]), tensor.dtype) if out is None else out[: stop - start]
        for at, state in enumerate(self._states[start:stop]):
            if name == "step":
                rows[at] = state.step
                continue
            with TensorFile(state.file) as opened:
                if (opened.header_sha256, opened.stamp) != (state.sha256, state.stamp):
                    raise TensorFileError(f"{state.file}: the checkpoint was changed while it was read")
                opened.rows(state.tensor.name, 0, state.tensor.shape[0], rows[at])
                opened.refuse_changed()
        return rows

    def read(self, name: str) -> Array:
        """A whole array; for the small ones."""
        return self.rows(name, 0, self.tensors[name].shape[0])

    def refuse_changed(self) -> None:
        """Nothing: each file is looked at when it is read."""

    def close(self) -> None:
        """Nothing is open between two reads."""


def _called_otherwise(entries: Iterable[Path]) -> tuple[str, ...]:
    """A sentence where the names of checkpoints differ in more than their steps: they may be of several runs."""
    names: dict[str, str] = {}
    for entry in entries:
        stem = entry.stem if entry.suffix == ENDING else entry.name
        names.setdefault(stem.rstrip("0123456789"), entry.name)
    if len(names) < 2:
        return ()
    some = ", ".join(list(names.values())[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
    return (f"names of the checkpoints differ in more than their steps ({some}); all are taken as states of one run",)


NO_PICKLES = (
    'Convert what torch.save wrote where you trust it: python -c "import '
    "torch; from safetensors.torch import save_file; save_file(torch.load('X.pt', weights_only=True), "
    "'X.safetensors')\""
)
"""What is said of a file of torch.save."""

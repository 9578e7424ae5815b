"""The commit: the zarr.json of a trajectory's group, with the metadata of every array consolidated in it.

One rename of this file publishes new rows of all arrays at once. It carries the SHA-256 of itself (reckoned with that
value as zeros) and of the documents beside it, so that a flipped bit anywhere in the metadata is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from store.disk import Bytes, LocalDisk
from store.errors import (
    ChecksumError,
    DamageError,
    MetadataError,
    MissingError,
    NewerFormatError,
    NotATrajectoryError,
)
from store.format import layout
from store.format.files import CHECKPOINT, COMPACTED, DOCUMENT, OVERWRITTEN, TRAJECTORY
from store.format.schema import FORMAT_NAME, FORMAT_VERSION
from store.format.step_labels import LARGEST_LABEL, StepLabels
from store.format.writers import Standing, standing
from store.run import array
from store.run.array import StoredArray

LARGEST_DOCUMENT = 64 << 20
DEEPEST_DOCUMENT = 64
_ZEROS = "0" * 64
_OWN = "sha256_of_this_file"
_STATE_OF_1 = ("committed_steps", "completed", "generation", "checkpoint", "pending", "sha256")
_STATE = {1: _STATE_OF_1, 2: (*_STATE_OF_1, "run_id", "writers")}
"""What a commit says of itself, by the version of the format."""
_CHECK_ARRAY = {1: array.check_array_metadata, 2: layout.check_array_metadata}


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit says.

    Parameters
    ----------
    arrays : mapping of str to mapping
        zarr.json of every array, at its committed length.
    attributes : mapping
        The user's attributes: config, provenance, motion_threshold, ... (JSON values).
    committed_steps : int
        Label of the last committed step.
    completed : bool
        Whether the run ended and its final arrays are written.
    generation : int
        Grows with every cut and every compaction; a handle of an older generation is stale.
    checkpoint : str or None
        Folder of the training state under ``checkpoint/``.
    pending : mapping of str to mapping
        zarr.json of the final arrays, until the run completes and they are written.
    sha256 : mapping of str to str
        Digest of each document of the run, by its path below the run; two, while one is replaced by another.
    version : int
        Of the format.
    run_id : str
        A random UUID; empty in format 1.
    writers : sequence of [str, int]
        Who wrote here, see `store.format.writers`; empty in format 1.
    """

    arrays: Mapping[str, Mapping[str, Any]]
    attributes: Mapping[str, Any]
    committed_steps: int
    completed: bool = False
    generation: int = 0
    checkpoint: str | None = None
    pending: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    version: int = FORMAT_VERSION
    run_id: str = ""
    writers: Sequence[Sequence[Any]] = ()

    @property
    def state(self) -> dict[str, Any]:
        """What the commit says of itself, as the functions of `store.format.writers` take and answer it."""
        return {name: getattr(self, name) for name in _STATE[self.version]}

    @property
    def standing(self) -> Standing | None:
        """Which files belong to the commit; None in format 1, whose files don't say what they are."""
        return standing(self.state, TRAJECTORY) if self.version > 1 else None

    def to_bytes(self) -> bytes:
        """The file."""
        own = {"format": FORMAT_NAME, "format_version": self.version} | self.state | {_OWN: _ZEROS}
        own["sha256"] = dict(sorted(self.sha256.items()))  # the same bytes whatever was written first
        consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(self.arrays)}
        document = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": own | {k: v for k, v in self.attributes.items() if k not in own},
            "consolidated_metadata": consolidated,
        }
        if _is_deep(document):
            raise MetadataError(f"attributes are nested more than {DEEPEST_DOCUMENT} deep; flatten them")
        text = to_json(document)
        return text.replace(_own(_ZEROS), _own(hashlib.sha256(text).hexdigest()), 1)

    @classmethod
    def from_bytes(cls, data: bytes, where: Path) -> Commit:
        """Read and check the file.

        Raises
        ------
        ChecksumError, MetadataError, NotATrajectoryError, NewerFormatError
        """
        document = _parse(data, where)
        attributes = dict(document["attributes"])
        version = attributes["format_version"]
        _check_own_digest(data, str(attributes.pop(_OWN, "")), where)
        try:
            arrays = document["consolidated_metadata"]["metadata"]
            own = {name: attributes.pop(name) for name in _STATE[version]}
        except (KeyError, TypeError) as error:
            raise MetadataError(f"{where}: {error} is missing in the commit") from error
        _check_state(arrays, own, version, where)
        for name, metadata in [*arrays.items(), *own["pending"].items()]:
            _check_array(name, metadata, version)
        del attributes["format"], attributes["format_version"]
        commit = cls(arrays=arrays, attributes=attributes, version=version, **own)
        commit._check_lengths(where)
        return commit

    def array(self, trajectory: Path, name: str) -> StoredArray:
        """An array of this commit, whose chunks lie below `trajectory`."""
        metadata = self.arrays[name]
        axis = self.arrays.get(next(iter(metadata["dimension_names"]), ""), {})
        return StoredArray(trajectory / name, metadata, axis.get("attributes", {}), self.standing, standing_now)

    @property
    def rows(self) -> int:
        """How many steps are committed, the state before the first update among them."""
        return int(self.arrays["step"]["shape"][0])

    def labels(self, axis: str = "step") -> StepLabels:
        """The labels of the rows of a step axis, the ones to come among them."""
        return StepLabels.from_attributes(self.arrays[axis]["attributes"])

    def at(self, lengths: Mapping[str, int]) -> Commit:
        """The commit of a run that goes on: its step axes have these lengths (rows), its final arrays are pending."""
        arrays, pending = {}, dict(self.pending)
        for name, metadata in self.arrays.items():
            if metadata["attributes"]["role"] == "final":
                pending[name] = metadata
            else:
                axis = metadata["dimension_names"][0]
                length = lengths.get(axis, metadata["shape"][0])
                arrays[name] = {**metadata, "shape": [length, *metadata["shape"][1:]]}
        steps = self.labels().label(lengths["step"] - 1)
        return replace(self, arrays=arrays, pending=pending, committed_steps=steps, completed=False)

    def without_newer_checkpoint(self) -> Commit:
        """The same, naming no checkpoint that is ahead of it."""
        if self.checkpoint is None or int(self.checkpoint.removeprefix("step-").split(".")[0]) <= self.committed_steps:
            return self
        kept = {name: value for name, value in self.sha256.items() if not name.startswith(f"{CHECKPOINT}/")}
        return replace(self, checkpoint=None, sha256=kept)

    def _check_lengths(self, where: Path) -> None:
        sizes: dict[str, int] = {}
        for name, metadata in self.arrays.items():
            for dim, size in zip(metadata["dimension_names"], metadata["shape"], strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise MetadataError(f"{where}: array {name!r} has {size} along {dim!r}, others {sizes[dim]}")
        rows = sizes.get("step", 0) if "step" in self.arrays else 0
        try:
            last = self.labels().label(rows - 1) if rows else -1
        except (ValueError, IndexError, TypeError) as error:
            raise MetadataError(f"{where}: the labels of {rows} rows cannot be told: {error}") from None
        if not 0 <= self.committed_steps == last <= LARGEST_LABEL:
            raise MetadataError(
                f"{where}: {rows} rows, the last of step {last}, but committed_steps is {self.committed_steps}"
            )


def read_commit(run: Path) -> Commit:
    """The commit that a run stands at.

    Raises
    ------
    NotATrajectoryError
        There is no trajectory here, or the file is no group's metadata of ours.
    """
    path = run / TRAJECTORY / DOCUMENT
    try:
        try:
            data = read_document(path)
        except NotATrajectoryError:
            finish_swap(run)  # a compaction may have moved the old trajectory away just now
            data = read_document(path)
    except NotATrajectoryError as error:
        inside = sorted(found.parent.parent for found in run.glob(f"*/{TRAJECTORY}/{DOCUMENT}"))
        others = f" and {len(inside) - 1} more" if inside[1:] else ""
        hint = f"; did you mean the run {inside[0]}{others}?" if inside else ""
        if (run / OVERWRITTEN).is_dir():
            hint = (
                f"; the run that was here is in {OVERWRITTEN}, since a new one was to take its place, which has not "
                "committed yet. Where that one is no longer written, resume or `crucible check --repair` puts it back"
            )
        raise NotATrajectoryError(f"{error}{hint}") from None
    return Commit.from_bytes(data, path)


def is_there(run: Path) -> bool:
    """Whether a trajectory lies in this folder; also one whose compaction was cut short between its two renames."""
    finish_swap(run)
    return (run / TRAJECTORY).exists()


def standing_now(trajectory: Path) -> Standing | None:
    """What the commit on disk says of its writers; None when there is none that can be read."""
    try:
        return read_commit(trajectory.parent).standing
    except (NotATrajectoryError, DamageError):
        return None


def finish_swap(run: Path) -> None:
    """Give a compacted trajectory its place, where a crash came between the two renames of the swap.

    Its zarr.json is written last and the old trajectory moves away only after that, so it is whole. Whoever comes
    first does it; where the disk refuses, nothing changes.
    """
    if (run / COMPACTED / DOCUMENT).exists() and not (run / TRAJECTORY).exists():
        with suppress(OSError):
            LocalDisk().rename(run / COMPACTED, run / TRAJECTORY)


def read_document(path: Path) -> bytes:
    """A small metadata file, whole."""
    if path.is_fifo():
        raise NotATrajectoryError(f"{path}: is a pipe, not a metadata file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, LARGEST_DOCUMENT))
    except (FileNotFoundError, NotADirectoryError):
        raise NotATrajectoryError(f"{path}: no such file, so there is no trajectory here (yet)") from None
    except IsADirectoryError:
        raise NotATrajectoryError(f"{path}: is a folder, not a metadata file") from None
    if size > LARGEST_DOCUMENT:
        raise MetadataError(f"{path}: more than {LARGEST_DOCUMENT} bytes of metadata")
    return data


def document_digest(path: Path) -> str:
    """SHA-256 of a document in hex, whatever its size: training state may be large.

    Raises
    ------
    MissingError
        It is not there, or no plain file.
    OSError
    """
    if not path.is_file():
        raise MissingError(f"{path}: {'is no plain file' if path.exists() else 'is missing'}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Strict JSON: no NaN, no infinity; compact unless indented."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, allow_nan=False, indent=indent, separators=separators).encode()


def digest(data: Bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _check_array(name: str, metadata: Mapping[str, Any], version: int) -> None:
    if not name.isidentifier():
        raise MetadataError(f"zarr.json: an array cannot be named {name!r}; this is not what format {version} writes")
    _CHECK_ARRAY[version](name, metadata)


def _check_state(arrays: object, own: Mapping[str, Any], version: int, where: Path) -> None:
    """Raise unless what the commit says of itself is of the right kind and names nothing outside of the run."""
    kinds = {"committed_steps": int, "completed": bool, "generation": int, "pending": dict, "sha256": dict}
    wrong = [name for name, kind in kinds.items() if type(own[name]) is not kind]
    if not isinstance(arrays, dict):
        wrong.append("consolidated_metadata")
    if own["checkpoint"] is not None and not re.fullmatch(r"step-\d{1,18}(\.1)?", str(own["checkpoint"])):
        wrong.append("checkpoint")
    if "sha256" not in wrong:
        outside = any(Path(name).is_absolute() or ".." in Path(name).parts for name in own["sha256"])
        if outside or not all(isinstance(value, str) for value in own["sha256"].values()):
            wrong.append("sha256")
    if wrong:
        raise MetadataError(f"{where}: {', '.join(wrong)} cannot be so; this is not what format {version} writes")
    if version > 1:
        standing(own, where)


def _own(value: str) -> bytes:
    return f'"{_OWN}":"{value}"'.encode()


def _check_own_digest(data: bytes, own: str, where: Path) -> None:
    zeroed = data.replace(_own(own), _own(_ZEROS), 1)
    if data.count(_own(own)) != 1 or digest(zeroed) != own:
        raise ChecksumError(f"{where}: the metadata does not match its own checksum; restore it from a copy")


def _parse(data: bytes, where: Path) -> dict[str, Any]:
    try:
        document = json.loads(data)
        attributes = document["attributes"]
        name, version = attributes.get("format"), attributes.get("format_version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MetadataError(f"{where}: not the metadata of a group ({type(error).__name__})") from error
    if name != FORMAT_NAME:
        # A damaged file of ours still holds one of these words.
        if _OWN.encode() in data or FORMAT_NAME.encode() in data:
            raise MetadataError(f"{where}: the metadata is damaged")
        raise NotATrajectoryError(f"{where}: a Zarr group, but not a trajectory of Crucible")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{where}: format version {version}; this Crucible reads up to {FORMAT_VERSION}. Update Crucible."
        )
    if version not in _STATE or type(version) is not int:
        raise MetadataError(f"{where}: there is no format version {version!r}")
    if _is_deep(document):
        raise MetadataError(f"{where}: nested more than {DEEPEST_DOCUMENT} deep")
    return dict(document)


def _is_deep(document: object) -> bool:
    """Whether copying the document could exhaust the stack. Level by level, so that this does not."""
    level = [document]
    for _ in range(DEEPEST_DOCUMENT):
        nested = [value for value in level if isinstance(value, (dict, list))]
        level = [child for value in nested for child in (value.values() if isinstance(value, dict) else value)]
    return bool(level)

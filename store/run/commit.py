"""The commit: the zarr.json of a trajectory's group, with the metadata of every array consolidated in it.

One rename of this file publishes new rows of all arrays at once. It carries the SHA-256 of itself (reckoned with that
value as zeros) and of the documents beside it, so that a flipped bit anywhere in the metadata is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from store.errors import (
    ChecksumError,
    DamageError,
    MetadataError,
    NewerFormatError,
    NotATrajectoryError,
)
from store.format.files import CONFIG, DOCUMENT, METADATA, SECOND_COPY, TRAJECTORY, run_folder, trajectory_of
from store.format.parameters import refuse_tables
from store.format.schema import FORMAT_NAME, FORMAT_VERSION
from store.format.step_labels import LARGEST_LABEL, StepLabels
from store.format.writers import Standing, standing
from store.run.array import StoredArray
from store.run.commit_file import (
    DEEPEST_DOCUMENT,
    OWN,
    STATE,
    ZEROS,
    check_array,
    check_own_digest,
    check_state,
    is_deep,
    own_digest,
    parse,
    says_the_same,
    what_changed,
)
from store.run.document import read_document, to_json
from store.run.whereabouts import finish_swap, what_is_here, why_not_here


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
    changed : str
        What another program changed of the file, so that this was read from its second copy, or is what the file
        still says; empty as a rule.
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
    changed: str = field(default="", compare=False)

    @property
    def state(self) -> dict[str, Any]:
        """What the commit says of itself, as the functions of `store.format.writers` take and answer it."""
        return {name: getattr(self, name) for name in STATE[self.version]}

    @property
    def standing(self) -> Standing | None:
        """Which files belong to the commit; None in format 1, whose files don't say what they are."""
        return standing(self.state, TRAJECTORY) if self.version > 1 else None

    @property
    def run_name(self) -> str:
        """What tells the run from another one in the same folder: its id; in format 1 the digest of its config.json."""
        return self.run_id or self.sha256.get(CONFIG, "")

    def to_bytes(self) -> bytes:
        """The file."""
        own = {"format": FORMAT_NAME, "format_version": self.version} | self.state | {OWN: ZEROS}
        own["sha256"] = dict(sorted(self.sha256.items()))  # the same bytes whatever was written first
        consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(self.arrays)}
        document = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": own | {k: v for k, v in self.attributes.items() if k not in own},
            "consolidated_metadata": consolidated,
        }
        if is_deep(document):
            raise MetadataError(f"attributes are nested more than {DEEPEST_DOCUMENT} deep; flatten them")
        text = to_json(document)
        return text.replace(own_digest(ZEROS), own_digest(hashlib.sha256(text).hexdigest()), 1)

    @classmethod
    def from_bytes(cls, data: bytes, where: Path, *, as_written: bool = True) -> Commit:
        """Read and check the file.

        Parameters
        ----------
        as_written : bool
            Whether its text must be the very one that was written.

        Raises
        ------
        ChecksumError, MetadataError, NotATrajectoryError, NewerFormatError
        """
        document = parse(data, where)
        attributes = dict(document["attributes"])
        version = attributes["format_version"]
        own_digest_told = str(attributes.pop(OWN, ""))
        if as_written:
            check_own_digest(data, own_digest_told, where)
        try:
            arrays = document["consolidated_metadata"]["metadata"]
            own = {name: attributes.pop(name) for name in STATE[version]}
        except (KeyError, TypeError) as error:
            raise MetadataError(f"{where}: {error} is missing in the commit") from error
        check_state(arrays, own, version, where)
        refuse_tables([*arrays, *own["pending"]], where)
        for name, metadata in [*arrays.items(), *own["pending"].items()]:
            check_array(name, metadata, version)
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
        """The commit of a run that goes on: its step axes have these lengths (rows), its final arrays are pending, and
        the words of an earlier end, metadata.json, no longer count.
        """
        arrays, pending = {}, dict(self.pending)
        for name, metadata in self.arrays.items():
            if metadata["attributes"]["role"] == "final":
                pending[name] = metadata
            else:
                axis = metadata["dimension_names"][0]
                length = lengths.get(axis, metadata["shape"][0])
                arrays[name] = {**metadata, "shape": [length, *metadata["shape"][1:]]}
        steps = self.labels().label(lengths["step"] - 1)
        sha256 = {name: value for name, value in self.sha256.items() if name != METADATA}  # words of an end
        return replace(self, arrays=arrays, pending=pending, committed_steps=steps, completed=False, sha256=sha256)

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
    path = trajectory_of(run) / DOCUMENT
    try:
        try:
            data = read_document(path)
        except NotATrajectoryError:
            finish_swap(run)  # a compaction may have moved the old trajectory away just now
            data = read_document(path)
    except NotATrajectoryError as error:
        raise NotATrajectoryError(f"{why_not_here(run) or error}{what_is_here(run)}") from None
    try:
        return Commit.from_bytes(data, path)
    except NewerFormatError:
        raise
    except (DamageError, NotATrajectoryError) as error:
        return _recovered(run, data, error)


def told_of_changes(run: Path, commit: Commit) -> str:
    """What another program did to the file of a commit, and what becomes of it, as a sentence."""
    return (
        f"{trajectory_of(run) / DOCUMENT} was rewritten by another program: {commit.changed}. The run is read as "
        "Crucible wrote it; the next commit, or `crucible check --repair`, writes the file anew"
    )


def read_second_copy(run: Path) -> Commit | None:
    """The commit as its second copy has it; None where there is none that is whole."""
    path = run / SECOND_COPY
    try:
        return Commit.from_bytes(read_document(path), path)
    except (DamageError, NotATrajectoryError, OSError):
        return None


def _recovered(run: Path, data: bytes, error: Exception) -> Commit:
    """The commit whose file another program rewrote, where it says what it said, or its second copy vouches for it.

    Which files belong to that commit, their labels say: none of another run or of a later writer passes for one.
    """
    path = trajectory_of(run) / DOCUMENT
    if isinstance(error, ChecksumError):
        with suppress(DamageError, NotATrajectoryError):
            told = Commit.from_bytes(data, path, as_written=False)
            check_own_digest(told.to_bytes(), str(json.loads(data)["attributes"].get(OWN)), path)
            return replace(told, changed="its text is another one, which says the same")
    copy = read_second_copy(run)
    if copy is None:
        raise error
    try:
        document = json.loads(data)
        attributes, arrays = document["attributes"], (document.get("consolidated_metadata") or {}).get("metadata")
        is_same = says_the_same(attributes, arrays, copy.state, copy.arrays)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_same = False
    if not is_same:
        raise error
    return replace(copy, changed=what_changed(attributes, arrays, json.loads(copy.to_bytes())))


def standing_now(trajectory: Path) -> Standing | None:
    """What the commit on disk says of its writers; None when there is none that can be read."""
    try:
        return read_commit(run_folder(trajectory)).standing
    except (NotATrajectoryError, DamageError):
        return None

"""The file of a commit, taken apart: is it one, is it as it was written, and can what it says be so? Pure functions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.errors import ChecksumError, MetadataError, NewerFormatError, NotATrajectoryError
from store.format import layout
from store.format.schema import FORMAT_NAME, FORMAT_VERSION
from store.format.writers import standing
from store.run import array

DEEPEST_DOCUMENT = 64
ZEROS = "0" * 64
OWN = "sha256_of_this_file"
_STATE_OF_1 = ("committed_steps", "completed", "generation", "checkpoint", "pending", "sha256")
STATE = {1: _STATE_OF_1, 2: (*_STATE_OF_1, "run_id", "writers")}
"""What a commit says of itself, by the version of the format."""
_WHO = ("run_id", "writers")
_CHECK_ARRAY = {1: array.check_array_metadata, 2: layout.check_array_metadata}


def check_array(name: str, metadata: Mapping[str, Any], version: int) -> None:
    """Raise unless this is the metadata of an array of ours.

    Raises
    ------
    MetadataError
    """
    if not name.isidentifier():
        raise MetadataError(f"zarr.json: an array cannot be named {name!r}; this is not what format {version} writes")
    _CHECK_ARRAY[version](name, metadata)


def check_state(arrays: object, own: Mapping[str, Any], version: int, where: Path) -> None:
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


def own_digest(value: str) -> bytes:
    """The place in the file that holds its own digest."""
    return f'"{OWN}":"{value}"'.encode()


def check_own_digest(data: bytes, own: str, where: Path) -> None:
    """Raise unless the file is, byte for byte, the one that was written.

    Raises
    ------
    ChecksumError
    """
    zeroed = data.replace(own_digest(own), own_digest(ZEROS), 1)
    if data.count(own_digest(own)) != 1 or hashlib.sha256(zeroed).hexdigest() != own:
        raise ChecksumError(f"{where}: the metadata does not match its own checksum; restore it from a copy")


def parse(data: bytes, where: Path) -> dict[str, Any]:
    """The file as JSON, of a version that is known here.

    Raises
    ------
    MetadataError, NotATrajectoryError, NewerFormatError
    """
    try:
        document = json.loads(data)
        attributes = document["attributes"]
        name, version = attributes.get("format"), attributes.get("format_version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MetadataError(f"{where}: not the metadata of a group ({type(error).__name__})") from error
    if name != FORMAT_NAME:
        # A damaged file of ours still holds one of these words.
        if OWN.encode() in data or FORMAT_NAME.encode() in data:
            raise MetadataError(f"{where}: the metadata is damaged")
        raise NotATrajectoryError(f"{where}: a Zarr group, but not a trajectory of Crucible")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{where}: format version {version}; this Crucible reads up to {FORMAT_VERSION}. Update Crucible."
        )
    if version not in STATE or type(version) is not int:
        raise MetadataError(f"{where}: there is no format version {version!r}")
    if is_deep(document):
        raise MetadataError(f"{where}: nested more than {DEEPEST_DOCUMENT} deep")
    return dict(document)


def is_deep(document: object) -> bool:
    """Whether copying the document could exhaust the stack. Level by level, so that this does not."""
    level = [document]
    for _ in range(DEEPEST_DOCUMENT):
        nested = [value for value in level if isinstance(value, (dict, list))]
        level = [child for value in nested for child in (value.values() if isinstance(value, dict) else value)]
    return bool(level)


def says_the_same(
    attributes: Mapping[str, Any], arrays: Mapping[str, Any] | None, state: Mapping[str, Any],
    committed: Mapping[str, Any],
) -> bool:  # fmt: skip
    """Whether a file that another program rewrote can be that of a commit.

    It names the same run and the same writers, or none any more (xarray drops the attributes of a group that it adds a
    variable to), and no array of the commit is missing in it.

    Parameters
    ----------
    attributes, arrays : mapping
        Of the group and of its consolidated metadata in the file.
    state, committed : mapping
        What the commit says of itself, and its arrays.
    """
    if not state.get("run_id") or any(attributes.get(name, state[name]) != state[name] for name in _WHO):
        return False
    if arrays is None:
        return all(name in attributes for name in _WHO)
    return set(committed) <= set(arrays)


def what_changed(attributes: Mapping[str, Any], arrays: Mapping[str, Any] | None, committed: Mapping[str, Any]) -> str:
    """What another program changed of a commit's file, in words.

    Parameters
    ----------
    committed : mapping
        The file as it was written, as JSON.
    """
    before = committed["consolidated_metadata"]["metadata"]
    told = [
        *_differences("attribute", before=_others(committed["attributes"]), now=_others(attributes)),
        *(["consolidated metadata removed"] if arrays is None else _differences("array", before=before, now=arrays)),
    ]
    return "; ".join(told) or "its text is another one, which says the same"


def _others(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != OWN}


def _differences(kind: str, *, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    groups = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "changed": [name for name in now if name in before and now[name] != before[name]],
    }
    return [f"{kind} {', '.join(names)} {what}" for what, names in groups.items() if names]

"""config.json against the commit: where the commit holds the same values, a damaged file is seen, told and mended.

Whoever creates a run may give it the values of config.json as the group's attribute `config` too (the trainer,
`crucible.attach` and the import do). The commit is guarded by its own checksum, config.json by its SHA-256 there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from store.errors import ChecksumError, MetadataError
from store.format.files import CONFIG
from store.run.commit import Commit
from store.run.document import digest, to_json

MISSING = object()
"""Stands for the value of a key that is not there."""


@dataclass(frozen=True, slots=True)
class Differing:
    """A key (dotted where mappings are nested) with its value in the file and the one in the commit."""

    key: str
    found: object
    committed: object

    def __str__(self) -> str:
        found, committed = (
            "missing" if value is MISSING else json.dumps(value) for value in (self.found, self.committed)
        )
        return f"{self.key} is {found} there and {committed} in the commit"

    def is_moved_path(self, paths: Collection[str]) -> bool:
        """Whether this is one of these keys and holds another text: a file that was moved, told by hand."""
        return self.key in paths and isinstance(self.found, str)


def committed_config(commit: Commit) -> bytes | None:
    """config.json as the commit holds it; None where the commit does not hold it."""
    config = commit.attributes.get("config")
    if not isinstance(config, dict):
        return None
    data = to_json(config, indent=1)
    return data if digest(data) in commit.sha256.get(CONFIG, "").split() else None


def differing(data: bytes, commit: Commit) -> list[Differing]:
    """Where a config.json says otherwise than the commit.

    Raises
    ------
    ChecksumError
        It is not the committed one, and the commit does not hold the values to compare with.
    MetadataError
        It is no JSON object.
    """
    if digest(data) in commit.sha256.get(CONFIG, "").split():
        return []
    held = committed_config(commit)
    if held is None:
        raise ChecksumError("its SHA-256 is not the one in the commit")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"is no JSON ({type(error).__name__})") from error
    if not isinstance(values, dict):
        raise MetadataError("is no JSON object")
    return list(_differing(values, json.loads(held), ""))


def _differing(found: Mapping[str, Any], committed: Mapping[str, Any], prefix: str) -> Iterator[Differing]:
    for key in (*committed, *(key for key in found if key not in committed)):
        here, there = found.get(key, MISSING), committed.get(key, MISSING)
        if isinstance(here, dict) and isinstance(there, dict):
            yield from _differing(here, there, f"{prefix}{key}.")
        elif type(here) is not type(there) or here != there:
            yield Differing(f"{prefix}{key}", here, there)

"""Who may have written the files of a run: `run_id` and `writers` in the commit, and what follows for a file.

Each writer has 64 random bits and `after`, the last step that stood when it came. A file of an earlier writer counts
up to the `after` of every later one: rows behind that are of a try that did not become part of the run. The functions
that add a writer take the commit's attributes and answer new ones; they read and write no file.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from store.errors import MetadataError

Attributes = Mapping[str, Any]
BEFORE_ANY_STEP = -1
"""`after` of the first writer: nothing stood."""
REFUSES_ALL = -2
"""`after` of the writer that rewrote every file, static ones too: no file of an earlier writer counts."""
LATEST_STEP = (1 << 63) - 1


@dataclass(frozen=True)
class Writers:
    """The writers of a run.

    Parameters
    ----------
    listed : tuple of (int, int)
        Each one's id and `after`, oldest first.
    """

    listed: tuple[tuple[int, int], ...]

    @cached_property
    def bounds(self) -> dict[int, int]:
        """For each writer, the least `after` of the later ones."""
        bounds, least = {}, LATEST_STEP
        for writer, after in reversed(self.listed):
            bounds[writer] = least
            least = min(least, after)
        return bounds

    def valid(self, writer: int, last: int) -> int | None:
        """Up to which step label a file counts that `writer` wrote up to `last`; None for an unknown writer."""
        bound = self.bounds.get(writer)
        return None if bound is None else min(last, bound)

    @property
    def newest(self) -> int:
        """Id of the writer that came last."""
        return self.listed[-1][0]


@dataclass(frozen=True)
class Standing:
    """What a commit says about which files belong to it.

    Parameters
    ----------
    run_id : str
        A random UUID, the same for all commits of a run and its copies.
    generation : int
        Grows when the run is cut back or compacted.
    committed_steps : int
        Label of the last committed step.
    writers : Writers
        All that ever wrote here.
    """

    run_id: str
    generation: int
    committed_steps: int
    writers: Writers

    def is_forked_from(self, then: Standing) -> bool:
        """Whether this is a copy of the run that went on by itself: not from where the run stood then, or later."""
        known = len(then.writers.listed)
        came = self.writers.listed[known:]
        return self.writers.listed[:known] != then.writers.listed or any(
            after < then.committed_steps for _, after in came
        )


def new_writer() -> int:
    """64 random bits."""
    return secrets.randbits(64)


def create(attributes: Attributes, run_id: uuid.UUID, writer: int) -> dict[str, Any]:
    """The attributes of a new run, whose first writer this is."""
    return {**attributes, "run_id": str(run_id), "writers": [_entry(writer, BEFORE_ANY_STEP)]}


def resume(attributes: Attributes, writer: int) -> dict[str, Any]:
    """As a new writer finds them that goes on after the committed step. Publish this before its first file."""
    return _with(attributes, writer, attributes["committed_steps"])


def cut(attributes: Attributes, writer: int, last_kept: int) -> dict[str, Any]:
    """After a cut back to the step `last_kept`, by resume or repair; of the next generation."""
    if not BEFORE_ANY_STEP <= last_kept <= attributes["committed_steps"]:
        raise ValueError(f"cannot cut a run at step {attributes['committed_steps']} back to step {last_kept}")
    return {**_with(attributes, writer, last_kept), "generation": attributes["generation"] + 1}


def compact(attributes: Attributes, writer: int) -> dict[str, Any]:
    """After every file was written anew by this writer; of the next generation."""
    return {**_with(attributes, writer, REFUSES_ALL), "generation": attributes["generation"] + 1}


def standing(attributes: Attributes, where: Path | str) -> Standing:
    """Read and check what a commit says of its writers.

    Raises
    ------
    MetadataError
        It is not what format 2 writes.
    """
    wrong = [name for name, check in _CHECKS.items() if name not in attributes or not check(attributes[name])]
    if not wrong and not _fits(attributes["writers"], attributes["committed_steps"]):
        wrong = ["writers"]
    if wrong:
        raise MetadataError(f"{where}: {', '.join(wrong)} cannot be so; this is not what format 2 writes")
    listed = tuple((int(writer, 16), after) for writer, after in attributes["writers"])
    return Standing(attributes["run_id"], attributes["generation"], attributes["committed_steps"], Writers(listed))


def _with(attributes: Attributes, writer: int, after: int) -> dict[str, Any]:
    entry = _entry(writer, after)
    if any(entry[0] == known for known, _ in attributes["writers"]):
        raise ValueError(f"writer {entry[0]} has written here already; each one needs random bits of its own")
    return {**attributes, "writers": [*attributes["writers"], entry]}


def _entry(writer: int, after: int) -> list[Any]:
    return [f"{writer:016x}", after]


def _is_step(value: object) -> bool:
    return type(value) is int and BEFORE_ANY_STEP <= value <= LATEST_STEP


def _is_uuid(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value) is not None


def _is_list_of_writers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_writer, value))


def _is_writer(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        return False
    is_after = _is_step(entry[1]) or (type(entry[1]) is int and entry[1] == REFUSES_ALL)
    return is_after and re.fullmatch("[0-9a-f]{16}", entry[0]) is not None


def _fits(writers: list[tuple[str, int]], committed_steps: int) -> bool:
    """Whether the writers are different ones, the first came to nothing, and the last one's steps stand."""
    ids = {writer for writer, _ in writers}
    return len(ids) == len(writers) and writers[0][1] == BEFORE_ANY_STEP and writers[-1][1] <= committed_steps


_CHECKS = {
    "run_id": _is_uuid,
    "generation": lambda value: type(value) is int and value >= 0,
    "committed_steps": _is_step,
    "writers": _is_list_of_writers,
}

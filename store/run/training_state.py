"""The checkpoints that a commit names: the newest, and the one before it, in case the newest is damaged.

`Commit.checkpoint` is the newest. The one before it is named by the digests of its files alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from store.errors import ChecksumError, DamageError, MissingError
from store.format.files import CHECKPOINT
from store.run.commit import Commit
from store.run.document import digest
from store.small_file import read_small

_NAME = re.compile(r"step-(\d{1,18})(\.1)?")


def named(commit: Commit) -> list[str]:
    """Folders below ``checkpoint/``, newest first."""
    parts = (name.split("/") for name in commit.sha256)
    found = {part[1] for part in parts if part[0] == CHECKPOINT and len(part) == 3 and _NAME.fullmatch(part[1])}
    newest = commit.checkpoint
    rest = sorted(found - {newest}, key=step_of, reverse=True)
    return rest if newest is None else [newest, *rest]


def step_of(name: str) -> int:
    """The step whose training state the folder of this name holds.

    Examples
    --------
    >>> step_of("step-120"), step_of("step-120.1")
    (120, 120)
    """
    return int(name.removeprefix("step-").split(".")[0])


def digests(commit: Commit, name: str) -> dict[str, str]:
    """SHA-256 of each file of a checkpoint, by the file's name."""
    prefix = f"{CHECKPOINT}/{name}/"
    return {path.removeprefix(prefix): value for path, value in commit.sha256.items() if path.startswith(prefix)}


def with_newest(commit: Commit, step: int, is_whole: Callable[[str], bool]) -> Commit:
    """The commit that names a new checkpoint, without files so far, and keeps the newest whole one before it."""
    name = f"step-{step}"
    if name in named(commit):
        name += ".1"
    earlier = next((kept for kept in named(commit) if step_of(kept) < step and is_whole(kept)), None)
    return replace(_keeping(commit, [] if earlier is None else [earlier]), checkpoint=name)


def without_newer(commit: Commit) -> Commit:
    """The same, naming no checkpoint that is ahead of it."""
    return without(commit, [name for name in named(commit) if step_of(name) > commit.committed_steps])


def without(commit: Commit, dropped: Collection[str]) -> Commit:
    """The same, naming none of these checkpoints."""
    kept = [name for name in named(commit) if name not in dropped]
    return replace(_keeping(commit, kept), checkpoint=kept[0] if kept else None)


def read(run: Path, commit: Commit, name: str, most_bytes: int) -> dict[str, bytes]:
    """The files of a checkpoint, each checked against its digest.

    Raises
    ------
    MissingError, ChecksumError
        One of them is not there, no plain file, has more than `most_bytes`, or is not what was written.
    """
    files = {}
    for file, wanted in digests(commit, name).items():
        path = run / CHECKPOINT / name / file
        try:
            files[file] = read_small(path, most_bytes)
        except OSError as error:
            raise MissingError(f"{path}: {error.strerror}") from None
        if digest(files[file]) != wanted:
            raise ChecksumError(f"{path}: does not match its checksum")
    return files


def is_whole(run: Path, commit: Commit, name: str, most_bytes: int) -> bool:
    """Whether every file of a checkpoint is what was written."""
    try:
        read(run, commit, name, most_bytes)
    except DamageError:
        return False
    return True


def _keeping(commit: Commit, names: list[str]) -> Commit:
    """The same, with the digests of no other checkpoints than these."""
    kept = tuple(f"{CHECKPOINT}/{name}/" for name in names)
    sha256 = {k: v for k, v in commit.sha256.items() if not k.startswith(f"{CHECKPOINT}/") or k.startswith(kept)}
    return replace(commit, sha256=sha256)

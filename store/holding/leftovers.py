"""What lies in a run's folders beyond what a commit names: what the store left there, and what others put there.

The store removes what it made itself, which its names tell: temporaries, chunks newer than the commit, old training
state. All else, a user's notes or an array that another program added, is named and left.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from store.disk import Disk
from store.format.files import CHECKPOINT, COMPACTED, DOCUMENT, PARTIAL, REPLACED, TRAJECTORY, trajectory_of
from store.run import training_state
from store.run.array import StoredArray
from store.run.commit import Commit

_CHUNK = re.compile(r"c(\.\d+)+")
_CHECKPOINT = re.compile(r"step-\d{1,18}(\.1)?")
_TEMPORARY = re.compile(
    r"[0-9a-f]{16}\.\w+\.c(\.\d+)+"  # a file of chunks, named by writer, array and key
    r"|\w+\.c(\.\d+)+"  # a chunk of format 1
    r"|.+\.(zarr|config|metadata|commit)\.json"
    r"|step-\d{1,18}(\.1)?\..+"  # a file of training state
)
_GROUPS = {TRAJECTORY, COMPACTED.name, REPLACED.name}
"""Folders in which a whole group is built, or waits to be removed."""


@dataclass(slots=True)
class Leftovers:
    """What lies beside what a commit names.

    Parameters
    ----------
    made : list of Path
        Files and folders that the store made, which a sweep removes.
    foreign : list of Path
        What it did not make, and leaves.
    """

    made: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)

    def sort(self, paths: Iterable[Path], is_made: Callable[[Path], bool]) -> None:
        """Take in files and folders, each as what it is."""
        for path in paths:
            (self.made if is_made(path) else self.foreign).append(path)

    def sort_folder(self, folder: Path, is_made: Callable[[Path], bool]) -> None:
        """Take in a folder that the store made; as a whole, unless something else lies in it."""
        inside = Leftovers()
        inside.sort(_inside(folder), is_made)
        self.made += inside.made if inside.foreign else [folder]
        self.foreign += inside.foreign


def find(run: Path, commit: Commit) -> Leftovers:
    """Everything in the run's folders that the commit does not name."""
    found = old_checkpoints(run, commit)
    found.sort(_inside(run / PARTIAL), _is_temporary)
    for name in commit.arrays:
        array = commit.array(trajectory_of(run), name)
        wanted = array.keys() | {DOCUMENT}
        found.sort((path for path in _inside(array.folder) if path.name not in wanted), partial(_is_chunk_of, array))
    for path in _inside(trajectory_of(run)):
        if path.name in commit.pending and _is_folder(path):  # a final array of a run that did not quite complete
            found.sort_folder(path, lambda inside: inside.name == DOCUMENT or _is_chunk(inside))
        elif path.name != DOCUMENT and path.name not in commit.arrays:
            found.foreign.append(path)
    return found


def old_checkpoints(run: Path, commit: Commit) -> Leftovers:
    """Training state that the commit does not name."""
    found, kept = Leftovers(), training_state.named(commit)
    names = {file for name in kept for file in training_state.digests(commit, name)}
    for path in _inside(run / CHECKPOINT):
        if path.name in kept:
            continue
        if _CHECKPOINT.fullmatch(path.name) and _is_folder(path):
            found.sort_folder(path, lambda file: _is_plain(file) and _is_state(file, names))
        else:
            found.foreign.append(path)
    return found


def clear_replaced(run: Path, commit: Commit, disk: Disk) -> None:
    """Remove the trajectory that a rewritten one replaced; what others put in there goes on in the new one."""
    replaced = run / REPLACED
    arrays = {*commit.arrays, *commit.pending}
    foreign = [path for path in _inside(replaced) if path.name != DOCUMENT and path.name not in arrays]
    for name in arrays:
        foreign += [path for path in _inside(replaced / name) if path.name != DOCUMENT and not _is_chunk(path)]
    for path in foreign:
        target = run / TRAJECTORY / path.relative_to(replaced)
        if target.parent.is_dir() and not target.exists():
            disk.rename(path, target)
        else:
            return
    disk.remove(replaced)


def _is_state(file: Path, names: set[str]) -> bool:
    """Whether a file has the name of one of training state; where the commit names none, one that it may have."""
    return file.name in names if names else file.suffix in (".safetensors", ".json", ".bin", "")


def _is_temporary(path: Path) -> bool:
    if _is_folder(path):
        return path.name in _GROUPS
    return _is_plain(path) and _TEMPORARY.fullmatch(path.name) is not None


def _is_chunk(path: Path) -> bool:
    return _CHUNK.fullmatch(path.name) is not None and _is_plain(path)


def _is_chunk_of(array: StoredArray, path: Path) -> bool:
    """Whether a file has a name that this array's files can get when it is longer."""
    part, rest = r"\.(0|[1-9]\d*)", len(array.shape) - 1
    if not array.layout.has_steps:
        return False
    name = rf"c{part}(\.0){{{rest}}}" if array.is_sharded else rf"c({part}){{{rest + 1}}}"
    return re.fullmatch(name, path.name) is not None and _is_plain(path)


def _is_plain(path: Path) -> bool:
    return _kind(path) == stat.S_IFREG


def _is_folder(path: Path) -> bool:
    return _kind(path) == stat.S_IFDIR


def _kind(path: Path) -> int:
    """What lies at a path, of a link that it is one; 0 where nothing does."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return 0


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none, or where somebody moves it away just now."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []

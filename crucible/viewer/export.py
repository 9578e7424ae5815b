"""`crucible view --export`: the page, the trajectory and view.json as a folder that any static server publishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crucible.inspection.selection import Selection, Steps
from crucible.viewer import answers, files
from crucible.viewer.source import DOCUMENT, TRAJECTORY, at_one_commit, key_of, refuse_other_file, run_folder, stand_of
from store.disk import LocalDisk
from store.errors import RunExistsError, StaleHandleError
from store.format.files import local_path, trajectory_of
from store.placed_file import place

VIEW = "view.json"
OURS = {*files.PAGE_FILES, VIEW, TRAJECTORY}
"""What an export consists of."""


def export_page(
    run: str | Path, folder: str | Path, *, threshold: float | None = None, norm: str = "l2",
    population: str | None = None, tokens: Sequence[int] | None = None, steps: Steps | None = None, force: bool = False,
) -> Path:  # fmt: skip
    """Write the page of a run as a folder of files, as of its last commit.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.
    folder : path
        To be made. ``trajectory.zarr`` in it is a whole trajectory that `store.open_trajectory` opens too. Absolute
        paths and names of hosts and users are left out.
    threshold, norm
        Of motion, as in `analysis.moved`.
    population, tokens, steps
        The part that is shown, and that the verdict is of, see `crucible.inspection.selection.Selection`.
    force : bool
        Replace what is there, if it is an earlier export.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunExistsError
        The folder is there and not empty.
    StaleHandleError
        The run was cut back, compacted or replaced while it was copied.
    LabelError
        A file does not belong to the run, which a page does not see.
    """
    source, target = run_folder(run), local_path(folder)
    stand, commit, ds = at_one_commit(source)
    _refuse_in_the_way(target, force=force)
    part = Selection(population, tokens, steps)
    how: dict[str, Any] = {"threshold": threshold, "norm": norm, "selection": part}
    view = answers.first_answers(ds, stand, **how) | {"answers": answers.all_answers(ds, **how)}
    data = commit.to_bytes()
    view["commit"]["key"] = key_of(data)
    view["state"] = "complete" if commit.completed else "copied"
    _make_room(target, force=force)
    for name in files.PAGE_FILES:
        place(target / name, (files.PAGE / name).read_bytes())
    for name in commit.arrays:
        _copy_array(trajectory_of(source) / name, target / TRAJECTORY / name)
    if (now := stand_of(source)).run_id != stand.run_id or now.generation != stand.generation:
        why = "the run was cut back, compacted or replaced meanwhile"
        raise StaleHandleError(f"{source}: {why}; export its page again")
    for path in sorted((target / TRAJECTORY).glob("*/c*")):
        with path.open("rb") as file:
            refuse_other_file(source, commit, path.relative_to(target).as_posix(), file.fileno())
    place(target / TRAJECTORY / DOCUMENT, data)
    place(target / VIEW, answers.to_json(view))
    return target


def _refuse_in_the_way(target: Path, *, force: bool) -> None:
    """Raise unless the folder is empty, or an earlier export that may go, and nothing else."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        is_earlier = (target / VIEW).is_file() and (target / "index.html").is_file()
        if not (force and is_earlier):
            how = "--force replaces it" if is_earlier else "and no earlier export; name another folder"
            raise RunExistsError(f"{target}: is there already; {how}")
        others = sorted(path.name for path in target.iterdir() if path.name not in OURS)
        if others:
            raise RunExistsError(f"{target}: holds {others[0]}, which is no part of an export; name another folder")


def _make_room(target: Path, *, force: bool) -> None:
    """An empty folder; an earlier export is removed if that is wanted, and nothing else."""
    _refuse_in_the_way(target, force=force)
    disk = LocalDisk()
    for name in sorted(OURS) if target.exists() else []:
        disk.remove(target / name)
    disk.make_folder(target / TRAJECTORY)


def _copy_array(source: Path, target: Path) -> None:
    """Copy an array's metadata and chunks; plain files only."""
    LocalDisk().make_folder(target)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.is_symlink():
            place(target / path.name, path.read_bytes())

"""`crucible view --export`: the page, the trajectory and view.json as a folder that any static server publishes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from crucible.viewer import answers, files
from crucible.viewer.source import DOCUMENT, TRAJECTORY, dataset, key_of, run_folder, stand_of, whole_commit
from store.errors import RunExistsError


def export_page(
    run: str | Path, folder: str | Path, *, threshold: float | None = None, norm: str = "l2", force: bool = False
) -> Path:
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
    """
    source, target = run_folder(run), Path(folder)
    stand, commit, ds = stand_of(source), whole_commit(source), dataset(source)
    _make_room(target, force=force)
    how: dict[str, Any] = {"threshold": threshold, "norm": norm}
    view = answers.first_answers(ds, stand, **how) | {"answers": answers.all_answers(ds, **how)}
    data = commit.to_bytes()
    view["commit"]["key"] = key_of(data)
    view["state"] = "complete" if commit.completed else "copied"
    for name in files.PAGE_FILES:
        shutil.copyfile(files.PAGE / name, target / name)
    for name in commit.arrays:
        _copy_array(source / TRAJECTORY / name, target / TRAJECTORY / name)
    (target / TRAJECTORY / DOCUMENT).write_bytes(data)
    (target / "view.json").write_bytes(answers.to_json(view))
    return target


def _make_room(target: Path, *, force: bool) -> None:
    """An empty folder; an earlier export is removed if that is wanted."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        is_earlier = (target / "view.json").is_file() and (target / "index.html").is_file()
        if not (force and is_earlier):
            how = "--force replaces it" if is_earlier else "and no earlier export; name another folder"
            raise RunExistsError(f"{target}: is there already; {how}")
        shutil.rmtree(target)
    (target / TRAJECTORY).mkdir(parents=True)


def _copy_array(source: Path, target: Path) -> None:
    """Copy an array's metadata and chunks; plain files only."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.is_symlink():
            shutil.copyfile(path, target / path.name)

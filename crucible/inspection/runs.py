"""Sets of runs: a tree with a child a run, and a table with a row a run."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import xarray as xr

from analysis.judgements.sentences import p_text
from crucible.inspection.selection import Selection, Steps, select
from crucible.inspection.summary import of_several
from store.errors import NotATrajectoryError, StoreError
from store.format.files import local_path, run_folder
from store.reading.reader import open_trajectory
from store.run.commit import read_commit
from store.run.whereabouts import is_there

Runs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
COLUMNS = {
    "run": "run", "steps": "steps", "tokens": "tokens", "last motion": "global_last_motion",
    "median freeze": "freeze.median", "winter": "fimbulwinter_duration", "silences": "stillness.count",
    "p": "end_state.p", "frozen": "end_state.frozen", "diverged": "diverged.step",
}  # fmt: skip
"""The columns of the table, and where their numbers stand among the answers."""
P, VERDICT, NO_VERDICT = "end_state.p", "end_state.frozen", "end_state.no_verdict"


def open_runs(
    runs: Runs, *, population: str | None = None, tokens: Sequence[int] | None = None, steps: Steps | None = None
) -> xr.DataTree:
    """Open several runs, lazily, as one tree with a child a run.

    Parameters
    ----------
    runs : path, pattern, or several of them
        ``"runs/*"`` takes every run that matches, and leaves out what is none; so does a folder that holds runs.
    population, tokens, steps
        The part of each run; see `crucible.inspection.selection.Selection`.

    Returns
    -------
    xarray.DataTree
        The children bear the names of the runs' folders, with the folders above where two have one name. Each is the
        Dataset of `store.open_trajectory`, with the parameters of its config among its attributes.

    Warns
    -----
    UserWarning
        One run is there more than once: as a copy, which may have gone on by itself, or by a link.

    Raises
    ------
    NotATrajectoryError
        There is no run.
    DamageError
        The metadata of one is damaged.

    Examples
    --------
    >>> import crucible, analysis
    >>> tree = crucible.open_runs("runs/*")  # doctest: +SKIP
    >>> analysis.over(tree, analysis.freeze_times).latest.values  # doctest: +SKIP
    """
    folders = find_runs(runs)
    selection = Selection(population, tokens, steps)
    names = _names(folders)
    for line in told_of_copies(dict(zip(names, folders, strict=True))):
        warnings.warn(line, stacklevel=2)
    children = {name: select(_opened(folder), selection) for name, folder in zip(names, folders, strict=True)}
    tree = xr.DataTree.from_dict(children)
    tree.attrs["children_are"] = "run"
    return tree


def find_runs(runs: Runs) -> list[Path]:
    """The folders of these runs, patterns and folders of runs resolved, in the order of their names.

    Raises
    ------
    NotATrajectoryError
        There is none, or one that was named is no run.
    """
    asked = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs)
    found: list[Path] = []
    for each in asked:
        text = os.fspath(local_path(os.fspath(each)))
        if has_magic(text) and not os.path.lexists(text):
            matches = [Path(match) for match in sorted(glob(text), key=_in_numbers)]  # noqa: PTH207 - any pattern
            some = [path for path in matches if _is_run(path)]
        elif Path(text).is_dir() and not _is_run(Path(text)):
            some = [path for path in sorted(Path(text).iterdir(), key=_in_numbers) if _is_run(path)]
        else:
            some = [Path(text)]
        if not some:
            raise NotATrajectoryError(f"{text}: no run there")
        found += [run_folder(path) for path in some]
    return list(dict.fromkeys(found))


def table(all_answers: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of the answers about several runs."""
    rows = [[_cell(_shown(answers, path)) for path in COLUMNS.values()] for answers in all_answers]
    shown = [[name, *row[1:]] for name, row in zip(_names_of(all_answers), rows, strict=True)]
    return list(COLUMNS), shown


def said_of_several(all_answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands below the table of several runs, which bear the names that they have there."""
    runs = dict(zip(_names_of(all_answers), all_answers, strict=True))
    diverged = {name: answers["diverged"] for name, answers in runs.items() if answers["diverged"]}
    copies = told_of_copies({name: Path(answers["run"]) for name, answers in runs.items()})
    return [*(f"{name}: {record['sentence']}" for name, record in diverged.items()), *copies, *of_several(runs)]


def told_of_copies(runs: Mapping[str, Path]) -> list[str]:
    """A sentence for each run that is there under several names: what is counted over all runs counts it several times.

    Copies are what programs that sync folders make, links are such as `latest`.

    Parameters
    ----------
    runs : mapping of str to Path
        The folder of each run, by the name that it has where the sentence stands.

    Notes
    -----
    A copy keeps the `run_id`, also where it went on by itself. A run of format 1 has none, and is known by its folder.
    """
    names: dict[str, list[str]] = {}
    for name, folder in runs.items():
        with suppress(StoreError, OSError):
            names.setdefault(read_commit(folder).run_id or str(folder.resolve()), []).append(name)
    return [
        f"One run is there {len(same)} times, as a copy (which may have gone on by itself) or by a link: "
        f"{', '.join(same)}. What is counted over all runs counts each of them."
        for same in names.values()
        if len(same) > 1
    ]


def as_csv(all_answers: Sequence[Mapping[str, Any]]) -> str:
    """All numbers of the answers, a row a run; what does not exist is empty. Names in names are joined by a dot."""
    flat = [_flat(answers) for answers in all_answers]
    header = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in flat)
    return text.getvalue()


def _flat(answers: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in answers.items():
        if isinstance(value, Mapping):
            row |= _flat(value, f"{prefix}{name}.")
        else:
            row[f"{prefix}{name}"] = " ".join(map(str, value)) if isinstance(value, list) else value
    return row


def _opened(folder: Path) -> xr.Dataset:
    """A run with the parameters of its config among its attributes."""
    ds = open_trajectory(folder)
    config = ds.attrs.get("config")
    told = json.loads(config) if isinstance(config, str) else (config or {})
    return ds.assign_attrs({name: value for name, value in told.items() if _is_plain(value) and name not in ds.attrs})


def _names_of(all_answers: Sequence[Mapping[str, Any]]) -> list[str]:
    return _names([Path(answers["run"]) for answers in all_answers])


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with as many of those above as tell it from the others."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["-".join(part.strip("/\\") for part in folder.parts[-depth:]) or "run" for folder in folders]
        if max(Counter(names).values()) == 1:
            return names
    return [f"run-{i}" for i in range(len(folders))]


def _in_numbers(path: str | Path) -> tuple[tuple[int, int, str], ...]:
    """A key by which run-2 comes before run-10."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _is_run(path: Path) -> bool:
    try:
        return is_there(run_folder(path))
    except (NotATrajectoryError, OSError):
        return False


def _is_plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str))


def _at(answers: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - JSON
    value: Any = answers
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(answers: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - JSON
    """The answer at this place; where there is no verdict, not the "no" of one."""
    value = _at(answers, path)
    if path == VERDICT and (_at(answers, NO_VERDICT) or _at(answers, "end_state") is None):
        return "no verdict"
    return p_text(value, digits=3) if path == P and value is not None else value


def _cell(value: Any) -> str:  # noqa: ANN401 - JSON
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""`crucible report`: the answers and the pictures of a run, or of several, in one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import xarray as xr

from crucible.inspection.info import info
from crucible.inspection.report import images, page
from crucible.inspection.report.asking import apart_of, story_of
from crucible.inspection.report.facts import body_of
from crucible.inspection.report.picture import NARROW, WIDE
from crucible.inspection.report.pictures import of_story
from crucible.inspection.report.several import body_of_several
from crucible.inspection.report.several import pictures as pictures_of_several
from crucible.inspection.selection import Selection, Steps, select
from crucible.inspection.threads import in_threads
from crucible.progress import Progress, silent
from store.format.files import REPORT, local_path, run_folder
from store.placed_file import check_target, place
from store.reading.reader import open_trajectory

if TYPE_CHECKING:
    from crucible.inspection.report.picture import Picture

Subject = TypeVar("Subject")
NO_HTML = (".pdf", ".png", ".svg", ".md", ".docx")
"""Names of files that people expect of a report, and that would not hold what they say: it is HTML."""
LOOKS = 20
"""So often a run that goes on just then is looked at."""


def report(
    runs: str | Path | Sequence[str | Path], out: str | Path | None = None, *, population: str | None = None,
    tokens: Sequence[int] | None = None, steps: Steps | None = None, threshold: float | None = None, norm: str = "l2",
    reference_learning_rate: float | None = None, figures: str | Path | None = None, force: bool = False,
    progress: Progress = silent,
) -> Path:  # fmt: skip
    """Write the report of a run, as of its last commit, or of several runs beside each other.

    Parameters
    ----------
    runs : path, or sequence of paths
        The runs' folders, or their trajectory.zarr. Of several runs the report overlays their curves, with their mean
        and a band, lists their answers in a table, and shows how far each is apart from the first.
    out : path, optional
        The file; ``report.html`` in the first run's folder unless given.
    population, tokens, steps
        Of which part; see `crucible.inspection.selection.Selection`. The page then says which.
    threshold, norm
        Of motion, as in `crucible.analyze`; the page says by which.
    reference_learning_rate : float, optional
        The learning rate for which the end state is judged by the push, as in `crucible.analyze`; the page says so.
    figures : path, optional
        A folder, which is made: each picture is written there as well, as name@200.png, name@72.png and name.svg.
    force : bool
        Replace files that are there.
    progress : callable, optional
        Called with (pictures drawn, pictures in all).

    Returns
    -------
    Path
        Of the file. It holds no absolute path, and no name of a host or user.

    Raises
    ------
    RunExistsError
        A file is there, and `force` is not.
    NotATrajectoryError
        There is no trajectory in one of the folders.
    ValueError
        Without a run, or where one has no such population, token or step; or `out` is named as a file that is no HTML.
    """
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        raise ValueError("report needs at least one run, found none; name the folder of one")
    for run in paths:
        open_trajectory(run)  # whether there is one, before anything is said of the page
    path = run_folder(paths[0]) / REPORT if out is None else local_path(out)
    if path.suffix.lower() in NO_HTML:
        raise ValueError(f"{path}: a report is HTML; name a file that ends in .html, and print it from a browser")
    check_target(path, replace=force)
    into = None if figures is None else local_path(figures)
    part = Selection(population, tokens, steps)
    write = _of_one if len(paths) == 1 else _of_several
    how = {"threshold": threshold, "norm": norm, "reference_learning_rate": reference_learning_rate}
    with in_threads():
        title, parts = write(paths, part, how, _Drawing(into, force, progress))
    place(path, page.page(title, parts), replace=force)
    return path


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Into which folder pictures go, whether files there are replaced, and who is told of the progress."""

    into: Path | None
    force: bool
    progress: Progress


def _of_one(
    paths: Sequence[str | Path], part: Selection, how: dict[str, Any], drawing: _Drawing
) -> tuple[str, list[str]]:
    (run,) = paths
    known, ds = _at_one_commit(run)
    story = story_of(select(ds, part), **how)
    drawn = _draw([(each, story) for each in of_story(story)], drawing)
    return body_of(run, known, story, str(part), drawn)


def _at_one_commit(run: str | Path) -> tuple[dict[str, Any], xr.Dataset]:
    """What a run holds, and the run: of one commit, unless it goes on at each of some looks."""
    for _ in range(LOOKS):
        known, ds = info(run), open_trajectory(run)
        if known["committed_steps"] == ds.attrs["committed_steps"]:
            break
    return known, ds


def _of_several(
    paths: Sequence[str | Path], part: Selection, how: dict[str, Any], drawing: _Drawing
) -> tuple[str, list[str]]:
    opened = [select(open_trajectory(each), part) for each in paths]
    stories = [story_of(each, **how, brief=True) for each in opened]
    stories[1:] = [
        replace(story, answers={**story.answers, **apart_of(opened[0], each)})
        for story, each in zip(stories[1:], opened[1:], strict=True)
    ]
    drawn = _draw([(each, stories) for each in pictures_of_several(stories)], drawing)
    return body_of_several(stories, str(part), drawn)


def _draw(todo: Sequence[tuple[Picture[Subject], Subject]], drawing: _Drawing) -> dict[str, str]:
    """Each picture as a section of the page by its name; and as files, where a folder is given."""
    into, force = drawing.into, drawing.force
    if into is not None:
        images.check_folder(into, [picture.name for picture, _ in todo], force=force)
    sections = {}
    for number, (picture, about) in enumerate(todo, 1):
        wide = picture.draw(about, WIDE)
        drawn = images.svg(wide, picture.name)
        if into is not None:
            images.write(wide, drawn, picture.name, into, force=force)
        narrow = images.svg(picture.draw(about, NARROW), f"{picture.name}-narrow")
        sections[picture.name] = page.picture(
            picture.heading, images.inline(drawn), images.inline(narrow), picture.caption(about), picture.alt(about)
        )
        drawing.progress(number, len(todo))
    return sections

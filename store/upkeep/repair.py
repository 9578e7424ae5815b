"""`check --repair`: sweep leftovers, mend what the commit or the whole rows tell, cut back what nothing tells.

Nothing whole is deleted: chunks behind a cut are set aside in a folder of the run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from store.disk import Disk, LocalDisk
from store.format.commit import read_commit
from store.format.files import DOCUMENT, SET_ASIDE, TRAJECTORY, run_folder
from store.upkeep.check import Damage, Report
from store.writing.completion import Finish, stored_blocks
from store.writing.lock import acquire
from store.writing.publisher import Publisher, leftovers


def repair(run: str | Path, report: Report, *, finish: Finish | None = None, disk: Disk | None = None) -> list[str]:
    """Mend a run, given what `check` found; answers what was done, a sentence each.

    Leftovers are removed. An array's own zarr.json is written anew from the commit. Damaged final arrays are computed
    anew. Where rows are damaged, the run is cut back to the step before the first of them; the chunks that this cuts
    off go to the folder ``set-aside``. A damaged commit, document or static array can't be mended from here, nor a
    run whose first step is damaged: restore those from a copy.

    Raises
    ------
    LockedError, OSError, DamageError
    """
    folder = run_folder(run)
    read_commit(folder)  # before a lock file is left in a folder that is none of ours
    lock = acquire(folder)
    try:
        commit = read_commit(folder)
        publisher = Publisher(folder, disk or LocalDisk(), commit, is_new=False)
        done = [f"removed {path.relative_to(folder)}" for path in leftovers(folder, commit)]
        publisher.sweep()
        documents = [d.name for d in report.damage if d.name.endswith(f"/{DOCUMENT}")]
        publisher.put_array_metadata(commit)
        done += [f"wrote {name} anew from the commit" for name in documents]
        done += _cut(publisher, report)
        if publisher.commit.completed and finish:
            done += _refinish(publisher, report, finish)
        return done
    finally:
        lock.release()


def _cut(publisher: Publisher, report: Report) -> list[str]:
    first = min((_label(publisher, damage) for damage in report.damage if damage.steps), default=None)
    if first is None or first < 1:
        return []
    commit = publisher.commit
    labels = {name: commit.array(publisher.trajectory, name) for name in _axes(publisher)}
    lengths = {
        name: int((array.read_rows(0, array.shape[0]) < first).sum()) if name != "step" else first
        for name, array in labels.items()
    }
    cut = commit.at(lengths).without_newer_checkpoint()
    publisher.publish(replace(cut, generation=commit.generation + 1))
    aside = [path for path in leftovers(publisher.run, publisher.commit) if TRAJECTORY in path.parts]
    for path in aside:
        target = publisher.run / SET_ASIDE / path.relative_to(publisher.trajectory)
        publisher.disk.make_folder(target.parent)
        publisher.disk.rename(path, target)
    return [
        f"cut the run back from step {commit.committed_steps} to step {first - 1}",
        f"set {len(aside)} chunks aside in {SET_ASIDE}/",
    ]


def _axes(publisher: Publisher) -> list[str]:
    return [name for name, metadata in publisher.commit.arrays.items() if metadata["attributes"].get("axis")]


def _label(publisher: Publisher, damage: Damage) -> int:
    """The step label of the first damaged row."""
    assert damage.steps is not None
    every: int = publisher.commit.arrays[damage.name]["attributes"].get("every", 1)
    return damage.steps[0] * every


def _refinish(publisher: Publisher, report: Report, finish: Finish) -> list[str]:
    damaged = {damage.name for damage in report.damage}
    done = []
    for name, values in finish(stored_blocks(publisher.commit, publisher.trajectory)).items():
        if name in damaged:
            publisher.put_whole(name, values)
            done.append(f"computed {name} anew")
    publisher.publish(publisher.commit)
    return done

"""`check --repair`: sweep leftovers, rebuild what the commit or whole rows tell, truncate what cannot be rebuilt.

Nothing whole is deleted: what a cut takes away is set aside in a folder of the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from store.disk import Disk, LocalDisk
from store.errors import DamageError, NewerFormatError, NotATrajectoryError
from store.format import writers
from store.format.files import CHECKPOINT, CONFIG, DOCUMENT, PARTIAL, SECOND_COPY, SET_ASIDE, TRAJECTORY, run_folder
from store.holding.held_run import HeldRun, hold_run
from store.holding.leftovers import find
from store.run import training_state
from store.run.commit import Commit, read_commit, read_second_copy
from store.run.config_file import committed_config
from store.upkeep.adopt import adopt_statics
from store.upkeep.check import Agree, Known, check_commit
from store.upkeep.findings import Report
from store.upkeep.rederive import derived_names, rederive
from store.writing.block_file import BlockFiles
from store.writing.completion import Finish, stored_blocks
from store.writing.encoder import Derive
from store.writing.opening import put_back
from store.writing.publisher import Publisher

_PIECE = 1 << 20


def repair(
    run: str | Path,
    *,
    derive: Derive | None = None,
    finish: Finish | None = None,
    agree: Agree | None = None,
    config_paths: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
    lock: bool = True,
    disk: Disk | None = None,
) -> list[str]:
    """Check a run under the writer's lock, and mend what is found.

    Leftovers are removed; what the store did not make stays. An array's own zarr.json, and config.json where the commit
    holds it, are written anew from the commit, and so are step labels. A commit's file that another program rewrote is
    written anew, if need be from its second copy. Damaged final arrays are computed anew, and so are derived ones that
    cannot be read, where `derive` is given. Where other rows are damaged, or contradict each other, the run is cut back
    to the step before the first of them; the chunks and the training state that this cuts off go to the folder
    ``set-aside``. Damaged training state is set aside, too: resume goes on from the one before it, or from step 0. A
    damaged commit without a second copy, another document or a static array can't be mended from here,
    nor a run whose first step is damaged: restore those from a copy. A static array that another program wrote anew is
    taken as it stands there.

    Parameters
    ----------
    derive, finish, agree, config_paths, progress
        As `check` takes them.
    lock : bool
        As `TrajectoryWriter.create` takes it.
    disk : Disk, optional
        Where the run lies.

    Returns
    -------
    list of str
        What was done, a sentence each.

    Raises
    ------
    LockedError, OSError, DamageError

    Notes
    -----
    What a `check` without the lock found may be of another commit by now: so the very commit that is mended is checked
    here, once more.
    """
    folder, disk = run_folder(run, to_write=True), disk or LocalDisk()
    put_back(folder, disk, lock=lock)
    done = _restore_commit(folder, disk, lock=lock)
    held, commit = hold_run(folder, disk, lock=lock)
    with held:
        report = check_commit(folder, commit, Known(derive, finish, agree, config_paths), progress)
        publisher = Publisher(held, commit, is_new=False)
        done += [f"removed {path.relative_to(folder)}" for path in find(folder, commit).made]
        publisher.sweep()
        done += _write_documents(publisher, report)
        done += _write_labels(publisher, report)
        done += adopt_statics(publisher, report)
        again = [each for each in report.damage if derive and each.is_lost and each.name in derived_names(commit)]
        report.damage = [damage for damage in report.damage if damage not in again]
        done += _cut(publisher, report)
        done += _drop_checkpoints(publisher, report)
        if derive:
            done += rederive(publisher, again, derive)
        if publisher.commit.completed and finish:
            done += _refinish(publisher, report, finish)
        return done


def _restore_commit(run: Path, disk: Disk, *, lock: bool) -> list[str]:
    """Where the commit's file can't be read and its second copy can, put that in its place."""
    try:
        read_commit(run)
        return []
    except NewerFormatError:
        raise
    except (DamageError, NotATrajectoryError):
        if read_second_copy(run) is None or not (run / TRAJECTORY).is_dir():
            raise
    with HeldRun(run, disk, lock=lock) as held:
        copy = read_second_copy(run)
        if copy is not None:
            held.disk.make_folder(run / PARTIAL)
            held.disk.put(run / TRAJECTORY / DOCUMENT, [copy.to_bytes()], run / PARTIAL)
            held.disk.sync_folder(run / TRAJECTORY)
    return [f"restored {TRAJECTORY}/{DOCUMENT} from {SECOND_COPY}"]


def _write_documents(publisher: Publisher, report: Report) -> list[str]:
    """Write anew what the commit holds a copy of."""
    names = [damage.name for damage in report.damage if damage.name.endswith(f"/{DOCUMENT}")]
    for name in publisher.commit.arrays:
        publisher.disk.make_folder(publisher.trajectory / name)
    if publisher.commit.changed:
        publisher.publish(publisher.commit)
    publisher.put_array_metadata(publisher.commit)
    if read_second_copy(publisher.run) != publisher.commit:
        publisher.put_second_copy()
        names += [damage.name for damage in report.damage if damage.name == SECOND_COPY]
    config = committed_config(publisher.commit)
    if config is not None and any(damage.name == CONFIG for damage in report.damage):
        publisher.disk.put(publisher.run / CONFIG, [config], publisher.scratch)
        publisher.disk.sync_folder(publisher.run)
        names.append(CONFIG)
    return [f"wrote {name} anew from the commit" for name in names]


def _write_labels(publisher: Publisher, report: Report) -> list[str]:
    """Write step labels anew: the commit tells them. They are in the way of no cut then."""
    commit, damaged = publisher.commit, {damage.name for damage in report.damage}
    axes = [name for name in _axes(commit) if name in damaged]
    if axes:
        publisher.come()
    for name in axes:
        array, told = commit.array(publisher.trajectory, name), commit.labels(name)
        for (block,) in array.indices():
            first, stop = block * array.chunk_shape[0], min((block + 1) * array.chunk_shape[0], array.shape[0])
            labels = np.zeros(array.chunk_shape, array.dtype)
            labels[: stop - first] = told.values(first, stop)
            with BlockFiles(publisher.open_block) as files:
                files.add(name, block, array.layout.last(block), array.encode(labels))
    if axes:
        publisher.publish(publisher.commit)
        report.damage = [damage for damage in report.damage if damage.name not in axes]
    return [f"wrote the labels {name} anew" for name in axes]


def _axes(commit: Commit) -> list[str]:
    """The labels of step axes."""
    return [name for name, metadata in commit.arrays.items() if metadata["attributes"].get("axis")]


def _cut(publisher: Publisher, report: Report) -> list[str]:
    first = min((damage.steps[0] for damage in report.damage if damage.steps), default=None)
    commit = publisher.commit
    if first is None or first <= commit.labels().label(0):
        return []
    cut = training_state.without_newer(commit.at(_lengths(commit, first)))
    aside = _free_folder(publisher.run)
    for name in training_state.named(commit):
        if name not in training_state.named(cut):
            _copy_checkpoint(publisher, name, aside)
    publisher.publish(_shortened(commit, cut))
    cut_off = [path for path in find(publisher.run, publisher.commit).made if TRAJECTORY in path.parts]
    for path in cut_off:
        target = aside / path.relative_to(publisher.trajectory)
        publisher.disk.make_folder(target.parent)
        publisher.disk.rename(path, target)
    return [
        f"cut the run back from step {commit.committed_steps} to step {cut.committed_steps}",
        f"set {len(cut_off)} chunks aside in {aside.name}/",
    ]


def _shortened(commit: Commit, cut: Commit) -> Commit:
    """The cut, of the next generation; in format 2 with a new writer, so that no file counts beyond it."""
    if commit.version == 1:
        return replace(cut, generation=commit.generation + 1)
    return replace(cut, **writers.cut(cut.state, writers.new_writer(), cut.committed_steps))


def _lengths(commit: Commit, first: int) -> dict[str, int]:
    """Rows of each step axis before step `first`."""
    rows = {name: commit.labels(name).rows_until(first - 1) for name in _axes(commit)}
    return {name: min(commit.arrays[name]["shape"][0], count) for name, count in rows.items()}


def _free_folder(run: Path) -> Path:
    """Where this cut sets aside what it takes away: never onto what an earlier one did."""
    folder, number = run / SET_ASIDE, 1
    while folder.exists():
        number += 1
        folder = run / f"{SET_ASIDE}-{number}"
    return folder


def _copy_checkpoint(publisher: Publisher, name: str, aside: Path) -> None:
    """Copy training state of a later step, which goes with the cut. Before it: the commit still names the original."""
    source, target, disk = publisher.run / CHECKPOINT / name, aside / CHECKPOINT / name, publisher.disk
    for file in training_state.digests(publisher.commit, name):
        try:
            fd = disk.open_plain(source / file)
        except OSError:  # that may be damage, too
            continue
        with os.fdopen(fd, "rb") as original:
            disk.make_folder(target)
            disk.put(target / file, iter(partial(original.read, _PIECE), b""), publisher.scratch)
            disk.sync_folder(target)


def _drop_checkpoints(publisher: Publisher, report: Report) -> list[str]:
    """Set training state aside of which a file is damaged, so that resume takes what there is besides.

    It is moved before the commit stops naming it: a crash between the two leaves it as damaged as it was.
    """
    commit, damaged = publisher.commit, [damage.name for damage in report.damage]
    names = [
        name for name in training_state.named(commit) if any(d.startswith(f"{CHECKPOINT}/{name}/") for d in damaged)
    ]
    if not names:
        return []
    aside, done = _free_folder(publisher.run), []
    for name in names:
        source, target = publisher.run / CHECKPOINT / name, aside / CHECKPOINT / name
        done.append(f"dropped the training state {name}, which is damaged")
        if os.path.lexists(source):
            publisher.disk.make_folder(target.parent)
            publisher.disk.rename(source, target)
            done[-1] += f"; what is left of it is set aside in {aside.name}/"
    publisher.publish(training_state.without(commit, names))
    return done


def _refinish(publisher: Publisher, report: Report, finish: Finish) -> list[str]:
    damaged = {damage.name for damage in report.damage}
    done = []
    for name, values in finish(stored_blocks(publisher.commit, publisher.trajectory)).items():
        if name in damaged:
            publisher.come()
            publisher.put_whole(name, values)
            done.append(f"computed {name} anew")
    if done:
        publisher.publish(publisher.commit)
    return done

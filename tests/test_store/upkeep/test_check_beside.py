"""`check`, `repair` and opening while something else happens to the run: no damage is named that is none.

What happens meanwhile happens at a chosen place: right after the commit was read, or after a block of rows was checked.
So each of these tests sees the same at each run.
"""

import itertools
import shutil

import numpy as np
import pytest
import store_cases as cases

import store
import store.format.chunking
import store.reading.reader
import store.upkeep.check
import store.upkeep.compact
import store.upkeep.repair
import store.writing.encoder
from store.disk import LocalDisk
from store.errors import LockedError
from store.format.files import COMPACTED, TRAJECTORY
from store.holding.held_run import HeldRun, hold_run
from store.run.commit import read_commit
from store.run.whereabouts import finish_swap
from store.upkeep.compact import compact

STEPS = 42
OPTIONS = {"derive": cases.derive, "finish": cases.finish}


def patch(setattr):
    """Short blocks, longer ones after a compaction."""
    cases.patch_blocks(setattr)
    setattr(store.format.chunking, "SCALAR_ROWS", 32)
    setattr(store.writing.encoder, "SCALAR_ROWS", 32)
    setattr(store.upkeep.compact, "BLOCK_STEPS", 16)
    setattr(store.upkeep.compact, "TILE_ELEMENTS", 3 * cases.HIDDEN)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch(monkeypatch.setattr)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch.setattr)
        return cases.unbroken(tmp_path_factory.mktemp("whole"), STEPS)


@pytest.fixture
def run(whole, tmp_path):
    """A finished run of eleven blocks."""
    return shutil.copytree(whole, tmp_path / "run")


def after_reading_the_commit(monkeypatch, happen, times=1):
    """Have something happen each of the first `times` that a check, or who opens, has read the commit."""
    rest = iter(range(times))

    def read(folder):
        commit = read_commit(folder)
        if next(rest, None) is not None:
            happen()
        return commit

    for module in (store.upkeep.check, store.reading.reader):
        monkeypatch.setattr(module, "read_commit", read)


def in_the_middle(happen):
    """A progress function that has it happen after the third block of rows."""
    return lambda done, _total: happen() if done == 3 else None


def go_on(run, steps=STEPS + 9, variant=0, **options):
    """Go on with a run, to its end; with other rows for another variant."""
    writer = cases.resume(run, disk=cases.fast_disk(), **options)
    for step in range(writer.steps + 1, steps + 1):
        writer.append(**cases.row(step, variant))
        if step % 5 == 0:
            writer.checkpoint(step, cases.checkpoint_files(step))
            writer.commit()
    writer.complete(lambda finals: {"largest": finals["largest"].tolist()})


def compact_half(run):
    """A compaction that is killed between its two renames."""

    class Dying(LocalDisk):
        def rename(self, source, target):
            if source.name == COMPACTED.name:
                raise KeyboardInterrupt
            super().rename(source, target)

    with pytest.raises(KeyboardInterrupt):
        compact(run, disk=Dying(cases.Calls()))


MEANWHILE = {
    "it goes on": go_on,
    "it goes on with another config": lambda run: go_on(run, config={"total_steps": 99}),
    "its rows are replaced": lambda run: go_on(run, variant=1, from_step=11),
    "it is cut back": lambda run: cases.resume(run, from_step=9, cut=True, disk=cases.fast_disk()).close(),
    "it is resumed twice": lambda run: [go_on(run, STEPS + 3), go_on(run, STEPS + 6)],
    "it is compacted": lambda run: compact(run, disk=cases.fast_disk()),
    "a compaction is killed between its renames": compact_half,
}


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("where", ["after the commit was read", "in the middle"])
def test_check_names_no_damage_when(run, monkeypatch, meanwhile, where):
    happened = []

    def happen():
        if not happened:
            happened.append(True)
            MEANWHILE[meanwhile](run)

    progress = in_the_middle(happen)
    if where == "after the commit was read":
        after_reading_the_commit(monkeypatch, happen)
        progress = None
    report = store.check(run, progress=progress, **OPTIONS)
    assert happened
    assert report.damage == []
    assert [name for name in report.leftovers if ".partial" not in name] == []
    assert report.committed_steps in (STEPS, read_commit(run).committed_steps)
    if read_commit(run).generation:
        assert report.committed_steps == read_commit(run).committed_steps


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("always", [1, 10_000])
def test_a_writer_that_commits_at_every_look_hides_no_damage_and_makes_none(tmp_path, monkeypatch, always):
    """Arrays' own metadata ahead of the commit that was read before, training state that is replaced: no damage."""
    run = tmp_path / "run"
    with cases.create(run, disk=cases.fast_disk()) as writer:

        def write_more(count=6):
            for step in range(writer.steps + 1, writer.steps + 1 + count):
                writer.append(**cases.row(step))
                writer.checkpoint(step, cases.checkpoint_files(step))
            writer.commit()

        write_more(20)
        with monkeypatch.context() as context:
            after_reading_the_commit(context, write_more, always)
            assert store.check(run, **OPTIONS).damage == []
        spoilt = run / TRAJECTORY / "W" / "c.1.0.0"
        spoilt.write_bytes(b"")
        (run / "config.json").unlink()
        after_reading_the_commit(monkeypatch, write_more, always)
        assert {damage.name for damage in store.check(run, **OPTIONS).damage} == {"W", "config.json"}


def test_a_file_of_training_state_may_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(store.run.document, "LARGEST_DOCUMENT", 1 << 16)
    with cases.create(tmp_path / "run", disk=cases.fast_disk()) as writer:
        writer.append(**cases.row(0))
        writer.checkpoint(0, {"model.bin": bytes(1 << 17)})
    assert store.check(tmp_path / "run", **OPTIONS).is_whole


def test_repair_checks_the_very_commit_that_it_cuts(run, monkeypatch):
    """A compaction between the check and the repair: what was damage of the old chunks is none of the new ones."""
    spoilt = run / TRAJECTORY / "W" / "c.3.0.0"
    whole = spoilt.read_bytes()
    spoilt.write_bytes(b"")
    assert not store.check(run, **OPTIONS).is_whole

    def mended_and_compacted_before(folder, disk, **options):
        spoilt.write_bytes(whole)
        compact(folder, disk=cases.fast_disk())
        return hold_run(folder, disk, **options)

    monkeypatch.setattr(store.upkeep.repair, "hold_run", mended_and_compacted_before)
    assert store.repair(run, **OPTIONS) == []
    assert read_commit(run).committed_steps == STEPS
    assert store.check(run, **OPTIONS).is_whole


def test_repair_is_refused_while_somebody_writes_or_compacts(run):
    (run / TRAJECTORY / "W" / "c.3.0.0").write_bytes(b"")
    lock = HeldRun(run, LocalDisk())
    with pytest.raises(LockedError):
        store.repair(run, **OPTIONS)
    lock.release()
    assert "cut the run back from step 42 to step 11" in store.repair(run, **OPTIONS)


def test_a_compaction_between_two_looks_at_the_folder_is_no_missing_trajectory(run, monkeypatch):
    """The old trajectory is moved away right before its commit is read."""
    true, calls = store.run.commit.read_document, itertools.count()

    def read(path):
        if next(calls) == 0:
            compact_half(run)
        return true(path)

    monkeypatch.setattr(store.run.commit, "read_document", read)
    assert read_commit(run).generation == 1


@pytest.mark.parametrize(
    "meanwhile", ["it is compacted", "a compaction is killed between its renames", "it is cut back"]
)
def test_who_opens_meanwhile_sees_one_commit(run, monkeypatch, meanwhile):
    after_reading_the_commit(monkeypatch, lambda: MEANWHILE[meanwhile](run))
    ds = store.open_trajectory(run)
    if ds.sizes["step"] > STEPS:  # opened just before: the handle is stale now
        ds = store.open_trajectory(run)
    wanted = cases.expected(read_commit(run).committed_steps)
    np.testing.assert_array_equal(ds.W.values, wanted["W"])
    np.testing.assert_array_equal(ds.step_probe.values, wanted["step_probe"])


def test_a_run_whose_compaction_was_cut_short_is_never_begun_anew(run):
    """All there is of it lies in .partial just then, which a beginning sweeps."""
    (run / "metadata.json").unlink()
    compact_half(run)
    with pytest.raises(FileExistsError):
        cases.create(run, restart=True, disk=cases.fast_disk())
    finish_swap(run)
    assert cases.stored(run)[1]["W"].tolist() == cases.expected(STEPS)["W"].tolist()

"""Compacting: the same numbers in fewer bytes, whatever moment the power fails at; refused where it must be."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import store_cases as cases
import xarray as xr

import store.format.chunking
import store.upkeep.compact
import store.upkeep.rewrite
import store.writing.encoder
from store.disk import LocalDisk
from store.errors import DamageError, LockedError, NotATrajectoryError, StaleHandleError, WriterError
from store.format.files import COMPACTED, REPLACED, TRAJECTORY
from store.holding.held_run import HeldRun
from store.reading.reader import open_trajectory
from store.run.commit import read_commit
from store.upkeep.check import check
from store.upkeep.compact import compact

STEPS = 42


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of ten short blocks."""
    cases.patch_blocks(monkeypatch.setattr)
    monkeypatch.setattr(store.upkeep.compact, "BLOCK_STEPS", 16)
    monkeypatch.setattr(store.upkeep.compact, "TILE_ELEMENTS", 3 * cases.HIDDEN)
    monkeypatch.setattr(store.format.chunking, "SCALAR_ROWS", 32)
    monkeypatch.setattr(store.writing.encoder, "SCALAR_ROWS", 32)
    monkeypatch.setattr(store.upkeep.compact, "LocalDisk", cases.fast_disk)
    writer = cases.create(tmp_path / "run", disk=cases.fast_disk())
    cases.drive(writer, STEPS)
    return tmp_path / "run"


def assert_holds_everything(run):
    """The commit and every array, against plain loops."""
    commit = read_commit(run)
    assert commit.committed_steps == STEPS
    assert commit.completed
    for name, values in cases.expected(STEPS).items():
        array = commit.array(run / TRAJECTORY, name)
        found = array.read_rows(0, array.shape[0])
        assert found.dtype == values.dtype
        assert found.tobytes() == values.tobytes(), name
    for name, values in cases.STATICS.items():
        assert commit.array(run / TRAJECTORY, name).read_rows(0, len(values)).tolist() == values.tolist()


def test_the_same_numbers_in_long_blocks(run):
    seen = []
    report = compact(run, progress=lambda done, total: seen.append((done, total)))
    assert_holds_everything(run)
    assert report.block_steps == 16
    assert read_commit(run).array(run / TRAJECTORY, "W").chunk_shape == (16, 3, cases.HIDDEN)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert not list((run / ".partial").iterdir())


def test_is_plain_zarr_and_passes_check(run):
    compact(run)
    report = check(run, derive=cases.derive, finish=cases.finish)
    assert not report.damage
    assert not report.leftovers
    with xr.open_zarr(run / TRAJECTORY) as plain:
        assert plain.W.values.tobytes() == cases.expected(STEPS)["W"].tobytes()
    with open_trajectory(run) as ours:
        assert ours.jump.values.tobytes() == cases.expected(STEPS)["jump"].tobytes()


def test_a_second_time_changes_nothing(run):
    compact(run)
    before = read_commit(run)
    assert compact(run).elapsed_s == 0
    assert read_commit(run) == before


def test_an_older_handle_is_stale_and_never_wrong(run):
    before = open_trajectory(run)
    compact(run)
    with pytest.raises(StaleHandleError):
        before.W.values  # noqa: B018 - reading is the point


def test_a_run_that_goes_on_is_refused(tmp_path, monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)
    writer = cases.create(tmp_path / "run", disk=cases.fast_disk())
    cases.drive(writer, 6, end=False)
    with pytest.raises(WriterError, match="step 6 and is not finished"):
        compact(tmp_path / "run")


def test_nothing_there_and_somebody_writing(run, tmp_path):
    with pytest.raises(NotATrajectoryError):
        compact(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    lock = HeldRun(run, LocalDisk())
    with pytest.raises(LockedError):
        compact(run)
    lock.release()
    assert_holds_everything(run)


def test_a_compacted_run_cannot_go_on(run):
    compact(run)
    with pytest.raises(WriterError, match="compacted"):
        cases.resume(run)
    assert_holds_everything(run)


def test_a_damaged_run_is_left_alone(run):
    chunk = run / TRAJECTORY / "W" / "c.3.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    with pytest.raises(DamageError, match="W"):
        compact(run)
    assert read_commit(run).generation == 0
    assert chunk.read_bytes() == data
    assert not (run / COMPACTED).exists()


def test_a_copy_that_reads_back_otherwise_is_not_taken(run, monkeypatch):
    monkeypatch.setattr(store.upkeep.rewrite, "_fingerprint", lambda *_: np.random.default_rng().integers(1 << 60))
    with pytest.raises(DamageError, match="differs from what was written"):
        compact(run)
    monkeypatch.undo()
    assert_holds_everything(run)


class DyingDisk(LocalDisk):
    """A disk that takes n renames of folders and then no more: what a crash at that instant leaves."""

    def __init__(self, n):
        super().__init__(cases.Calls())
        self.left = n

    def rename(self, source, target):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        super().rename(source, target)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("renames", [0, 1])
@pytest.mark.parametrize("opener", [read_commit, open_trajectory, lambda run: check(run).is_whole or 1 / 0])
def test_opening_finishes_a_swap_that_was_cut_short(run, renames, opener):
    with pytest.raises(KeyboardInterrupt):
        compact(run, disk=DyingDisk(renames))
    assert (run / TRAJECTORY).exists() == (renames == 0)
    opener(run)
    assert_holds_everything(run)
    assert read_commit(run).generation == renames
    compact(run)  # goes on from any of these
    assert_holds_everything(run)
    assert not (run / REPLACED).exists()


def test_a_reader_may_finish_the_swap_while_it_goes_on(run):
    class Watched(LocalDisk):
        def rename(self, source, target):
            if source == run / COMPACTED:
                read_commit(run)
            super().rename(source, target)

    compact(run, disk=Watched(cases.Calls()))
    assert_holds_everything(run)
    assert read_commit(run).generation == 1


@pytest.mark.parametrize("stride", [291, pytest.param(1, marks=pytest.mark.slow)])
def test_the_nth_call_fails(run, tmp_path, stride):
    """System calls fail in turn, once: the run is whole at any time, old or new."""
    for n in itertools.count(1, stride):
        copy = Path(shutil.copytree(run, tmp_path / f"copy{n}"))
        calls = cases.Failing(n)
        try:
            compact(copy, disk=LocalDisk(calls), threads=1)
        except OSError:
            assert calls.failed
        assert_holds_everything(copy)
        if not calls.failed:
            break
        shutil.rmtree(copy)
    assert n > 300


def test_a_short_run_gets_a_short_block(tmp_path, monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)
    writer = cases.create(tmp_path / "run", disk=cases.fast_disk())
    cases.drive(writer, 4)
    assert compact(tmp_path / "run").block_steps == 8

"""Upgrading format 1: the same chunks in fewer files, whatever call fails; a handle from before is stale."""

import itertools
import shutil
from pathlib import Path

import pytest
import store_cases as cases

from store.disk import LocalDisk
from store.errors import ChecksumError, LockedError, StaleHandleError
from store.format.files import COMPACTED, TRAJECTORY
from store.holding.held_run import HeldRun
from store.reading.reader import open_trajectory
from store.run.commit import read_commit
from store.upkeep.upgrade import upgrade

V1 = Path(__file__).parents[2] / "formats" / "v1"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(V1, tmp_path / "run"))


def chunks(run):
    """The verified bytes of every chunk."""
    commit = read_commit(run)
    arrays = [commit.array(run / TRAJECTORY, name) for name in commit.arrays]
    return {(array.name, index): array.read_bytes(index) for array in arrays for index in array.indices()}


def test_every_chunk_stays_the_same(run):
    before = chunks(run)
    seen = []
    report = upgrade(run, progress=lambda *at: seen.append(at), disk=cases.fast_disk())
    assert report.was_of_version == 1
    assert report.after_files <= report.before_files
    assert read_commit(run).version == 2
    assert chunks(run) == before
    assert seen[-1][0] == seen[-1][1]
    assert not list((run / ".partial").iterdir())


def test_a_second_time_changes_nothing(run):
    upgrade(run, disk=cases.fast_disk())
    before = read_commit(run)
    assert upgrade(run).elapsed_s == 0
    assert read_commit(run) == before


def test_an_older_handle_is_stale(run):
    before = open_trajectory(run)
    upgrade(run, disk=cases.fast_disk())
    with pytest.raises(StaleHandleError):
        before.W.values  # noqa: B018 - reading is the point


def test_a_damaged_run_and_one_that_is_written_are_left_alone(run):
    lock = HeldRun(run, LocalDisk())
    with pytest.raises(LockedError):
        upgrade(run)
    lock.release()
    chunk = run / TRAJECTORY / "W" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    with pytest.raises(ChecksumError, match="W"):
        upgrade(run, disk=cases.fast_disk())
    assert read_commit(run).version == 1
    assert not (run / COMPACTED).exists()


@pytest.mark.parametrize("stride", [111, pytest.param(5, marks=pytest.mark.slow)])
def test_the_nth_call_fails(run, tmp_path, stride):
    """System calls fail in turn, once: the run is whole at any time, of one format or the other."""
    wanted = chunks(run)
    for n in itertools.count(1, stride):
        copy = Path(shutil.copytree(run, tmp_path / f"copy{n}"))
        calls = cases.Failing(n)
        try:
            upgrade(copy, disk=LocalDisk(calls), threads=1)
        except OSError:
            assert calls.failed
        assert chunks(copy) == wanted
        if not calls.failed:
            break
        shutil.rmtree(copy)
    assert n > 150

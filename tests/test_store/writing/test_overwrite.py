"""A new run in the place of an old one: no crash loses the old one, and nothing but the store's files is touched."""

import contextlib
import errno
import shutil

import pytest
import store_cases as cases
from store_cases import Failing, assert_holds, files, fresh

import store
from store.disk import LocalDisk
from store.errors import LockedError, NotATrajectoryError, RunExistsError, StoreError
from store.format.files import OVERWRITTEN, TRAJECTORY
from store.run.commit import read_commit
from store.writing.opening import put_back

IN_BETWEEN = 60
"""At this call the old run is set aside, and the new one has not come."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


def old_run(folder, steps=5):
    run = folder / "run"
    cases.drive(cases.create(run, disk=cases.fast_disk()), steps)
    (run / "report.html").write_text("a report")
    return run


def overwrite(run, disk=None, steps=3):
    with cases.create(run, disk=disk or cases.fast_disk(), overwrite=True) as writer:
        for step in range(steps):
            writer.append(**cases.row(step, variant=1))


def test_the_new_run_takes_the_place_of_the_old(tmp_path):
    run = old_run(tmp_path)
    overwrite(run)
    commit = assert_holds(run, variant_of=lambda _: 1)
    assert commit.committed_steps == 2
    assert not (run / OVERWRITTEN).exists()
    assert not (run / "report.html").exists()
    assert not (run / "checkpoint").exists()


def test_the_old_run_is_there_until_the_first_commit(tmp_path):
    run = old_run(tmp_path)
    before = files(run)
    writer = cases.create(run, disk=cases.fast_disk(), overwrite=True)
    with pytest.raises(NotATrajectoryError, match=r"is in \.overwritten"):
        read_commit(run)
    with pytest.raises(LockedError):
        put_back(run, cases.fast_disk())
    writer.close()
    assert files(run) == before


@pytest.mark.parametrize("stride", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_a_crash_at_any_call_leaves_the_old_run_or_the_new(tmp_path, stride):
    old = old_run(tmp_path, steps=1)
    n, outcomes, before, run_id = 1, set(), files(old), read_commit(old).run_id
    while True:
        with fresh(tmp_path / "crash") as folder:
            run = shutil.copytree(old, folder / "run")
            calls = Failing(n, errno.EIO, for_good=True)
            with contextlib.suppress(OSError, StoreError):
                overwrite(run, LocalDisk(calls))
            if not calls.failed:
                break
            put_back(run, cases.fast_disk())
            outcomes.add(is_old := read_commit(run).run_id == run_id)
            if is_old:
                assert files(run) == before
            else:
                assert_holds(run, variant_of=lambda _: 1)
            assert not (run / OVERWRITTEN).exists()
            n += stride
    assert outcomes == {True, False}
    overwrite(old)
    assert_holds(old, at_least=2, variant_of=lambda _: 1)


def test_a_crash_while_it_is_put_back_is_no_loss_either(tmp_path):
    old = old_run(tmp_path, steps=1)
    before = files(old)
    with contextlib.suppress(OSError, StoreError):
        overwrite(old, LocalDisk(Failing(IN_BETWEEN, errno.EIO, for_good=True)))
    assert (old / OVERWRITTEN / TRAJECTORY).exists()
    for n in range(1, 1000):
        with fresh(tmp_path / "crash") as folder:
            run = shutil.copytree(old, folder / "run")
            calls = Failing(n, errno.EIO, for_good=True)
            with contextlib.suppress(OSError):
                put_back(run, LocalDisk(calls))
            put_back(run, cases.fast_disk())
            assert files(run) == before
            if not calls.failed:
                break
    assert n > 5


@pytest.mark.parametrize("way", ["resume", "repair", "overwrite"])
def test_whoever_writes_next_puts_the_old_run_back(tmp_path, way):
    run = old_run(tmp_path)
    with contextlib.suppress(OSError, StoreError):
        overwrite(run, LocalDisk(Failing(IN_BETWEEN, errno.EIO, for_good=True)))
    if way == "resume":
        cases.resume(run).close()
    elif way == "repair":
        store.repair(run, derive=cases.derive, finish=cases.finish)
    else:
        with pytest.raises(RunExistsError):
            cases.create(run)
    assert assert_holds(run).committed_steps == 5


@pytest.mark.parametrize(
    "name", ["notes.txt", "trajectory.zarr/mine.npy", "trajectory.zarr/W/notes", "checkpoint/best"]
)
def test_a_file_of_somebody_else_keeps_the_folder_as_it_is(tmp_path, name):
    run = old_run(tmp_path)
    (run / name).write_text("mine")
    before = files(run)
    with pytest.raises(RunExistsError, match=r"no file of a run.*move it away"):
        cases.create(run, overwrite=True)
    assert files(run) == before


def test_a_link_is_not_the_stores_own(tmp_path):
    run = old_run(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (run / "set-aside").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunExistsError, match="set-aside"):
        cases.create(run, overwrite=True)


def test_a_folder_of_no_run_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("")
    with pytest.raises(RunExistsError, match=r"one.jpg"):
        cases.create(tmp_path / "photos", overwrite=True)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.jpg"]


def test_a_run_that_another_writer_holds_is_left_alone(tmp_path):
    run = tmp_path / "run"
    with cases.create(run, disk=cases.fast_disk()) as writer:
        writer.append(**cases.row(0))
        writer.commit()
        with pytest.raises(LockedError):
            cases.create(run, overwrite=True)
        assert not (run / OVERWRITTEN).exists()
    assert_holds(run, 0)


def test_nothing_there_and_a_run_that_never_committed_are_fine(tmp_path):
    overwrite(tmp_path / "new")
    with contextlib.suppress(OSError, StoreError):
        cases.create(tmp_path / "begun", disk=LocalDisk(Failing(40, errno.EIO, for_good=True)))
    assert (tmp_path / "begun" / "config.json").exists()
    overwrite(tmp_path / "begun")
    assert_holds(tmp_path / "begun", 2, variant_of=lambda _: 1)

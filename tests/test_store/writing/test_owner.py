"""A run that is removed, replaced or taken over under its writer: an error once, and the other run stays as it is."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import store_cases as cases
from descriptors import open_below
from killed_children import Children
from waiting import wait_until

from store.disk import LocalDisk
from store.errors import LockedError, WriterError
from store.format.files import LOCK, PARTIAL
from store.holding.held_run import HeldRun


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


def begin(run, steps=6):
    writer = cases.create(run, disk=cases.fast_disk())
    for step in range(steps):
        writer.append(**cases.row(step))
    writer.commit()
    return writer


def everything(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def go_on(writer, end):
    for step in range(writer.steps + 1, writer.steps + 7):
        writer.append(**cases.row(step))
    getattr(writer, end)()


@pytest.mark.parametrize("end", ["commit", "close", "complete"])
def test_a_run_that_was_replaced_by_a_finished_one(tmp_path, end):
    run = tmp_path / "run"
    first = begin(run)
    shutil.rmtree(run)
    cases.drive(cases.create(run, disk=cases.fast_disk()), 10)
    before = everything(run)
    with pytest.raises(WriterError, match="was replaced by another run"):
        go_on(first, end)
    first.close()
    assert everything(run) == before
    cases.assert_holds(run, 10)


@pytest.mark.parametrize("end", ["commit", "close", "complete"])
def test_a_run_that_was_removed_stays_away(tmp_path, end):
    run = tmp_path / "run"
    first = begin(run)
    shutil.rmtree(run)
    with pytest.raises(WriterError, match="was removed"):
        go_on(first, end)
    first.close()
    assert not run.exists()


@pytest.mark.parametrize("end", ["commit", "close", "complete"])
def test_a_run_whose_lock_was_removed_and_that_another_writer_took_over(tmp_path, end):
    run = tmp_path / "run"
    first = begin(run)
    (run / LOCK).unlink()
    cases.drive(cases.resume(run, disk=cases.fast_disk()), 10)
    before = everything(run)
    with pytest.raises(WriterError, match="taken over by another writer, and stands at step 10"):
        go_on(first, end)
    first.close()
    assert everything(run) == before


def test_closing_without_new_rows_touches_no_other_run(tmp_path):
    run = tmp_path / "run"
    first = begin(run)
    shutil.rmtree(run)
    cases.drive(cases.create(run, disk=cases.fast_disk()), 4)
    before = everything(run)
    with pytest.raises(WriterError, match="was replaced by another run"):
        first.close()
    first.close()
    assert everything(run) == before


def test_a_lock_that_was_removed_is_made_and_held_anew(tmp_path):
    run = tmp_path / "run"
    writer = begin(run)
    (run / LOCK).unlink()
    assert not writer.owns_run
    go_on(writer, "commit")
    assert writer.owns_run
    with pytest.raises(LockedError, match=f"pid {os.getpid()} "):
        cases.resume(run)
    go_on(writer, "complete")
    cases.assert_holds(run, writer.steps)


@pytest.mark.parametrize("steps", [0, 6])
def test_a_lock_that_another_holds_by_now(tmp_path, steps):
    """It has not published that it came, so that the commit is still this writer's."""
    run = tmp_path / "run"
    first = begin(run, steps) if steps else cases.create(run, disk=cases.fast_disk())
    (run / LOCK).unlink()
    other = HeldRun(run, cases.fast_disk())
    before = everything(run)
    with pytest.raises(WriterError, match=r"lost its LOCK .*being written by pid"):
        go_on(first, "commit")
    first.close()
    assert everything(run) == before
    other.release()


@pytest.mark.parametrize("by", [None, "an empty folder", "a run"])
def test_a_run_that_is_gone_before_its_first_commit(tmp_path, by):
    run = tmp_path / "run"
    first = cases.create(run, disk=cases.fast_disk())
    shutil.rmtree(run)
    if by == "a run":
        cases.drive(cases.create(run, disk=cases.fast_disk()), 4)
    elif by:
        run.mkdir()
    before = everything(run)
    with pytest.raises(WriterError, match="was replaced by another" if by else "was removed"):
        go_on(first, "commit")
    first.close()
    assert everything(run) == before
    assert run.exists() == (by is not None)


@pytest.mark.parametrize("again", [True, False])
def test_whatever_the_race_a_removed_folder_is_not_written_to(tmp_path, monkeypatch, again):
    """The look at the owner sees nothing: the run is replaced right after it."""
    run = tmp_path / "run"
    first = begin(run)
    shutil.rmtree(run)
    if again:
        cases.drive(cases.create(run, disk=cases.fast_disk()), 10)
    before = everything(run)
    monkeypatch.setattr(first._held, "check", lambda: None)
    with pytest.raises(WriterError, match="No such file"):
        go_on(first, "commit")
    first.close()
    assert everything(run) == before
    assert run.exists() == again


def test_a_run_that_was_moved_is_not_written_on(tmp_path):
    run = tmp_path / "run"
    first = begin(run)
    run.rename(tmp_path / "moved")
    before = everything(tmp_path / "moved")
    with pytest.raises(WriterError, match="was removed"):
        go_on(first, "commit")
    assert everything(tmp_path / "moved") == before
    assert not run.exists()


def replaced(run):
    shutil.rmtree(run)
    cases.drive(cases.create(run, disk=cases.fast_disk()), 10)


def taken_over(run):
    (run / LOCK).unlink()
    cases.drive(cases.resume(run, disk=cases.fast_disk()), 10)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(("happen", "said"), [(replaced, "replaced by another run"), (taken_over, "taken over by")])
def test_a_run_that_another_process_wrote_on(tmp_path, happen, said):
    run, ready, told, notes = (tmp_path / name for name in ("run", "ready", "told", "notes"))
    with Children() as children:
        children.start("write_once_told", *map(str, (run, ready, told, notes)))
        wait_until(ready.exists)
        happen(run)
        before = everything(run)
        told.touch()
        assert children.end() == 0
    assert said in notes.read_text()
    assert everything(run) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the proc file system tells what is open")
@pytest.mark.parametrize("end", ["close", "complete"])
def test_no_descriptor_is_left_open(tmp_path, end):
    go_on(begin(tmp_path / "run"), end)
    with pytest.raises(LockedError), HeldRun(tmp_path / "run", cases.fast_disk()):
        cases.resume(tmp_path / "run")
    assert open_below(tmp_path) == []


class Meanwhile(cases.Calls):
    """The system, with something that happens right before the nth write or flush."""

    def __init__(self):
        super().__init__()
        self.left, self.happens = -1, None

    def before(self, name, *_args):
        if name in ("write", "fsync") and self.left >= 0:
            self.left -= 1
            if self.left < 0:
                self.happens()


def begin_by(calls, run):
    writer = cases.create(run, disk=LocalDisk(calls))
    for step in range(6):
        writer.append(**cases.row(step))
    writer.commit()
    return writer


def go_on_until_it_raises(writer):
    for _ in range(20):
        go_on(writer, "commit")


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("n", range(0, 96, 4))
def test_a_writer_that_stops_within_a_commit_while_another_takes_over(tmp_path, n):
    """It was stopped, or its disk took long; LOCK was removed, and the other one's steps are acknowledged."""
    calls, run, others = Meanwhile(), tmp_path / "run", []
    first = begin_by(calls, run)

    def take_over():
        (run / LOCK).unlink()
        others.append(cases.resume(run, disk=cases.fast_disk()))
        for step in range(others[0].steps + 1, 31):
            others[0].append(**cases.row(step))
        others[0].commit()

    calls.left, calls.happens = n, take_over
    with pytest.raises(WriterError, match=r"taken over by another writer|lost its LOCK"):
        go_on_until_it_raises(first)
    others[0].append(**cases.row(31))
    others[0].close()
    cases.assert_holds(run, 31)


def test_a_folder_of_temporaries_that_was_cleared_away_is_made_anew(tmp_path):
    run = tmp_path / "run"
    writer = begin(run)
    for end in ("commit", "commit", "complete"):
        shutil.rmtree(run / PARTIAL)
        go_on(writer, end)
    cases.assert_holds(run, 23)


def test_a_lock_is_taken_on_a_full_disk(tmp_path, monkeypatch):
    """Its text is for messages; but where the text is all there is, the error names the file."""
    run = cases.unbroken(tmp_path)
    write = os.write

    def full(fd, data):
        if data.startswith(b"pid "):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    with HeldRun(run, LocalDisk()):
        pass
    with pytest.raises(OSError, match=r"No space left.*/LOCK"):
        HeldRun(run, LocalDisk(), lock=False)

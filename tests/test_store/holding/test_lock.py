"""A file system that knows no locks, a LOCK that cannot be opened, a run without a lock, and one that is let go of."""

import errno
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
import store_cases as cases
import tiny_runs

import store
from store.errors import LockedError
from store.format.files import LOCK
from store.holding import lock as module
from store.processes import machine_name
from store.upkeep.compact import compact

STEPS, STORE = 4, str(Path(store.__file__).parent)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


@pytest.fixture
def run(tmp_path):
    return cases.unbroken(tmp_path, STEPS)


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def no_locks(monkeypatch, request, run):  # noqa: ARG001 - it is made before
    def refuse(_fd):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(module, "_ask_for_lock", refuse)


def go_on(run, **options):
    cases.go_on(run, STEPS + 3, disk=cases.fast_disk(), **options)


@pytest.mark.default_cases(1)
@pytest.mark.usefixtures("no_locks")
def test_without_locks_there_is_a_sentence_and_a_way_out(run, tmp_path):
    for do in (cases.resume, store.repair, compact):
        with pytest.raises(LockedError, match=r"LOCK: the file system knows no locks .* say --no-lock"):
            do(run)
    with pytest.raises(LockedError, match="no locks"):
        cases.create(tmp_path / "new")
    go_on(run, lock=False)
    cases.assert_holds(run, STEPS + 3)
    assert store.repair(run, lock=False) == []
    compact(run, lock=False)


@pytest.mark.usefixtures("no_locks")
def test_a_writer_of_this_process_keeps_another_out_also_without_locks(run):
    with cases.resume(run, lock=False), pytest.raises(LockedError, match=f"pid {os.getpid()} on"):
        cases.resume(run, lock=False)
    cases.resume(run, lock=False).close()


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("text", ["", "pid {dead} on {here}", "pid {mine} on {here}", "pid 1 on elsewhere", "pid x"])
@pytest.mark.usefixtures("no_locks")
def test_what_a_dead_process_left_in_the_lock_is_broken(run, text):
    """Of this process' own number too: it may be that of a process before it."""
    dead = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(dead, 0)
    (run / LOCK).write_text(text.format(dead=dead, mine=os.getpid(), here=machine_name()))
    go_on(run, lock=False)


def test_what_a_living_process_wrote_into_the_lock_counts_only_without_locks(run):
    (run / LOCK).write_text(f"pid {os.getppid()} on {machine_name()}\n")
    with pytest.raises(LockedError, match=f"being written by pid {os.getppid()} on"):
        cases.resume(run, lock=False)
    go_on(run)  # the operating system knows better


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_a_sentence(run, make):
    (run / LOCK).unlink()
    make(run / LOCK)
    with pytest.raises(LockedError, match=f"{run / LOCK}: (is no plain file|cannot be opened to lock the run)"):
        cases.resume(run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_lock_without_permission_is_a_sentence(run):
    (run / LOCK).chmod(0)
    with pytest.raises(LockedError, match=f"{run / LOCK}: cannot be opened to lock the run \\(Permission denied\\)"):
        cases.resume(run)


def test_a_lock_that_the_system_does_not_open_is_a_sentence(run, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(LockedError, match=r"LOCK: cannot be opened to lock the run \(Permission denied\); who writes"):
        module.RunLock(run, cases.fast_disk())


def test_the_lock_stays_as_a_plain_file_and_a_copy_of_it_holds_nobody_up(run, tmp_path):
    with cases.resume(run):
        shutil.copytree(run, tmp_path / "copy")
    assert stat.S_ISREG((run / LOCK).stat().st_mode)
    cases.resume(tmp_path / "copy").close()


def test_a_lock_that_the_disk_cannot_give_is_not_said_to_be_held(run, monkeypatch):
    def refuse(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "_ask_for_lock", refuse)
    with pytest.raises(LockedError, match=r"LOCK: cannot be locked \(Input/output error\)") as raised:
        cases.resume(run)
    assert "being written" not in str(raised.value)


def test_a_close_that_was_interrupted_anywhere_is_made_good_by_the_next(tmp_path):
    states, nth, was_interrupted = tiny_runs.weights(2), 0, True
    while was_interrupted:
        nth, was_interrupted = nth + 1, False
        writer = tiny_runs.create(run := tmp_path / str(nth), states)
        tiny_runs.fill(writer, states)
        left = nth

        def trace(frame, event, _):
            nonlocal left
            if event in ("call", "return") and frame.f_code.co_filename.startswith(STORE):
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            writer.close()
        except KeyboardInterrupt:
            was_interrupted = True
        finally:
            sys.settrace(None)
        writer.close()
        with tiny_runs.resume(run, from_step=2):  # by a writer of this process, which the lock would keep out
            pass
    assert nth > 5

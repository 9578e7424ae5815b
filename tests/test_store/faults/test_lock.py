"""One writer: a second is refused at once, a dead one's lock is free at once, a forked child can do no harm."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest
import store_cases
from killed_children import Children
from store_cases import assert_holds, patch_blocks
from waiting import wait_until

import store
from store.errors import LockedError
from store.processes import is_alive, machine_name


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch_blocks(monkeypatch.setattr)


@pytest.fixture
def children():
    with Children() as children:
        yield children


def test_a_second_process_is_refused_and_does_not_wait_for_the_first(children, tmp_path):
    run, ready = tmp_path / "run", tmp_path / "ready"
    children.start("hold", str(run), str(ready), 60)
    wait_until(ready.exists)
    pid, child = map(int, ready.read_text().split())
    with pytest.raises(LockedError, match=re.escape(f"pid {pid} on {machine_name()}")):
        store_cases.resume(run)
    with pytest.raises(FileExistsError):
        store_cases.create(run)
    assert is_alive(pid)
    assert store.open_trajectory(run).sizes["step"] == 1  # readers need no lock
    # The holder has a forked child, which lives on when it is killed.
    os.kill(pid, signal.SIGKILL)
    assert children.end() == -signal.SIGKILL
    with store_cases.resume(run, disk=store_cases.fast_disk()) as writer:
        writer.append(**store_cases.row(1))
    assert is_alive(child)
    os.kill(child, signal.SIGKILL)
    assert_holds(run, 1)


def test_another_thread_may_close(tmp_path):
    writer = store_cases.create(tmp_path / "run", disk=store_cases.fast_disk())
    writer.append(**store_cases.row(0))
    closing = threading.Thread(target=writer.close)
    closing.start()
    closing.join()
    store_cases.resume(tmp_path / "run", disk=store_cases.fast_disk()).close()


def test_a_failed_beginning_frees_the_lock(tmp_path):
    failing = store_cases.Failing(9)
    with pytest.raises(OSError, match="No space"):
        store_cases.create(tmp_path / "run", disk=store_cases.LocalDisk(failing))
    store_cases.create(tmp_path / "run", disk=store_cases.fast_disk(), restart=True).close()


@pytest.mark.slow
def test_a_forked_child_cannot_write_and_never_waits(children, tmp_path):
    """Forked in the middle of writing, again and again: see `fork_while_writing`."""
    run, notes = tmp_path / "run", tmp_path / "notes"
    assert children.run("fork_while_writing", str(run), str(notes), 12) == 0
    assert Path(notes).read_text() == "12 children, all refused"
    assert_holds(run, 12 * 3 - 1)

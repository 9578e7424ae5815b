"""A writer at work: readers beside it, a disk that is slow or stuck, tensors that change."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import live_readers
import numpy as np
import pytest
import store_cases
from killed_children import Children, waits
from store_cases import BLOCK, Calls, assert_holds, patch_blocks
from waiting import PATIENCE_S, wait_until

import store
from store.disk import LocalDisk
from store.format.chunking import ring_slots
from store.format.files import TRAJECTORY


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch_blocks(monkeypatch.setattr)


@pytest.mark.slow
def test_readers_beside_a_writer(tmp_path):
    """Every library in turn, while a child writes; it waits twice until it was seen how far it came."""
    run, steps, seen_by_us = tmp_path / "run", 80, [20, 50]
    lengths = {name: set() for name in live_readers.LIBRARIES}
    whole = store_cases.unbroken(tmp_path)
    for read in live_readers.LIBRARIES.values():
        read(whole)  # loads what it needs
    with Children() as children:
        children.start("stream", str(run), steps, 0.01, seen_by_us, ["ours"])
        wait_until((run / TRAJECTORY).exists)
        early = store.open_trajectory(run)
        completed = False
        while not completed:
            completed = store.open_trajectory(run).attrs["completed"]
            for name, read in live_readers.LIBRARIES.items():
                lengths[name].add(read(run))
            for step in seen_by_us:
                if step + 1 in lengths["ours"]:
                    Path(f"{run}.{step}.ours").touch()
        assert children.end() == 0
    assert all(max(seen) == steps + 1 for seen in lengths.values())
    assert len(lengths["ours"]) > 2
    np.testing.assert_array_equal(early.W.values, store_cases.expected(steps)["W"][: early.sizes["step"]])


@pytest.mark.slow
def test_four_readers_in_tight_loops_during_2000_steps(tmp_path, request):
    """The writer waits behind some blocks until each reader has come so far, so that all of them read beside it."""
    run, steps, seen_by_all = tmp_path / "run", 2000, range(5 * BLOCK - 1, 60 * BLOCK, 5 * BLOCK)
    with Children() as children:
        children.start("stream", str(run), steps, 0.005, list(seen_by_all), list(live_readers.LIBRARIES))
        readers = {
            name: subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "live_readers", name, str(run), *map(str, seen_by_all)],
                cwd=Path(live_readers.__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name in live_readers.LIBRARIES
        }  # fmt: skip
        for reader in readers.values():
            request.addfinalizer(reader.kill)
        assert children.end() == 0
        for name, reader in readers.items():
            out, err = reader.communicate(timeout=PATIENCE_S)
            assert reader.returncode == 0, f"{name}: {err}"
            opened, lengths = map(int, out.split())
            assert lengths >= len(seen_by_all), f"{name} opened the run {opened} times and saw {lengths} lengths"
    assert_holds(run, steps)


class Gate(Calls):
    """A disk that stands still until it is let go."""

    def __init__(self):
        super().__init__()
        self.let_go = threading.Event()
        self.let_go.set()

    def before(self, _name, *_args):
        self.let_go.wait(PATIENCE_S)


@pytest.mark.slow
def test_append_waits_for_a_disk_that_stands_still(tmp_path):
    gate, steps = Gate(), 60
    writer = store_cases.create(tmp_path / "run", disk=LocalDisk(gate))
    writer.append(**store_cases.row(0))
    writer.commit()
    gate.let_go.clear()
    feeder = threading.Thread(target=lambda: [writer.append(**store_cases.row(t)) for t in range(1, steps + 1)])
    feeder.start()
    wait_until(lambda: waits(writer))
    time.sleep(0.3)  # it stands still, too
    seen = writer.steps
    committed = writer.committed_steps
    gate.let_go.set()
    feeder.join()
    writer.close()
    assert seen + 1 == ring_slots(BLOCK) < steps
    assert committed == 0
    assert writer.waited_s >= 0.3
    assert assert_holds(tmp_path / "run", steps).committed_steps == steps


@pytest.mark.slow
def test_memory_stays_flat_on_a_slow_disk(tmp_path):
    def peak(steps):
        notes = tmp_path / f"{steps}.txt"
        assert children.run("count_memory", str(tmp_path / f"run-{steps}"), str(notes), steps) == 0
        return int(notes.read_text())

    with Children() as children:
        short, long = peak(20), peak(60)
    assert long < short + (32 << 10)


def test_what_changes_after_append_is_stored_as_it_was(tmp_path):
    gate, buffers = Gate(), {}
    with store_cases.create(tmp_path / "run", disk=LocalDisk(gate)) as writer:
        writer.append(**store_cases.row(0))
        writer.commit()
        gate.let_go.clear()  # nothing is encoded before it has changed
        for step in range(1, ring_slots(BLOCK) - 1):
            for name, value in store_cases.row(step).items():
                wide = buffers.setdefault(name, np.zeros((2, *np.shape(value)), np.asarray(value).dtype))
                wide[0] = value
            writer.append(**{name: buffers[name][0] for name in store_cases.row(step)})
            for buffer in buffers.values():
                buffer[:] = 77
        gate.let_go.set()
    assert assert_holds(tmp_path / "run").committed_steps == ring_slots(BLOCK) - 2


@pytest.mark.parametrize("order", ["reversed", "strided", "fortran", "read-only"])
def test_rows_of_any_memory_order(tmp_path, order):
    make = {
        "reversed": lambda a: a[::-1].copy()[::-1],
        "strided": lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
        "fortran": np.asfortranarray,
        "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    }[order]
    with store_cases.create(tmp_path / "run", disk=store_cases.fast_disk()) as writer:
        for step in range(7):
            rows = {n: make(v) if np.ndim(v) else v for n, v in store_cases.row(step).items()}
            writer.append(**rows)
    assert assert_holds(tmp_path / "run").committed_steps == 6


def test_a_commit_is_due_after_the_interval_although_the_thread_slept(tmp_path):
    with store_cases.create(tmp_path / "run", disk=store_cases.fast_disk(), commit_interval_s=0.05) as writer:
        writer.append(**store_cases.row(0))
        writer.commit()
        time.sleep(0.2)  # the thread sleeps, with nothing to wait for
        writer.append(**store_cases.row(1))
        wait_until(lambda: writer.committed_steps == 1)

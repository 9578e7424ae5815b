"""kill -9: at every system call in turn, and at random instants.

A thousand kills at random instants, and one at every call:
``CRUCIBLE_KILLS=1000 CRUCIBLE_KILL_STRIDE=1 pytest -m slow tests/test_store/test_faults_kill.py``.
"""

import os
import random

import pytest
import store_cases
from killed_children import Children, acknowledged
from store_cases import assert_holds, files, fresh, go_on, patch_blocks, unbroken

from store import open_trajectory
from store.errors import NotATrajectoryError
from store.format.files import SECOND_COPY, TRAJECTORY

STEPS = 10


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch_blocks(monkeypatch.setattr)


@pytest.fixture(scope="module")
def children():
    with Children() as children:
        yield children


def assert_survives(run, notes, whole, *, from_checkpoint, steps=STEPS):
    """What was acknowledged is there, the run opens, and going on gives the unbroken run's bytes."""
    said = acknowledged(notes)
    if (run / TRAJECTORY).exists():
        assert_holds(run, at_least=said)
        assert open_trajectory(run).sizes["step"] >= said + 1
    else:
        assert said == -1
        with pytest.raises(NotATrajectoryError):
            open_trajectory(run)
    writer = go_on(run, steps, from_checkpoint=from_checkpoint, disk=store_cases.fast_disk())
    assert writer.difference is None
    assert files(run) == files(whole)


def kill_at_each_call(children, folder, calls):
    whole = unbroken(folder)
    for n in calls:
        with fresh(folder / "killed") as place:
            run, notes = place / "run", place / "notes"
            ended = children.run("write", str(run), str(notes), STEPS, {"die_at": n})
            if ended == 0:  # commits may fall together, and then there are fewer calls
                assert n > 0.6 * calls[-1]
                continue
            assert ended == -9
            assert_survives(run, notes, whole, from_checkpoint=n % 2 == 0)


def count_calls(children, folder):
    notes = folder / "count"
    assert children.run("write", str(folder / "counted"), str(notes), STEPS, {}) == 0
    return int(notes.read_text())


def test_killed_at_some_calls(children, tmp_path):
    total = count_calls(children, tmp_path)
    kill_at_each_call(children, tmp_path, range(1, total + 1, total // 4))


@pytest.mark.slow
def test_killed_at_each_call(children, tmp_path):
    total = count_calls(children, tmp_path)
    kill_at_each_call(children, tmp_path, range(1, total + 1, int(os.environ.get("CRUCIBLE_KILL_STRIDE", "5"))))


def but_for_second_copy(run):
    return {path: data for path, data in files(run).items() if path != SECOND_COPY}


def kill_at_random(children, folder, kills, seed):
    """Kill a run again and again, until it is done; then begin another."""
    rng = random.Random(seed)
    steps, done, finished = 60, 0, 0
    whole = unbroken(folder, steps)
    while done < kills:
        with fresh(folder / "killed") as place:
            run, notes = place / "run", place / "notes"
            while done < kills:
                notes.unlink(missing_ok=True)
                options = {"interval_s": 0.002, "from_checkpoint": rng.random() < 0.5}
                done += 1
                after = rng.uniform(0, 0.15)
                if children.run("write", str(run), str(notes), steps, options, kill_after_s=after) == 0:
                    finished += 1
                    assert files(run) == files(whole)
                    break
                if (run / TRAJECTORY).exists():
                    commit = assert_holds(run, at_least=acknowledged(notes))
                    if commit.completed:  # the second copy is written last, and may be that of the commit before
                        assert but_for_second_copy(run) == but_for_second_copy(whole)
                        break
                else:
                    assert acknowledged(notes) == -1
    return finished


@pytest.mark.slow
def test_killed_at_random_instants(children, tmp_path):
    kill_at_random(children, tmp_path, 4, seed=1)


@pytest.mark.slow
def test_killed_at_random_instants_many_times(children, tmp_path):
    kill_at_random(children, tmp_path, int(os.environ.get("CRUCIBLE_KILLS", "100")), seed=2)

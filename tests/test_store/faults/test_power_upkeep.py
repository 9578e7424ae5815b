"""Power is cut, or a call fails, while a run is compacted, upgraded or repaired: nothing whole is lost."""

import itertools
import random
import shutil
from pathlib import Path

import pytest
import store_cases as cases
from power_loss import PowerLog, Remains, fingerprint, lay_out

import store
from store.disk import LocalDisk
from store.errors import StoreError
from store.format.files import DOCUMENT, SECOND_COPY, TRAJECTORY
from store.run.commit import read_commit
from store.upkeep.compact import compact
from store.upkeep.upgrade import upgrade

STEPS = 9
CHANCES = [(0, 0), (1, 0), (1, 1), (0.5, 0.5)]
V1 = Path(__file__).parents[2] / "formats" / "v1"
OPTIONS = {"derive": cases.derive, "finish": cases.finish}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


def lay(source, target, disk):
    """A copy of a run's files, durable, by calls that are logged."""
    disk.make_folder(target)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            disk.make_folder(place)
        else:
            disk.write_file(place, [path.read_bytes()])
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        disk.sync_folder(folder)


def spoil(run, disk, *names):
    for name in names:
        disk.write_file(run / name, [b"spoilt"])
        disk.sync_folder((run / name).parent)


def damaged(*names):
    return lambda run, disk: spoil(run, disk, *names)


def repair(run, disk):
    store.repair(run, **OPTIONS, disk=disk)


DONE = {
    "compact": (lambda *_: None, lambda run, disk: compact(run, disk=disk, threads=1), STEPS),
    "derive again": (damaged(f"{TRAJECTORY}/jump/c.1.0.0", f"{TRAJECTORY}/size/c.0.0"), repair, STEPS),
    "cut": (damaged(f"{TRAJECTORY}/centroid/c.1.0", f"{TRAJECTORY}/jump/c.0.0.0"), repair, 3),
    "restore the commit": (damaged(f"{TRAJECTORY}/{DOCUMENT}"), repair, STEPS),
    "write anew": (damaged(f"{TRAJECTORY}/step/c.0", f"{TRAJECTORY}/largest/c.0", SECOND_COPY), repair, STEPS),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        cases.patch_blocks(monkeypatch.setattr)
        return cases.unbroken(tmp_path_factory.mktemp("whole"), STEPS)


def assert_mended(run, least):
    """After a repair every row is right, up to where nothing was damaged at least."""
    try:
        whole = store.check(run, **OPTIONS).is_whole
    except StoreError:
        whole = False
    if not whole:
        store.repair(run, **OPTIONS, disk=cases.fast_disk())
    report = store.check(run, **OPTIONS)
    assert report.is_whole, report.damage
    commit, arrays = cases.stored(run)
    assert commit.committed_steps >= least
    cases.assert_rows(commit, arrays, lambda _: 0)


def cuts(calls, begun, count):
    """States that a power cut may leave, from the call at which something was begun to the end."""
    rng, seen = random.Random(0), set()
    total = len(calls.log)
    for length in sorted({begun + round(i * (total - begun) / (count - 1)) for i in range(count)}):
        for chances in CHANCES:
            tree = Remains(calls.log, length, rng, *chances).tree(calls.top)
            if (key := fingerprint(tree)) not in seen:
                seen.add(key)
                yield tree


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("what", DONE)
@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_power_is_cut(whole, tmp_path, what, count):
    prepare, do, least = DONE[what]
    (tmp_path / "log").mkdir()
    calls = PowerLog(tmp_path / "log")
    run, disk = tmp_path / "log" / "run", LocalDisk(calls)
    lay(whole, run, disk)
    prepare(run, disk)
    begun = len(calls.log)
    do(run, disk)
    for tree in cuts(calls, begun, count):
        with cases.fresh(tmp_path / "cut") as place:
            lay_out(tree, place)
            if what == "compact":
                assert store.check(place / "run", **OPTIONS).is_whole
            assert_mended(place / "run", least)


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_power_is_cut_while_it_is_upgraded(tmp_path, count):
    (tmp_path / "log").mkdir()
    calls = PowerLog(tmp_path / "log")
    run, disk = tmp_path / "log" / "run", LocalDisk(calls)
    lay(V1, run, disk)
    begun = len(calls.log)
    upgrade(run, disk=disk, threads=1)
    for tree in cuts(calls, begun, count):
        with cases.fresh(tmp_path / "cut") as place:
            lay_out(tree, place)
            assert store.check(place / "run").is_whole
            upgrade(place / "run", disk=cases.fast_disk())
            assert read_commit(place / "run").version == 2


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("what", [name for name in DONE if name != "compact"])
@pytest.mark.parametrize("stride", [29, pytest.param(5, marks=pytest.mark.slow)])
def test_the_nth_call_of_a_repair_fails(whole, tmp_path, what, stride):
    prepare, do, least = DONE[what]
    failed = 0
    for n in itertools.count(1, stride):
        with cases.fresh(tmp_path / "failed") as place:
            run = shutil.copytree(whole, place / "run")
            prepare(run, cases.fast_disk())
            calls = cases.Failing(n, for_good=n % 2 == 0)
            try:
                do(run, LocalDisk(calls))
            except (OSError, StoreError):
                assert calls.failed
            assert_mended(run, least)
            failed += calls.failed
        if not calls.failed:
            break
    assert failed

"""A part of a run is a link: nothing behind it is written or removed, whatever is done to the run."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import store_cases as cases

import store
import store.disk
from store.errors import LinkError, WriterError
from store.held_folder import LookedAtFolders
from store.run.commit import read_commit
from store.run.whereabouts import finish_swap
from store.upkeep.compact import compact
from store.upkeep.upgrade import upgrade

V1 = Path(__file__).parents[2] / "formats" / "v1"
FOLDERS = [".partial", "checkpoint", "trajectory.zarr", "trajectory.zarr/W", "trajectory.zarr/largest", "set-aside"]
FILES = ["LOCK", "config.json", "metadata.json", "trajectory.zarr/zarr.json", "trajectory.zarr/W/c.1.0.0",
         "trajectory.zarr/W/zarr.json"]  # fmt: skip
STEPS = 6


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


def resume(run):
    with cases.resume(run, disk=cases.fast_disk()) as writer:
        for step in range(writer.steps + 1, writer.steps + 6):
            writer.append(**cases.row(step))


def replace_steps(run):
    with cases.resume(run, disk=cases.fast_disk(), from_step=2) as writer:
        writer.append(**cases.row(3, variant=1))


def resume_to_the_end(run):
    cases.go_on(run, STEPS + 5, disk=cases.fast_disk())


def repair(run):
    store.repair(run, derive=cases.derive, finish=cases.finish, disk=cases.fast_disk())


def repair_with_a_cut(run):
    (run / "trajectory.zarr" / "centroid" / "c.1.0").write_bytes(b"")
    repair(run)


def compact_it(run):
    compact(run, disk=cases.fast_disk())


DONE = [resume, replace_steps, resume_to_the_end, repair, repair_with_a_cut, compact_it]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        cases.patch_blocks(monkeypatch.setattr)
        run = cases.unbroken(tmp_path_factory.mktemp("whole"), STEPS)
        for name in (".partial/W.c.0.0.0", "set-aside/W/c.0.0.0", "checkpoint/step-1/model.bin",
                     "trajectory.zarr/W/c.9.0.0", "trajectory.zarr/largest/c.7"):  # fmt: skip
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_bytes(b"what a sweep removes")
        return run


def linked(run, name, place):
    """Put a link in the place of a part of the run; what the link leads to, which looks the same."""
    behind = place / "behind"
    if (run / name).is_dir():
        shutil.copytree(run / name, behind)
        (run / name).rename(place / "aside")
    else:
        shutil.move(run / name, behind)
    (run / name).symlink_to(behind)
    return behind


def everything(path):
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {each: each.read_bytes() if each.is_file() else None for each in paths}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("do", DONE)
def test_a_folder_that_is_a_link_is_refused(whole, tmp_path, name, do):
    run = shutil.copytree(whole, tmp_path / "run")
    behind = linked(run, name, tmp_path)
    before = everything(behind)
    with pytest.raises(LinkError, match=f"{run / name}: is a link"):
        do(run)
    if do is repair_with_a_cut and name == "trajectory.zarr":
        before[behind / "centroid" / "c.1.0"] = b""  # the test's own doing
    assert everything(behind) == before


@pytest.mark.default_cases(9)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("do", DONE)
def test_what_a_file_that_is_a_link_leads_to_stays(whole, tmp_path, name, do):
    run = shutil.copytree(whole, tmp_path / "run")
    behind = linked(run, name, tmp_path)
    before = everything(behind)
    with suppress(store.StoreError, OSError):
        do(run)
    assert everything(behind) == before


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("can_hold", [True, False], ids=["held", "looked at"])
@pytest.mark.parametrize("name", [*FOLDERS[:4], *FILES])
def test_a_link_that_comes_while_it_is_written(tmp_path, monkeypatch, name, can_hold):
    if not can_hold:  # as on Windows
        monkeypatch.setattr(store.disk, "hold", lambda top, _calls: LookedAtFolders(top))
    run = tmp_path / "run"
    writer = cases.create(run, disk=cases.fast_disk())
    for step in range(STEPS):
        writer.append(**cases.row(step))
        writer.checkpoint(step, cases.checkpoint_files(step))
    writer.commit()
    if not (run / name).exists():
        (run / name).write_bytes(b"")
    behind = linked(run, name, tmp_path)
    before = everything(behind)
    try:
        for step in range(STEPS, STEPS + 5):
            writer.append(**cases.row(step))
            writer.checkpoint(step, cases.checkpoint_files(step))
            writer.commit()
        writer.complete()
    except WriterError:
        writer.close()
    assert everything(behind) == before


@pytest.mark.parametrize("name", [".partial", "trajectory.zarr", "trajectory.zarr/W"])
def test_an_upgrade_follows_none(tmp_path, name):
    run = shutil.copytree(V1, tmp_path / "run")
    (run / ".partial").mkdir(exist_ok=True)
    behind = linked(run, name, tmp_path)
    before = everything(behind)
    with pytest.raises(LinkError, match=f"{run / name}: is a link"):
        upgrade(run)
    assert everything(behind) == before


def test_who_opens_the_run_finishes_no_swap_behind_a_link(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "trajectory.zarr").rename(run / ".partial" / "compacted.zarr")
    behind = linked(run, ".partial", tmp_path)
    before = everything(behind)
    finish_swap(run)
    assert everything(behind) == before
    assert not (run / "trajectory.zarr").exists()


def test_the_runs_folder_itself_may_be_a_link(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "elsewhere")
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    resume_to_the_end(tmp_path / "run")
    assert read_commit(tmp_path / "elsewhere").committed_steps == STEPS + 5

"""What others put into a run's folders stays, byte for byte, whatever is done to the run; what the store left goes."""

import shutil

import pytest
import store_cases as cases

import store
from store.format.files import REPLACED, TRAJECTORY
from store.holding.leftovers import clear_replaced, find
from store.run.commit import read_commit
from store.upkeep.compact import compact

STEPS = 6
FOREIGN = [
    ".DS_Store", ".partial/.DS_Store", ".partial/notes.txt", "checkpoint/.DS_Store", "checkpoint/mine/thesis.tex",
    "checkpoint/step-notes", "trajectory.zarr/.DS_Store", "trajectory.zarr/my_array/zarr.json",
    "trajectory.zarr/my_array/c/0/0", "trajectory.zarr/W/.DS_Store", "trajectory.zarr/W/c.notes",
    "trajectory.zarr/W/c.9.0.0.bak", "trajectory.zarr/W/mine/c.0.0.0", "trajectory.zarr/W/c.8.0.0/file",
]  # fmt: skip
MADE = [
    ".partial/0123456789abcdef.W.c.0.0.0", ".partial/W.zarr.json", ".partial/run.config.json", ".partial/W.c.1.0.0",
    ".partial/step-3.model.bin", "checkpoint/step-1/model.bin", "checkpoint/step-2.1/state.json",
    "trajectory.zarr/W/c.9.0.0", "trajectory.zarr/loss/c.7",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        cases.patch_blocks(monkeypatch.setattr)
        return cases.unbroken(tmp_path_factory.mktemp("whole"), STEPS)


@pytest.fixture
def run(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    put(run, FOREIGN)
    put(run, MADE)
    return run


def put(run, names):
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(f"this is {name}")


def stays(run):
    for name in FOREIGN:
        assert (run / name).read_text() == f"this is {name}"


def go_on(run):
    cases.go_on(run, STEPS + 5, disk=cases.fast_disk())


def replace_steps(run):
    with cases.resume(run, disk=cases.fast_disk(), from_step=2) as writer:
        for step in range(3, 8):
            writer.append(**cases.row(step, variant=1))
            writer.checkpoint(step, cases.checkpoint_files(step))
            writer.commit()


def repair(run):
    store.repair(run, derive=cases.derive, finish=cases.finish, disk=cases.fast_disk())


def repair_with_a_cut(run):
    (run / "trajectory.zarr" / "centroid" / "c.1.0").write_bytes(b"")
    repair(run)


def compact_it(run):
    compact(run, disk=cases.fast_disk())


@pytest.mark.parametrize("do", [go_on, replace_steps, repair, repair_with_a_cut, compact_it])
def test_what_others_put_there_stays(run, do):
    do(run)
    stays(run)
    assert store.check(run, derive=cases.derive, finish=cases.finish).is_whole


@pytest.mark.parametrize("do", [go_on, repair])
def test_what_the_store_left_goes(run, do):
    do(run)
    assert not [name for name in MADE if (run / name).exists()]
    assert find(run, read_commit(run)).made == []


def test_what_others_put_there_is_named(run):
    expected = [
        ".partial/.DS_Store", ".partial/notes.txt", "checkpoint/.DS_Store", "checkpoint/mine", "checkpoint/step-notes",
        "trajectory.zarr/.DS_Store", "trajectory.zarr/W/.DS_Store", "trajectory.zarr/W/c.8.0.0",
        "trajectory.zarr/W/c.9.0.0.bak", "trajectory.zarr/W/c.notes", "trajectory.zarr/W/mine",
        "trajectory.zarr/my_array",
    ]  # fmt: skip
    report = store.check(run)
    assert sorted(report.foreign) == expected
    assert set(report.leftovers) >= {".partial/W.zarr.json", "checkpoint/step-1", "trajectory.zarr/W/c.9.0.0"}
    with cases.resume(run, disk=cases.fast_disk()) as writer:
        assert sorted(str(path.relative_to(run)) for path in writer.foreign) == expected


def test_a_note_in_old_training_state_stays_with_it_alone(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    put(run, ["checkpoint/step-1/model.bin", "checkpoint/step-1/state.json", "checkpoint/step-1/why.txt"])
    go_on(run)
    assert [path.name for path in (run / "checkpoint" / "step-1").iterdir()] == ["why.txt"]


def test_a_final_array_of_a_run_that_did_not_complete_goes(tmp_path):
    run = tmp_path / "run"
    cases.drive(cases.create(run, disk=cases.fast_disk()), STEPS, end=False)
    put(run, ["trajectory.zarr/largest/zarr.json", "trajectory.zarr/largest/c.0"])
    assert find(run, read_commit(run)).made == [run / "trajectory.zarr" / "largest"]
    go_on(run)
    cases.assert_holds(run, STEPS + 5)


def test_what_lay_in_a_replaced_trajectory_goes_on_in_the_new_one(whole, tmp_path):
    """A compaction was killed behind its second rename."""
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.copytree(run / TRAJECTORY, run / REPLACED)
    inside = [name for name in FOREIGN if name.startswith(TRAJECTORY)]
    put(run, [name.replace(TRAJECTORY, str(REPLACED)) for name in inside])
    clear_replaced(run, read_commit(run), cases.fast_disk())
    assert not (run / REPLACED).exists()
    for name in inside:
        assert (run / name).read_text() == f"this is {name.replace(TRAJECTORY, str(REPLACED))}"


@pytest.mark.parametrize(
    "name", ["W/c.0", "W/c.00.0.0", "W/c.0.1.0", "W/c.9.0.0.0", "loss/c.1.0", "dead/c.1", "token/c.0.0"]
)
def test_a_file_whose_name_no_file_of_that_array_can_have_is_not_the_stores(whole, tmp_path, name):
    run = shutil.copytree(whole, tmp_path / "run")
    put(run, [f"trajectory.zarr/{name}"])
    assert store.check(run).foreign == [f"trajectory.zarr/{name}"]
    repair(run)
    go_on(run)
    assert (run / TRAJECTORY / name).read_text() == f"this is trajectory.zarr/{name}"

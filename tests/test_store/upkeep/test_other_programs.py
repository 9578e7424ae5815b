"""What other programs do to a run's metadata: it reads on where the meaning is the same, says so, and is mended."""

import json
import shutil
import warnings

import numpy as np
import pytest
import store_cases as cases
import xarray as xr
import zarr

import store
from store.errors import ChecksumError, DamageError, MissingError, NotATrajectoryError, StoreError
from store.format.files import DOCUMENT, SECOND_COPY, TRAJECTORY
from store.run.commit import read_commit
from store.upkeep.compact import compact

STEPS = 6
OPTIONS = {"derive": cases.derive, "finish": cases.finish}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        cases.patch_blocks(monkeypatch.setattr)
        return cases.unbroken(tmp_path_factory.mktemp("whole"), STEPS)


@pytest.fixture(params=["whole", "compacted", "begun"])
def run(whole, tmp_path, request):
    if request.param == "begun":
        cases.drive(cases.create(tmp_path / "run", disk=cases.fast_disk()), STEPS, end=False)
        return tmp_path / "run"
    run = shutil.copytree(whole, tmp_path / "run")
    if request.param == "compacted":
        compact(run, disk=cases.fast_disk())
    return run


def quietly(do, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return do(*args, **options)


def consolidate(group):
    quietly(zarr.consolidate_metadata, str(group))


def add_attribute(group):
    zarr.open_group(str(group)).attrs["mine"] = 1


def change_attribute(group):
    zarr.open_group(str(group)).attrs["beta1"] = 0.5


def new_variable(group):
    return quietly(xr.open_zarr, str(group)).W.astype("f4").mean("hidden").rename("mine").to_dataset()


def add_variable(group):
    quietly(new_variable(group).drop_vars(["step", "token"]).to_zarr, str(group), mode="a")


def add_variable_with_coordinates(group):
    quietly(new_variable(group).to_zarr, str(group), mode="a")


def end_with_a_newline(group):
    path = group / DOCUMENT
    path.write_bytes(path.read_bytes() + b"\n")


def indent(group):
    path = group / DOCUMENT
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=2))


HARMLESS = {
    consolidate: "says the same", end_with_a_newline: "says the same", indent: "says the same",
    add_attribute: "attribute mine added", change_attribute: "attribute beta1 changed",
    add_variable: "array mine added",
}  # fmt: skip


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("do", HARMLESS)
def test_reading_goes_on_and_says_what_was_changed(run, do):
    before = store.open_trajectory(run).load()
    do(run / TRAJECTORY)
    with pytest.warns(UserWarning, match=rf"{DOCUMENT} was rewritten by another program: .*{HARMLESS[do]}"):
        found = store.open_trajectory(run)
    xr.testing.assert_identical(found.load(), before)
    damage = [str(damage) for damage in store.check(run, **OPTIONS).damage]
    assert any(HARMLESS[do] in each for each in damage), damage


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("do", HARMLESS)
def test_a_repair_writes_the_commit_anew(run, do):
    before = (run / TRAJECTORY / DOCUMENT).read_bytes()
    do(run / TRAJECTORY)
    assert f"wrote {TRAJECTORY}/{DOCUMENT} anew from the commit" in store.repair(run, **OPTIONS)
    assert (run / TRAJECTORY / DOCUMENT).read_bytes() == before
    report = store.check(run, **OPTIONS)
    assert report.is_whole, report.damage
    assert report.foreign == (["trajectory.zarr/mine"] if do is add_variable else [])


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("do", HARMLESS)
def test_a_writer_goes_on_and_resumes(tmp_path, do):
    run = tmp_path / "run"
    writer = cases.create(run, disk=cases.fast_disk())
    for step in range(STEPS):
        writer.append(**cases.row(step))
    writer.commit()
    do(run / TRAJECTORY)
    writer.append(**cases.row(STEPS))
    writer.close()
    assert read_commit(run).changed == ""
    shutil.rmtree(run / TRAJECTORY / "mine", ignore_errors=True)
    do(run / TRAJECTORY)
    cases.go_on(run, STEPS + 3, disk=cases.fast_disk())
    assert cases.assert_holds(run, STEPS + 3).changed == ""


@pytest.mark.slow
@pytest.mark.default_cases(1)
def test_coordinates_that_were_written_again_are_named_and_taken(run):
    before = store.open_trajectory(run).load()
    add_variable_with_coordinates(run / TRAJECTORY)
    with pytest.raises(ChecksumError, match=r"token\[.*another program wrote it.*--repair"):
        quietly(store.open_trajectory, run)
    done = store.repair(run, **OPTIONS)
    assert "took token as another program wrote it: see that its numbers are right" in done
    assert "wrote the labels step anew" in done
    xr.testing.assert_identical(store.open_trajectory(run).load(), before)
    assert store.check(run, **OPTIONS).is_whole


@pytest.mark.default_cases(6)
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"{", b'{"attributes": {}}', b"\xff\x00"])
def test_a_spoilt_commit_is_restored_from_its_second_copy(run, content):
    path = run / TRAJECTORY / DOCUMENT
    before = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(StoreError):
        store.open_trajectory(run)
    assert store.repair(run, **OPTIONS)[0] == f"restored {TRAJECTORY}/{DOCUMENT} from {SECOND_COPY}"
    assert path.read_bytes() == before
    assert store.check(run, **OPTIONS).is_whole


def test_a_second_copy_of_another_run_restores_nothing(run, tmp_path):
    other = cases.unbroken(tmp_path / "other", STEPS)
    shutil.copy(other / SECOND_COPY, run / SECOND_COPY)
    [damage] = store.check(run, **OPTIONS).damage
    assert str(damage) == f"{SECOND_COPY}: is no copy of a commit of this run"
    add_attribute(run / TRAJECTORY)
    with pytest.raises(DamageError, match="does not match its own checksum"):
        store.open_trajectory(run)


def test_a_second_copy_that_is_behind_or_spoilt_is_no_damage(tmp_path):
    run = tmp_path / "run"
    with cases.create(run, disk=cases.fast_disk()) as writer:
        writer.append(**cases.row(0))
        writer.commit()
        behind = (run / SECOND_COPY).read_bytes()
        writer.append(**cases.row(1))
    for content, told in ((behind, []), (b"", [f"{SECOND_COPY} (cannot be read; the next commit writes it anew)"])):
        (run / SECOND_COPY).write_bytes(content)
        report = store.check(run, **OPTIONS)
        assert (report.is_whole, report.leftovers) == (True, told)
        store.repair(run, **OPTIONS)
        assert store.check(run, **OPTIONS).leftovers == []
        assert (run / SECOND_COPY).read_bytes() == (run / TRAJECTORY / DOCUMENT).read_bytes()


def test_an_older_commit_that_was_put_back_is_told(tmp_path):
    """As a folder that is synced between two machines may do: the later steps are hidden, and a resume removes them."""
    run = tmp_path / "run"
    with cases.create(run, disk=cases.fast_disk()) as writer:
        for step in range(30):
            writer.append(**cases.row(step))
            if step == 10:
                writer.commit()
                older = (run / TRAJECTORY / DOCUMENT).read_bytes()
    assert store.check(run, **OPTIONS).leftovers == []
    (run / TRAJECTORY / DOCUMENT).write_bytes(older)
    assert store.open_trajectory(run).attrs["committed_steps"] == 10
    [told] = [leftover for leftover in store.check(run, **OPTIONS).leftovers if leftover.startswith(SECOND_COPY)]
    assert "of step 29, and trajectory.zarr/zarr.json is an older one" in told
    shutil.copy(run / SECOND_COPY, run / TRAJECTORY / DOCUMENT)
    assert store.open_trajectory(run).attrs["committed_steps"] == 29
    report = store.check(run, **OPTIONS)
    assert (report.is_whole, report.leftovers) == (True, [])


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", ["jump", "size"])
@pytest.mark.parametrize("spoil", ["the folder", "a file", "a bit", "an older file"])
def test_a_derived_array_is_derived_again(run, name, spoil):
    before = store.open_trajectory(run).load()
    folder = run / TRAJECTORY / name
    file = sorted(folder.glob("c.*"))[-1]
    if spoil == "the folder":
        shutil.rmtree(folder)
    elif spoil == "a file":
        file.unlink()
    elif spoil == "a bit":
        data = bytearray(file.read_bytes())
        data[3] ^= 1
        file.write_bytes(data)
    else:
        shutil.copy(run / TRAJECTORY / "centroid" / sorted(folder.parent.glob("centroid/c.*"))[0].name, file)
    with pytest.raises(StoreError, match=rf"{name}\["):
        store.open_trajectory(run).load()
    assert any(told.startswith(f"derived {name} again, ") for told in store.repair(run, **OPTIONS))
    xr.testing.assert_identical(store.open_trajectory(run).load(), before)
    assert store.check(run, **OPTIONS).is_whole
    assert not (run / "set-aside").exists()


def test_given_rows_are_cut_and_derived_ones_before_them_derived(tmp_path):
    run = cases.unbroken(tmp_path, 10)
    shutil.rmtree(run / TRAJECTORY / "jump")
    (run / TRAJECTORY / "W" / "c.1.0.0").write_bytes(b"")
    done = store.repair(run, **OPTIONS)
    assert "cut the run back from step 10 to step 3" in done
    assert "derived jump again, 1 block of steps" in done
    cases.assert_holds(run, 3)
    assert store.check(run, **OPTIONS).is_whole


def test_a_missing_array_is_a_sentence_for_who_resumes(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / TRAJECTORY / "jump")
    with pytest.raises(MissingError, match=r"the folder of jump is not there; put it back, or let `crucible check"):
        cases.resume(run)
    store.repair(run, **OPTIONS)
    cases.go_on(run, STEPS + 3, disk=cases.fast_disk())
    cases.assert_holds(run, STEPS + 3)


def test_without_deriving_the_run_is_cut(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / TRAJECTORY / "jump" / "c.1.0.0").unlink()
    assert f"cut the run back from step {STEPS} to step 3" in store.repair(run)


def test_where_there_is_no_second_copy_the_same_text_in_other_words_is_read(run):
    (run / SECOND_COPY).unlink()
    end_with_a_newline(run / TRAJECTORY)
    with pytest.warns(UserWarning, match="says the same"):
        store.open_trajectory(run)
    add_attribute(run / TRAJECTORY)
    with pytest.raises(DamageError):
        store.open_trajectory(run)


def test_another_group_in_the_place_of_the_trajectory_is_none(run):
    shutil.rmtree(run / TRAJECTORY)
    zarr.create_group(run / TRAJECTORY).create_array("mine", shape=(3,), dtype="f4")[:] = np.arange(3)
    with pytest.raises(NotATrajectoryError):
        store.open_trajectory(run)

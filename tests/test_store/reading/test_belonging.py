"""A file that does not belong to the commit is never read: forks, cuts, copies, replaced runs, other arrays."""

import shutil

import numpy as np
import pytest
import store_cases as cases

import store
from store.errors import LabelError, MissingError, StaleHandleError
from store.format.files import TRAJECTORY

STEPS = 9
NAMES = ("W", "jump", "size", "centroid", "loss", "probe", "step_probe")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    cases.patch_blocks(monkeypatch.setattr)


def write(run, steps=STEPS, variant=0, **options):
    """Go on with a run, or begin it, up to `steps`."""
    if (run / TRAJECTORY).exists():
        writer = cases.resume(run, disk=cases.fast_disk(), **options)
    else:
        writer = cases.create(run, disk=cases.fast_disk())
    with writer:
        for step in range(writer.steps + 1, steps + 1):
            writer.append(**cases.row(step, variant))
    return run


def tail_files(run):
    """The last file of each array with steps."""
    return [max((run / TRAJECTORY / name).glob("c.*")) for name in NAMES]


def assert_each_raises(run, replacements, error):
    """Each file in turn is replaced by another; reading the array raises."""
    for target, source in replacements.items():
        kept = target.read_bytes()
        shutil.copyfile(source, target)
        with pytest.raises(error, match=str(target)):
            store.open_trajectory(run)[target.parent.name].values  # noqa: B018 - reading is the point
        assert any(target.parent.name == damage.name for damage in cases_check(run).damage)
        target.write_bytes(kept)
    cases.assert_rows(*cases.stored(run), lambda _: 0)


def cases_check(run):
    return store.check(run, derive=cases.derive, finish=cases.finish)


def test_the_files_of_a_fork(tmp_path):
    run = write(tmp_path / "run", 6)
    fork = shutil.copytree(run, tmp_path / "fork")
    write(run)
    write(fork, variant=1)
    other = {path: fork / path.relative_to(run) for path in tail_files(run)}
    assert_each_raises(run, other, LabelError)


def test_the_files_of_another_run(tmp_path):
    run, other = write(tmp_path / "run"), write(tmp_path / "other")
    assert_each_raises(run, {path: other / path.relative_to(run) for path in tail_files(run)}, LabelError)


def test_the_files_of_before_a_cut(tmp_path):
    run = write(tmp_path / "run", variant=1)
    before = shutil.copytree(run, tmp_path / "before")
    write(run, from_step=1, cut=True)
    tail = tail_files(run)[0]
    shutil.copyfile(before / tail.relative_to(run), tail)
    with pytest.raises(LabelError, match="a later writer replaced"):
        store.open_trajectory(run).W.values  # noqa: B018 - reading is the point


def test_older_files_of_the_same_run(tmp_path):
    run = write(tmp_path / "run", 5)
    before = shutil.copytree(run, tmp_path / "before")
    write(run, 7)
    tails = [path for path in tail_files(run) if (before / path.relative_to(run)).exists()]
    assert_each_raises(run, {path: before / path.relative_to(run) for path in tails}, LabelError)


@pytest.mark.parametrize(("one", "other"), [("size/c.0.0", "size/c.1.0"), ("W/c.1.0.0", "W/c.0.0.0")])
def test_one_file_in_the_place_of_another(tmp_path, one, other):
    run = write(tmp_path / "run")
    assert_each_raises(run, {run / TRAJECTORY / one: run / TRAJECTORY / other}, LabelError)


def test_files_ahead_of_the_commit_read_as_before(tmp_path):
    """A copy that took zarr.json first."""
    run = write(tmp_path / "run", 5)
    before = shutil.copytree(run, tmp_path / "before")
    write(run)
    shutil.copy(before / TRAJECTORY / "zarr.json", run / TRAJECTORY / "zarr.json")
    with pytest.raises(LabelError):  # another writer came, of whom that commit knows nothing
        cases.stored(run)
    with cases.create(tmp_path / "one", disk=cases.fast_disk()) as writer:
        for step in range(STEPS + 1):
            writer.append(**cases.row(step))
            if step == 5:
                writer.commit()
                early = (tmp_path / "one" / TRAJECTORY / "zarr.json").read_bytes()
    (tmp_path / "one" / TRAJECTORY / "zarr.json").write_bytes(early)
    commit, arrays = cases.stored(tmp_path / "one")
    assert commit.committed_steps == 5
    cases.assert_rows(commit, arrays, lambda _: 0)


def test_a_handle_of_a_run_that_was_removed_or_replaced_is_stale(tmp_path):
    run = write(tmp_path / "run")
    ds = store.open_trajectory(run)
    shutil.rmtree(run)
    with pytest.raises((StaleHandleError, MissingError)):
        ds.W.values  # noqa: B018 - reading is the point
    write(run, variant=1)
    for name in NAMES[:6]:
        with pytest.raises(StaleHandleError, match="removed or replaced"):
            ds[name].values  # noqa: B018 - reading is the point


def forks(tmp_path):
    """Two copies of a run, of the same length and generation, that parted at step 4."""
    run = write(tmp_path / "run", 4)
    one, other = (shutil.copytree(run, tmp_path / name) for name in ("one", "other"))
    return write(one), write(other, variant=1)


def replace(run, other):
    shutil.rmtree(run)
    shutil.copytree(other, run)


def test_a_handle_of_a_run_that_was_replaced_by_a_fork_is_stale(tmp_path):
    run, fork = forks(tmp_path)
    ds = store.open_trajectory(run)
    replace(run, fork)
    for name in NAMES[:6]:
        with pytest.raises(StaleHandleError, match="replaced by a copy"):
            ds[name].values  # noqa: B018 - reading is the point


def test_forks_at_one_path_are_not_taken_for_each_other(tmp_path):
    """Their arrays have keys of their own, or dask would compute one of them for both."""
    run, fork = forks(tmp_path)
    before = store.open_trajectory(run)
    wanted = before.W.values != store.open_trajectory(fork).W.values
    replace(run, fork)
    after = store.open_trajectory(run)
    assert wanted.any()
    assert before.W.data.name != after.W.data.name
    with pytest.raises(StaleHandleError):
        (before.W != after.W).compute()


def test_a_check_of_a_run_that_is_replaced_by_a_fork_meanwhile_is_of_the_fork(tmp_path):
    run, fork = forks(tmp_path)
    (fork / TRAJECTORY / "loss" / "c.0").unlink()
    replaced = iter([True])

    def progress(*_):
        if next(replaced, False):
            replace(run, fork)

    report = store.check(run, derive=cases.derive, finish=cases.finish, progress=progress)
    assert [damage.name for damage in report.damage] == ["loss"]


def test_a_handle_stays_valid_while_another_writer_goes_on(tmp_path):
    run = write(tmp_path / "run", 5)
    ds = store.open_trajectory(run)
    write(run)
    for name, wanted in cases.expected(5).items():
        assert np.array_equal(ds[name].values, wanted, equal_nan=wanted.dtype.kind == "f"), name


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", ["W", "jump", "centroid", "loss", "step"])
def test_repair_cuts_back_to_where_every_file_counts(tmp_path, name):
    """As after a copy that took one file too early."""
    run = write(tmp_path / "run", 5)
    before = shutil.copytree(run, tmp_path / "before")
    write(run, 7)
    tail = max((run / TRAJECTORY / name).glob("c.*"))
    shutil.copyfile(before / tail.relative_to(run), tail)
    assert {damage.steps for damage in cases_check(run).damage if damage.name == name} == {(6, 8)}
    done = store.repair(run, derive=cases.derive, finish=cases.finish, disk=cases.fast_disk())
    is_told = name in ("step", "jump")  # by the commit; by W
    assert ("cut the run back from step 7 to step 5" in done) == (not is_told)
    assert cases_check(run).is_whole
    commit, arrays = cases.stored(run)
    assert commit.committed_steps == (7 if is_told else 5)
    cases.assert_rows(commit, arrays, lambda _: 0)
    write(run, STEPS)
    cases.assert_rows(*cases.stored(run), lambda _: 0)

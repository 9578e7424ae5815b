"""A run that is removed, replaced or taken over under its writer: an error once, and the other run stays as it is."""

import shutil

import pytest
import store_cases as cases

from store.errors import WriterError
from store.format.files import LOCK


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

"""The life of a notebook: cells that are run again, recorders that nobody closed, folders that were removed."""

import gc
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

import crucible
from crucible.channels.table import W
from store.disk import LocalDisk
from store.errors import RunExistsError
from store.reading.reader import open_trajectory


def loop():
    embedding = torch.nn.Embedding(5, 2)
    return embedding, torch.optim.AdamW(embedding.parameters(), lr=0.1)


def train(embedding, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        embedding(torch.arange(5)).square().sum().backward()
        optimizer.step()


def attached(run, **options):
    embedding, optimizer = loop()
    options = {"channels": (W,), **options}
    return embedding, optimizer, crucible.attach(embedding, optimizer, run, **options)


def steps_of(run):
    return open_trajectory(run).attrs["committed_steps"]


def test_a_finished_run_is_overwritten(tmp_path):
    embedding, optimizer, recorder = attached(tmp_path / "run")
    train(embedding, optimizer, 5)
    recorder.complete()
    with pytest.raises(RunExistsError, match="overwrite=True"):
        attached(tmp_path / "run")
    embedding, optimizer, recorder = attached(tmp_path / "run", overwrite=True)
    train(embedding, optimizer, 2)
    recorder.complete()
    assert steps_of(tmp_path / "run") == 2
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").W[-1], embedding.weight.detach())


def test_a_live_recorder_is_named_with_the_two_ways_on(tmp_path):
    embedding, optimizer, recorder = attached(tmp_path / "run")
    train(embedding, optimizer, 3)
    with pytest.raises(RunExistsError, match=r"<Recorder of .*step 3.*close\(\).*resume=3.*overwrite=True"):
        attached(tmp_path / "run")
    with pytest.raises(RunExistsError, match="resume=3"):
        crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=3)
    train(embedding, optimizer, 1)
    recorder.close()
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=4):
        train(embedding, optimizer, 1)
    assert steps_of(tmp_path / "run") == 5


def test_overwriting_closes_the_live_recorder_and_names_it(tmp_path):
    notices = []
    old = attached(tmp_path / "run")
    train(*old[:2], 3)
    new = attached(tmp_path / "run", overwrite=True, say=notices.append)
    assert len(notices) == 1
    assert "<Recorder of" in notices[0]
    assert "step 3" in notices[0]
    train(*old[:2], 2)  # the old optimizer records no longer
    train(*new[:2], 1)
    new[2].complete()
    assert steps_of(tmp_path / "run") == 1


def test_a_file_of_yours_keeps_the_live_recorder_open(tmp_path):
    embedding, optimizer, recorder = attached(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match=r"notes\.txt"):
        attached(tmp_path / "run", overwrite=True)
    train(embedding, optimizer, 2)
    recorder.complete()
    assert steps_of(tmp_path / "run") == 2


def test_where_the_folder_was_removed_a_new_recorder_begins_and_the_old_one_is_closed(tmp_path):
    notices = []
    old = attached(tmp_path / "run")
    train(*old[:2], 3)
    old[2].commit()  # or its thread writes files just now
    shutil.rmtree(tmp_path / "run")
    new = attached(tmp_path / "run", say=notices.append)
    assert len(notices) == 1
    assert "its folder was removed" in notices[0]
    train(*old[:2], 2)
    train(*new[:2], 1)
    new[2].complete()
    assert steps_of(tmp_path / "run") == 1


def test_a_recorder_that_nothing_holds_is_closed_by_the_next(tmp_path):
    notices = []
    embedding, optimizer, recorder = attached(tmp_path / "run")
    train(embedding, optimizer, 3)
    weights = embedding.weight.detach().clone()
    del embedding, optimizer, recorder
    gc.collect()
    embedding, optimizer = loop()
    embedding.load_state_dict({"weight": weights})
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=3, say=notices.append):
        train(embedding, optimizer, 1)
    assert steps_of(tmp_path / "run") == 4
    assert ["nothing holds any more, at step 3" in each for each in notices] == [True]


def slow_to_commit(monkeypatch):
    """The thread that writes comes to its first commit after what is asked next."""
    flush = LocalDisk.flush

    def slowly(disk, fd):
        time.sleep(0.1)
        monkeypatch.undo()
        flush(disk, fd)

    monkeypatch.setattr(LocalDisk, "flush", slowly)


def test_a_recorder_that_nothing_holds_is_closed_before_its_run_is_read(tmp_path, monkeypatch):
    slow_to_commit(monkeypatch)
    embedding = attached(tmp_path / "run")[0]  # its optimizer and its recorder are dropped
    gc.collect()
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=0):
        train(embedding, optimizer, 1)
    assert steps_of(tmp_path / "run") == 1


def test_a_live_recorder_is_named_also_before_its_first_commit(tmp_path, monkeypatch):
    slow_to_commit(monkeypatch)
    embedding, optimizer, recorder = attached(tmp_path / "run")
    with pytest.raises(RunExistsError, match="resume=0"):
        crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=0)
    recorder.close()


@pytest.mark.slow
def test_a_live_recorder_whose_run_was_made_at_its_first_update_is_named_too(tmp_path):
    embedding, optimizer, recorder = attached(tmp_path / "run", scalars=True)
    for steps in (0, 1):
        train(embedding, optimizer, steps)
        with pytest.raises(RunExistsError, match="is being recorded by this process"):
            attached(tmp_path / "run")
    with pytest.raises(RunExistsError, match="resume=1"):
        crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=1)
    train(embedding, optimizer, 2)
    recorder.complete()
    assert steps_of(tmp_path / "run") == 3


def test_where_the_folder_of_a_run_that_was_made_late_was_removed_it_is_told(tmp_path):
    notices = []
    old = attached(tmp_path / "run", scalars=True)
    train(*old[:2], 3)
    old[2].commit()
    shutil.rmtree(tmp_path / "run")
    new = attached(tmp_path / "run", say=notices.append)
    assert ["its folder was removed" in each for each in notices] == [True]
    new[2].close()


def test_a_recorder_that_nothing_holds_and_nobody_has_collected_yet_is_closed(tmp_path):
    embedding, optimizer, recorder = attached(tmp_path / "run")
    train(embedding, optimizer, 3)
    gc.collect()
    gc.disable()
    try:
        del optimizer, recorder  # a circle: the optimizer's hooks hold the recorder
        optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.1)
        with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), resume=3):
            train(embedding, optimizer, 1)
    finally:
        gc.enable()
    assert steps_of(tmp_path / "run") == 4


def test_overwriting_and_resuming_are_two_things(tmp_path):
    with pytest.raises(ValueError, match="give one of them"):
        attached(tmp_path / "run", overwrite=True, resume=3)


@pytest.mark.slow
@pytest.mark.parametrize(("drop", "words"), [("", "was left open"), ("del recorder, optimizer, embedding; gc.collect()",
                                                                 "was dropped without being closed")])  # fmt: skip
def test_what_was_never_closed_is_told_at_exit(tmp_path, drop, words):
    code = f"""
        import gc, sys, torch, crucible
        from crucible.channels.table import W
        embedding = torch.nn.Embedding(5, 2)
        optimizer = torch.optim.AdamW(embedding.parameters())
        recorder = crucible.attach(embedding, optimizer, sys.argv[1], channels=(W,))
        for _ in range(7):
            embedding(torch.arange(5)).sum().backward()
            optimizer.step()
        {drop}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "run"], check=True, capture_output=True, text=True
    )
    assert words in done.stderr
    assert "recorder.complete()" in done.stderr
    assert steps_of(tmp_path / "run") == 7

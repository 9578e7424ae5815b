"""`crucible info` says what became of a run, and the command that goes on with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from trained_runs import interrupt_at, quiet

import crucible
from crucible.channels.table import CENTROID, LOSS
from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.inspection.info import info, table
from store.writing.writer import TrajectoryWriter


def attach(run):
    embedding = torch.nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    return crucible.attach(embedding, optimizer, run, say=quiet)


def test_an_interrupted_run_names_the_command_that_goes_on(small, monkeypatch, capsys):
    interrupt_at(5, monkeypatch)
    running.train(small, say=quiet)
    assert main(["info", small.out]) == 0
    out, err = capsys.readouterr()
    assert "progress: step 5 of 12, interrupted; checkpoint step-5" in out
    assert err == f"next: crucible resume {small.out}\n"
    assert main(["info", small.out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["way_on"]) == ("stopped", ["resume", small.out])
    monkeypatch.undo()
    running.resume(small.out, say=quiet)
    assert main(["info", small.out]) == 0
    out, err = capsys.readouterr()
    assert "progress: step 12 of 12, completed; checkpoint step-12" in out
    assert err == f"next: crucible analyze {small.out}\n"


def test_a_run_that_is_being_written_is_not_called_interrupted(tmp_path):
    with attach(tmp_path / "run") as recorder:
        recorder.writer.commit()
        assert info(tmp_path / "run")["state"] == "recording"
        lines = table(info(tmp_path / "run"))[2]
        assert "progress: step 0, being written now; checkpoint none" in lines
    assert info(tmp_path / "run")["state"] == "complete"


def test_a_loop_of_ones_own_is_told_how_it_goes_on(tmp_path):
    recorder = attach(tmp_path / "run")
    recorder.close()
    found = info(tmp_path / "run")
    assert (found["state"], found["way_on"]) == ("stopped", None)
    lines = table(found)[2]
    assert "to go on: crucible.attach(..., resume=0) in the loop that made it" in lines


def test_an_import_that_was_interrupted_is_told_to_be_done_again(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", W=np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 3, 2))

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrajectoryWriter, "complete", fail)
    with pytest.raises(KeyboardInterrupt):
        crucible.import_run(tmp_path / "a.npz", tmp_path / "run")
    found = info(tmp_path / "run")
    assert found["state"] == "stopped"
    assert "to go on: the same import again" in table(found)[2]


def test_a_run_without_weights_is_not_sent_to_analyze(tmp_path, capsys):
    embedding = torch.nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    crucible.attach(embedding, optimizer, tmp_path / "run", channels=[CENTROID, LOSS], say=quiet).close()
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "next:" not in capsys.readouterr().err


@pytest.mark.parametrize("lock", [None, b"", b"rubbish", b"\xff" * 5000])
def test_whatever_lock_says_a_run_without_its_writer_is_interrupted(lock, tmp_path):
    attach(tmp_path / "run").close()
    path = Path(tmp_path / "run" / "LOCK")
    path.unlink()
    if lock is not None:
        path.write_bytes(lock)
    assert info(tmp_path / "run")["state"] == "stopped"

"""`crucible check` as a command: its words and its JSON, and beside other commands on the same run."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import waiting

import crucible
from crucible.channels.table import GRADIENT, W
from crucible.cli.main import main
from store.disk import LocalDisk
from store.format import chunking
from store.format.files import TRAJECTORY
from store.holding.held_run import HeldRun
from store.run.commit import read_commit

COMMAND = [sys.executable, "-m", "crucible"]
CHECK_UNTIL_COMPLETED = """
import sys, pathlib, crucible
from store.run.commit import read_commit
from waiting import wait_until
whole, run = map(pathlib.Path, sys.argv[1:])
crucible.check(whole)  # loads what it needs
print("ready", flush=True)
wait_until((run / "trajectory.zarr").exists)
count, completed = 0, False
while not completed:
    completed = read_commit(run).completed
    report = crucible.check(run)
    assert report.is_whole, [str(damage) for damage in report.damage]
    count += 1
print(count)
"""


def record(run, steps, channels=crucible.channels.table.NOTEBOOK[:-1], rows=6, hidden=4):
    """A run of an embedding of which each step moves a row."""
    embedding = torch.nn.Embedding(rows, hidden).bfloat16()
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.3)
    with crucible.attach(embedding, optimizer, run, channels=channels, say=lambda _: None) as recorder:
        for step in range(steps):
            optimizer.zero_grad()
            loss = embedding(torch.tensor([step % rows])).float().square().sum()
            loss.backward()
            recorder.log(loss=loss)
            optimizer.step()
    return Path(run)


def test_json_and_words_name_steps_by_their_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chunking, "BLOCK_STEPS", 8)
    run = record(tmp_path / "run", 80, (W, replace(GRADIENT, every=5)))
    (run / TRAJECTORY / "gradient" / "c.1.0.0").write_bytes(b"")
    assert main(["check", "--json", str(run)]) == 3
    [damage] = json.loads(capsys.readouterr().out)["damage"]
    assert (damage["name"], damage["steps"], damage["tokens"]) == ("gradient", [40, 76], [0, 5])
    assert damage["sentence"].startswith("gradient, steps 40..75, token ids 0..5: ")
    assert "gradient[step_gradient 40..75]" in damage["what"]
    assert main(["check", "--repair", str(run)]) == 0
    assert "repaired: cut the run back from step 80 to step 39" in capsys.readouterr().out
    assert read_commit(run).committed_steps == 39


def test_repair_of_a_whole_run_that_is_being_written_is_no_error(tmp_path, capsys):
    run = record(tmp_path / "run", 5)
    lock = HeldRun(run, LocalDisk())
    (run / ".partial" / "W.c.0.0.0").write_bytes(b"half")
    assert main(["check", "--repair", str(run)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith(f"{run}: ")
    assert out.endswith(" committed step 5: whole\n")
    assert "leftover" not in out
    assert err.startswith("note: nothing to repair, and what looks like leftovers is being written: ")
    next((run / TRAJECTORY / "W").glob("c.*")).write_bytes(b"")
    assert main(["check", "--repair", str(run)]) == 5
    assert "being written by pid" in capsys.readouterr().err
    lock.release()


def test_leftovers_of_a_run_that_cannot_be_locked_are_not_said_to_be_written(tmp_path, capsys):
    """As on a file system that can only be read."""
    run = record(tmp_path / "run", 5)
    (run / ".partial" / "0123456789abcdef.W.c.0.0.0").write_bytes(b"half")
    (run / "LOCK").unlink()
    (run / "LOCK").mkdir()
    assert main(["check", "--repair", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "leftover, no damage: .partial/0123456789abcdef.W.c.0.0.0\n" in out
    assert err.startswith("note: nothing to repair, and leftovers stay as they are: ")
    assert "being written" not in err


@pytest.mark.slow
def test_check_and_repair_beside_a_compaction_leave_a_whole_run_whole(tmp_path):
    """By commands alone, as fast as they come, at different moments of the compaction."""
    whole = record(tmp_path / "whole", 1500, rows=2000, hidden=16)
    for attempt in range(3):
        run = shutil.copytree(whole, tmp_path / f"run-{attempt}")
        with subprocess.Popen([*COMMAND, "compact", run], stdout=subprocess.PIPE) as compaction:
            checks = []
            while compaction.poll() is None or len(checks) < 2:
                command = [*COMMAND, "check", "--repair", run]
                checks.append(subprocess.run(command, capture_output=True, text=True, check=False))
        assert compaction.returncode == 0
        assert [(each.returncode, each.stdout) for each in checks if each.returncode or "damage: " in each.stdout] == []
        assert read_commit(run).committed_steps == 1500
        assert crucible.check(run).is_whole


@pytest.mark.slow
def test_check_beside_training_names_no_damage(small, tmp_path, request):
    """Beside a training that commits and replaces its training state all the time, in a loop and by commands."""
    whole = record(tmp_path / "whole", 2)
    loop = subprocess.Popen(
        [sys.executable, "-c", CHECK_UNTIL_COMPLETED, whole, small.out], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, cwd=Path(waiting.__file__).parent,
    )  # fmt: skip
    request.addfinalizer(loop.kill)
    assert loop.stdout.readline() == "ready\n"
    config = replace(small, total_steps=600, commit_interval=0.02, checkpoint_interval=0.0001)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in config.to_mapping().items() if value]
    with subprocess.Popen([*COMMAND, "train", *flags], stdout=subprocess.DEVNULL) as training:
        waiting.wait_until(lambda: (Path(config.out) / TRAJECTORY).exists() or training.poll() is not None)
        while training.poll() is None:
            command = [*COMMAND, "check", "--repair", config.out]
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (told.returncode, told.stdout.count("damage: ")) == (0, 0), told.stdout + told.stderr
    assert training.returncode == 0
    out, _ = loop.communicate(timeout=waiting.PATIENCE_S)
    assert loop.returncode == 0, out
    assert int(out) > 5
    assert read_commit(Path(config.out)).committed_steps == 600

"""A run that was interrupted and resumed has the bytes of one that was not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from trained_runs import files_of, interrupt_at, quiet
from waiting import wait_until

import crucible
from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.experiment import trainer
from crucible.experiment.checkpoint import CheckpointError, restore
from crucible.inputs.config import ConfigError
from crucible.inputs.data import InputError
from store.errors import NotATrajectoryError
from store.run import training_state
from store.run.commit import read_commit


class InterruptedTestError(Exception):
    """What a test throws into the loop."""


# an epoch has 12 batches here: its first, one between, its last, and the next one's first
@pytest.mark.default_cases(1)
@pytest.mark.parametrize("step", [1, 5, 12, 13])
def test_interrupted_anywhere_gives_the_bytes_of_an_unbroken_run(step, small, tmp_path, monkeypatch):
    config = replace(small, total_steps=20, batch_size=64)
    whole = replace(config, out=str(tmp_path / "whole"))
    assert running.train(whole, say=quiet).is_complete
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        outcome = running.train(config, say=quiet)
    assert (outcome.steps, outcome.is_complete) == (step, False)
    assert main(["resume", config.out]) == 0
    assert files_of(Path(config.out)) == files_of(Path(whole.out))


@pytest.mark.slow
def test_an_exception_commits_and_the_steps_since_the_checkpoint_are_computed_again(small, tmp_path, monkeypatch):
    whole = replace(small, out=str(tmp_path / "whole"))
    running.train(whole, say=quiet)
    true, calls = trainer.loss_of, iter(range(100))

    def broken(*arguments):
        if next(calls) == 7:
            raise InterruptedTestError
        return true(*arguments)

    monkeypatch.setattr(trainer, "loss_of", broken)
    with pytest.raises(InterruptedTestError):
        running.train(small, say=quiet)
    assert read_commit(Path(small.out)).committed_steps == 7
    assert read_commit(Path(small.out)).checkpoint is None
    monkeypatch.setattr(trainer, "loss_of", true)
    said = []
    assert running.resume(small.out, say=said.append).is_complete
    assert "resuming after step 0; committed are 7 of 12 steps" in said
    assert not [line for line in said if "not deterministic" in line]
    assert files_of(Path(small.out)) == files_of(Path(whole.out))


def test_steps_that_come_out_otherwise_are_said_and_replaced(small, monkeypatch):
    interrupted = replace(small, checkpoint_interval=0.0)
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        running.train(interrupted, say=quiet)
    run = Path(small.out)
    commit = read_commit(run)
    # as after a power cut: the commit is ahead of the checkpoint that it names
    monkeypatch.setattr(running, "restored", lambda *_, **__: None)
    true, calls = trainer.loss_of, iter(range(1, 100))
    monkeypatch.setattr(trainer, "loss_of", lambda *a: true(*a) * (1 if next(calls) != 4 else 2))
    said = []
    assert running.resume(run, say=said.append).is_complete
    assert commit.committed_steps == 7
    assert [line for line in said if "not deterministic" in line and "step 4" in line]
    assert crucible.check(run).is_whole


@pytest.mark.slow
def test_resume_past_the_planned_end_equals_a_longer_run(small, tmp_path):
    whole = replace(small, out=str(tmp_path / "whole"), total_steps=30)
    running.train(whole, say=quiet)
    running.train(small, say=quiet)
    assert running.resume(small.out, say=quiet) is None
    assert running.resume(small.out, total_steps=30, say=quiet).steps == 30
    assert files_of(Path(small.out)) == files_of(Path(whole.out))
    assert read_commit(Path(small.out)).attributes["config"]["total_steps"] == 30


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("total_steps", "says"),
    [
        (5, "is committed up to step 7; --total-steps must be at least that, not 5"),
        (0, "total_steps must be at least 1, not 0"),
        (-3, "total_steps must be at least 1, not -3"),
    ],
)
@pytest.mark.parametrize("is_finished", [False, True])
def test_an_end_before_the_committed_steps_is_refused(total_steps, says, is_finished, small, monkeypatch, capsys):  # noqa: PLR0917 - a table and fixtures
    run = Path(small.out)
    with monkeypatch.context() as patch:
        interrupt_at(99 if is_finished else 7, patch)
        running.train(replace(small, total_steps=7 if is_finished else 12), say=quiet)
    assert (read_commit(run).committed_steps, read_commit(run).completed) == (7, is_finished)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=says):
        running.resume(run, total_steps=total_steps, say=quiet)
    assert main(["resume", str(run), f"--total-steps={total_steps}"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_an_end_at_the_committed_steps_finishes_the_run_there(small, tmp_path, monkeypatch):
    whole = replace(small, out=str(tmp_path / "whole"), total_steps=7)
    running.train(whole, say=quiet)
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        running.train(small, say=quiet)
    said = []
    assert running.resume(small.out, total_steps=7, say=said.append).is_complete
    assert files_of(Path(small.out)) == files_of(Path(whole.out))
    assert not any("no step of this" in line for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("push", [True, False])
def test_begun_without_push_it_starts_again_without(small, tmp_path, push):
    whole = replace(small, total_steps=3, out=str(tmp_path / "whole"))
    running.train(whole, push=push, say=quiet)
    begun = Path(small.out)
    begun.mkdir()
    stored = json.loads((tmp_path / "whole/config.json").read_text())
    assert stored.get("push", True) is push
    (begun / "config.json").write_text(json.dumps(stored))
    assert running.resume(begun, say=quiet).is_complete
    assert ("push" in crucible.open_trajectory(begun)) is push
    assert files_of(begun) == files_of(Path(whole.out))
    assert running.resume(begun, total_steps=5, say=quiet).is_complete
    assert ("push" in crucible.open_trajectory(begun)) is push


@pytest.mark.slow
def test_killed_before_its_first_commit_it_starts_again(small, tmp_path):
    whole = replace(small, out=str(tmp_path / "whole"))
    running.train(whole, say=quiet)
    run = Path(small.out)
    (run / ".partial").mkdir(parents=True)
    config = json.loads((Path(whole.out) / "config.json").read_text()) | {"out": str(run)}
    (run / "config.json").write_text(json.dumps(config))
    (run / ".partial" / "W.c.0.0.0").write_bytes(b"half a chunk")
    assert running.resume(run, say=quiet).is_complete
    assert files_of(run) == files_of(Path(whole.out))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_in_the_middle_it_goes_on_from_its_last_commit(small, tmp_path):
    """All of it by commands: what other tests leave behind in this process may change the bits of its arithmetic."""
    config = replace(small, total_steps=200, hidden_dim=4)
    whole = tmp_path / "whole"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in config.to_mapping().items() if value]
    flags = [flag for flag in flags if not flag.startswith(("--commit", "--checkpoint"))]
    crucible = [sys.executable, "-m", "crucible"]
    subprocess.run([*crucible, "train", *flags, f"--out={whole}"], stdout=subprocess.DEVNULL, check=True)
    command = [*crucible, "train", *flags, "--commit-interval=0.05", "--checkpoint-interval=0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: committed(Path(config.out)) >= 40 or process.poll() is not None)
        process.kill()
    assert committed(Path(config.out)) >= 40
    subprocess.run([*crucible, "resume", config.out], stdout=subprocess.DEVNULL, check=True)
    ours, theirs = files_of(Path(config.out)), files_of(whole)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def committed(run: Path) -> int:
    try:
        return read_commit(run).committed_steps
    except NotATrajectoryError:
        return -1


def test_changed_or_missing_inputs_are_refused(small, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(Path(small.corpus).read_text())
    config = replace(small, corpus=str(corpus))
    running.train(config, say=quiet)
    corpus.write_text(corpus.read_text() + "more")
    with pytest.raises(InputError, match="corpus has changed"):
        running.resume(config.out, total_steps=20, say=quiet)
    corpus.unlink()
    with pytest.raises(InputError, match="not there any more"):
        running.resume(config.out, total_steps=20, say=quiet)


def test_checkpoint_of_another_model_is_refused(small):
    from crucible.experiment.session import begin, read_inputs

    running.train(small, say=quiet)
    run = Path(small.out)
    commit = read_commit(run)
    files = training_state.read(run, commit, commit.checkpoint, 1 << 20)
    other = begin(replace(small, hidden_dim=12), read_inputs(small))
    with pytest.raises(CheckpointError, match="size mismatch"):
        restore(files, other.model, other.optimizer)
    with pytest.raises(CheckpointError, match="does not fit"):
        restore({**files, "state.json": b"{}"}, other.model, other.optimizer)
    with pytest.raises(CheckpointError):
        restore({**files, "model.safetensors": b"garbage"}, other.model, other.optimizer)


def test_no_run_here(tmp_path, capsys):
    assert main(["resume", str(tmp_path / "nothing")]) == 4
    assert capsys.readouterr().err.count("\n") == 1

"""SIGTERM and its kind end `train` and `resume` as Ctrl-C does: step finished, checkpoint written, all committed."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from trained_runs import files_of, interrupt_at, quiet
from waiting import wait_until

from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.inputs.config import Config
from store.errors import NotATrajectoryError
from store.run.commit import read_commit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 12}


def flags(config):
    return [f"--{name.replace('_', '-')}={value}" for name, value in config.to_mapping().items() if value]


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """What an unbroken run holds."""
    out = tmp_path_factory.mktemp("whole") / "run"
    running.train(Config(**files.paths(), out=str(out), **SMALL), say=quiet)
    return files_of(out)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_a_signal_ends_train_and_resume_with_all_committed(name, whole, files, tmp_path, monkeypatch, capsys):  # noqa: PLR0917 - fixtures
    signum = getattr(signal, name)
    config = Config(**files.paths(), out=str(tmp_path / "run"), **SMALL)
    with monkeypatch.context() as patch:
        interrupt_at(5, patch, signum)
        assert main(["train", *flags(config)]) == 128 + signum
    assert (
        f"interrupted by {name} after step 5, which is committed; to go on: crucible resume" in capsys.readouterr().out
    )
    commit = read_commit(Path(config.out))
    assert (commit.committed_steps, commit.checkpoint, commit.completed) == (5, "step-5", False)
    with monkeypatch.context() as patch:
        interrupt_at(3, patch, signum)
        assert main(["resume", config.out]) == 128 + signum
    assert read_commit(Path(config.out)).checkpoint == "step-8"
    assert main(["resume", config.out]) == 0
    assert files_of(config.out) == whole


def test_under_nohup_a_hangup_ends_nothing(files, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt_at(5, monkeypatch, signal.SIGHUP)
        assert running.train(Config(**files.paths(), out=str(tmp_path / "run"), **SMALL), say=quiet).is_complete
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_the_program_is_called_when_all_is_committed(small, monkeypatch):
    seen = []
    before = signal.signal(
        signal.SIGTERM, lambda signum, _: seen.append((signum, read_commit(Path(small.out)).committed_steps))
    )
    try:
        interrupt_at(5, monkeypatch, signal.SIGTERM)
        assert running.train(small, say=quiet).signum == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [(signal.SIGTERM, 5)]


def committed(run):
    try:
        return read_commit(run).committed_steps
    except NotATrajectoryError:
        return -1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_a_signal_from_outside(name, small, tmp_path):
    config = replace(small, total_steps=20_000, commit_interval=0.1)
    command = [sys.executable, "-m", "crucible", "train", *flags(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: committed(Path(config.out)) >= 20 or process.poll() is not None)
        process.send_signal(getattr(signal, name))
        _, error = process.communicate()
    assert process.returncode == 128 + getattr(signal, name), error
    commit = read_commit(Path(config.out))
    assert commit.checkpoint == f"step-{commit.committed_steps}"
    shutil.rmtree(tmp_path / "run")

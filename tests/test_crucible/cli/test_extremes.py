"""Numbers at the edge are refused in one line or run; a full disk leaves nothing half written."""

import errno
import os

import pytest
import torch
from trained_runs import quiet

from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.experiment import session
from crucible.experiment.outcome import Outcome
from crucible.inputs.config import Config, ConfigError, rules

SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 3}
HUGE = 10**30


def run(words, capsys):
    try:
        code = main([str(word) for word in words])
    except SystemExit as ending:
        code = ending.code
    return (code, *capsys.readouterr())


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    running.train(Config(**files.paths(), out=str(out), **SMALL), say=quiet)
    return out


@pytest.mark.default_cases(47)
@pytest.mark.parametrize("name", [name for name, rule in rules().items() if rule.kind in ("int", "float")])
@pytest.mark.parametrize("value", [0, -1, HUGE, "nan", "inf", "-inf", "1e300", "1e-300", "", "x", "1_0"])
def test_every_numeric_flag_takes_or_refuses_it_in_a_line(name, value, files, tmp_path, capsys, monkeypatch):  # noqa: PLR0917 - fixtures
    """Training itself is left out here: what is taken comes to where it would begin."""
    monkeypatch.setattr(running, "_start", lambda *_, **__: Outcome(3, 1.0, 1, 1.0, signum=1))
    flags = [f"--{key.replace('_', '-')}={number}" for key, number in SMALL.items()]
    words = ["train", *files.flags(), *flags, f"--{name.replace('_', '-')}={value}", "--out", tmp_path / "run"]
    code, told, error = run(words, capsys)
    if code == 129:
        assert told.startswith("interrupted")
    else:
        assert (code, told, error.count("\n")) == (2, "", 1)
        assert "mistake" not in error


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rate": 1e38}, r"learning_rate / \(1 - beta1\) is 1e\+39, above the largest float32 number"),
        ({"learning_rate": 1e30, "beta1": 0.9999999999}, r"learning_rate / \(1 - beta1\)"),
        ({"learning_rate": 1e20, "weight_decay": 1e20}, r"learning_rate x weight_decay is 1e\+40"),
    ],
)
def test_steps_without_bound_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        Config(**changes)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("changes", [
    {"learning_rate": 3e37}, {"learning_rate": 1e-300}, {"weight_decay": 1e38}, {"epsilon": 3e38}, {"epsilon": 0.0},
    {"beta1": 0.9999999999}, {"beta2": 0.0}, {"motion_threshold": 3e38}, {"loss_chunk": 2**52},
])  # fmt: skip
def test_the_largest_that_are_taken_train(changes, files, tmp_path):
    config = Config(**files.paths(), out=str(tmp_path / "run"), **SMALL | changes)
    assert running.train(config, say=quiet).is_complete


def test_too_little_memory_is_a_sentence(files, tmp_path, capsys, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12000000000000 bytes")

    words = ["train", *files.flags(), *(f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()), "--out",
             tmp_path / "run"]  # fmt: skip
    monkeypatch.setattr(session, "TinyLM", no_memory)
    code, told, error = run(words, capsys)
    assert (code, told, error.count("\n")) == (1, "", 1)
    assert "too little memory for this model and its batches; make --hidden-dim" in error
    with pytest.raises(MemoryError), session.memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="something else"), session.memory_errors():
        raise RuntimeError("something else")


@pytest.mark.parametrize("words", [
    ["watch", "RUN", "--interval", "nan"], ["watch", "RUN", "--interval", "-1"], ["watch", "RUN", "--interval", "inf"],
    ["watch", "RUN", "--threshold", "nan"], ["analyze", "RUN", "--threshold", "-1"],
    ["view", "RUN", "--port", "99999999", "--no-browser"], ["view", "RUN", "--port", "-1", "--no-browser"],
    ["export", "RUN", "OUT", "--tokens", str(HUGE)], ["export", "RUN", "OUT", "--tokens", str(-HUGE)],
    ["analyze", "RUN", "--tokens", str(HUGE)], ["analyze", "RUN", "--steps", f"{HUGE}:"],
    ["watch", "RUN", "--steps", "9:"],
    ["export", "RUN", "OUT", "--steps", f"0:{HUGE}"], ["resume", "RUN", "--total-steps", str(HUGE)],
    ["resume", "RUN", "--total-steps", "0"], ["plan", "--tokens", str(HUGE)], ["plan", "--max-memory", "1e999GB"],
    ["import", "OUT", "OUT2", "--motion-threshold", "nan"],
])  # fmt: skip
def test_numbers_of_other_commands(words, trained, tmp_path, capsys):
    words = [word.replace("RUN", str(trained)).replace("OUT", str(tmp_path / "out")) for word in words]
    code, _, error = run(words, capsys)
    assert code in (1, 2), error
    assert len([line for line in error.splitlines() if not line.startswith("note: ")]) == 1
    assert "mistake" not in error


def test_a_report_on_a_full_disk_leaves_nothing_and_names_its_path(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        code, told, error = run(["report", trained, "--out", tmp_path / "report.html"], capsys)
    assert (code, told) == (1, "")
    assert error == f"crucible: {tmp_path / 'report.html'}: No space left on device\n"
    assert list(tmp_path.iterdir()) == []

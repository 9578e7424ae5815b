"""A damaged checkpoint ends no run: the one before it is taken, or all is computed again and compared."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from trained_runs import files_of, interrupt_at, quiet

import crucible
from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.experiment.checkpoint import MODEL, OPTIMIZER, RANDOM, STATE
from crucible.inputs.config import Config
from store.errors import ChecksumError, MissingError
from store.run.commit import read_commit
from store.run.document import digest
from store.run.training_state import named

FILES = (MODEL, OPTIMIZER, RANDOM, STATE)
SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 12}


@pytest.fixture(scope="module")
def config(files, tmp_path_factory):
    return Config(**files.paths(), out=str(tmp_path_factory.mktemp("runs") / "run"), learning_rate=1e-2, **SMALL)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """What an unbroken run holds."""
    out = tmp_path_factory.mktemp("whole") / "run"
    running.train(replace(config, out=str(out)), say=quiet)
    return files_of(out)


@pytest.fixture(scope="module")
def twice(config):
    """A run that was interrupted at step 5, and again at step 9."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(5, patch)
        running.train(config, say=quiet)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(4, patch)
        running.resume(config.out, say=quiet)
    return Path(config.out)


@pytest.fixture
def run(twice, tmp_path):
    return shutil.copytree(twice, tmp_path / "run")


def spoil(path, how):
    if how == "removed":
        path.unlink()
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "endless":
        path.unlink()
        path.symlink_to("/dev/zero")
    elif how == "huge":
        os.truncate(path, 1 << 40)  # sparse
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def everything(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "LOCK"}


def test_the_two_newest_are_kept(run):
    assert named(read_commit(run)) == ["step-9", "step-5"]
    assert sorted(path.name for path in (run / "checkpoint").iterdir()) == ["step-5", "step-9"]
    assert running.resume(run, say=quiet).is_complete
    assert named(read_commit(run)) == ["step-12", "step-9"]
    assert sorted(path.name for path in (run / "checkpoint").iterdir()) == ["step-12", "step-9"]
    assert crucible.check(run).is_whole


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["flipped bit", "removed"])
def test_resume_takes_the_one_before(run, whole, file, how):
    spoil(run / "checkpoint" / "step-9" / file, how)
    said = []
    assert running.resume(run, say=said.append).is_complete
    notes = [line for line in said if f"step-9/{file}" in line]
    assert len(notes) == 1
    assert "going on from the training state of step 5 instead" in notes[0]
    assert not any("not deterministic" in line for line in said)
    assert files_of(run) == whole
    assert crucible.check(run).is_whole


@pytest.mark.default_cases(1)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("how", ["pipe", "endless", "huge"])
def test_what_is_no_file_of_a_checkpoint_is_no_trap(run, how):
    spoil(run / "checkpoint" / "step-9" / MODEL, how)
    assert running.resume(run, say=quiet).is_complete


def test_a_damaged_older_one_is_in_the_way_of_nothing(run, whole):
    spoil(run / "checkpoint" / "step-5" / STATE, "flipped bit")
    said = []
    assert running.resume(run, say=said.append).is_complete
    assert not any(line.startswith("note: ") and "checkpoint" in line for line in said)
    assert files_of(run) == whole
    assert crucible.check(run).is_whole


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(("how", "kind"), [("flipped bit", ChecksumError), ("removed", MissingError)])
def test_with_none_left_it_starts_again_when_told_to(run, whole, how, kind, capsys):
    for step in (5, 9):
        spoil(run / "checkpoint" / f"step-{step}" / STATE, how)
    before = everything(run)
    with pytest.raises(kind, match=r"no other training state is left, but no step is lost: `crucible resume .* --from"):
        running.resume(run, say=quiet)
    assert main(["resume", str(run)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert everything(run) == before
    assert main(["resume", str(run), "--from-start"]) == 0
    assert "resuming after step 0; committed are 9 of 12 steps" in capsys.readouterr().out
    assert files_of(run) == whole
    assert crucible.check(run).is_whole


def test_from_the_start_a_step_that_differs_is_said_and_replaced(run, monkeypatch):
    true, calls = running.train_steps.__globals__["loss_of"], iter(range(1, 100))
    monkeypatch.setitem(running.train_steps.__globals__, "loss_of", lambda *a: true(*a) * (1 + (next(calls) == 4)))
    said = []
    assert running.resume(run, from_start=True, say=said.append).is_complete
    assert [line for line in said if "not deterministic" in line and "step 4" in line]
    assert crucible.check(run).is_whole


def test_the_same_step_again_mends_what_is_damaged(run):
    """The new checkpoint has the digests of the one on disk that is damaged: it is written all the same."""
    spoil(run / "checkpoint" / "step-9" / MODEL, "flipped bit")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(4, patch)  # of the steps after 5
        assert running.resume(run, say=quiet).steps == 9
    commit = read_commit(run)
    assert named(commit) == ["step-9.1", "step-5"]
    assert crucible.check(run).is_whole
    said = []
    assert running.resume(run, say=said.append).is_complete
    assert not any("instead" in line for line in said)


@pytest.mark.default_cases(4)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"5", "does not fit this model"),
        (b"[]", "does not fit this model"),
        (b"null", "does not fit this model"),
        (b"[" * 100_000, "does not fit this model"),
        (b"\xff\xfe\x00", "does not fit this model"),
        ({"step": "9"}, "counts"),
        ({"step": 8}, "holds the training state of step 8"),
        ({"drawn": 10**12}, "batches were drawn in an epoch of"),
        ({"drawn": -1}, "counts"),
        ({"epoch": 1.5}, "counts"),
        ({"loss": "x"}, "no number"),
        ({"random": []}, "does not fit"),
        ({"optimizer": {"param_groups": [5], "scalars": {}}}, "does not fit"),
    ],
)
def test_hostile_training_state_with_the_right_digests_is_one_line(run, content, says, capsys):
    path = run / "checkpoint" / "step-9" / STATE
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(content)
    commit = read_commit(run)
    sha256 = {**commit.sha256, f"checkpoint/step-9/{STATE}": digest(content)}
    (run / "trajectory.zarr" / "zarr.json").write_bytes(replace(commit, sha256=sha256).to_bytes())
    assert main(["resume", str(run)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert "--from-start" in error


def test_a_config_that_is_gone_is_taken_from_the_commit_and_written_anew(run, whole):
    content = (run / "config.json").read_bytes()
    (run / "config.json").unlink()
    said = []
    assert running.resume(run, say=said.append).is_complete
    assert [line for line in said if line.startswith(f"note: {run / 'config.json'}: is missing; the commit holds")]
    assert json.loads((run / "config.json").read_text())["batch_size"] == json.loads(content)["batch_size"]
    assert files_of(run) == whole
    assert crucible.check(run).is_whole


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("how", ["flipped bit", "removed", "pipe", "folder removed"])
def test_repair_sets_a_damaged_one_aside_and_resume_takes_what_is_left(run, whole, how, capsys):
    folder = run / "checkpoint" / "step-9"
    shutil.rmtree(folder) if how == "folder removed" else spoil(folder / MODEL, how)
    assert main(["check", str(run)]) == 3
    assert main(["check", str(run), "--repair"]) == 0
    assert "repaired: dropped the training state step-9, which is damaged" in capsys.readouterr().out
    assert named(read_commit(run)) == ["step-5"]
    assert read_commit(run).committed_steps == 9
    assert (run / "set-aside" / "checkpoint" / "step-9" / STATE).exists() == (how != "folder removed")
    assert main(["resume", str(run)]) == 0
    assert "resuming after step 5; committed are 9 of 12 steps" in capsys.readouterr().out
    assert files_of(run) == whole


def test_repair_of_all_damaged_ones_lets_resume_begin_anew(run, capsys):
    for step in (5, 9):
        spoil(run / "checkpoint" / f"step-{step}" / STATE, "flipped bit")
    assert main(["check", str(run), "--repair"]) == 0
    assert read_commit(run).checkpoint is None
    assert main(["resume", str(run)]) == 0
    assert "resuming after step 0; committed are 9 of 12 steps" in capsys.readouterr().out

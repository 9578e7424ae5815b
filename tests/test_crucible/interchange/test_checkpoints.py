"""Folders of checkpoints as a run: safetensors per step, and the folders of a Trainer."""

import os
from contextlib import closing

import lab_files as lab
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import crucible
from crucible.cli.main import main
from store.errors import TensorFileError

STEPS = [0, 500, 1000, 1500, 10_000]
NAME = "model.embed_tokens.weight"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


def state(W, **more):
    return {NAME: torch.from_numpy(W.copy()).view(torch.bfloat16), **more}


def per_step(folder, states):
    for step, W in zip(STEPS, states, strict=True):
        save_file(state(W), folder / f"step_{step:07d}.safetensors")


def of_a_trainer(folder, states):
    for step, W in zip(STEPS, states, strict=True):
        (folder / f"checkpoint-{step}").mkdir()
        save_file(state(W), folder / f"checkpoint-{step}/model.safetensors")
        (folder / f"checkpoint-{step}/optimizer.pt").write_bytes(b"\x80\x04")
    (folder / "runs").mkdir()


def in_shards(folder, states):
    for step, W in zip(STEPS, states, strict=True):
        (folder / f"checkpoint-{step}").mkdir()
        save_file({"head": torch.zeros(3)}, folder / f"checkpoint-{step}/model-00001-of-00002.safetensors")
        save_file(state(W), folder / f"checkpoint-{step}/model-00002-of-00002.safetensors")


@pytest.mark.parametrize("make", [per_step, of_a_trainer, in_shards], ids=lambda f: f.__name__)
def test_a_folder_of_checkpoints_is_a_run_with_its_steps(tmp_path, make):
    states = lab.weights(len(STEPS) - 1, 6, 4)
    (tmp_path / "old").mkdir()
    make(tmp_path / "old", states)
    report = crucible.import_run(tmp_path / "old", tmp_path / "run", parameter=NAME)
    ds = crucible.open_trajectory(tmp_path / "run")
    assert (ds.W.values == states).all()
    assert ds.step.values.tolist() == STEPS
    assert report.resolution_steps == 8500
    assert crucible.info(tmp_path / "run")["provenance"]["said_by_the_file"]["parameter"] == NAME
    crucible.import_run(tmp_path / "old", tmp_path / "again")  # the only array of two dimensions needs no name
    crucible.export_run(tmp_path / "run", tmp_path / "out")
    crucible.import_run(tmp_path / "out", tmp_path / "third")
    assert crucible.open_trajectory(tmp_path / "third").step.values.tolist() == STEPS


def test_the_parameter_is_asked_for_where_there_are_several(tmp_path, capsys):
    (tmp_path / "old").mkdir()
    W = lab.weights(1, 6, 4)
    for step in (10, 20):
        save_file(state(W[0], other=torch.zeros(2, 2)), tmp_path / f"old/step-{step}.safetensors")
    assert main(["import", str(tmp_path / "old"), str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "more than one array of two dimensions; say --parameter NAME, one of: " in error
    assert NAME in error
    assert main(["import", str(tmp_path / "old"), str(tmp_path / "run"), "--parameter", "nobody"]) == 1
    assert "no array 'nobody' of two dimensions" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "old"), "--list", "--parameter", NAME]) == 0
    assert "2 x 6 x 4" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "old"), str(tmp_path / "run"), "--parameter", NAME]) == 0
    assert crucible.open_trajectory(tmp_path / "run").step.values.tolist() == [10, 20]


def other_shapes(folder):
    save_file({"a": torch.zeros(3, 2)}, folder / "step-1.safetensors")
    save_file({"a": torch.zeros(3, 4)}, folder / "step-2.safetensors")


def twice(folder):
    save_file({"a": torch.zeros(3, 2)}, folder / "step-1.safetensors")
    save_file({"a": torch.zeros(3, 2)}, folder / "epoch-01.safetensors")


def pickles(folder):
    torch.save({"a": torch.zeros(3, 2)}, folder / "step-1.pt")


def pickles_inside(folder):
    (folder / "checkpoint-5").mkdir()
    torch.save({"a": torch.zeros(3, 2)}, folder / "checkpoint-5/pytorch_model.bin")


def nothing(folder):
    (folder / "notes.txt").touch()


def one_checkpoint(folder):
    save_file({"a": torch.zeros(3, 2)}, folder / "model-00001-of-00002.safetensors")


def broken(folder):
    (folder / "step-1.safetensors").write_bytes(b"x" * 99)


def two_files_of_one_name(folder):
    """The last of them was taken, without a word."""
    (folder / "checkpoint-5").mkdir()
    save_file({"a": torch.zeros(3, 2)}, folder / "checkpoint-5/model.safetensors")
    save_file({"a": torch.ones(3, 2)}, folder / "checkpoint-5/model_ema.safetensors")


def two_parameters(folder):
    save_file({"a": torch.zeros(3, 2)}, folder / "step-1.safetensors")
    save_file({"b": torch.zeros(3, 2)}, folder / "step-2.safetensors")


def no_whole_steps(folder):
    """They were taken for the steps 3 and 5."""
    save_file({"a": torch.zeros(3, 2)}, folder / "step-1e3.safetensors")
    save_file({"a": torch.zeros(3, 2)}, folder / "step-2.5.safetensors")


BAD = {
    two_files_of_one_name: "model.safetensors and model_ema.safetensors both hold a; leave one of them out",
    two_parameters: "step-2.safetensors: holds b, and .*step-1.safetensors holds a; say which of them with --parameter",
    no_whole_steps: "no checkpoints in this folder",
    other_shapes: r"a is F32 of shape \(3, 4\); expected F32 \(3, 2\)", twice: "are both of step 1",
    pickles: "which are never read. Convert what torch.save wrote",
    pickles_inside: "no .safetensors file in this checkpoint. Convert what torch.save wrote",
    nothing: "no checkpoints in this folder; expected files like step-500.safetensors",
    one_checkpoint: "no checkpoints",
    broken: "a header of",
}  # fmt: skip


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_folders_that_are_no_run_are_named_as_what_they_are(tmp_path, make):
    (tmp_path / "old").mkdir()
    make(tmp_path / "old")
    with pytest.raises(TensorFileError, match=BAD[make]) as raised:
        crucible.import_run(tmp_path / "old", tmp_path / "run")
    assert str(tmp_path / "old") in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_names_that_differ_in_more_than_their_steps_are_said(tmp_path, capsys):
    """Of two trainings in one folder, for example."""
    (tmp_path / "old").mkdir()
    W = lab.weights(2, 6, 4)
    for name, states in zip(["run1-0", "best-50", "run1-1e2"], W, strict=True):
        save_file(state(states), tmp_path / f"old/{name}.safetensors")
    assert main(["import", str(tmp_path / "old"), str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "left out: run1-1e2.safetensors (has no whole number as its step)" in told
    assert "names of the checkpoints differ in more than their steps (best-50.safetensors, run1-0.safetensors)" in told


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(tmp_path):
    from crucible.interchange.sources.checkpoints import CheckpointFolder

    per_step_folder = tmp_path / "old"
    per_step_folder.mkdir()
    per_step(per_step_folder, lab.weights(len(STEPS) - 1, 6, 4))
    with closing(CheckpointFolder(per_step_folder)) as folder:
        save_file({NAME: torch.zeros(6, 5)}, per_step_folder / "step_0000500.safetensors")
        assert folder.rows("W", 0, 1).shape == (1, 6, 4)
        with pytest.raises(TensorFileError, match="changed while it was read"):
            folder.rows("W", 0, 2)
    assert np.array_equal(folder.read("step"), STEPS)


@pytest.mark.parametrize(
    "name", ["step={}-epoch={}", "epoch={1}-step={0}", "global_step{}_epoch_{}", "STEP-{}-rank-{}"]
)
def test_the_number_behind_the_word_step_is_the_step(tmp_path, name):
    (tmp_path / "old").mkdir()
    for epoch, W in enumerate(lab.weights(2, 3, 4)):
        save_file(state(W), tmp_path / f"old/{name.format(10 * epoch, epoch)}.safetensors")
    crucible.import_run(tmp_path / "old", tmp_path / "run")
    assert crucible.open_trajectory(tmp_path / "run").step.values.tolist() == [0, 10, 20]


@pytest.mark.parametrize("name", ["step-2.5-epoch-1", "step=1e3-epoch=1", f"step{'9' * 30}-epoch-1"])
def test_a_step_that_is_no_whole_number_is_not_replaced_by_another_number_of_the_name(tmp_path, name):
    (tmp_path / "old").mkdir()
    W = lab.weights(1, 3, 4)
    save_file(state(W[0]), tmp_path / "old/step-0-epoch-0.safetensors")
    save_file(state(W[1]), tmp_path / f"old/{name}.safetensors")
    report = crucible.import_run(tmp_path / "old", tmp_path / "run")
    assert report.left_out == {f"{name}.safetensors": "has no whole number as its step"}

"""The Trainer of transformers, with a small GPT-2 made from a config, on real text."""

# ruff: noqa: ARG002 - the Trainer names the arguments of its events

import os
from pathlib import Path

import notebook_loop
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from crucible import CrucibleCallback
from crucible.data import read_sequences
from store.errors import NotATrajectoryError
from store.reader import open_trajectory

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


class Spy(transformers.TrainerCallback):
    """Keeps the embedding after each update, by the Trainer's own events."""

    def __init__(self):
        self.states = []

    def on_train_begin(self, args, state, control, *, model, **_):
        self._keep(model)

    def on_step_end(self, args, state, control, *, model, **_):
        self._keep(model)

    def _keep(self, model):
        self.states.append(model.get_input_embeddings().weight.detach()[:100].clone())


@pytest.fixture
def sequences(files):
    ids = read_sequences(files.corpus, Tokenizer.from_file(files.tokenizer), 16, 8)
    return [{"input_ids": row, "labels": row} for row in ids[:64]]


def train(run: Path, sequences, folder: Path, *, resume=None, callback=None, spy=None, **options):
    os.environ["ACCELERATE_USE_CPU"] = "1"
    transformers.set_seed(1)
    config = transformers.GPT2Config(
        vocab_size=600, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    settings = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "save_strategy": "no"}
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"), use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no",
        **{**settings, **options},
    )  # fmt: skip
    callback = callback or CrucibleCallback(run, rows=range(100))
    callbacks = [callback] if spy is None else [callback, spy]
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=sequences, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_importing_it_does_not_import_transformers():
    import subprocess
    import sys

    code = "import sys; from crucible import CrucibleCallback; print('transformers' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    "options",
    [{"gradient_accumulation_steps": 2}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"bf16": True}))],
)
def test_every_update_is_recorded_with_its_loss(options, sequences, tmp_path):
    spy, losses = Spy(), []
    original = transformers.Trainer.training_step

    def training_step(self, *arguments, **more):
        loss = original(self, *arguments, **more)
        losses.append(float(loss))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.Trainer, "training_step", training_step)
        train(tmp_path / "run", sequences, tmp_path, spy=spy, **options)
    ds = open_trajectory(tmp_path / "run")
    assert ds.attrs["completed"]
    assert ds.W.dtype == np.float32
    np.testing.assert_array_equal(ds.W.values, np.stack([state.numpy() for state in spy.states]))
    # what training_step answers is each micro-batch's share of the update's loss
    count = options.get("gradient_accumulation_steps", 1)
    expected = np.array(losses).reshape(6, count).sum(axis=1)
    np.testing.assert_allclose(ds.loss.values[1:], expected, rtol=1e-5)
    assert np.isnan(ds.loss.values[0])
    assert ds.learning_rate.values[1] == np.float32(1e-3)
    np.testing.assert_allclose(ds.learning_rate.values[1:], 1e-3 * (1 - np.arange(6) / 6), rtol=1e-6)


def test_it_goes_on_from_the_trainers_checkpoint(sequences, tmp_path):
    spy = Spy()
    train(tmp_path / "whole", sequences, tmp_path, spy=spy, max_steps=10)
    folder = tmp_path / "broken"
    train(tmp_path / "run", sequences, folder, save_strategy="steps", save_steps=4, max_steps=10)
    first = open_trajectory(tmp_path / "run")
    assert first.attrs["committed_steps"] == 10
    train(tmp_path / "run", sequences, folder, resume=str(folder / "trainer/checkpoint-4"), max_steps=10)
    again = open_trajectory(tmp_path / "run")
    whole = open_trajectory(tmp_path / "whole")
    assert again.attrs["committed_steps"] == 10
    np.testing.assert_array_equal(again.W.values[:5], whole.W.values[:5])
    np.testing.assert_array_equal(again.W.values, whole.W.values)
    np.testing.assert_array_equal(again.loss.values, whole.loss.values)


@pytest.mark.slow
def test_going_on_without_a_trajectory_is_refused(sequences, tmp_path):
    train(tmp_path / "run", sequences, tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    with pytest.raises(NotATrajectoryError):
        train(tmp_path / "other", sequences, tmp_path, resume=str(tmp_path / "trainer/checkpoint-2"), max_steps=4)


@pytest.mark.slow
def test_an_exception_leaves_the_steps_before_it(sequences, tmp_path):
    class Break(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise RuntimeError("a broken loop")

    with CrucibleCallback(tmp_path / "run", rows=range(100)) as callback, pytest.raises(RuntimeError, match="broken"):
        train(tmp_path / "run", sequences, tmp_path, callback=callback, spy=Break())
    ds = open_trajectory(tmp_path / "run")
    assert ds.attrs["committed_steps"] == 3
    assert not ds.attrs["completed"]


@pytest.mark.slow
def test_another_parameter_by_name(sequences, tmp_path):
    callback = CrucibleCallback(tmp_path / "run", parameter="transformer.wpe.weight", lattice="bfloat16")
    trainer = train(tmp_path / "run", sequences, tmp_path, callback=callback, max_steps=2)
    ds = open_trajectory(tmp_path / "run")
    expected = trainer.model.transformer.wpe.weight.detach().cpu().numpy()
    np.testing.assert_array_equal(ds.W.values[-1], expected)
    assert ds.delta_W_prime.attrs["lattice"] == "bfloat16"
    before, after = (torch.from_numpy(ds.W.values[t].copy()).bfloat16() for t in (0, 1))
    np.testing.assert_array_equal(ds.delta_W_prime.values[1], notebook_loop.displacement(before, after).numpy())
    with pytest.raises(ValueError, match="no parameter"):
        train(tmp_path / "b", sequences, tmp_path, callback=CrucibleCallback(tmp_path / "b", parameter="nowhere"))

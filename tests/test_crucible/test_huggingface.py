"""The Trainer of transformers, with a small GPT-2 made from a config, on real text."""

# ruff: noqa: ARG002 - the Trainer names the arguments of its events

import copy
import io
import json
import os
from pathlib import Path

import notebook_loop
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from crucible import CrucibleCallback
from crucible.channels import table
from crucible.inputs.data import read_sequences
from crucible.recording.provenance import version_of
from store.reading.reader import open_trajectory

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


def made(run: Path, sequences, folder: Path, *, kind=None, callback=None, spy=None, compute_loss_func=None, **options):
    """A Trainer with a callback on the run; `callback` may be False for none."""
    os.environ["ACCELERATE_USE_CPU"] = "1"
    transformers.set_seed(1)
    config = transformers.GPT2Config(
        vocab_size=600, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    settings = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    settings |= {"save_strategy": "no", "logging_strategy": "no"}
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"), use_cpu=True, report_to=[], disable_tqdm=True, **{**settings, **options}
    )  # fmt: skip
    if callback is None:
        callback = CrucibleCallback(run, rows=range(100))
    return (kind or transformers.Trainer)(
        model=model, args=arguments, train_dataset=sequences, compute_loss_func=compute_loss_func,
        callbacks=[each for each in (callback, spy) if each],
    )  # fmt: skip


def train(run: Path, sequences, folder: Path, *, resume=None, **options):
    trainer = made(run, sequences, folder, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


class Break(transformers.TrainerCallback):
    """Breaks the training off, at the end of an update or of a micro-batch."""

    def __init__(self, error, *, step=3, event="on_step_end"):
        self.error, self.step = error, step
        setattr(self, event, self._break)

    def _break(self, args, state, control, **_):
        if state.global_step == self.step:
            raise self.error


class Replace(transformers.TrainerCallback):
    """Puts another embedding into the model after update 3; the optimizer keeps the old one."""

    def on_step_end(self, args, state, control, *, model, **_):
        if state.global_step == 3:
            old = model.get_input_embeddings()
            new = torch.nn.Embedding(*old.weight.shape)
            new.load_state_dict(old.state_dict())
            model.set_input_embeddings(new)


def doubled(outputs, labels, num_items_in_batch=None):
    """The loss of the model, twice."""
    logits = outputs["logits"][:, :-1].flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    return 2 * total / num_items_in_batch


class Doubling(transformers.Trainer):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


@pytest.mark.slow
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
    assert ds.learning_rate.values[1] == 1e-3
    np.testing.assert_allclose(ds.learning_rate.values[1:], 1e-3 * (1 - np.arange(6) / 6), rtol=1e-6)


@pytest.mark.slow
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
def test_a_training_that_was_never_recorded_is_recorded_from_its_checkpoint_on(sequences, tmp_path):
    train(tmp_path / "none", sequences, tmp_path, callback=False, save_strategy="steps", save_steps=2, max_steps=4)
    spy = Spy()
    checkpoint = str(tmp_path / "trainer/checkpoint-2")
    train(tmp_path / "run", sequences, tmp_path, spy=spy, resume=checkpoint, max_steps=4)
    ds = open_trajectory(tmp_path / "run")
    assert ds.step.values.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(ds.W.values, np.stack([state.numpy() for state in spy.states]))


@pytest.mark.slow
def test_two_parameters_in_two_runs_go_on_each_in_its_own(sequences, tmp_path):
    def fit(resume=None):
        positions = CrucibleCallback(tmp_path / "positions", parameter="transformer.wpe.weight", say=lambda _: None)
        trainer = made(tmp_path / "tokens", sequences, tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
        trainer.add_callback(positions)
        trainer.train(resume_from_checkpoint=resume)
        return [open_trajectory(tmp_path / name).W.values for name in ("tokens", "positions")]

    for first, again in zip(fit(), fit(str(tmp_path / "trainer/checkpoint-2")), strict=True):
        np.testing.assert_array_equal(again, first)


@pytest.mark.slow
def test_a_branch_of_a_training_leaves_its_run_alone(sequences, tmp_path):
    train(tmp_path / "run", sequences, tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    whole, said = open_trajectory(tmp_path / "run").W.values, []
    branch = CrucibleCallback(tmp_path / "branch", rows=range(100), say=said.append)
    train(None, sequences, tmp_path, callback=branch, resume=str(tmp_path / "trainer/checkpoint-2"), max_steps=3)
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").W.values, whole)
    assert open_trajectory(tmp_path / "branch").step.values.tolist() == [2, 3]
    assert any("was recorded in 'run'" in each for each in said)


@pytest.mark.slow
def test_training_twice_is_two_runs(sequences, tmp_path):
    notices = []
    callback = CrucibleCallback(tmp_path / "run", rows=range(100), say=notices.append)
    trainer = train(tmp_path / "run", sequences, tmp_path, callback=callback, max_steps=2)
    first = open_trajectory(tmp_path / "run").W.values
    trainer.train()
    again = open_trajectory(tmp_path / "run-2").W.values
    np.testing.assert_array_equal(again[0], first[-1])
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").W.values, first)
    assert callback.folder == tmp_path / "run-2"
    assert any("this one is recorded in" in each and "run-2" in each for each in notices)


@pytest.mark.slow
def test_training_twice_with_overwrite_is_the_second(sequences, tmp_path):
    callback = CrucibleCallback(tmp_path / "run", rows=range(100), overwrite=True)
    trainer = train(tmp_path / "run", sequences, tmp_path, callback=callback, max_steps=2)
    first = open_trajectory(tmp_path / "run").W.values
    trainer.train()
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").W.values[0], first[-1])
    assert not (tmp_path / "run-2").exists()


@pytest.mark.slow
def test_each_trial_of_a_search_has_a_folder(sequences, tmp_path, monkeypatch):
    # as a backend calls it; none is installed here
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: trial)
    callback = CrucibleCallback(tmp_path / "search", rows=range(100))
    trainer = made(tmp_path / "search", sequences, tmp_path, callback=callback, max_steps=2)
    for rate in (1e-3, 1e-2):
        trainer.train(trial={"learning_rate": rate})
    for number in (0, 1):
        assert open_trajectory(tmp_path / "search" / f"trial-{number}").attrs["completed"]


@pytest.mark.slow
def test_a_search_by_optuna_has_a_folder_for_each_trial(sequences, tmp_path):
    pytest.importorskip("optuna")
    from optuna.logging import WARNING, set_verbosity

    set_verbosity(WARNING)
    looks = {}

    class Look(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, *, model, **_):
            looks[callback.folder.name] = [weights_of(model)]

        def on_step_end(self, args, state, control, *, model, **_):
            looks[callback.folder.name].append(weights_of(model))

    def weights_of(model):
        return model.get_input_embeddings().weight.detach()[:100].clone().numpy()

    callback = CrucibleCallback(tmp_path / "search", rows=range(100))
    trainer = made(tmp_path / "search", sequences, tmp_path, callback=callback, max_steps=3)
    config, kind = trainer.model.config, type(trainer.model)
    trainer.model_init = lambda: kind(config)
    trainer.eval_dataset = sequences[:4]
    trainer.add_callback(Look())
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        n_trials=3,
        backend="optuna",
    )
    assert len(looks) == 3
    for name, states in looks.items():
        ds = open_trajectory(tmp_path / "search" / name)
        assert ds.attrs["completed"]
        np.testing.assert_array_equal(ds.W.values, np.stack(states))


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_tried_smaller_in_the_same_folder(sequences, tmp_path):
    sizes = []

    class Large(transformers.Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            sizes.append(len(inputs["input_ids"]))
            if len(sizes) == 2:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(model, inputs, *args, **kwargs)

    callback = CrucibleCallback(tmp_path / "run", rows=range(100))
    train(tmp_path / "run", sequences, tmp_path, kind=Large, callback=callback, auto_find_batch_size=True, max_steps=3)
    assert sizes[0] > sizes[-1]
    ds = open_trajectory(tmp_path / "run")
    assert ds.attrs["completed"]
    assert ds.attrs["committed_steps"] == 3
    assert not (tmp_path / "run-2").exists()


@pytest.mark.slow
def test_an_exception_leaves_the_steps_before_it(sequences, tmp_path):
    spy = Break(RuntimeError("a broken loop"))
    with CrucibleCallback(tmp_path / "run", rows=range(100)) as callback, pytest.raises(RuntimeError, match="broken"):
        train(tmp_path / "run", sequences, tmp_path, callback=callback, spy=spy)
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


@pytest.mark.slow
@pytest.mark.parametrize("parameter", [None, "transformer.wte.weight"])
def test_an_embedding_that_was_replaced_in_the_model_ends_the_recording(parameter, sequences, tmp_path):
    callback = CrucibleCallback(tmp_path / "run", rows=range(100), parameter=parameter)
    with pytest.raises(RuntimeError, match="update 4: the parameter was replaced in the model"):
        train(tmp_path / "run", sequences, tmp_path, callback=callback, spy=Replace())
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("a broken loop"), KeyboardInterrupt()])
def test_a_broken_training_goes_on_in_the_same_process(error, sequences, tmp_path, monkeypatch):
    saving = {"save_strategy": "steps", "save_steps": 2}
    train(tmp_path / "whole", sequences, tmp_path / "whole trainer")
    old = CrucibleCallback(tmp_path / "run", rows=range(100))
    with pytest.raises(type(error)):
        train(tmp_path / "run", sequences, tmp_path, callback=old, spy=Break(error), **saving)
    monkeypatch.chdir(tmp_path)
    new = CrucibleCallback("run", rows=range(100))  # the same folder by another name
    train(tmp_path / "run", sequences, tmp_path, callback=new, resume=True, **saving)
    assert old.recorder is None
    ds, whole = open_trajectory(tmp_path / "run"), open_trajectory(tmp_path / "whole")
    assert ds.attrs["completed"]
    np.testing.assert_array_equal(ds.W.values, whole.W.values)
    np.testing.assert_array_equal(ds.loss.values, whole.loss.values)


@pytest.mark.slow
def test_the_same_callback_forgets_the_update_that_was_broken_off(sequences, tmp_path):
    options = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2}
    train(tmp_path / "whole", sequences, tmp_path / "whole trainer", **options)
    callback = CrucibleCallback(tmp_path / "run", rows=range(100))
    spy = Break(KeyboardInterrupt(), event="on_substep_end")  # one micro-batch of two
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", sequences, tmp_path, callback=callback, spy=spy, **options)
    train(tmp_path / "run", sequences, tmp_path, callback=callback, resume=True, **options)
    ds, whole = open_trajectory(tmp_path / "run"), open_trajectory(tmp_path / "whole")
    np.testing.assert_array_equal(ds.loss.values, whole.loss.values)


OWN_LOSSES = [
    {"label_smoothing_factor": 0.1},
    {"compute_loss_func": doubled, "gradient_accumulation_steps": 2},
    {"kind": Doubling, "gradient_accumulation_steps": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OWN_LOSSES[:2])
def test_losses_that_the_callback_cannot_see_are_told_once(options, sequences, tmp_path):
    notices = []
    callback = CrucibleCallback(tmp_path / "run", rows=range(100), say=notices.append)
    train(tmp_path / "run", sequences, tmp_path, callback=callback, max_steps=2, **options)
    assert len(notices) == 1
    assert "update 1 ended and no loss was seen" in notices[0]
    assert np.isnan(open_trajectory(tmp_path / "run").loss.values).all()


class AsOwn(transformers.Trainer):
    """Makes another loss of the model's own, which the model gives as ever."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = 3 * outputs.loss
        return (loss, outputs) if return_outputs else loss


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_loss_of_yours_beside_that_of_the_model_is_told_once(accumulated, sequences, tmp_path):
    for name, kind in (("own", AsOwn), ("plain", None)):
        notices = []
        callback = CrucibleCallback(tmp_path / name, rows=range(100), say=notices.append)
        options = {"max_steps": 3, "gradient_accumulation_steps": accumulated}
        train(tmp_path / name, sequences, tmp_path, callback=callback, kind=kind, **options)
        assert len(notices) == (name == "own")
        assert all("the Trainer optimises another loss" in each for each in notices)


@pytest.mark.slow
def test_without_a_channel_for_it_no_loss_is_missed(sequences, tmp_path):
    callback = CrucibleCallback(tmp_path / "run", rows=range(100), channels=iter([table.W]))
    train(tmp_path / "run", sequences, tmp_path, callback=callback, max_steps=2, **OWN_LOSSES[0])
    assert list(open_trajectory(tmp_path / "run").data_vars) == ["W"]


@pytest.mark.slow
@pytest.mark.parametrize("options", OWN_LOSSES)
def test_given_the_trainer_its_own_loss_is_recorded(options, sequences, tmp_path):
    options = {**options, "max_steps": 3, "logging_strategy": "steps", "logging_steps": 1}
    trainer = made(tmp_path / "run", sequences, tmp_path, callback=False, **options)
    trainer.add_callback(CrucibleCallback(tmp_path / "run", rows=range(100), trainer=trainer))
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_allclose(ds.loss.values[1:], logged, rtol=1e-4)
    assert "training_step" not in vars(trainer)


@pytest.mark.slow
def test_a_training_step_of_yours_is_given_back(sequences, tmp_path):
    trainer = made(tmp_path / "run", sequences, tmp_path, callback=False, max_steps=1)
    trainer.training_step = own = trainer.training_step
    trainer.add_callback(CrucibleCallback(tmp_path / "run", rows=range(100), trainer=trainer))
    trainer.train()
    assert vars(trainer)["training_step"] is own


@pytest.mark.slow
def test_the_provenance_names_the_trainers_library(sequences, tmp_path):
    train(tmp_path / "run", sequences, tmp_path, max_steps=1)
    found = json.loads(open_trajectory(tmp_path / "run").attrs["provenance"])["software"]
    assert found["transformers"] == transformers.__version__
    assert {"torch", "accelerate", "crucible-trajectory"} <= found.keys()
    assert version_of("no-such-package") == "not installed"


class Saves(transformers.TrainerCallback):
    """Copies the whole model after each update, in memory and in a file, and goes on with the copies."""

    def on_step_end(self, args, state, control, *, model, **_):
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for each in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            with torch.random.fork_rng():  # of the dropout
                each.train()(input_ids=torch.zeros(1, 4, dtype=torch.long), labels=torch.zeros(1, 4, dtype=torch.long))


@pytest.mark.slow
def test_the_model_can_be_saved_and_copied_as_a_whole_while_it_is_recorded(sequences, tmp_path):
    train(tmp_path / "run", sequences, tmp_path / "a")
    train(tmp_path / "saved", sequences, tmp_path / "b", spy=Saves())
    one, other = (open_trajectory(tmp_path / name) for name in ("run", "saved"))
    np.testing.assert_array_equal(one.W, other.W)
    np.testing.assert_array_equal(one.loss, other.loss)

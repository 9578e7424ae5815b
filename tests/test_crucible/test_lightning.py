"""The Trainer of Lightning: what it trains is what is recorded, with the loss that it optimises."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import crucible
from crucible import LightningCallback
from store.reading.reader import open_trajectory

pytest.importorskip("lightning")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's advice
]
VOCABULARY = 20


class Small(pl.LightningModule):
    def __init__(self, *, manual=False, broken_at=None):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, 4), nn.Linear(4, VOCABULARY)
        self.automatic_optimization = not manual
        self.states, self.losses, self.shares, self.broken_at = [], [], [], broken_at

    def training_step(self, batch, _index):
        loss = nn.functional.cross_entropy(self.head(self.embedding(batch)).float(), batch)
        self.shares.append(loss.item() / self.trainer.accumulate_grad_batches)
        if self.broken_at == self.global_step:
            raise RuntimeError("a broken loop")
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def on_train_start(self):
        self._look()

    def on_train_batch_end(self, *_):
        if self.trainer.global_step == len(self.losses) + self.first + 1:
            self.losses.append(sum(self.shares))
            self.shares.clear()
            self._look()

    @property
    def first(self):
        return getattr(self, "first_step", 0)

    def _look(self):
        self.states.append(self.embedding.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def data(count=24):
    random = torch.Generator().manual_seed(3)
    return torch.utils.data.DataLoader(torch.randint(0, VOCABULARY, (count * 4,), generator=random), batch_size=4)


def fit(run, folder, *, module=None, callback=None, checkpoint=None, **options):
    pl.seed_everything(0, verbose=False)
    module = module or Small()
    callback = callback or LightningCallback(run, rows=range(8), say=lambda _: None)
    settings = {"max_steps": 5, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "logger": False}
    settings |= {"enable_model_summary": False, "enable_checkpointing": False, "default_root_dir": folder}
    trainer = pl.Trainer(callbacks=[callback, *options.pop("others", ())], **{**settings, **options})
    trainer.fit(module, data(), ckpt_path=checkpoint)
    return module, callback


def assert_is(run, module, steps=5):
    ds = open_trajectory(run)
    assert ds.attrs["completed"]
    assert ds.sizes["step"] == steps + 1
    states = torch.stack(module.states)[:, :8]
    stored = crucible.to_torch(ds.W)
    assert torch.equal(stored, states)
    np.testing.assert_allclose(ds.loss.values[1:], module.losses, rtol=1e-5)


@pytest.mark.parametrize("options", [
    {}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}, {"precision": "bf16-true"},
    pytest.param({"precision": "16-mixed"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_every_update_is_recorded_with_its_loss(options, tmp_path):
    module, _ = fit(tmp_path / "run", tmp_path, **options)
    assert_is(tmp_path / "run", module)


def test_manual_optimization(tmp_path):
    module, _ = fit(tmp_path / "run", tmp_path, module=Small(manual=True))
    assert_is(tmp_path / "run", module)


def test_it_goes_on_from_a_checkpoint(tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "b", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    before, _ = fit(tmp_path / "run", tmp_path, others=[saving], enable_checkpointing=True, max_steps=6)
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 6
    after = Small()
    after.first_step = 4
    fit(tmp_path / "run", tmp_path, module=after, checkpoint=str(tmp_path / "b" / "step=4.ckpt"), max_steps=8)
    after.states, after.losses = before.states[:4] + after.states, before.losses[:4] + after.losses
    assert_is(tmp_path / "run", after, 8)


def test_a_training_that_was_never_recorded_is_recorded_from_its_checkpoint_on(tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "b", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(max_steps=4, accelerator="cpu", callbacks=[saving], logger=False, enable_progress_bar=False,
                         enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(Small(), data())
    fit(tmp_path / "run", tmp_path, checkpoint=str(tmp_path / "b" / "step=4.ckpt"), max_steps=6)
    assert open_trajectory(tmp_path / "run").step.values.tolist() == [4, 5, 6]


def test_a_branch_of_a_training_leaves_its_run_alone(tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "b", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    fit(tmp_path / "run", tmp_path, others=[saving], enable_checkpointing=True, max_steps=6)
    whole, said = open_trajectory(tmp_path / "run").W.values, []
    branch = LightningCallback(tmp_path / "branch", rows=range(8), say=said.append)
    fit(None, tmp_path, callback=branch, checkpoint=str(tmp_path / "b" / "step=4.ckpt"), max_steps=5)
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").W.values, whole)
    ds = open_trajectory(tmp_path / "branch")
    assert ds.step.values.tolist() == [4, 5]
    np.testing.assert_array_equal(ds.W.values[0], whole[4])
    assert any("was recorded in 'run'" in each for each in said)


def test_an_exception_closes_the_run_with_the_steps_before_it(tmp_path):
    with pytest.raises(RuntimeError, match="a broken loop"):
        fit(tmp_path / "run", tmp_path, module=Small(broken_at=3))
    ds = open_trajectory(tmp_path / "run")
    assert (ds.attrs["committed_steps"], ds.attrs["completed"]) == (3, False)


def test_a_second_fit_with_a_new_trainer_is_a_second_run(tmp_path):
    module, callback = fit(tmp_path / "run", tmp_path)
    fit(tmp_path / "run", tmp_path, module=module, callback=callback)
    assert callback.folder == tmp_path / "run-2"
    assert open_trajectory(tmp_path / "run-2").attrs["completed"]


def test_the_parameter_is_named_where_there_are_several(tmp_path):
    class Two(Small):
        def __init__(self):
            super().__init__()
            self.positions = nn.Embedding(3, 4)

    with pytest.raises(ValueError, match=r"has 2 embeddings.*embedding\.weight, positions\.weight"):
        fit(tmp_path / "run", tmp_path, module=Two())
    fit(tmp_path / "run", tmp_path, module=Two(), callback=LightningCallback(tmp_path / "run", "embedding.weight"))
    assert open_trajectory(tmp_path / "run").sizes["token"] == VOCABULARY


def test_a_module_that_keeps_its_recorder_can_be_copied(tmp_path):
    module = Small()
    optimizer = module.configure_optimizers()
    module.recorder = crucible.attach(module.embedding, optimizer, tmp_path / "run", say=lambda _: None)
    twin = copy.deepcopy(module)
    assert twin.recorder is module.recorder
    module.recorder.close()


@pytest.mark.slow
def test_importing_the_callback_does_not_import_lightning():
    import subprocess
    import sys

    code = "import sys; from crucible import LightningCallback; print('lightning' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"

"""`crucible.attach` in somebody's own loop: what each row holds, and which step it belongs to."""

import json
import threading
from dataclasses import replace

import notebook_loop
import numpy as np
import pytest
import torch
from torch import nn

import analysis
import crucible
from crucible.channels.sources import Recorded, hidden_mean
from crucible.channels.table import ADAM_M, ADAM_V, DELTA, GRADIENT, LEARNING_RATE, LOSS, NOTEBOOK, W
from crucible.channels.vocabulary import by_count, describe
from store.errors import RowError, RunExistsError
from store.format.schema import Channel
from store.reading.reader import open_trajectory

ROWS, HIDDEN, PICKED = 20, 6, [3, 5, 11]
EVERYTHING = (W, ADAM_M, ADAM_V, GRADIENT, LEARNING_RATE, LOSS)


def silent(_line: str) -> None:
    """Takes notices."""


class Loop:
    """A small loop that keeps, the plain way, what a recorder should have recorded."""

    def __init__(self, dtype=torch.float32, optimizer=None, seed=0):
        self.random = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(ROWS, HIDDEN)
        with torch.no_grad():
            self.embedding.weight.copy_(torch.randn(ROWS, HIDDEN, generator=self.random))
        self.embedding.to(dtype)
        self.head = nn.Linear(HIDDEN, HIDDEN).to(dtype)
        make = optimizer or (lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.95)))
        self.optimizer = make([*self.embedding.parameters(), *self.head.parameters()])
        self.states = [self.rows(self.embedding.weight)]
        self.gradients, self.first, self.second, self.losses = [], [], [], []

    def rows(self, tensor):
        return tensor.detach()[PICKED].clone()

    def loss(self):
        ids = torch.randint(0, ROWS, (32,), generator=self.random)
        return self.head(self.embedding(ids)).float().square().mean()

    def step(self, recorder=None):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        if recorder is not None:
            recorder.log(loss=loss)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.states.append(self.rows(self.embedding.weight))
        self.gradients.append(self.rows(self.embedding.weight.grad))
        state = self.optimizer.state[self.embedding.weight]
        if "exp_avg" in state:
            self.first.append(self.rows(state["exp_avg"]))
            self.second.append(self.rows(state["exp_avg_sq"]))


def stacked(tensors):
    whole = torch.stack(tensors)
    return (whole.view(torch.uint16) if whole.dtype == torch.bfloat16 else whole).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_row_is_what_the_loop_saw(dtype, tmp_path):
    loop = Loop(dtype)
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, channels=EVERYTHING,
                         say=silent) as recorder:  # fmt: skip
        for _ in range(7):
            loop.step(recorder)
    ds = open_trajectory(tmp_path / "run")
    zeros = torch.zeros_like(loop.states[0])
    np.testing.assert_array_equal(ds.W.values, stacked(loop.states))
    np.testing.assert_array_equal(ds.adam_m.values, stacked([zeros, *loop.first]))
    np.testing.assert_array_equal(ds.adam_v.values, stacked([zeros, *loop.second]))
    np.testing.assert_array_equal(ds.gradient.values[1:], stacked(loop.gradients))
    np.testing.assert_array_equal(ds.loss.values, np.array([np.nan, *loop.losses], np.float32))
    np.testing.assert_array_equal(ds.learning_rate.values, np.array([np.nan] + [1e-2] * 7))
    nothing = ds.gradient.values[0]
    assert (nothing == 0x7FC0).all() if dtype == torch.bfloat16 else np.isnan(nothing).all()
    assert ds.token.values.tolist() == PICKED
    assert ds.attrs["completed"]
    if dtype == torch.bfloat16:
        assert torch.equal(crucible.to_torch(ds.W), torch.stack(loop.states))


def test_the_default_table_in_float32_derives_on_its_own_lattice(tmp_path):
    loop = Loop()
    with crucible.attach(loop.embedding.weight, loop.optimizer, tmp_path / "run", rows=PICKED) as recorder:
        for _ in range(3):
            loop.step(recorder)
    ds = open_trajectory(tmp_path / "run")
    assert ds.delta_W_prime.attrs["lattice"] == "float32"
    before, after = loop.states[0].numpy(), loop.states[1].numpy()
    exponent = np.maximum((before.view(np.uint32) >> 23) & 255, 1).astype(int)
    expected = ((after - before) / np.ldexp(np.float32(1), exponent - 150)).astype(np.float32)
    np.testing.assert_array_equal(ds.delta_W_prime.values[1], expected)
    assert ds.attrs["beta1"] == 0.9
    assert ds.last_motion_step.values.tolist() == [3, 3, 3]


def test_float32_weights_can_be_measured_on_the_bfloat16_lattice(tmp_path):
    loop = Loop()
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, lattice="bfloat16") as recorder:
        loop.step(recorder)
    ds = open_trajectory(tmp_path / "run")
    assert ds.delta_W_prime.attrs["lattice"] == "bfloat16"
    expected = notebook_loop.displacement(loop.states[0].bfloat16(), loop.states[1].bfloat16())
    np.testing.assert_array_equal(ds.delta_W_prime.values[1], expected.numpy())
    assert crucible.check(tmp_path / "run").is_whole
    with pytest.raises(ValueError, match="own lattice"):
        crucible.attach(loop.embedding, loop.optimizer, tmp_path / "other", lattice="float16")


@pytest.mark.parametrize("channels", [None, (W, LOSS), (W, DELTA)], ids=["all", "W alone", "W and its moves"])
def test_float32_weights_alone_still_tell_that_they_are_measured_on_the_bfloat16_lattice(tmp_path, channels):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.SGD([weight], lr=1)
    with crucible.attach(weight, optimizer, tmp_path / "run", lattice="bfloat16", channels=channels) as recorder:
        for size in (2**-6, 2**-20, 2**-20):  # a move of bfloat16 and two that are far below a cell of it
            weight.grad = torch.full((2, 3), -size)
            recorder.log(loss=1.0)
            optimizer.step()
    ds = open_trajectory(tmp_path / "run")
    for asked in (ds, ds[["W"]], ds[["W"]].isel(hidden=[0])):
        assert analysis.last_motion(asked).last_motion.values.tolist() == [1, 1]


def test_channels_with_their_own_schedules(tmp_path):
    loop = Loop()
    table = (W, replace(GRADIENT, every=3), replace(ADAM_M, every=2, until=4))
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, channels=table) as recorder:
        for _ in range(10):
            loop.step(recorder)
    ds = open_trajectory(tmp_path / "run")
    assert ds.step_gradient.values.tolist() == [0, 3, 6, 9]
    assert ds.step_adam_m.values.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(ds.gradient.values[1:], stacked(loop.gradients)[2::3])
    np.testing.assert_array_equal(ds.adam_m.values[1:], stacked(loop.first)[[1, 3]])
    assert ds.sizes["step"] == 11


def test_mean_of_a_modules_output_and_a_tensor_of_the_users(tmp_path):
    loop, means = Loop(), []
    loop.embedding.register_forward_hook(lambda *hook: means.append(hook[2].detach().mean(dim=0)))
    bias = Recorded(Channel("bias", ("hidden",), "float32"), lambda _: loop.head.bias)
    table = (W, hidden_mean(loop.embedding), bias, Channel("temperature", (), "float32", belongs_to="move"))
    biases = [loop.head.bias.detach().clone()]
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, channels=table) as recorder:
        for step in range(5):
            if step != 2:
                recorder.log(temperature=float(step))
            loop.step()
            biases.append(loop.head.bias.detach().clone())
        with torch.no_grad():
            loop.embedding(torch.arange(4))  # evaluation does not count
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_allclose(ds.h_mean.values[1:], stacked(means[:5]), rtol=1e-5, atol=1e-7)
    assert np.isnan(ds.h_mean.values[0]).all()
    np.testing.assert_array_equal(ds.bias.values, stacked(biases))
    np.testing.assert_array_equal(ds.temperature.values, [np.nan, 0, 1, np.nan, 3, 4])
    assert not loop.embedding._forward_hooks or len(loop.embedding._forward_hooks) == 1


def test_several_losses_before_an_update_are_averaged_and_none_is_nan(tmp_path):
    loop = Loop()
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", channels=(W, LOSS)) as recorder:
        recorder.log(loss=1.0)
        recorder.log(loss=torch.tensor(2.0))
        recorder.log(loss=6)
        loop.step()
        loop.step()
        recorder.log(loss=4.0)
    losses = open_trajectory(tmp_path / "run").loss.values
    np.testing.assert_array_equal(losses, np.array([np.nan, 3.0, np.nan], np.float32))


def test_populations_text_and_counts_are_there(tmp_path):
    loop = Loop()
    counts = np.arange(ROWS) % 2 * 7
    populations = by_count(counts)
    ids = np.array(PICKED)
    known = describe(ids, populations=populations, counts=counts, text=lambda i: f"tökén {i}")
    crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, statics=known, say=silent).close()
    how = {"populations": populations, "channels": (W,), "say": silent}
    crucible.attach(loop.embedding, loop.optimizer, tmp_path / "dead", rows="dead", **how).close()
    assert open_trajectory(tmp_path / "dead").token.values.tolist() == list(range(0, ROWS, 2))
    ds = open_trajectory(tmp_path / "run")
    assert ds.token_count.values.tolist() == [7, 7, 7]
    assert ds.token_text.values.tolist() == ["tökén 3", "tökén 5", "tökén 11"]
    assert ds.population.values.tolist() == ["live"] * 3
    assert ds.sel(token=ds.population == "live").sizes["token"] == 3
    assert ds.sel(token=ds.population == "dead").sizes["token"] == 0
    mixed = {"dead": np.array([5])}
    known = describe(ids, populations=mixed)
    crucible.attach(loop.embedding, loop.optimizer, tmp_path / "mixed", rows=PICKED, statics=known, say=silent).close()
    ds = open_trajectory(tmp_path / "mixed")
    assert ds.sel(token=ds.population == "dead").token.values.tolist() == [5]
    assert ds.population.values.tolist() == ["", "dead", ""]


def test_what_is_known_of_other_tokens_is_refused(tmp_path):
    loop = Loop()
    statics = describe([3, 5, 12], text=str)
    with pytest.raises(ValueError, match="statics describe 3 tokens, 3, 5, 12"):
        crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, statics=statics)
    assert not (tmp_path / "run").exists()
    statics = describe(PICKED[::-1], text=lambda i: f"word{i}")
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED[::-1], statics=statics):
        loop.step()
    ds = open_trajectory(tmp_path / "run")
    assert ds.token_text.values.tolist() == [f"word{i}" for i in ds.token.values]


def test_resume_cuts_back_and_goes_on(tmp_path):
    loop = Loop()
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED) as recorder:
        for step in range(6):
            loop.step(recorder)
            if step == 3:
                kept = {name: tensor.clone() for name, tensor in loop.embedding.state_dict().items()}
    states = loop.states[:5]
    loop.embedding.load_state_dict(kept)
    recorder = crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, resume=4)
    assert recorder.step == 4
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 4
    with recorder:
        loop.states = states
        for _ in range(4):
            loop.step(recorder)
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.W.values, stacked(loop.states))
    assert crucible.check(tmp_path / "run").is_whole


def test_an_exception_commits_what_was_recorded(tmp_path):
    loop = Loop()

    def break_off():
        with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED) as recorder:
            for _ in range(3):
                loop.step(recorder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    ds = open_trajectory(tmp_path / "run")
    assert (ds.attrs["committed_steps"], ds.attrs["completed"]) == (3, False)
    loop.step()  # the hook is gone
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 3


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_that_skips_an_update_skips_its_step(fused, tmp_path):
    loop = Loop(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    states = [loop.rows(loop.embedding.weight)]
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", rows=PICKED, channels=(W, LOSS)) as recorder:
        for step in range(4):
            loop.optimizer.zero_grad()
            loss = loop.loss() * (float("inf") if step == 2 else 1.0)
            scaler.scale(loss).backward()
            recorder.log(loss=float(step))
            scaler.step(loop.optimizer)
            scaler.update()
            if step != 2:
                states.append(loop.rows(loop.embedding.weight))
            elif not fused:
                recorder.forget()  # the optimizer was never called; only the loop can know
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.W.values, stacked(states))
    # what was logged for the skipped update belongs to none
    np.testing.assert_array_equal(ds.loss.values, [np.nan, 0, 1, 3])


def test_gradients_of_a_sparse_embedding(tmp_path):
    embedding = nn.Embedding(ROWS, HIDDEN, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters())
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W, GRADIENT)):
        embedding(torch.tensor([1, 1, 4])).sum().backward()
        expected = embedding.weight.grad.to_dense().clone()
        optimizer.step()
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").gradient.values[1], expected.numpy())


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    loop, other = Loop(), Loop()
    run = tmp_path / "run"
    for wrong, words in (
        ({"rows": [1, 1]}, "twice"),
        ({"rows": [99]}, "rows 0 to 19"),
        ({"rows": []}, "at least one"),
        ({"rows": "dead"}, "no population"),
    ):
        with pytest.raises(ValueError, match=words):
            crucible.attach(loop.embedding, loop.optimizer, run, **wrong)
    with pytest.raises(ValueError, match="does not update"):
        crucible.attach(loop.embedding, other.optimizer, run)
    with pytest.raises(ValueError, match="row, hidden"):
        crucible.attach(loop.head.bias, loop.optimizer, run)
    assert not run.exists()
    run.mkdir()
    (run / "thesis.tex").write_text("years of work")
    with pytest.raises(RunExistsError):
        crucible.attach(loop.embedding, loop.optimizer, run)
    assert [path.name for path in run.iterdir()] == ["thesis.tex"]


def test_flushed_subnormals_are_refused_when_recording_begins(tmp_path):
    loop = Loop()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        with pytest.raises(FloatingPointError, match="set_flush_denormal"):
            crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run")
    finally:
        torch.set_flush_denormal(False)
    assert not (tmp_path / "run").exists()


def test_what_rounding_makes_impossible_goes_to_the_logger(tmp_path, caplog):
    weak = Loop(torch.bfloat16, lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999)))
    recorder = crucible.attach(weak.embedding, weak.optimizer, tmp_path / "run", channels=(W,))
    weak.step()
    recorder.close()
    assert [(record.name, record.levelname) for record in caplog.records] == [("crucible", "WARNING")] * 2
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "weight decay has no effect",
        "Adam's second moment can only rise",
    ]
    caplog.clear()
    strong = Loop(torch.bfloat16, lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=10.0, betas=(0.9, 0.99)))
    with crucible.attach(strong.embedding, strong.optimizer, tmp_path / "other", channels=(W,)):
        strong.step()
    assert not caplog.records


def test_the_rounding_that_the_warnings_speak_of_is_real():
    """Every bfloat16 weight is unchanged by a decay just below the bound, and some change just above it."""
    bits = torch.arange(0x0080, 0x7F80, dtype=torch.int32).to(torch.int16)
    weights = bits.view(torch.bfloat16)
    bound = 2.0**-9
    assert torch.equal(weights * (1 - bound * 0.999), weights)
    assert not torch.equal(weights * (1 - bound * 1.01), weights)


def test_provenance_says_what_made_the_run(tmp_path):
    loop = Loop(torch.bfloat16)
    recorder = crucible.attach(
        loop.embedding, loop.optimizer, tmp_path / "run", provenance={"seed": 7}, config={"a": 1}, say=silent
    )
    recorder.close()
    ds = open_trajectory(tmp_path / "run")
    found = json.loads(ds.attrs["provenance"])
    assert found["dtypes"] == {"parameters": "bfloat16", "compute": "bfloat16", "optimizer_state": "bfloat16"}
    assert found["seed"] == 7
    assert found["optimizer"] == "AdamW"
    assert {"python", "torch", "zarr"} <= found["software"].keys()
    assert found["machine"]["torch_threads"] == torch.get_num_threads()
    assert ds.attrs["config"] == '{"a": 1}'
    assert crucible.info(tmp_path / "run")["config"] == {"a": 1}


def test_the_memory_of_momentum_is_that_of_the_parameters_own_group(tmp_path):
    embedding, head = nn.Embedding(ROWS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
    groups = [{"params": head.parameters(), "betas": (0.5, 0.9)}, {"params": embedding.parameters(), "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups, betas=(0.95, 0.99))
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W, LEARNING_RATE)):
        embedding(torch.arange(3)).sum().backward()
        optimizer.step()
    ds = open_trajectory(tmp_path / "run")
    assert ds.attrs["beta1"] == 0.95
    assert ds.learning_rate.values[1] == 0.5


def test_a_run_by_sgd_keeps_its_momentum(tmp_path):
    embedding = nn.Embedding(ROWS, HIDDEN)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1, momentum=0.99)
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,)):
        pass
    assert open_trajectory(tmp_path / "run").attrs["momentum"] == 0.99


def test_rows_of_the_wrong_shape_name_the_channel(tmp_path):
    loop = Loop()
    wrong = Recorded(Channel("odd", ("hidden",), "float32"), lambda _: torch.zeros(HIDDEN + 1))
    before = set(threading.enumerate())  # other tests may have left a recorder that nobody has collected yet
    with pytest.raises(RowError, match="odd"):
        crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", channels=(W, wrong))
    assert not [new for new in set(threading.enumerate()) - before if new.name.startswith("writer of ")]
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", channels=(W,), restart=True) as recorder:
        loop.step()  # the hook of the first is gone
    assert recorder.step == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_where_a_source_of_yours_fails_to_begin_the_run_and_the_optimizer_are_let_go(error, tmp_path):
    def fails():
        raise error("mine")

    loop = Loop()
    hooks = (loop.optimizer._optimizer_step_pre_hooks, loop.optimizer._optimizer_step_post_hooks)
    odd = Recorded(Channel("odd", ("hidden",), "float32"), lambda _: torch.zeros(HIDDEN), fails)
    with pytest.raises(error, match="mine"):
        crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", channels=(W, odd))
    assert not any(hooks)
    with crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", channels=(W,), restart=True) as recorder:
        loop.step()
    assert recorder.step == 1


def test_of_complex_rows_no_part_is_kept_in_silence(tmp_path):
    loop = Loop()
    odd = Recorded(Channel("phase", ("token",), "float32"), lambda moment: moment.weights.sum(dim=1) * 1j)
    with pytest.raises(TypeError, match=r"phase.*complex64: give its real part"):
        crucible.attach(loop.embedding, loop.optimizer, tmp_path / "run", channels=(W, odd))


def test_the_table_is_made_of_documented_channels():
    assert [channel.name for channel in NOTEBOOK] == [
        "W", "delta_W_prime", "displacement_l1", "displacement_l2", "displacement_linf", "centroid", "loss",
        "last_motion_step", "dead_mask",
    ]  # fmt: skip
    assert all(channel.meaning or channel.role == "static" for channel in NOTEBOOK)

"""A parameter on a GPU: what is recorded is what was trained, after one copy a step and no other wait for the device.

CI has no GPU; where there is none, all of this is skipped. docs/reference/supported-versions.md says where it was run.
"""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from trained_runs import files_of, interrupt_at, quiet

import analysis
import crucible
import store
from crucible.channels.table import ADAM_M, ADAM_V, DEAD_MASK, EXPERIMENT, GRADIENT
from crucible.experiment import run as running
from crucible.inputs.config import Config

if not torch.cuda.is_available():
    pytest.skip("torch finds no CUDA device here", allow_module_level=True)

GPU = torch.device("cuda", 0)
TABLE = [each for each in EXPERIMENT if each is not DEAD_MASK]
VOCABULARY, HIDDEN, USED = 400, 64, 200
ROWS = list(range(1, VOCABULARY, 2))
QUIET_STEPS = (9, 11, 15, 18)  # at 1, 2, 4, 8, 16 a recorder compares the weights with its last row
SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 40}
WORDS = {2: np.int16, 4: np.int32}
OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, eps=1e-4),
    "AdamW, one tensor at a time": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=False),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "AdamW, capturable": lambda p: torch.optim.AdamW(p, lr=1e-3, capturable=True),
    "AdamW, its rate a tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3, device=GPU), fused=True),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.5),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "SGD with nesterov's momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}
READS_NUMBERS = {"AdamW, fused": 1, "AdamW, capturable": 1, "AdamW, its rate a tensor": 2}
"""What of an optimizer's numbers lies on the device, and is waited for where a push is computed."""


class Model(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.mixing = nn.Linear(HIDDEN, HIDDEN)
        self.to(GPU, dtype)

    def forward(self, ids):
        return self.mixing(self.embedding(ids)) @ self.embedding.weight.t()

    def loss(self, ids):
        return nn.functional.cross_entropy(self(ids).float().flatten(0, 1), ids.roll(-1, 1).flatten())


def batch():
    return torch.randint(0, USED, (8, 32), device=GPU)


def words(tensor):
    """The bits of a tensor's recorded rows, or of a recorded array."""
    array = tensor.detach().cpu().view(torch.int16 if tensor.element_size() == 2 else torch.int32).numpy()
    return array[ROWS]


def same_bits(stored, seen):
    np.testing.assert_array_equal(stored.view(WORDS[stored.dtype.itemsize]), np.array(seen))


def trained(run, name, dtype, steps=40, **options):
    """Record a training; answers what was seen of it, and how often a quiet step waited for the device."""
    model = Model(dtype)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    weight = model.embedding.weight
    seen = {"W": [words(weight)], "gradient": [], "m": [], "v": [], "loss": [], "waits": []}
    with crucible.attach(model.embedding, optimizer, run, rows=ROWS, say=lambda _: None, **options) as recorder:
        for step in range(1, steps + 1):
            loss = model.loss(batch())
            optimizer.zero_grad()
            loss.backward()
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn" if step in QUIET_STEPS else "default")
                waits.clear()  # of the debug mode itself, which is told to be a prototype
                recorder.log(loss=loss)
                optimizer.step()
                torch.cuda.set_sync_debug_mode("default")
            if step in QUIET_STEPS:
                seen["waits"].append([f"{Path(each.filename).name}:{each.lineno}" for each in waits])
            seen["W"].append(words(weight))
            seen["gradient"].append(words(weight.grad))
            seen["loss"].append(loss.item())
            state = optimizer.state[weight]
            seen["m"].append(words(state["exp_avg"]) if "exp_avg" in state else None)
            seen["v"].append(words(state["exp_avg_sq"]) if "exp_avg_sq" in state else None)
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_recorded_is_what_was_trained(name, dtype, tmp_path):
    if dtype == torch.float16 and "AdamW" not in name:
        pytest.skip("float16 is tried with AdamW alone")
    has_moments = name.startswith("AdamW") and dtype == torch.bfloat16
    table = [*TABLE, GRADIENT, *([ADAM_M, ADAM_V] if has_moments else [])]
    if dtype == torch.float32:
        table = [each for each in table if each.name not in ("push", "optimizer_step")]
    seen = trained(tmp_path / "run", name, dtype, channels=table)
    ds = store.open_trajectory(tmp_path / "run")
    same_bits(ds.W.values, seen["W"])
    np.testing.assert_array_equal(ds.loss.values[1:], np.float32(seen["loss"]))
    if dtype == torch.float32:
        same_bits(ds.gradient.values[1:], seen["gradient"])
    if has_moments:
        same_bits(ds.adam_m.values[1:], seen["m"])
        same_bits(ds.adam_v.values[1:], seen["v"])
        np.testing.assert_array_equal(ds.optimizer_step.values[1:], np.arange(1, 41))
    assert crucible.check(tmp_path / "run").damage == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_one_copy_and_no_other_wait(name, dtype, tmp_path):
    seen = trained(tmp_path / "run", name, dtype)
    numbers = READS_NUMBERS.get(name, 0)
    if dtype == torch.float32:  # its learning rate is recorded as it is, within the copy
        numbers = 0
    for waits in seen["waits"]:
        assert len(waits) == 1 + numbers, waits
        assert waits[-1].startswith("tensors.py")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_push_says_that_it_is_near_and_is(name, tmp_path):
    trained(tmp_path / "run", name, torch.bfloat16)
    ds = store.open_trajectory(tmp_path / "run")
    update = json.loads(ds.attrs["optimizer_update"])
    assert update["exact"] is False
    assert "cuda" in update["inexact"]
    pushes = analysis.push(ds).values[1:]
    moved = (np.diff(ds.W.values.view(np.int16).astype(np.int32), axis=0) != 0).any(axis=-1)
    assert not np.isnan(pushes).any()
    contradicted = (moved & (pushes < 1)) | (~moved & (pushes > 1))
    assert contradicted.mean() < 0.001


def captured(model, optimizer, ids):
    """One whole step as a graph, and its loss."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()

    def step():
        loss = model.loss(ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        loss = step()
    return graph, loss


def test_a_step_that_is_captured_into_a_graph_ends_the_recording(tmp_path):
    model = Model(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), capturable=True)
    crucible.attach(model.embedding, optimizer, tmp_path / "run", rows=ROWS, say=lambda _: None)
    with pytest.raises(RuntimeError, match=r"update 4 is being captured into a CUDA graph.*closed with step 3"):
        captured(model, optimizer, batch())
    assert store.open_trajectory(tmp_path / "run").sizes["step"] == 4


def test_replays_of_a_graph_are_recorded_by_hand(tmp_path):
    model = Model(torch.bfloat16)
    graph, loss = captured(model, torch.optim.AdamW(model.parameters(), capturable=True), batch())
    seen, losses = [words(model.embedding.weight)], []
    with crucible.attach(model.embedding, None, tmp_path / "run", rows=ROWS, say=lambda _: None) as recorder:
        for _ in range(10):
            graph.replay()
            recorder.log(loss=loss)
            recorder.record()
            seen.append(words(model.embedding.weight))
            losses.append(loss.item())
    ds = store.open_trajectory(tmp_path / "run")
    same_bits(ds.W.values, seen)
    np.testing.assert_array_equal(ds.loss.values[1:], np.float32(losses))


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_skips_are_no_updates(fused, tmp_path):
    model, scaler = Model(torch.float32), torch.amp.GradScaler("cuda", init_scale=2.0**30)
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    seen, losses, skipped = [words(model.embedding.weight)], [], 0
    with crucible.attach(model.embedding, optimizer, tmp_path / "run", rows=ROWS, say=lambda _: None) as recorder:
        for _ in range(30):
            with torch.autocast("cuda", torch.float16):
                loss = model.loss(batch())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            recorder.log(loss=loss)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() < scale:
                skipped += 1
                continue
            seen.append(words(model.embedding.weight))
            losses.append(loss.item())
    ds = store.open_trajectory(tmp_path / "run")
    assert skipped
    same_bits(ds.W.values, seen)
    np.testing.assert_array_equal(ds.loss.values[1:], np.float32(losses))


def test_a_stream_of_the_loops_own_is_waited_for(tmp_path):
    model, stream = Model(torch.bfloat16), torch.cuda.Stream()
    optimizer = torch.optim.AdamW(model.parameters())
    stream.wait_stream(torch.cuda.current_stream())
    seen = [words(model.embedding.weight)]
    with crucible.attach(model.embedding, optimizer, tmp_path / "run", rows=ROWS, say=lambda _: None) as recorder:
        for _ in range(30):
            with torch.cuda.stream(stream):
                loss = model.loss(batch())
                optimizer.zero_grad()
                loss.backward()
                recorder.log(loss=loss)
                optimizer.step()
                seen.append(words(model.embedding.weight))
    same_bits(store.open_trajectory(tmp_path / "run").W.values, seen)


def test_the_experiment_goes_on_from_a_checkpoint_with_the_same_bits(files, tmp_path, monkeypatch):
    config = Config(**files.paths(), **SMALL, device="cuda", out=str(tmp_path / "parts"))
    running.train(replace(config, out=str(tmp_path / "whole")), say=quiet)
    with monkeypatch.context() as patch:
        interrupt_at(25, patch)
        running.train(config, say=quiet)
    assert running.resume(config.out, say=quiet).is_complete
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    ds = store.open_trajectory(tmp_path / "parts")
    assert ds.sizes["step"] == 41
    machine = json.loads(ds.attrs["provenance"])["machine"]
    assert machine["device"].startswith("cuda")
    assert (machine["device_name"], machine["cuda"]) == (torch.cuda.get_device_name(), torch.version.cuda)

"""The channel `push` in a run: what attach and the trainer record of it, against a plain recorder beside them."""

import json

import numpy as np
import optimizer_steps as steps
import pytest
import torch
from torch import nn

import analysis
import crucible
import store
from analysis import lattice
from analysis.optimizers.push_arithmetic import bits_rounded_up
from crucible.channels.table import LOSS, NORMS, PUSH, W
from crucible.cli.main import main
from crucible.experiment.run import train as train_run

ROWS = [1, 3, 50, 95]
SMALL = ["--batch-size=4", "--seq-len=16", "--vocab-size=600", "--hidden-dim=8", "--num-layers=1"]
VARIANTS = [steps.sgd_is_exact(name) for name in steps.OPTIMIZERS if name not in ("adam huge lr",)]


def rounded_up(step):
    pushes = lattice.push(step.before, step.m, step.v, gradient=step.gradient, **step.numbers)
    return bits_rounded_up(pushes)


@pytest.mark.default_cases(7)
@pytest.mark.parametrize(("dtype", "rows"), [("bfloat16", ROWS), ("float16", "all")])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_recorded_push_is_that_of_a_plain_recorder(name, dtype, rows, tmp_path):
    expected, counts, recorder = [], [], None
    for step, optimizer, parameter in steps.train(name, steps.DTYPES[dtype], 12):
        if recorder is None:  # begins after the optimizer's first step
            recorder = crucible.attach(parameter, optimizer, tmp_path / "run", rows=rows, say=lambda _: None)
            continue
        expected.append(rounded_up(step)[slice(None) if rows == "all" else rows])
        counts.append(step.numbers.get("optimizer_step", np.nan))
    recorder.complete()
    ds = store.open_trajectory(tmp_path / "run")
    assert ds.push.dims == ("step", "token")
    assert ds.push.attrs["bits_of"] == "bfloat16"
    np.testing.assert_array_equal(ds.push.values[1:], expected)
    assert (ds.push.values[0] == 0x7FC0).all()
    np.testing.assert_array_equal(ds.optimizer_step.values, [np.nan, *counts])
    np.testing.assert_array_equal(ds.learning_rate.values, [np.nan, *[step.numbers["lr"]] * 11])
    update = json.loads(ds.attrs["optimizer_update"])
    assert {key: update[key] for key in step.numbers if key in update} == {
        key: value for key, value in step.numbers.items() if key not in ("lr", "optimizer_step")
    }
    assert update["exact"] is True


def parameter_and_optimizer(dtype=torch.bfloat16, cls=torch.optim.AdamW, **options):
    torch.manual_seed(1)
    weight = nn.Parameter((torch.randn(8, 64) * 0.02).to(dtype))
    return weight, cls([weight], **({"lr": 1e-3} | options))


def go(weight, optimizer, count, size=1e-4):
    for _ in range(count):
        weight.grad = torch.randn_like(weight) * size
        optimizer.step()


REFUSED = {
    "float32 weights": ({"dtype": torch.float32}, {"lattice": "bfloat16"}, "updates far below a cell of bfloat16 add"),
    "another optimizer": ({"cls": torch.optim.RMSprop}, {}, "not for RMSprop"),
    "weight decay": ({"weight_decay": 2.5}, {}, "lr x weight_decay = 0.0025 is not below"),
    "fused SGD": ({"cls": torch.optim.SGD, "fused": True}, {}, "fused SGD"),
}


@pytest.mark.parametrize(("made", "how", "reason"), REFUSED.values(), ids=REFUSED)
def test_where_no_push_is_known_the_default_has_none_and_asking_for_it_is_refused(made, how, reason, tmp_path):
    weight, optimizer = parameter_and_optimizer(**made)
    with pytest.raises(ValueError, match=reason):
        crucible.attach(weight, optimizer, tmp_path / "asked", channels=(W, PUSH), say=lambda _: None, **how)
    assert not (tmp_path / "asked").exists()
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None, **how):
        go(weight, optimizer, 2)
    ds = store.open_trajectory(tmp_path / "run")
    assert not {"push", "optimizer_step"} & set(ds.variables)
    assert "learning_rate" in ds
    assert reason in ds.attrs["no_push"]
    assert "optimizer_update" not in ds.attrs


def test_a_second_parameter_on_the_same_memory_leaves_no_push(tmp_path):
    weight, _ = parameter_and_optimizer()
    head = nn.Parameter(weight.data)
    optimizer = torch.optim.AdamW([weight, head], lr=1e-3)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 2)
    assert "the same memory by a second parameter" in store.open_trajectory(tmp_path / "run").attrs["no_push"]


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_that_the_optimizer_holds_twice_leaves_no_push(tmp_path):
    weight, _ = parameter_and_optimizer()
    optimizer = torch.optim.SGD([weight, weight], lr=1e-2, momentum=0.9)  # a head that is tied, handed over, too
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 2)
    assert "moves it twice in a step" in store.open_trajectory(tmp_path / "run").attrs["no_push"]


def test_what_another_optimizer_moves_in_the_same_memory_is_found_out(tmp_path):
    weight, optimizer = parameter_and_optimizer()
    head = nn.Parameter(weight.data)
    other = torch.optim.AdamW([head], lr=1e-3)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        for _ in range(5):
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
            go(head, other, 1)
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    told = analysis.end_state(store.open_trajectory(tmp_path / "run")).load()
    assert (int(told.unexplained), int(told.last_unexplained)) == (5 * 8, 6)


def test_what_is_nearly_exact_says_so(tmp_path):
    weight, optimizer = parameter_and_optimizer(fused=True)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 2)
    update = json.loads(store.open_trajectory(tmp_path / "run").attrs["optimizer_update"])
    assert (update["exact"], update["fused"]) == (False, True)
    assert "fused=True" in update["inexact"]


def test_leaving_the_channel_out_adds_nothing_to_a_step(tmp_path):
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, tmp_path / "run", channels=(W, *NORMS, LOSS), say=lambda _: None):
        hooks = len(optimizer._optimizer_step_pre_hooks)
        go(weight, optimizer, 2)
    ds = store.open_trajectory(tmp_path / "run")
    assert hooks == 1  # the recorder's own
    assert "push" not in ds
    assert json.loads(ds.attrs["optimizer_update"])["variant"] == "adamw"
    assert not optimizer._optimizer_step_pre_hooks


def test_what_else_writes_to_the_weights_is_not_taken_for_the_optimizers_work(tmp_path):
    weight, optimizer = parameter_and_optimizer(cls=torch.optim.SGD, lr=1e-9)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 1)
        weight.data += 1  # neither torch's version counter nor a hook sees it
        go(weight, optimizer, 1)
    pushes = lattice.bits_to_float32(store.open_trajectory(tmp_path / "run").push.values[1:])
    assert pushes.max() < 1e-3


def test_an_update_without_a_gradient_has_no_push(tmp_path):
    weight, optimizer = parameter_and_optimizer()
    other = nn.Parameter(torch.ones(1))
    optimizer.add_param_group({"params": [other]})
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 1)
        weight.grad, other.grad = None, torch.ones(1)
        optimizer.step()
        go(weight, optimizer, 1)
    ds = store.open_trajectory(tmp_path / "run")
    known = (ds.push.values != 0x7FC0).all(axis=1)
    assert known.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(ds.optimizer_step.values, [np.nan, 1, 1, 2])


def test_a_resumed_run_goes_on_as_one_that_was_never_interrupted(tmp_path):
    pushes = {}
    for kind in ("whole", "resumed"):
        weight, optimizer = parameter_and_optimizer()
        torch.manual_seed(5)
        recorder = crucible.attach(weight, optimizer, tmp_path / kind, say=lambda _: None)
        go(weight, optimizer, 4)
        if kind == "resumed":
            recorder.close()
            recorder = crucible.attach(weight, optimizer, tmp_path / kind, resume=4, say=lambda _: None)
        go(weight, optimizer, 4)
        recorder.complete()
        pushes[kind] = store.open_trajectory(tmp_path / kind).push.values
    np.testing.assert_array_equal(pushes["whole"], pushes["resumed"])


def test_a_run_of_before_the_push_is_resumed_with_the_channels_that_it_has(tmp_path):
    from dataclasses import replace

    from crucible.channels.table import LEARNING_RATE
    from crucible.recording.attach import DEFAULT

    older = [replace(LEARNING_RATE, dtype="float32") if each is LEARNING_RATE else each for each in DEFAULT
             if each.name not in ("push", "optimizer_step")]  # fmt: skip
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, tmp_path / "run", channels=older, say=lambda _: None) as recorder:
        go(weight, optimizer, 2)
        recorder.close()
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=2, say=lambda _: None):
        go(weight, optimizer, 2)
    ds = store.open_trajectory(tmp_path / "run")
    assert ds.sizes["step"] == 5
    assert "push" not in ds


def test_resuming_with_an_optimizer_of_which_no_push_is_known_says_so_and_leaves_it_unknown(tmp_path):
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None) as recorder:
        go(weight, optimizer, 2)
        recorder.close()
    other, said = torch.optim.RMSprop([weight], lr=1e-3), []
    with crucible.attach(weight, other, tmp_path / "run", resume=2, say=said.append):
        go(weight, other, 2)
    assert any(line.startswith("push is not known of this run from step 2 on: ") for line in said)
    known = (store.open_trajectory(tmp_path / "run").push.values != 0x7FC0).all(axis=1)
    assert known.tolist() == [False, True, True, False, False]


@pytest.mark.slow
def test_the_trainer_records_it_unless_told_not_to_and_the_file_for_the_notebook_is_the_same(files, tmp_path, capsys):
    words = ["train", *files.flags(), *SMALL, "--total-steps=6"]
    assert main([*words, f"--out={tmp_path / 'with'}"]) == 0
    assert main([*words, f"--out={tmp_path / 'without'}", "--no-push"]) == 0
    runs = {name: store.open_trajectory(tmp_path / name) for name in ("with", "without")}
    assert {"push", "learning_rate", "optimizer_step"} <= set(runs["with"].variables)
    assert not {"push", "learning_rate", "optimizer_step"} & set(runs["without"].variables)
    assert runs["with"].optimizer_step.values[1:].tolist() == [1, 2, 3, 4, 5, 6]
    for name in runs:
        crucible.export_run(tmp_path / name, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "with.safetensors").read_bytes() == (tmp_path / "without.safetensors").read_bytes()
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--no-push"]])
def test_a_training_that_is_resumed_keeps_what_it_kept(flags, files, tmp_path, capsys):
    words = ["train", *files.flags(), *SMALL, *flags]
    assert main([*words, "--total-steps=8", f"--out={tmp_path / 'whole'}"]) == 0
    assert main([*words, "--total-steps=4", f"--out={tmp_path / 'resumed'}"]) == 0
    assert main(["resume", str(tmp_path / "resumed"), "--total-steps=8"]) == 0
    capsys.readouterr()
    whole, resumed = (store.open_trajectory(tmp_path / name) for name in ("whole", "resumed"))
    assert set(whole.variables) == set(resumed.variables)
    assert ("push" in resumed) == (not flags)
    for name in {"push", "learning_rate", "optimizer_step"} & set(whole.variables):
        np.testing.assert_array_equal(whole[name].values, resumed[name].values)


def test_the_trainer_says_why_it_records_none(small, tmp_path):
    from dataclasses import replace

    said = []
    train_run(replace(small, weight_decay=0.5, out=str(tmp_path / "run"), total_steps=2), say=said.append)
    assert any("note: push is not recorded: lr x weight_decay" in line for line in said)
    assert "push" not in store.open_trajectory(tmp_path / "run")


def test_check_says_that_it_cannot_compute_a_push_again(tmp_path, capsys):
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 2)
    assert main(["check", str(tmp_path / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "push" in report["only_read"]
    assert "push" not in report["recomputed"]

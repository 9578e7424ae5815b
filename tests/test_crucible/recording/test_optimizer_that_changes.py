"""An optimizer that becomes another one while it is recorded: no push is kept that its run would tell wrongly."""

import copy
import json

import numpy as np
import pytest
import torch
from optimizer_steps import exact_sgd
from torch import nn

import analysis
import crucible
import store
from crucible.channels.push import arithmetic_of
from crucible.channels.push_source import PushOf
from crucible.channels.sources import OptimizerState
from crucible.channels.table import ADAM_M, ADAM_V, GRADIENT, LEARNING_RATE, OPTIMIZER_STEP, W

NAN, CHANGED = 0x7FC0, 5


def parameter_and_optimizer(cls=torch.optim.AdamW, **options):
    torch.manual_seed(1)
    weight = nn.Parameter((torch.randn(8, 64) * 0.02).to(torch.bfloat16))
    return weight, cls([weight], **({"lr": 1e-3} | options))


def go(weight, optimizer, count):
    for _ in range(count):
        weight.grad = torch.randn_like(weight) * 1e-4
        optimizer.step()


def recorded(run, change, *, said=lambda _: None, **made):
    """A run of ten steps whose optimizer is changed after the fifth, and all weights beside it."""
    weight, optimizer = parameter_and_optimizer(**made)
    with crucible.attach(weight, optimizer, run, say=said):
        go(weight, optimizer, CHANGED)
        change(optimizer)
        go(weight, optimizer, 5)
    return store.open_trajectory(run)


CHANGES = {
    "amsgrad off": ({"amsgrad": True}, {"amsgrad": False}, "adamw_amsgrad"),
    "beta2": ({}, {"betas": (0.9, 0.9999)}, "beta2"),
    "beta1": ({}, {"betas": (0.99, 0.999)}, "beta1"),
    "more momentum": ({"cls": torch.optim.SGD, "lr": 0.1, "momentum": 0.5}, {"momentum": 0.99}, "momentum"),
    "more weight decay": ({"weight_decay": 0.0}, {"weight_decay": 0.1}, "weight_decay"),
    "fused": ({}, {"fused": True, "foreach": False}, "fused=True"),
    "momentum on": ({"cls": torch.optim.SGD, "lr": 0.1}, {"momentum": 0.9}, "sgd_momentum"),
    "nesterov on": ({"cls": torch.optim.SGD, "lr": 0.1, "momentum": 0.9}, {"nesterov": True}, "sgd_nesterov"),
}
COARSE = {"lr": torch.tensor(0.1, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    ("made", "change", "word"),
    [
        *(pytest.param(*each, id=name) for name, each in CHANGES.items()),
        pytest.param({"cls": torch.optim.SGD, "lr": 0.1}, COARSE, "learning rate", id="a coarse rate", marks=exact_sgd),
    ],
)
def test_from_a_change_on_there_is_no_push_and_it_is_said(made, change, word, tmp_path):
    said = []
    ds = recorded(tmp_path / "run", lambda each: each.param_groups[0].update(change), said=said.append, **made)
    assert (ds.push.values[1 : CHANGED + 1] != NAN).all()
    assert (ds.push.values[CHANGED + 1 :] == NAN).all()
    notice = next(each for each in said if "push" in each)
    assert notice.startswith(f"update {CHANGED + 1}: ")
    assert word in notice
    assert sum("push" in each for each in said) == 1


def test_what_the_push_follows_by_itself_may_change(tmp_path):
    said = []

    def change(optimizer):
        optimizer.param_groups[0].update(betas=(0.8, 0.999), eps=1e-6, lr=5e-4, weight_decay=0.0)

    ds = recorded(tmp_path / "run", change, said=said.append)
    pushes, moved = analysis.push(ds).values[1:], ds.displacement_l2.values[1:] > 0
    assert not np.isnan(pushes).any()
    assert not [each for each in said if "push" in each]
    np.testing.assert_array_equal(moved[pushes != 1], (pushes > 1)[pushes != 1])


def test_a_parameter_whose_group_gets_another_place_is_followed(tmp_path):
    def insert(optimizer):
        other = {**optimizer.param_groups[0], "params": [nn.Parameter(torch.zeros(2, 2))], "lr": 1e-6}
        optimizer.param_groups.insert(0, other)

    ds = recorded(tmp_path / "run", insert)
    pushes, moved = analysis.push(ds).values[1:], ds.displacement_l2.values[1:] > 0
    np.testing.assert_array_equal(moved[pushes != 1], (pushes > 1)[pushes != 1])


RESUMED = {
    "another class": ({}, {"cls": torch.optim.SGD}, "sgd"),
    "amsgrad": ({}, {"amsgrad": True}, "adamw_amsgrad"),
    "beta2": ({}, {"betas": (0.9, 0.99)}, "beta2"),
    "fused": ({}, {"fused": True}, "fused=True"),
}


@pytest.mark.parametrize(("first", "second", "word"), RESUMED.values(), ids=RESUMED)
def test_a_run_resumed_with_another_optimizer_gets_no_push_any_more(first, second, word, tmp_path):
    weight, optimizer = parameter_and_optimizer(**first)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, CHANGED)
    said, made = [], {"lr": 1e-3} | second
    optimizer = made.pop("cls", torch.optim.AdamW)([weight], **made)
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=CHANGED, say=said.append):
        go(weight, optimizer, 5)
    ds = store.open_trajectory(tmp_path / "run")
    assert (ds.push.values[1 : CHANGED + 1] != NAN).all()
    assert (ds.push.values[CHANGED + 1 :] == NAN).all()
    notice = next(each for each in said if each.startswith(f"push is not known of this run from step {CHANGED} on"))
    assert word in notice


def test_a_run_resumed_with_the_same_optimizer_keeps_its_push(tmp_path):
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, CHANGED)
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=CHANGED, say=lambda _: None):
        go(weight, optimizer, 5)
    assert (store.open_trajectory(tmp_path / "run").push.values[1:] != NAN).all()


@pytest.mark.parametrize(("cut", "first_step"), [(CHANGED, 0), (3, 0), (0, 0), (CHANGED + 20, 20)])
@pytest.mark.parametrize("restored", [True, False])
def test_a_run_that_goes_on_without_the_state_of_its_optimizer_says_so(restored, cut, first_step, tmp_path):
    weight, optimizer = parameter_and_optimizer()
    states, said = {}, []
    with crucible.attach(weight, optimizer, tmp_path / "run", first_step=first_step, say=lambda _: None) as recorder:
        while recorder.step < first_step + CHANGED:
            states[recorder.step] = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
            go(weight, optimizer, 1)
    states[recorder.step] = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    weight.data.copy_(states[cut][0])
    if restored:
        optimizer.load_state_dict(states[cut][1])
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=cut, say=said.append):
        go(weight, optimizer, 2)
    counted = cut - first_step
    told = [each for each in said if "steps of its own" in each]
    assert len(told) == (not restored and counted > 0)
    assert all("AdamW has counted 0 steps" in each and f"it had counted {counted}:" in each for each in told)


@pytest.mark.parametrize(
    ("second", "word"),
    [({}, None), ({"eps": 1e-3}, "eps is 0.001 now, and was 1e-08"), ({"maximize": True}, "maximize"),
     ({"fused": True}, "fused"), ({"weight_decay": 9.0}, "weight_decay"), ({"capturable": True}, "capturable=True")],
)  # fmt: skip
def test_of_moments_of_a_run_that_goes_on_with_another_optimizer_no_push_is_computed(second, word, tmp_path):
    """The numbers with which it began were taken for those of all steps, and the push was called exact."""
    kept = (W, ADAM_M, ADAM_V, LEARNING_RATE, OPTIMIZER_STEP)
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, tmp_path / "run", channels=kept, say=lambda _: None):
        go(weight, optimizer, CHANGED)
    said, before = [], optimizer.state_dict()["state"]
    optimizer = torch.optim.AdamW([weight], **({"lr": 1e-3} | second))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": before})
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=CHANGED, channels=kept, say=said.append):
        pass
    ds = store.open_trajectory(tmp_path / "run")
    told = [each for each in said if "no push can be computed of this run any more" in each]
    if word is None:
        assert not told
        assert not np.isnan(analysis.push(ds).values[1:]).any()
    else:
        assert word in told[0]
        with pytest.raises(ValueError, match=f"of the steps behind {CHANGED} the optimizer is another"):
            analysis.push(ds)


@pytest.mark.parametrize("foreach", [False, True])
def test_of_a_gradient_that_the_optimizer_has_overwritten_no_push_is_computed(foreach, tmp_path):
    """By foreach nesterov's direction stands in the gradient: the momentum was added to it once more."""
    name = "momentum_buffer"
    buffer = crucible.Channel(name, ("token", "hidden"), "uint16", bits_of="bfloat16", long_name=name, meaning=name)
    kept = (W, GRADIENT, crucible.Recorded(buffer, OptimizerState(name)), LEARNING_RATE)
    weight, optimizer = parameter_and_optimizer(torch.optim.SGD, momentum=0.9, nesterov=True, foreach=foreach)
    with crucible.attach(weight, optimizer, tmp_path / "run", channels=kept, say=lambda _: None):
        go(weight, optimizer, 5)
    ds = store.open_trajectory(tmp_path / "run")
    if foreach:
        with pytest.raises(ValueError, match="writes the direction of its step into the gradient"):
            analysis.push(ds)
    else:
        assert not np.isnan(analysis.push(ds).values[1:]).any()


def test_the_hook_before_a_step_is_no_part_of_a_compiled_step():
    weight, optimizer = parameter_and_optimizer()
    source = PushOf(arithmetic_of(optimizer, weight), optimizer, weight)
    handle = source.begin()
    (hook,) = optimizer._optimizer_step_pre_hooks.values()
    assert hook._torchdynamo_disable
    handle.remove()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's own, as it compiles
@pytest.mark.parametrize("options", [{}, {"scalars": True}, {"after": "record"}], ids=str)
@pytest.mark.parametrize("compiled_from", [0, 2, None])
def test_a_run_whose_optimizer_is_compiled_tells_that_its_push_is_approximate(compiled_from, options, tmp_path):
    weight, optimizer = parameter_and_optimizer()
    compiled = torch.compile(optimizer.step, backend="eager")
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None, **options) as recorder:
        for k in range(4):
            weight.grad = torch.randn_like(weight) * 1e-4
            (optimizer.step if compiled_from is None or k < compiled_from else compiled)()
            if options.get("after"):
                recorder.record()
    ds = store.open_trajectory(tmp_path / "run")
    update = json.loads(ds.attrs["optimizer_update"])
    assert update["exact"] == (compiled_from is None)
    assert ("torch.compile" in update.get("inexact", "")) == (compiled_from is not None)
    assert (ds.push.values[1:] != NAN).all()
    assert update["variant"] == "adamw"


LONGER = {
    "Adam": (torch.optim.AdamW, {"betas": (0.98, 0.999)}, {}, "beta1"),
    "SGD": (torch.optim.SGD, {"momentum": 0.99}, {"momentum": 0.5}, "momentum"),
    "SGD with less than is taken in any case": (torch.optim.SGD, {"momentum": 0.8}, {"momentum": 0.5}, None),
}


@pytest.mark.parametrize(("cls", "change", "made", "name"), LONGER.values(), ids=LONGER)
def test_a_memory_that_grows_is_said_and_the_run_tells_of_it_at_once_and_for_good(cls, change, made, name, tmp_path):
    weight, said = nn.Parameter(torch.zeros(8, 4)), []
    optimizer = cls([weight], lr=1e-3, **made)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=said.append) as recorder:
        go(weight, optimizer, 2)
        recorder.commit()
        before, attributes = len(said), store.open_trajectory(tmp_path / "run").attrs
        optimizer.param_groups[0].update(change)
        go(weight, optimizer, 1)
        recorder.commit()
        live = store.open_trajectory(tmp_path / "run").attrs
        go(weight, optimizer, 1)
    told = said[before:]
    assert len(told) == (name is not None)
    assert all("update 3" in each and f"the optimizer's {name} is" in each for each in told)
    changed = {each for each in live if live[each] != attributes.get(each)} - {"committed_steps"}
    assert changed == ({name, "told_before"} if name else set())
    assert not name or analysis.Rule.for_beta1(live[name]).memory > 10
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=4, say=said.append):
        go(weight, optimizer, 1)
    after = store.open_trajectory(tmp_path / "run").attrs
    assert said[before:] == told
    assert after.get(name) == live.get(name)


def test_a_memory_that_shrinks_and_grows_again_after_a_resume_is_never_told_as_shorter(tmp_path):
    weight = nn.Parameter(torch.zeros(8, 4))
    optimizer = torch.optim.AdamW([weight], betas=(0.99, 0.999))
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 1)
    optimizer.param_groups[0]["betas"] = (0.9, 0.999)
    with crucible.attach(weight, optimizer, tmp_path / "run", resume=1, say=lambda _: None):
        optimizer.param_groups[0]["betas"] = (0.95, 0.999)
        go(weight, optimizer, 1)
    assert store.open_trajectory(tmp_path / "run").attrs["beta1"] == 0.99


def test_numbers_are_watched_in_groups_that_a_checkpoint_has_made_anew(tmp_path):
    weight = nn.Parameter(torch.zeros(8, 4))
    optimizer = torch.optim.AdamW([weight])
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        go(weight, optimizer, 1)
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.param_groups[0]["betas"] = (0.99, 0.999)
        go(weight, optimizer, 1)
    assert store.open_trajectory(tmp_path / "run").attrs["beta1"] == 0.99


OTHERS = {
    "eps": ({"eps": 1e-3}, "eps"),
    "weight decay": ({"weight_decay": 0.1}, "weight_decay"),
    "beta1 that falls": ({"betas": (0.8, 0.999)}, "beta1"),
    "maximize": ({"maximize": True}, "maximize"),
}


@pytest.mark.parametrize(("change", "name"), OTHERS.values(), ids=OTHERS)
def test_of_moments_no_push_is_computed_once_the_optimizers_numbers_have_changed(change, name, tmp_path):
    (weight, optimizer), said = parameter_and_optimizer(), []
    channels = [W, ADAM_M, ADAM_V, LEARNING_RATE, OPTIMIZER_STEP]
    with crucible.attach(weight, optimizer, tmp_path / "run", channels=channels, say=said.append) as recorder:
        go(weight, optimizer, CHANGED)
        recorder.commit()
        assert not np.isnan(analysis.push(store.open_trajectory(tmp_path / "run")).values[1:]).any()
        optimizer.param_groups[0].update(change)
        go(weight, optimizer, 1)
        recorder.commit()
        live = store.open_trajectory(tmp_path / "run")
        go(weight, optimizer, 2)
    for ds in (live, store.open_trajectory(tmp_path / "run")):
        assert f"of the steps behind {CHANGED} the optimizer is another" in ds.attrs["no_push"]
        with pytest.raises(ValueError, match=f"its {name} is"):
            analysis.push(ds)
        assert "computed" not in analysis.why(ds, 0, CHANGED + 1)
    assert sum("no push can be computed of this run any more" in each for each in said) == 1


def test_numbers_that_are_set_anew_and_stay_the_same_change_nothing(tmp_path):
    (weight, optimizer), said = parameter_and_optimizer(), []
    channels = [W, ADAM_M, ADAM_V, LEARNING_RATE, OPTIMIZER_STEP]
    with crucible.attach(weight, optimizer, tmp_path / "run", channels=channels, say=said.append):
        for _ in range(3):
            optimizer.param_groups[0].update(betas=(float("0.9"), float("0.999")), eps=float("1e-8"))
            go(weight, optimizer, 1)
    ds = store.open_trajectory(tmp_path / "run")
    assert "no_push" not in ds.attrs
    assert not np.isnan(analysis.push(ds).values[1:]).any()
    assert not any("any more" in each for each in said)


def test_a_run_of_adam_that_goes_on_with_much_momentum_of_sgd_has_the_longer_memory(tmp_path):
    weight = nn.Parameter(torch.zeros(8, 4))
    with crucible.attach(weight, adam := torch.optim.AdamW([weight]), tmp_path / "run", say=lambda _: None):
        go(weight, adam, 1)
    sgd = torch.optim.SGD([weight], momentum=0.99)
    with crucible.attach(weight, sgd, tmp_path / "run", resume=1, say=lambda _: None):
        go(weight, sgd, 1)
    assert store.open_trajectory(tmp_path / "run").attrs["beta1"] == 0.99


MOMENTS = [W, ADAM_M, ADAM_V, LEARNING_RATE, OPTIMIZER_STEP]
STATES = 9


def changed_run(run, change, channels=MOMENTS, **options):
    """A run whose optimizer is changed after the fifth of its nine steps; and the training as it was at each step."""
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, run, channels=channels, say=lambda _: None, **options):
        kept = []
        for step in range(STATES):
            if step == CHANGED:
                optimizer.param_groups[0].update(change)
            kept.append((weight.detach().clone(), copy.deepcopy(optimizer.state_dict())))
            go(weight, optimizer, 1)
    kept.append((weight.detach().clone(), copy.deepcopy(optimizer.state_dict())))
    return kept


def training_at(kept, step, **numbers):
    """The training as it was at a step, with the numbers that the optimizer had before it was changed."""
    weight, optimizer = parameter_and_optimizer()
    weight.data.copy_(kept[step][0])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": copy.deepcopy(kept[step][1]["state"])})
    optimizer.param_groups[0].update(numbers)
    return weight, optimizer


@pytest.mark.parametrize("scalars", [False, True])
@pytest.mark.parametrize("step", [3, CHANGED])
def test_what_is_told_of_steps_that_are_cut_away_is_told_no_more(step, scalars, tmp_path):
    run, change = tmp_path / "run", {"betas": (0.99, 0.999), "eps": 1e-3}
    kept = changed_run(run, change, scalars=scalars)
    assert store.open_trajectory(run).attrs["beta1"] == 0.99
    assert f"of the steps behind {CHANGED}" in store.open_trajectory(run).attrs["no_push"]
    weight, optimizer = training_at(kept, step)
    with crucible.attach(weight, optimizer, run, resume=step, channels=MOMENTS, say=lambda _: None) as recorder:
        assert "no_push" not in store.open_trajectory(run).attrs  # with the cut itself
        go(weight, optimizer, 4)
        recorder.commit()
    ds = store.open_trajectory(run)
    assert not {"no_push", "told_before"} & ds.attrs.keys()
    assert ds.attrs["beta1"] == 0.9
    assert not np.isnan(analysis.push(ds).values[1:]).any()


def test_what_is_told_of_steps_that_stay_is_told_as_before(tmp_path):
    """Also of the step from which it holds: a resume with the same optimizer called the earlier steps the old one's."""
    run, change = tmp_path / "run", {"betas": (0.99, 0.999), "eps": 1e-3}
    kept = changed_run(run, change)
    before = store.open_trajectory(run).attrs
    for numbers in ({}, change, {"eps": 1e-2}):
        weight, optimizer = training_at(kept, CHANGED + 1, **numbers)
        with crucible.attach(weight, optimizer, run, resume=CHANGED + 1, channels=MOMENTS, say=lambda _: None):
            go(weight, optimizer, 1)
            optimizer.param_groups[0]["eps"] = 1e-5
            go(weight, optimizer, 1)
        after = store.open_trajectory(run).attrs
        assert {name: after[name] for name in ("no_push", "beta1")} == {
            name: before[name] for name in ("no_push", "beta1")
        }
        assert f"of the steps behind {CHANGED} " in after["no_push"]


def test_a_resume_that_compares_keeps_the_steps_and_what_is_told_of_them(tmp_path):
    run = tmp_path / "run"
    kept = changed_run(run, {"eps": 1e-3})
    weight, optimizer = training_at(kept, 3)
    with crucible.attach(weight, optimizer, run, resume=3, compare=True, channels=MOMENTS, say=lambda _: None):
        pass
    ds = store.open_trajectory(run)
    assert ds.step.values[-1] == STATES
    assert f"of the steps behind {CHANGED}" in ds.attrs["no_push"]


def test_what_several_changes_told_is_taken_back_one_by_one(tmp_path):
    run, weight_and_state = tmp_path / "run", []
    weight, optimizer = parameter_and_optimizer()
    with crucible.attach(weight, optimizer, run, channels=[W], say=lambda _: None):
        for beta1 in (0.9, 0.95, 0.99, 0.5):
            optimizer.param_groups[0]["betas"] = (beta1, 0.999)
            weight_and_state.append((weight.detach().clone(), copy.deepcopy(optimizer.state_dict())))
            go(weight, optimizer, 1)
    for step, expected in ((2, 0.95), (1, 0.9), (0, 0.9)):
        weight, optimizer = training_at(weight_and_state, step)
        with crucible.attach(weight, optimizer, run, resume=step, channels=[W], say=lambda _: None):
            pass
        assert store.open_trajectory(run).attrs["beta1"] == expected

"""The recorder looks at every step whether its parameter is still the one that is trained, and says what it sees."""

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import crucible
from crucible.channels.table import LOSS, W
from crucible.updates.subject import IDLE_UPDATES, Subject
from store.reading.reader import open_trajectory

ROWS, HIDDEN = 20, 4


class Loop:
    """A small loop on an embedding that may be replaced."""

    def __init__(self, make=lambda p: torch.optim.AdamW(p, lr=1e-2), **options):
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ROWS, HIDDEN, **options)
        self.head = nn.Linear(HIDDEN, ROWS)
        self.optimizer = make([*self.embedding.parameters(), *self.head.parameters()])
        self.said = []

    def attach(self, run, target=None, **options):
        options = {"channels": (W, LOSS), "say": self.said.append} | options
        return crucible.attach(target if target is not None else self.embedding, self.optimizer, run, **options)

    def step(self, optimizer=None):
        self.optimizer.zero_grad()
        self.head(self.embedding(torch.arange(ROWS))).square().sum().backward()
        (optimizer or self.optimizer).step()

    def weights(self):
        return self.embedding.weight.detach().clone().numpy()


def replace_and_update_the_groups(loop):
    old, new = loop.embedding.weight, nn.Parameter(loop.embedding.weight.detach().clone())
    loop.embedding.weight = new
    params = loop.optimizer.param_groups[0]["params"]
    params[[each is old for each in params].index(True)] = new


def replace_in_the_module_alone(loop):
    loop.embedding.weight = nn.Parameter(loop.embedding.weight.detach().clone())


def replace_and_add_a_group(loop):
    replace_in_the_module_alone(loop)
    loop.optimizer.add_param_group({"params": [loop.embedding.weight]})


def tie_to_another(loop):
    loop.embedding.weight = loop.head.weight


def drop_from_the_optimizer(loop):
    loop.optimizer.param_groups[0]["params"].pop(0)


def change_the_dtype(loop):
    loop.embedding.to(torch.float16)
    loop.optimizer.state.clear()
    loop.head.to(torch.float16)


def resize_in_place(loop):
    loop.embedding.weight.data = torch.randn(ROWS + 5, HIDDEN, dtype=loop.embedding.weight.dtype)
    loop.optimizer.state.clear()


REPLACED = [
    (replace_and_update_the_groups, "replaced"),
    (replace_in_the_module_alone, "replaced"),
    (replace_and_add_a_group, "replaced"),
    (tie_to_another, "replaced"),
    (drop_from_the_optimizer, "no longer"),
    (change_the_dtype, "float16.*was.*float32"),
    (resize_in_place, r"\(25, 4\).*was.*\(20, 4\)"),
]


@pytest.mark.parametrize(("change", "words"), REPLACED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_parameter_that_is_another_now_ends_the_recording(change, words, tmp_path):
    loop, states = Loop(), []

    def train():
        with loop.attach(tmp_path / "run"):
            states.append(loop.weights())
            for step in range(1, 9):
                if step == 5:
                    change(loop)
                loop.step()
                states.append(loop.weights())

    with pytest.raises(RuntimeError, match=f"(?s)update 5.*{words}.*step 4"):
        train()
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.W.values, np.stack(states[:5]))
    assert not ds.attrs["completed"]
    loop.step()  # the optimizer is free again
    assert not loop.said


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda loop: loop.module.float(), "float32.*was.*bfloat16"), (resize_in_place, r"\(25, 4\).*was.*\(20, 4\)")],
    ids=["cast", "resized"],
)
@pytest.mark.parametrize("rows", ["all", [1, 7]])
def test_where_the_push_is_recorded_a_parameter_of_another_kind_is_named_in_the_same_words(
    change, words, rows, tmp_path
):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1), dtype=torch.bfloat16)
    loop.module = nn.ModuleList([loop.embedding, loop.head.bfloat16()])
    loop.attach(tmp_path / "run", channels=None, rows=rows)
    for _ in range(4):
        loop.step()
    change(loop)
    left = loop.embedding.weight.detach().clone()
    with pytest.raises(RuntimeError, match=f"(?s)update 5.*{words}.*step 4"):
        loop.step()
    assert torch.equal(loop.embedding.weight, left)  # no optimizer wrote beyond moments of the old shape
    ds = open_trajectory(tmp_path / "run")
    assert "push" in ds
    assert ds.attrs["committed_steps"] == 4


def remove_the_pruning(module):
    prune.remove(module, "weight")


def delete_it(module):
    del module.weight_orig


@pytest.mark.parametrize("change", [remove_the_pruning, delete_it])
def test_a_parameter_whose_name_is_gone_from_the_model_ends_the_recording(change, tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    prune.l1_unstructured(loop.embedding, "weight", 0.3)
    recorder = loop.attach(tmp_path / "run", parameter="weight_orig")
    loop.step()
    held = loop.embedding.weight_orig
    change(loop.embedding)
    held.grad = torch.ones_like(held)
    with pytest.raises(RuntimeError, match=r"(?s)update 2: .*no longer in the model.*weight_orig.*step 1"):
        loop.optimizer.step()
    assert "closed with step 1" in repr(recorder)


def test_a_parameter_whose_name_is_gone_after_the_last_step_is_said_at_the_end(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    prune.l1_unstructured(loop.embedding, "weight", 0.3)
    with loop.attach(tmp_path / "run", parameter="weight_orig"):
        loop.step()
        prune.remove(loop.embedding, "weight")
    assert open_trajectory(tmp_path / "run").attrs["completed"]
    assert "after step 1, the last that was recorded, the parameter is no longer in the model" in loop.said[0]


def test_a_bare_parameter_is_looked_for_in_the_optimizer_and_where_one_says(tmp_path):
    loop = Loop()
    loop.attach(tmp_path / "run", loop.embedding.weight)
    loop.step()
    replace_and_update_the_groups(loop)
    with pytest.raises(RuntimeError, match="no longer"):
        loop.step()
    loop = Loop()
    loop.attach(tmp_path / "other", loop.embedding.weight).watch(lambda: loop.embedding.weight)
    loop.step()
    replace_in_the_module_alone(loop)
    with pytest.raises(RuntimeError, match="replaced"):
        loop.step()


def test_a_loaded_optimizer_and_swapped_data_go_on_being_recorded(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        states = [loop.weights()]
        for step in range(1, 7):
            if step == 3:
                loop.optimizer.load_state_dict(loop.optimizer.state_dict())
            if step == 4:
                loop.embedding.weight.data = loop.embedding.weight.data.clone()  # elsewhere, and the same
            if step == 5:
                loop.embedding.weight.data = loop.embedding.weight.data.flip(0).clone()
            loop.step()
            states.append(loop.weights())
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").W.values, np.stack(states))
    assert len(loop.said) == 1
    assert "written to before update 5" in loop.said[0]


def made_anew(loop, **options):
    return torch.optim.AdamW([*loop.embedding.parameters(), *loop.head.parameters()], lr=1e-2, **options)


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}])
@pytest.mark.parametrize("steps", [0, 3])
def test_another_optimizer_that_updates_the_parameter_ends_the_recording(steps, options, tmp_path):
    loop = Loop()
    loop.attach(tmp_path / "run")
    for _ in range(steps):
        loop.step()
    with pytest.raises(RuntimeError, match=f"update {steps + 1}: another AdamW.*made anew.*closed with step {steps}"):
        loop.step(made_anew(loop, **options))
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == steps
    loop.step(made_anew(loop, **options))  # the recorder is gone


def test_an_optimizer_that_was_never_stepped_is_said_at_the_end(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        loop.head(loop.embedding(torch.arange(ROWS))).sum().backward()
    assert len(loop.said) == 1
    assert "no step of this AdamW was seen" in loop.said[0]


def test_a_parameter_replaced_after_the_last_step_is_said_at_the_end(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        loop.step()
        replace_in_the_module_alone(loop)
        loop.step(torch.optim.AdamW(loop.embedding.parameters(), lr=1e-2))
    assert len(loop.said) == 1
    assert "after step 1" in loop.said[0]
    assert "replaced" in loop.said[0]


def test_nothing_is_said_beside_an_exception(tmp_path):
    loop = Loop()
    with pytest.raises(ZeroDivisionError), loop.attach(tmp_path / "run"):
        raise ZeroDivisionError
    assert not loop.said


@pytest.mark.slow
def test_a_program_whose_optimizer_is_never_stepped_is_told_when_it_ends(tmp_path):
    code = """
        import sys, torch, crucible
        from crucible.channels.table import W
        embedding = torch.nn.Embedding(5, 2)
        optimizer = torch.optim.AdamW(embedding.parameters())
        crucible.attach(embedding, optimizer, sys.argv[1], channels=(W,))
        for _ in range(3):
            embedding(torch.arange(5)).sum().backward()
            with torch.no_grad():
                embedding.weight -= 0.1 * embedding.weight.grad
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "run"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "no step of this AdamW was seen" in done.stderr
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 0


def freeze(loop):
    loop.embedding.requires_grad_(requires_grad=False)


def test_a_frozen_parameter_is_said_when_recording_begins(tmp_path):
    loop = Loop()
    freeze(loop)
    loop.attach(tmp_path / "run").close()
    assert "requires_grad" in loop.said[0]


@pytest.mark.parametrize("steps", [2, 30])
def test_a_parameter_that_gets_no_gradient_is_said_once(steps, tmp_path):
    loop, other = Loop(), nn.Embedding(ROWS, HIDDEN)
    with loop.attach(tmp_path / "run"):
        for _ in range(steps):
            loop.optimizer.zero_grad()
            loop.head(other(torch.arange(ROWS))).square().sum().backward()
            loop.optimizer.step()
    assert len(loop.said) == 1
    assert f"no gradient in the last {min(steps, IDLE_UPDATES)} updates" in loop.said[0]


class Tied:
    """A loop like `Loop`, of which the recorder is given the bare parameter."""

    def __init__(self, clear):
        self.loop, self.clear = Loop(lambda p: torch.optim.AdamW(p, lr=1e-2)), clear

    def step(self):
        loop = self.loop
        self.clear(loop)
        loop.head(loop.embedding(torch.arange(ROWS))).square().sum().backward()
        loop.optimizer.step()


def clear_what_the_model_has(loop):
    loop.embedding.zero_grad()
    loop.head.zero_grad()


def fill_with_zeros(loop):
    loop.optimizer.zero_grad(set_to_none=False)


@pytest.mark.parametrize("clear", [clear_what_the_model_has, fill_with_zeros])
@pytest.mark.parametrize("others", [3, 30])
def test_a_bare_parameter_that_the_model_has_dropped_is_told_though_its_gradient_stays(others, clear, tmp_path):
    tied = Tied(clear)
    with tied.loop.attach(tmp_path / "run", tied.loop.embedding.weight):
        for _ in range(5):
            tied.step()
        replace_in_the_module_alone(tied.loop)
        for _ in range(others):
            tied.step()
    assert len(tied.loop.said) == 1
    assert f"no backward pass has reached the parameter in the last {min(others, IDLE_UPDATES)}" in tied.loop.said[0]


@pytest.mark.parametrize("clear", [clear_what_the_model_has, fill_with_zeros])
def test_a_gradient_that_comes_at_every_update_is_nothing_to_speak_of_however_it_is_cleared(clear, tmp_path):
    tied = Tied(clear)
    with tied.loop.attach(tmp_path / "run", tied.loop.embedding.weight):
        for _ in range(30):
            tied.step()
    assert tied.loop.said == []


def given_anew(weight):
    weight.grad = torch.ones_like(weight)


def written_in_place(weight):
    weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    weight.grad.fill_(1.0)


def left_as_it_was(weight):
    weight.grad = torch.ones_like(weight) if weight.grad is None else weight.grad


@pytest.mark.parametrize("give", [given_anew, written_in_place, left_as_it_was])
@pytest.mark.parametrize("is_reached_first", [False, True])
def test_gradients_that_are_given_by_hand_are_nothing_to_speak_of(is_reached_first, give, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        if is_reached_first and give is not left_as_it_was:
            loop.step()
        for _ in range(30):
            give(loop.embedding.weight)
            loop.optimizer.step()
    assert loop.said == []


def test_a_few_updates_without_a_gradient_are_nothing_to_speak_of(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        for _ in range(3):
            loop.step()
            for _ in range(IDLE_UPDATES - 1):
                loop.optimizer.zero_grad()
                loop.optimizer.step()
        loop.step()
    assert not loop.said


def test_weights_that_are_written_to_between_updates_are_said_once(tmp_path):
    loop = Loop(max_norm=0.5)  # torch scales the rows down in each forward pass
    with loop.attach(tmp_path / "run"):
        for _ in range(4):
            loop.step()
    assert len(loop.said) == 1
    assert "written to before update 1" in loop.said[0]


def test_looking_costs_microseconds():
    """Of this thread's processor time: how busy the machine is plays no part."""
    embedding = nn.Embedding(ROWS, HIDDEN)
    others = [nn.Parameter(torch.zeros(1)) for _ in range(5000)]
    optimizer = torch.optim.SGD([*others, embedding.weight], lr=0.1)
    subject = Subject(embedding.weight, optimizer, lambda: embedding.weight)

    def look():
        since = time.thread_time()
        for _ in range(1000):
            assert subject.change() is None
        return (time.thread_time() - since) / 1000

    assert min(look() for _ in range(5)) < 20e-6

"""Loops as people write them: what is recorded is what the weights were after each update."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import swa_utils

import crucible
from crucible.channels.table import LOSS, W
from store.reading.reader import open_trajectory

ROWS, HIDDEN = 20, 4


class Training:
    """A small model that is recorded, and a list of its embedding's weights after each update."""

    def __init__(self, run, make=lambda p: torch.optim.AdamW(p, lr=1e-2)):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(ROWS, HIDDEN), nn.Linear(HIDDEN, ROWS))
        self.optimizer = make(list(self.model.parameters()))
        self.said, self.states, self.losses, self.run = [], [], [], run
        self.recorder = None

    def attach(self, optimizer=None):
        self.recorder = crucible.attach(
            self.model[0], optimizer or self.optimizer, self.run, channels=(W, LOSS), say=self.said.append
        )
        self.look()

    def loss(self, ids=None):
        ids = torch.randint(0, ROWS, (16,)) if ids is None else ids
        return nn.functional.cross_entropy(self.model(ids), ids)

    def backward(self, ids=None):
        self.optimizer.zero_grad()
        loss = self.loss(ids)
        self.recorder.log(loss=loss)
        loss.backward()
        return loss

    def update(self, ids=None):
        loss = self.backward(ids)
        self.optimizer.step()
        self.look(loss)

    def look(self, loss=None):
        self.states.append(self.model[0].weight.detach().clone().numpy())
        self.losses.append(np.nan if loss is None else loss.item())


def an_average_beside(run):
    training = Training(run)
    average = swa_utils.AveragedModel(training.model)
    training.attach()
    for _ in range(4):
        training.update()
        average.update_parameters(training.model)
    return training


def copies_that_train_on(run):
    training = Training(run)
    training.attach()
    training.model.recorder = training.recorder
    model, optimizer = copy.deepcopy(training.model), copy.deepcopy(training.optimizer)
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        training.update()
        for each in (*model.parameters(), *(p for group in optimizer.param_groups for p in group["params"])):
            each.grad = torch.ones_like(each)
        other.step()
        optimizer.step()
    return training


def an_optimizer_that_is_restored(run):
    training = Training(run)
    training.attach()
    kept = copy.deepcopy(training.optimizer.state_dict())
    training.update()
    training.optimizer.load_state_dict(kept)
    training.update()
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    training.update()
    return training


def one_optimizer_of_several(run):
    training = Training(run)
    mine, other = (torch.optim.SGD(each.parameters(), lr=0.1) for each in training.model)
    training.attach(mine)
    for _ in range(3):
        loss = training.backward()
        other.step()
        mine.step()
        training.look(loss)
    return training


def a_step_within_backward(run):
    training = Training(run)
    each = {p: torch.optim.SGD([p], lr=0.1) for p in training.model.parameters()}
    for parameter, optimizer in each.items():
        parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())
    training.attach(each[training.model[0].weight])
    for _ in range(3):
        training.look(training.backward())
    return training


def lbfgs(run):
    training = Training(run, lambda p: torch.optim.LBFGS(p, max_iter=4))
    training.attach()
    for _ in range(2):
        called = []
        training.optimizer.step(
            lambda called=called: called.append(training.backward(torch.arange(ROWS))) or called[-1]
        )
        training.look(called[0])
    return training


def float16_under_a_scaler(run):
    training = Training(run)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    training.attach()
    for step in range(5):
        training.optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = training.loss()
        training.recorder.log(loss=loss)
        scaler.scale(loss * (float("inf") if step == 2 else 1.0)).backward()
        scaler.step(training.optimizer)
        scaler.update()
        if step != 2:
            training.look(loss)
    return training


def an_interrupt_and_on(run):
    training = Training(run)
    training.attach()
    for step in range(4):
        try:
            if step == 2:
                raise KeyboardInterrupt
            training.update()
        except KeyboardInterrupt:
            training.model.train()
    return training


def a_compiled_model(run):
    training = Training(run)
    whole, training.model.forward = training.model, torch.compile(training.model.forward, backend="eager")
    training.attach()
    for _ in range(3):
        whole.train()
        training.update()
    return training


def workers_of_a_loader(run):
    training = Training(run)
    training.attach()
    data = torch.randint(0, ROWS, (48,))
    for ids in torch.utils.data.DataLoader(data, 16, num_workers=2, multiprocessing_context="fork"):
        training.update(ids)
    return training


WAYS = [
    an_average_beside, copies_that_train_on, an_optimizer_that_is_restored, one_optimizer_of_several,
    a_step_within_backward, lbfgs, float16_under_a_scaler, an_interrupt_and_on,
    pytest.param(a_compiled_model, marks=pytest.mark.slow), pytest.param(workers_of_a_loader, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_is_recorded_is_what_was_trained(way, tmp_path):
    training = way(tmp_path / "run")
    training.recorder.complete()
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.W.values, np.stack(training.states))
    np.testing.assert_array_equal(ds.loss.values, np.array(training.losses, np.float32))
    assert training.said == []

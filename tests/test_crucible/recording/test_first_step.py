"""A training that is recorded from its middle on: the labels go on from there, and the answers follow them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import crucible
from crucible.channels.selection import DEFAULT
from crucible.channels.sources import hidden_mean
from crucible.channels.table import ADAM_M, GRADIENT
from store.errors import StoreError
from store.reading.reader import open_trajectory

FIRST = 1005


def record(run, *, steps=30, first_step=0, seed=0, channels=None, cast=torch.bfloat16):
    torch.manual_seed(seed)
    embedding = torch.nn.Embedding(12, 4).to(cast)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=1e-2)
    table = channels or (*DEFAULT, replace(GRADIENT, every=10), replace(ADAM_M, until=1010), hidden_mean(embedding))
    options = {"channels": table, "rows": range(8), "say": lambda _: None}
    with crucible.attach(embedding, optimizer, run, first_step=first_step, **options) as recorder:
        assert recorder.step == first_step
        for _ in range(steps):
            optimizer.zero_grad()
            loss = embedding(torch.randint(4, 12, (16,))).float().square().mean()
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
    return embedding, optimizer


def test_the_labels_go_on_from_there(tmp_path):
    record(tmp_path / "whole")
    record(tmp_path / "later", first_step=FIRST)
    whole, later = open_trajectory(tmp_path / "whole"), open_trajectory(tmp_path / "later")
    assert later.step.values.tolist() == list(range(FIRST, FIRST + 31))
    assert later.attrs["committed_steps"] == FIRST + 30
    for name in ("W", "delta_W_prime", "displacement_l2", "centroid", "loss", "learning_rate", "h_mean"):
        np.testing.assert_array_equal(later[name].values, whole[name].values)
    last = whole.last_motion_step.values
    np.testing.assert_array_equal(later.last_motion_step.values, np.where(last < 0, -1, last + FIRST))
    assert later.step_gradient.values.tolist() == [1010, 1020, 1030]
    assert np.isfinite(later.gradient.values).all()
    assert later.step_adam_m.values.tolist() == list(range(FIRST, 1011))
    assert crucible.check(tmp_path / "later").is_whole


def test_it_is_resumed_at_its_own_labels(tmp_path):
    embedding, optimizer = record(tmp_path / "run", first_step=FIRST, channels=DEFAULT, steps=5)
    options = {"channels": DEFAULT, "rows": range(8), "say": lambda _: None}
    with pytest.raises((ValueError, StoreError), match="is not where the run was"):
        crucible.attach(embedding, optimizer, tmp_path / "run", resume=FIRST + 3, **options)
    with crucible.attach(embedding, optimizer, tmp_path / "run", resume=FIRST + 5, **options) as recorder:
        embedding(torch.arange(8)).float().sum().backward()
        optimizer.step()
        assert recorder.step == FIRST + 6
    assert open_trajectory(tmp_path / "run").step.values.tolist() == list(range(FIRST, FIRST + 7))


@pytest.mark.slow
def test_it_is_reported_exported_and_imported_with_its_labels(tmp_path):
    record(tmp_path / "run", first_step=FIRST, channels=DEFAULT)
    assert crucible.analyze(tmp_path / "run")["first_step"] == FIRST
    assert f"{FIRST:,}" in crucible.report(tmp_path / "run").read_text(encoding="utf-8")
    crucible.export_run(tmp_path / "run", tmp_path / "file.safetensors")
    crucible.import_run(tmp_path / "file.safetensors", tmp_path / "again")
    run, again = open_trajectory(tmp_path / "run"), open_trajectory(tmp_path / "again")
    np.testing.assert_array_equal(again.step.values, run.step.values)
    np.testing.assert_array_equal(again.last_motion_step.values, run.last_motion_step.values)
    assert crucible.compare(tmp_path / "run", tmp_path / "again")["equal"]


@pytest.mark.parametrize(("options", "words"), [({"first_step": -1}, "first_step=-1"),
                                                ({"first_step": 2**31}, "2,147,483,647"),
                                                ({"first_step": 3, "resume": 5}, "give one of them")])  # fmt: skip
def test_first_steps_that_cannot_be(options, words, tmp_path):
    embedding = torch.nn.Embedding(5, 2)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=words):
        crucible.attach(embedding, optimizer, tmp_path / "run", **options)

"""`crucible.check` knows the science: what is stored must be what W makes of it."""

import numpy as np
import pytest
import shards
import torch
from torch import nn

import crucible
from store.format.files import TRAJECTORY
from store.run.commit import read_commit


def record(run, change=lambda _step, _gradient: None):
    """Nine updates of a small embedding, whose gradients may be changed before each."""
    embedding = nn.Embedding(6, 4).bfloat16()
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.3)
    with crucible.attach(embedding, optimizer, run):
        for step in range(9):
            optimizer.zero_grad()
            embedding(torch.tensor([step % 6, 2])).float().square().sum().backward()
            change(step, embedding.weight.grad)
            optimizer.step()
    return run


@pytest.fixture
def run(tmp_path):
    return record(tmp_path / "run")


def rewrite(run, name, change):
    """Replace a chunk by one that is whole, but holds other numbers."""
    array = read_commit(run).array(run / TRAJECTORY, name)
    index = next(iter(array.indices()))
    values = np.array(array.read_chunk(index))
    change(values)
    shards.replace_chunk(array.folder / array.key(index), 0, b"".join(bytes(part) for part in array.encode(values)))


def test_a_whole_run_is_whole(run):
    report = crucible.check(run)
    assert report.is_whole
    assert not report.leftovers
    assert report.committed_steps == 9


@pytest.mark.parametrize(
    ("name", "place", "steps"),
    [("delta_W_prime", (3, 2, 1), (3, 4)), ("displacement_l1", (5, 0), (5, 6)), ("centroid", (4, 2), (4, 5)),
     ("last_motion_step", (1,), None)],
)  # fmt: skip
def test_numbers_that_the_weights_do_not_give_are_named(run, name, place, steps):
    def change(values):
        values[place] += 1

    rewrite(run, name, change)
    report = crucible.check(run)
    assert [(damage.name, damage.steps) for damage in report.damage] == [(name, steps)]


def test_a_centroid_of_other_hardware_is_fine(run):
    def change(values):
        values[:10] = np.nextafter(values[:10], np.float32(np.inf))

    rewrite(run, "centroid", change)
    assert crucible.check(run).is_whole


def test_progress_is_told(run):
    told = []
    crucible.check(run, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1)]


@pytest.mark.parametrize("strange", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_no_damage(tmp_path, strange):
    def spoil(step, gradient):
        if step == 4:
            gradient[3, 1] = strange

    record(tmp_path / "run", spoil)
    assert crucible.check(tmp_path / "run").is_whole

    def change(values):
        values[7, 2] += 1  # another column, which is still finite

    rewrite(tmp_path / "run", "centroid", change)
    assert [damage.steps for damage in crucible.check(tmp_path / "run").damage] == [(7, 8)]

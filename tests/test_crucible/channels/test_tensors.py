"""Arrays as tensors: bits stay bits, and what is no longer bits is no tensor of weights."""

import numpy as np
import pytest
import torch
import xarray as xr

from analysis import simulate
from crucible import to_torch
from crucible.channels import tensors
from crucible.channels.tensors import mean_of, take_rows


def test_bits_become_the_bfloat16_numbers_that_they_are():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    tensor = to_torch(ds.W.sel(token=[1]))
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (7, 1, 4))
    assert tensor[0, 0].tolist() == [1.5] * 4


def test_bits_that_were_made_numbers_are_refused():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    for made in (ds.W.where(ds.token > 0), ds.W.astype(np.int64), ds.reindex(token=[0, 2]).W):
        with pytest.raises(ValueError, match=r"W: by its attribute bits_of .* instead of where"):
            to_torch(made)
    assert to_torch(ds.loss).dtype == torch.float32


def test_a_whole_dataset_is_told_to_give_one_array():
    ds = xr.Dataset({"W": ("step", np.zeros(2)), "loss": ("step", np.zeros(2))})
    with pytest.raises(TypeError, match=r"not a Dataset: call to_torch\(ds.W\); this one has W, loss"):
        to_torch(ds)
    with pytest.raises(TypeError, match="not a ndarray"):
        to_torch(np.zeros(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.complex64])
def test_rows_are_those_that_torch_selects_however_the_tensor_lies(dtype):
    whole = torch.arange(1, 61).reshape(10, 6).to(dtype)
    lying = [whole, whole[1:], whole[:, 1:], whole.t().contiguous().t(), whole.conj(), whole.reshape(10, 3, 2)]
    if dtype.is_floating_point:
        lying.append(torch._neg_view(whole))
    rows = torch.tensor([0, 5, 8])
    for tensor in lying:
        taken = take_rows(tensor, 0, rows)
        assert torch.equal(taken, tensor.index_select(0, rows))
        assert taken.dtype == dtype
        taken.zero_()
        assert tensor[0].any(), "in memory of their own"
    assert torch.equal(take_rows(whole, 1, rows[:2]), whole.index_select(1, rows[:2]))


@pytest.mark.parametrize("rows", [[3], [-1], [-1, 2]])
@pytest.mark.parametrize("has_room", [True, False])
def test_a_row_that_is_not_there_is_no_row(rows, has_room):
    room = np.zeros((len(rows), 2), np.float32) if has_room else None
    with pytest.raises(IndexError):
        take_rows(torch.zeros(3, 2), 0, torch.tensor(rows), room)


def test_no_rows_are_no_rows():
    taken = take_rows(torch.zeros(3, 2), 0, torch.tensor([], dtype=torch.int64), np.zeros((0, 2), np.float32))
    assert taken.shape == (0, 2)


@pytest.mark.parametrize("lies", ["in order", "turned"])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (600, 64), (1500, 100)])
def test_a_mean_has_the_bits_of_torchs_own_on_any_number_of_threads(shape, alike, lies, monkeypatch):
    if not alike:  # as on a processor where one thread adds in another order
        monkeypatch.setattr(tensors, "_adds_alike", lambda *_: False)
    rows = torch.randn(shape).bfloat16()
    rows = rows if lies == "in order" else rows.t().contiguous().t()
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            mean, own = mean_of(rows), rows.float().mean(dim=0)
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(mean.view(torch.int32), own.view(torch.int32))


def test_an_order_of_adding_is_tried_without_the_random_numbers_of_the_training():
    before = torch.get_rng_state()
    tensors._adds_alike.__wrapped__((600, 64), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupt_as_the_threads_are_taken_leaves_as_many_as_there_were(monkeypatch):
    threads, taken = [4], []

    def take(count):
        threads[0] = count
        if not taken:
            taken.append(count)
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", take)
    with pytest.raises(KeyboardInterrupt), tensors.one_thread(torch.zeros(2)):
        raise AssertionError
    assert (taken, threads) == ([1], [4])


@pytest.mark.parametrize("shape", [(171_223, 1), (183_192, 1), (210_534, 1), (40_000, 2)])
def test_a_mean_of_few_columns_has_the_bits_of_torchs_own(shape):
    """Two threads add up a lone column in two parts: now and then, but not always, that gives the same mean."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(8):
            rows = torch.randn(shape)
            assert torch.equal(mean_of(rows), rows.mean(dim=0))
    finally:
        torch.set_num_threads(threads)

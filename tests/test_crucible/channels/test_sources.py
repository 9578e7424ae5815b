import contextlib

import numpy as np
import pytest
import torch

import crucible
from crucible.channels import sources
from crucible.channels.table import GRADIENT, LOSS, W
from crucible.channels.tensors import mean_of, pack, to_host, unpack
from crucible.updates.handed import one_of
from store.format.schema import Channel


def test_pack_and_unpack_are_inverse_at_any_alignment():
    tensors = [
        torch.tensor([True, False, True]),
        torch.arange(6, dtype=torch.float32).reshape(2, 3),
        torch.tensor(2.5),
        torch.arange(4, dtype=torch.int16).view(torch.bfloat16),
        torch.zeros(0, 3),
        torch.arange(12.0).reshape(3, 4).t(),
    ]
    arrays = unpack(pack(tensors).numpy(), tensors)
    for tensor, array in zip(tensors, arrays, strict=True):
        expected = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_rows_reach_the_host_in_the_channels_dtype():
    weights = torch.tensor([[1.0, -2.0]]).bfloat16()
    rows = to_host({"W": weights, "loss": torch.tensor(2.0, dtype=torch.float64)}, {"W": W, "loss": LOSS})
    np.testing.assert_array_equal(rows["W"], np.array([[0x3F80, 0xC000]], np.uint16))
    assert rows["loss"].dtype == np.float32
    assert to_host({"loss": None, "x": 2.5}, {"loss": LOSS, "x": LOSS}) == {"loss": None, "x": 2.5}


def test_bits_of_bfloat16_are_never_made_of_another_dtype():
    with pytest.raises(TypeError, match="'W' keeps the bits of bfloat16"):
        to_host({"W": torch.zeros(1, 2)}, {"W": W})
    wide = to_host({"gradient": torch.ones(1, 2).bfloat16()}, {"gradient": GRADIENT})
    assert wide["gradient"].dtype == np.float32


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.5], [torch.tensor(1.0), 2.0, torch.tensor(4.5).bfloat16()]])
def test_the_mean_of_numbers_and_tensors(values):
    assert float(one_of(values, "mean")) == pytest.approx(2.5)


def test_one_value_is_kept_as_it_is():
    value = torch.tensor(1 / 3, dtype=torch.float64)
    assert one_of([value], "mean") is value


def test_numbers_of_every_dtype_that_a_channel_can_have():
    whole = ("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    for name in (*whole, "float16", "float32", "float64"):
        channel = Channel("x", (), name)
        row = to_host({"x": torch.tensor(1)}, {"x": channel})["x"]
        assert row.dtype == np.dtype(name)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int64", torch.tensor(1.7)), ("uint8", torch.tensor(300)), ("int8", torch.tensor([[1, 2], [3, -129]])),
     ("bool", torch.tensor(2)), ("int32", torch.tensor(float("nan"))), ("int16", torch.tensor(1e20))],
)  # fmt: skip
def test_a_tensor_that_a_channel_of_whole_numbers_cannot_hold_is_refused(dtype, value):
    channel = Channel("x", ("token", "hidden")[: value.ndim], dtype)
    with pytest.raises(ValueError, match=f"channel 'x' is {dtype}, which cannot hold"):
        to_host({"x": value}, {"x": channel})


def test_whole_numbers_of_another_dtype_are_kept():
    for dtype, value in (("int64", torch.tensor(3.0)), ("uint8", torch.tensor([255, 0])), ("bool", torch.tensor(1.0))):
        row = to_host({"x": value}, {"x": Channel("x", ("token",)[: value.ndim], dtype)})["x"]
        np.testing.assert_array_equal(row, value.numpy())


def test_counts_of_many_tokens_are_added_up_to_the_last_one():
    counts = [torch.tensor(2**24 + 1), torch.tensor(2**24 + 2)]
    assert float(one_of(counts, "sum")) == 2**25 + 3
    assert float(one_of([torch.tensor(1 / 3, dtype=torch.float64)] * 2, "mean")) == 1 / 3
    assert one_of([torch.tensor(1.0), torch.tensor(2.0)], "sum").dtype == torch.float32


@pytest.mark.parametrize("rows", [None, [0, 2, 39]])
def test_the_mean_of_weights_at_rest_is_not_made_again(rows, tmp_path, monkeypatch):
    """One weight of the last row moves in steps 3 and 4, and back in step 5; then the run is left and goes on."""
    summed = []
    monkeypatch.setattr(sources, "mean_of", lambda kept: summed.append(1) or mean_of(kept))
    weight = torch.nn.Parameter(torch.arange(40.0)[:, None].repeat(1, 64).bfloat16())
    optimizer, expected = torch.optim.SGD([weight], lr=1.0), []
    for until in (6, 9):
        recorder = crucible.attach(weight, optimizer, tmp_path / "run", rows=rows, resume=6 if until == 9 else None)
        with contextlib.closing(recorder):
            for update in range(1 if until == 6 else 7, until + 1):
                expected += [weight.detach().clone()] if update == 1 else []
                weight.grad = torch.zeros_like(weight)
                weight.grad[39, 63] = {3: -1, 4: -1, 5: 2}.get(update, 0)
                optimizer.step()
                expected.append(weight.detach().clone())
    kept = slice(None) if rows is None else rows
    found = crucible.open_trajectory(tmp_path / "run").centroid.values
    assert found.tobytes() == torch.stack([each[kept].float().mean(0) for each in expected]).numpy().tobytes()
    assert len(summed) == 1 + 3, "the first state, and three moves"

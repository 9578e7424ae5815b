import numpy as np
import pytest
import torch

from crucible.channels.sources import pack, to_host, unpack
from crucible.channels.table import GRADIENT, LOSS, W
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
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"):
        channel = Channel("x", (), name)
        row = to_host({"x": torch.tensor(1)}, {"x": channel})["x"]
        assert row.dtype == np.dtype(name)

"""The mean of rows without torch, against torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from crucible.channels.centroid import mean_of_rows

SHAPES = [(1, 64), (15, 128), (16, 64), (17, 64), (255, 64), (256, 64), (300, 768), (3644, 64), (3699, 64), (4097, 64),
          (66_000, 64), (7, 3), (50, 32), (1000, 80)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_it_has_the_bits_of_torch(shape, threads):
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for tensor in (values, values.bfloat16(), values.half()):
            weights = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
            assert mean_of_rows(weights.numpy()).tobytes() == tensor.float().mean(dim=0).numpy().tobytes()
    finally:
        torch.set_num_threads(before)


def test_zeros_infinities_and_nan_are_torchs():
    values = np.zeros((20, 64), np.float32)
    values[:, 0], values[3, 1], values[3:5, 2], values[7, 3] = -0.0, np.inf, (np.inf, -np.inf), np.nan
    expected = torch.from_numpy(values).mean(dim=0).numpy()
    assert np.array_equal(mean_of_rows(values), expected, equal_nan=True)
    assert (np.signbit(mean_of_rows(values)) == np.signbit(expected))[:2].all()


def test_it_does_without_torch():
    code = "import sys, numpy; from crucible.channels.centroid import mean_of_rows as m; m(numpy.zeros((9, 64), 'f4'));"
    subprocess.run([sys.executable, "-c", f"{code} assert 'torch' not in sys.modules"], check=True)

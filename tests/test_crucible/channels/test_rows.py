"""Rows in the ways in which people have them."""

import numpy as np
import pytest
import torch

from crucible.channels.rows import choose
from crucible.channels.vocabulary import describe

MASK = np.array([False, True, False, False, True])


@pytest.mark.parametrize(
    "rows",
    [
        MASK,
        torch.from_numpy(MASK),
        MASK.tolist(),
        [4, 1],
        (1, 4),
        {1, 4},
        np.array([1, 4], np.int32),
        torch.tensor([4, 1]),
        torch.from_numpy(MASK).nonzero(),
        np.argwhere(MASK),
        np.where(MASK),
        torch.where(torch.from_numpy(MASK)),
        slice(1, None, 3),
        range(1, 5, 3),
    ],
    ids=str,
)
def test_ids_in_many_ways(rows):
    chosen = choose(rows, 5)
    assert chosen.tolist() == [1, 4]
    assert chosen.dtype == np.int64


def test_none_is_all():
    assert choose(None, 3).tolist() == choose("all", 3).tolist() == choose(slice(None), 3).tolist() == [0, 1, 2]


def test_a_population_may_be_a_mask():
    assert choose("live", 5, {"live": MASK}).tolist() == [1, 4]
    assert describe(range(5), populations={"live": MASK}).arrays["population"].tolist() == [-1, 0, -1, -1, 0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (MASK[:4], r"a mask of shape \(4,\), but the parameter has 5 rows"),
        (np.zeros(5, bool), "at least one id"),
        (np.zeros((5, 2), int), r"of shape \(5, 2\)"),
        ([0.5], "float64"),
        (0.5, "at least one id, not float64"),
        (slice(5, None), "at least one id"),
        ([5], "rows 0 to 4"),
    ],
)
def test_what_are_no_rows(rows, words):
    with pytest.raises(ValueError, match=words):
        choose(rows, 5)

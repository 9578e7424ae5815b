"""Counts of tokens: what is none of them is refused, and never stored as a count."""

from collections import Counter

import numpy as np
import pytest
import torch

from crucible.channels.vocabulary import by_count, describe

NO_COUNTS = {
    "shares": ([0.25, 0.75, 0.0], "counts must be whole numbers from 0 on, found 0.25 at id 0"),
    "unknown": ([1, np.nan, 2], "counts must be whole numbers from 0 on, found nan at id 1"),
    "negative": ([1, 2, -3], "counts must be whole numbers from 0 on, found -3 at id 2"),
    "too few": ([1, 2], "counts has 2 numbers, one for each id of the vocabulary, and none for the token 2"),
    "a table": ([[1, 2, 3]], "counts must be one number for each id, as np.bincount gives them"),
}


@pytest.mark.parametrize(("counts", "why"), NO_COUNTS.values(), ids=NO_COUNTS)
def test_counts_of_tokens_that_are_none_are_refused(counts, why):
    with pytest.raises(ValueError, match=why):
        describe([0, 1, 2], counts=counts)


def test_counts_by_id_in_a_dictionary_are_refused_with_what_to_give():
    for function in (by_count, lambda counts: describe([0], counts=counts)):
        with pytest.raises(ValueError, match=r"one number for each id, .* not a Counter"):
            function(Counter({0: 3}))


def test_counts_as_floats_or_as_a_tensor_are_counts():
    for counts in (np.float64([3, 0, 5]), torch.tensor([3, 0, 5]), np.bool_([1, 0, 1])):
        found = describe([0, 2], counts=counts).arrays["token_count"]
        assert (found.tolist(), found.dtype) == ([int(counts[0]), int(counts[2])], np.int64)
        assert by_count(counts)["dead"].tolist() == [1]

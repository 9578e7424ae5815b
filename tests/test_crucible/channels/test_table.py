"""The derived channels against plain loops, one number at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import crucible
from crucible.channels.table import (
    GRADIENT,
    NOTEBOOK,
    SMALLEST_NUMBER,
    W,
    centroids_fit,
    derive,
    deriver,
    finisher,
    in_dtype,
    on_lattice,
)

bits = st.lists(st.integers(0, 0xFFFF), min_size=3, max_size=3)


def value(pattern: int) -> np.float32:
    return np.array([pattern << 16], np.uint32).view(np.float32)[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(bits, min_size=2, max_size=2), min_size=2, max_size=4))
def test_derive_is_the_definition(states):
    W = np.array(states, np.uint16)  # (step, token, hidden)
    found = derive({"W": W[0]}, {"W": W[1:]})
    with np.errstate(all="ignore"):
        for t, i in np.ndindex(W.shape[0] - 1, W.shape[1]):
            row = []
            for j in range(W.shape[2]):
                before, after = int(W[t, i, j]), int(W[t + 1, i, j])
                cell = np.float32(2.0 ** (max((before >> 7) & 255, 1) - 134))
                row.append(np.float32(np.float32(value(after) - value(before)) / cell))
            np.testing.assert_array_equal(found["delta_W_prime"][t, i], np.array(row, np.float32))
            wide = np.array(row, np.float64)
            expected = {
                "displacement_l1": np.abs(wide).sum(),
                "displacement_l2": math.sqrt((wide**2).sum()) if np.isfinite(wide).all() else np.abs(wide).sum(),
                "displacement_linf": np.abs(wide).max() if not np.isnan(wide).any() else np.nan,
            }
            for name, norm in expected.items():
                np.testing.assert_allclose(found[name][t, i], np.float32(norm), rtol=2e-7)


def test_deriver_makes_what_the_table_asks_for_and_no_more():
    table = [channel for channel in NOTEBOOK if channel.name in ("W", "displacement_l2")]
    found = deriver(table)({"W": np.zeros((2, 3), np.uint16)}, {"W": np.zeros((4, 2, 3), np.uint16)})
    assert list(found) == ["displacement_l2"]
    assert deriver([W]) is None


def test_a_projected_lattice_rounds_float32_first():
    before = np.array([[1.0, 1.0]], np.float32)
    after = np.array([[[1.001, 1.0079]]], np.float32)  # rounds to 1.0 and to 1.0078125
    found = deriver(on_lattice(NOTEBOOK, "bfloat16"))({"W": before}, {"W": after})["delta_W_prime"]
    np.testing.assert_array_equal(found, np.array([[[0.0, 1.0]]], np.float32))
    own = deriver(on_lattice(NOTEBOOK, "float32"))({"W": before}, {"W": after})["delta_W_prime"]
    assert own[0, 0, 0] == pytest.approx(0.001 / 2**-23, rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, math.inf, math.nan]), min_size=2, max_size=2), max_size=9),
    st.integers(1, 4),
    st.sampled_from([0.1, 0.4]),
)
def test_last_motion_is_the_plain_loops(rows, block, threshold):
    norms = np.array([[math.nan] * 2, *rows], np.float32)
    expected = [-1, -1]
    for t in range(1, len(norms)):
        for i in range(2):
            if norms[t, i] >= np.float32(threshold):
                expected[i] = t

    def blocks(name):
        assert name == "displacement_l2"
        for start in range(0, len(norms), block):
            part = norms[start : start + block]
            yield np.arange(start, start + len(part)), part

    found = finisher(threshold)(blocks)["last_motion_step"]
    assert found.tolist() == expected
    assert found.dtype == np.int32


@pytest.mark.parametrize(("weight", "centroid", "fits"), [(3, 1, True), (3, 0, True), (3, 2, False), (40, 11, True)])
def test_the_centroid_of_the_smallest_numbers_fits_where_it_is_their_mean_rounded(weight, centroid, fits):
    weights = np.zeros((1, 4, 2), np.float32)
    weights[0, 2, 0] = weight * SMALLEST_NUMBER
    assert centroids_fit(weights, np.array([[centroid * SMALLEST_NUMBER, 0]], np.float32)).tolist() == [fits]


LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("largest", "centroid", "fits"),
    [
        (0.5, np.inf, True), (0.5, LARGEST * 0.375, True), (-0.5, -np.inf, True), (0.25, np.inf, False),
        (0.5, np.nan, True), (0.5, LARGEST * 0.25, False), (1e-3, np.inf, False),
    ],
)  # fmt: skip
def test_the_centroid_of_the_largest_numbers_may_have_overflowed_as_it_was_added_up(largest, centroid, fits):
    """torch adds in float32: three weights of half the largest number are infinite, though their mean is not."""
    weights = np.zeros((1, 4, 2), np.float32)
    weights[0, :3, 0] = largest * LARGEST
    assert centroids_fit(weights, np.array([[centroid, 0]], np.float32)).tolist() == [fits]


def test_nan_of_any_payload_among_the_weights_warns_of_nothing():
    weights = np.array([[[0x7F81, 0x3F80]], [[0xFFA1, 0x3F80]]], np.uint16)
    centroids = np.array([[np.nan, 1], [np.nan, 1]], np.float32)
    assert centroids_fit(weights, centroids).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_grow_to_the_largest_numbers_are_no_damage(tmp_path, dtype):
    weight = torch.nn.Parameter(torch.full((4, 2), 1e38, dtype=dtype))
    with crucible.attach(weight, None, tmp_path / "run") as recorder:
        with torch.no_grad():
            weight.mul_(3)
        recorder.record()
    assert np.isinf(crucible.open_trajectory(tmp_path / "run").centroid.values).all()
    assert crucible.check(tmp_path / "run").is_whole


@pytest.mark.slow
def test_weights_that_shrink_to_the_smallest_numbers_are_no_damage(tmp_path):
    embedding = torch.nn.Embedding(20, 8)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, tmp_path / "run") as recorder:
        for _ in range(550):
            embedding.weight.grad = 2 * embedding.weight.detach()
            optimizer.step()
        assert recorder.step == 550
    assert crucible.check(tmp_path / "run").is_whole


def test_dtypes_of_weights():
    assert (in_dtype(W, "bfloat16").dtype, in_dtype(W, "bfloat16").bits_of) == ("uint16", "bfloat16")
    assert (in_dtype(W, "float16").dtype, in_dtype(W, "float16").bits_of) == ("float16", None)
    with pytest.raises(ValueError, match="float64 cannot be recorded"):
        in_dtype(GRADIENT, "float64")


@pytest.mark.parametrize(("weight", "centroid", "fits"), [
    (1.0, 0.25, True), (1.0, 0.26, False), (np.inf, np.inf, True), (np.inf, 0.25, False), (np.inf, np.nan, True),
    (np.nan, np.nan, True), (np.nan, 0.25, False), (-np.inf, -np.inf, True),
])  # fmt: skip
def test_a_centroid_fits_where_it_is_the_mean(weight, centroid, fits):
    weights = np.zeros((1, 4, 2), np.float32)
    weights[0, 2, 0] = weight
    assert centroids_fit(weights, np.array([[centroid, 0]], np.float32)).tolist() == [fits]
    assert centroids_fit(weights, np.array([[centroid, 0.5]], np.float32)).tolist() == [False]

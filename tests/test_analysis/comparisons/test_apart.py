"""How far two runs are apart over time, against a plain loop; and what cannot be asked."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import apart, lattice, simulate

SOME = [0x0000, 0x8000, 0x3F80, 0x3F81, 0x7FC0, 0x7F80, 0xBF80]


def a_trajectory(W, first=0, tokens=None):
    tokens = np.arange(W.shape[1]) if tokens is None else tokens
    attributes = {"bits_of": "bfloat16"} if W.dtype == np.uint16 else {}
    W = (("step", "token", "hidden"), W, attributes)
    return xr.Dataset({"W": W}, {"step": np.arange(first, first + len(W[1])), "token": tokens})


def by_a_loop(one, other):
    shares, medians, largest = [], [], []
    for x, y in zip(one, other, strict=True):
        hops = sorted(
            int(lattice.hops(p, q)) for p, q in zip(x.flat, y.flat, strict=True) if p.tobytes() != q.tobytes()
        )
        shares.append(len(hops) / x.size)
        medians.append(hops[(len(hops) - 1) // 2] if hops else 0)
        largest.append(max(hops, default=0))
    return shares, medians, largest


@st.composite
def pairs(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)))
    size = int(np.prod(shape))
    return [
        np.array(draw(st.lists(st.sampled_from(SOME), min_size=size, max_size=size)), np.uint16).reshape(shape)
        for _ in range(2)
    ]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(pairs(), st.integers(1, 4), st.integers(1, 3))
def test_it_is_the_loops_whatever_the_chunks(pair, steps, tokens):
    a, b = (a_trajectory(W).chunk({"step": steps, "token": tokens}) for W in pair)
    told = apart(a, b.chunk({"step": 2, "hidden": 1}))
    assert told.chunks
    shares, medians, largest = by_a_loop(*pair)
    assert told.share.values.tolist() == shares
    assert told.hops_median.values.tolist() == medians
    assert told.hops_largest.values.tolist() == largest


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_of_other_lattices(dtype):
    random = np.random.default_rng(0)
    one = random.normal(size=(5, 3, 2)).astype(dtype)
    other = one.copy()
    other[2:] = np.nextafter(other[2:], np.dtype(dtype).type(9))
    told = apart(a_trajectory(one), a_trajectory(other)).load()
    assert told.share.values.tolist() == [0, 0, 1, 1, 1]
    assert told.hops_largest.values.tolist() == [0, 0, 1, 1, 1]


def test_only_the_steps_that_both_have():
    W = np.zeros((6, 2, 2), np.uint16)
    told = apart(a_trajectory(W), a_trajectory(W[:4], first=3))
    assert told.step.values.tolist() == [3, 4, 5]
    gaps = apart(a_trajectory(W), a_trajectory(W).isel(step=[0, 2, 5]))
    assert gaps.step.values.tolist() == [0, 2, 5]
    assert gaps.attrs["resolution_steps"] == 3


def test_what_cannot_be_compared_is_refused():
    W = np.zeros((3, 2, 2), np.uint16)
    with pytest.raises(ValueError, match="token ids differ"):
        apart(a_trajectory(W), a_trajectory(W, tokens=[3, 4]))
    with pytest.raises(ValueError, match="no step label in common"):
        apart(a_trajectory(W), a_trajectory(W, first=7))
    with pytest.raises(ValueError, match="two lattices"):
        apart(a_trajectory(W), a_trajectory(W.astype(np.float32)))
    with pytest.raises(TypeError, match="expected a trajectory"):
        apart(a_trajectory(W), None)


def test_a_long_pair_is_read_in_pieces():
    a = simulate.with_last_motion([5, 90], total_steps=300)
    assert float(apart(a, a).share.max()) == 0

"""Blocks of moves against displacement and norms, state by state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis import lattice
from analysis import moves as module
from analysis.moves import moves

BITS_DTYPE = {"uint16": np.uint16, "float32": np.uint32, "float16": np.uint16}
special = st.sampled_from(
    [0x0000, 0x8000, 0x0001, 0x0080, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0x7FA1]
)
mostly_still = st.sampled_from([0x3F81, 0x8000, 0, 0x7F80, 0x7FC0] + [0x3F80] * 20)


def as_weights(patterns, dtype):
    patterns = np.asarray(patterns, BITS_DTYPE[dtype])
    return patterns if dtype == "uint16" else patterns.view(dtype)


def pattern_arrays(dtype, shape, *, still=False):
    top = int(np.iinfo(BITS_DTYPE[dtype]).max)
    elements = st.one_of(special, st.integers(0, 65535)) if dtype == "uint16" else st.integers(0, top)
    return hnp.arrays(BITS_DTYPE[dtype], shape, elements=mostly_still if still else elements)


def moves_by_hand(previous, rows):
    delta = np.zeros(rows.shape, np.float32)
    for t in range(len(rows)):
        delta[t] = lattice.displacement(rows[t - 1] if t else previous, rows[t])
    return delta, lattice.norms(delta)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("dtype", BITS_DTYPE)
@pytest.mark.parametrize("still", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_moves_are_displacements_and_norms_step_by_step(dtype, still, data):
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7))
    if still and dtype != "uint16":
        base = data.draw(pattern_arrays(dtype, shape[1:]))
        patterns = np.broadcast_to(base, (shape[0] + 1, *shape[1:])).copy()
        patterns[data.draw(st.integers(0, shape[0])) :, 0] ^= 1
    else:
        patterns = data.draw(pattern_arrays(dtype, (shape[0] + 1, *shape[1:]), still=still))
    states = as_weights(patterns, dtype)
    delta, norms = moves_by_hand(states[0], states[1:])
    layouts = [states[1:], np.ascontiguousarray(states[1:].transpose(1, 2, 0)).transpose(2, 0, 1), states[::-1][-2::-1]]
    for rows in layouts:
        found = moves(states[0], rows)
        assert np.array_equal(found.delta, delta, equal_nan=True)
        assert np.array_equal(np.signbit(found.delta[~np.isnan(delta)]), np.signbit(delta[~np.isnan(delta)]))
        for whole, part in zip(found[1:], norms, strict=True):
            assert np.array_equal(whole.view(np.uint32), part.view(np.uint32))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_moves_do_not_depend_on_blocks_tiles_or_strips(data):
    shape = data.draw(st.tuples(st.integers(2, 12), st.integers(1, 9), st.integers(1, 5)))
    states = data.draw(pattern_arrays("uint16", shape, still=True))
    whole = moves(states[0], states[1:])
    cut, token = data.draw(st.integers(1, shape[0] - 1)), data.draw(st.integers(0, shape[1]))
    for tile in (slice(0, token), slice(token, None)):
        first = moves(states[0, tile], states[1:cut, tile])
        second = moves(states[cut - 1, tile], states[cut:, tile])
        for name in whole._fields:
            joined = np.concatenate([getattr(first, name), getattr(second, name)])
            expected = np.ascontiguousarray(getattr(whole, name)[:, tile])
            assert np.array_equal(joined.view(np.uint32), expected.view(np.uint32)), name


def test_moves_of_many_strips_with_still_rows_and_lasting_nan(monkeypatch):
    rng = np.random.default_rng(1)
    steps, tokens, hidden = 40, 300, 6
    flips = rng.random((steps, tokens, 1)) < 0.05
    walk = np.cumsum(flips * rng.integers(-2, 3, (steps, tokens, hidden)), axis=0)
    states = (0x3C00 + walk).astype(np.uint16)
    states[17:, 5, 2] = 0x7FC0
    states[:, 250, 1] = 0xFF80
    delta, norms = moves_by_hand(states[0], states[1:])
    monkeypatch.setattr(lattice, "WORK_ELEMENTS", 256)
    monkeypatch.setattr(module, "LOOK_BYTES", 1 << 14)
    found = moves(states[0], states[1:])
    assert np.array_equal(found.delta, delta, equal_nan=True)
    assert np.isnan(found.l2[16:, 5]).all()
    assert np.isnan(found.l2[:, 250]).all()
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[1:], norms, strict=True))
    assert found.delta.transpose(1, 2, 0).flags.c_contiguous, "as the store encodes it"


def test_moves_of_nothing():
    for shape in [(0, 3, 2), (3, 0, 2), (3, 2, 0)]:
        found = moves(np.zeros(shape[1:], np.uint16), np.zeros(shape, np.uint16))
        assert found.delta.shape == shape
        assert found.l2.shape == shape[:2]
        assert not found.linf.any()


def test_states_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="previous state"):
        moves(np.zeros((2, 3), np.uint16), np.zeros((4, 3, 2), np.uint16))

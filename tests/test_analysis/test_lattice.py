"""The lattice against arithmetic on Python's exact fractions, for every bit pattern there is."""

import math
import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis import lattice
from analysis.moves import moves

ALL_BITS = np.arange(65536, dtype=np.uint16)
FORMATS = {"uint16": (8, 7), "float32": (8, 23), "float16": (5, 10)}
BITS_DTYPE = {"uint16": np.uint16, "float32": np.uint32, "float16": np.uint16}


def decode(pattern, dtype):
    """The number behind a bit pattern: a Fraction, or a float that is inf or nan; and its exponent field."""
    exponent_bits, mantissa_bits = FORMATS[dtype]
    sign = -1 if pattern >> (exponent_bits + mantissa_bits) else 1
    exponent = (pattern >> mantissa_bits) & (2**exponent_bits - 1)
    mantissa = pattern & (2**mantissa_bits - 1)
    bias = 2 ** (exponent_bits - 1) - 1
    if exponent == 2**exponent_bits - 1:
        return (math.nan if mantissa else sign * math.inf), exponent
    hidden_one = 2**mantissa_bits if exponent else 0
    scale = Fraction(2) ** (max(exponent, 1) - bias - mantissa_bits)
    return sign * (hidden_one + mantissa) * scale, exponent


def cell_of(pattern, dtype):
    exponent = decode(pattern, dtype)[1]
    return Fraction(2) ** (max(exponent, 1) - {"uint16": 134, "float32": 150, "float16": 25}[dtype])


def bits_of(value):
    return np.float32(value).view(np.uint32) if np.ndim(value) == 0 else np.asarray(value, np.float32).view(np.uint32)


def as_weights(patterns, dtype):
    patterns = np.asarray(patterns, BITS_DTYPE[dtype])
    return patterns if dtype == "uint16" else patterns.view(dtype)


def to_float(value):
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


special = st.sampled_from(
    [0x0000, 0x8000, 0x0001, 0x007F, 0x0080, 0x3F80, 0xBF80, 0x3F7F, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80]
)
bfloat16_bits = st.one_of(special, st.sampled_from([0x7FC0, 0x7FA1, 0xFFC0]), st.integers(0, 65535))


@pytest.mark.slow
def test_every_bfloat16_pattern_has_its_value_and_its_cell():
    values, cells = lattice.bits_to_float32(ALL_BITS), lattice.cell(ALL_BITS)
    for pattern in range(65536):
        value, _ = decode(pattern, "uint16")
        assert Fraction(float(cells[pattern])) == cell_of(pattern, "uint16")
        if isinstance(value, Fraction):
            assert Fraction(float(values[pattern])) == value
            assert np.signbit(values[pattern]) == bool(pattern & 0x8000)
        else:
            assert np.array_equal(values[pattern], np.float32(value), equal_nan=True)
    assert np.array_equal(values.view(np.uint32), ALL_BITS.astype(np.uint32) << 16), "NaN payloads stay"


@pytest.mark.slow
def test_every_float16_pattern_and_every_float32_exponent_has_its_cell():
    halves = lattice.cell(ALL_BITS.view(np.float16))
    assert [Fraction(float(u)) for u in halves] == [cell_of(p, "float16") for p in range(65536)]
    for exponent in range(256):
        for mantissa in (0, 1, 2**23 - 1):
            for sign in (0, 1):
                pattern = (sign << 31) | (exponent << 23) | mantissa
                found = lattice.cell(as_weights([pattern], "float32"))
                assert Fraction(float(found[0])) == cell_of(pattern, "float32")


@pytest.mark.parametrize("dtype", FORMATS)
def test_cells_do_not_change_their_argument_and_take_any_shape(dtype):
    weights = as_weights([[[1, 2, 3]]], dtype)
    before = weights.copy()
    assert lattice.cell(weights).shape == (1, 1, 3)
    assert lattice.cell(weights[0, 0, 0]).shape == ()
    assert lattice.cell(weights[..., :0]).shape == (1, 1, 0)
    assert np.array_equal(weights, before)


def displacement_by_hand(before, after, dtype):
    p, q = as_weights([before], dtype), as_weights([after], dtype)
    p32, q32 = (
        (x.astype(np.uint32) << 16).view(np.float32) if dtype == "uint16" else x.astype(np.float32) for x in (p, q)
    )
    with np.errstate(all="ignore"):
        difference = float(np.subtract(q32, p32)[0])  # rounded to float32: that is the definition
    if math.isnan(difference) or math.isinf(difference):
        return np.float32(difference)
    quotient = to_float(Fraction(difference) / cell_of(before, dtype))
    with np.errstate(over="ignore"):
        return np.float32(math.copysign(quotient, difference))


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_displacement_is_the_exact_quotient(dtype, data):
    top = int(np.iinfo(BITS_DTYPE[dtype]).max)
    pattern = st.one_of(bfloat16_bits if dtype == "uint16" else st.integers(0, top), st.integers(0, 300))
    before = data.draw(pattern)
    after = data.draw(st.one_of(pattern, st.integers(max(0, before - 3), min(top, before + 3))))
    found = lattice.displacement(as_weights(before, dtype), as_weights(after, dtype))
    expected = displacement_by_hand(before, after, dtype)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isnan(found) or np.signbit(found) == np.signbit(expected)
    finite = all(lattice.is_finite(as_weights(x, dtype)) for x in (before, after))
    assert finite <= (not np.isnan(found)), "NaN only from NaN or infinity"
    if finite:
        assert found == 0 or abs(found) >= 0.5


def test_displacements_that_surprise():
    for name, before, after, expected in [
        ("from zero a hundredth is infinitely far only when it is large", 0x0000, 0x3C24, 0x3C24),
        ("zeros are one number", 0x0000, 0x8000, None),
        ("an infinite weight that stays", 0x7F80, 0x7F80, None),
    ]:
        d = lattice.displacement(np.uint16(before), np.uint16(after))
        if name.startswith("from"):
            assert np.isfinite(d)
            assert d == lattice.bits_to_float32(np.uint16(expected)) / np.float32(2.0**-133)
        elif name.startswith("zeros"):
            assert d == 0
        else:
            assert np.isnan(d)
    assert np.isinf(lattice.displacement(np.uint16(0), np.uint16(0x3F80))), "float32 overflows: 1 / 9.2e-41"


def ordinal_by_hand(pattern, width):
    sign = 1 << (width - 1)
    return -(pattern - sign) if pattern >= sign else pattern


@pytest.mark.parametrize("dtype", FORMATS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_hops_count_the_numbers_between(dtype, data):
    top = int(np.iinfo(BITS_DTYPE[dtype]).max)
    a, b = (data.draw(st.integers(0, top)) for _ in "ab")
    width = 8 * np.dtype(BITS_DTYPE[dtype]).itemsize
    found = lattice.hops(as_weights(a, dtype), as_weights(b, dtype))
    assert found.dtype == np.int64
    assert int(found) == abs(ordinal_by_hand(a, width) - ordinal_by_hand(b, width))


@pytest.mark.slow
def test_hops_walk_the_line_one_by_one():
    numbers = [p for p in range(65536) if isinstance(decode(p, "uint16")[0], Fraction)]
    numbers.sort(key=lambda p: decode(p, "uint16")[0])
    line = np.array(numbers, np.uint16)
    steps = lattice.hops(line[:-1], line[1:])
    assert sorted(set(steps.tolist())) == [0, 1]
    assert np.count_nonzero(steps == 0) == 1, "-0 and 0"
    assert int(lattice.hops(np.uint16(0x8000), np.uint16(0))) == 0


@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32)))
@example(np.array([np.nan] * 20, np.float32))
@settings(max_examples=50, deadline=None)
def test_projection_takes_the_nearest_bfloat16(values):
    bits = lattice.float32_to_bits(values)
    for value, pattern in zip(values, bits.tolist(), strict=True):
        if np.isnan(value):
            assert pattern == 0x7FC0
            continue
        found = decode(pattern, "uint16")[0]
        if not isinstance(found, Fraction):
            assert np.isinf(value) or abs(value) >= 3.3895314e38
            assert (found > 0) == (value > 0)
            continue
        for neighbour in (pattern - 1, pattern + 1):
            other = decode(neighbour & 0xFFFF, "uint16")[0]
            if isinstance(other, Fraction) and (neighbour & 0x8000) == (pattern & 0x8000):
                here, there = abs(found - Fraction(float(value))), abs(other - Fraction(float(value)))
                assert here < there or (here == there and pattern % 2 == 0)


def test_every_bfloat16_projects_on_itself():
    finite = ALL_BITS[lattice.is_finite(ALL_BITS)]
    assert np.array_equal(lattice.float32_to_bits(lattice.bits_to_float32(finite)), finite)


def norms_by_hand(row):
    """In order, in double precision, rounded once."""
    total, squares, largest = 0.0, 0.0, 0.0
    for value in row:
        size = abs(float(value))
        total += size
        squares += size * size
        largest = math.nan if math.isnan(size) or math.isnan(largest) else max(largest, size)
    with np.errstate(over="ignore"):
        return [np.float32(x) for x in (total, math.sqrt(squares), largest)]


float_rows = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=st.floats(width=32, allow_subnormal=True)
)


@given(float_rows, st.data())
@settings(max_examples=150, deadline=None)
def test_norms_are_the_loop_in_any_memory_layout(d, data):
    order = data.draw(st.permutations(range(d.ndim)))
    back = np.argsort(order)
    laid_out = np.ascontiguousarray(d.transpose(order)).transpose(back)
    found = lattice.norms(laid_out)
    for index in np.ndindex(d.shape[:-1]):
        for name, norm, expected in zip(lattice.NORMS, found, norms_by_hand(d[index]), strict=True):
            assert np.array_equal(norm[index], expected, equal_nan=True), name
    assert all(norm.dtype == np.float32 and norm.shape == d.shape[:-1] for norm in found)


def test_norms_of_long_rows_are_summed_in_order_and_do_not_overflow():
    rng = np.random.default_rng(0)
    d = np.exp(rng.normal(0, 12, (3, 1000))).astype(np.float32)
    for rows in (d, d[:1], np.asfortranarray(d)):
        found = lattice.norms(rows)
        for i in range(len(rows)):
            assert [float(norm[i]) for norm in found] == [float(x) for x in norms_by_hand(rows[i])]
    assert lattice.norms(np.full((1, 4), 1e38, np.float32)).l2[0] == np.float32(2e38)
    assert np.isinf(lattice.norms(np.full((1, 4), 3e38, np.float32)).l1[0])
    many = np.exp(rng.normal(0, 12, (2, 70_000, 5))).astype(np.float32)
    assert np.array_equal(lattice.norms(many).l1[1, -9:], lattice.norms(many[1, -9:]).l1)


def test_a_lone_row_is_summed_in_the_order_of_all_others():
    """After 2^60 + 2^36, a tie of float32, each 1 is lost in order; numpy's own sum would gather them first."""
    row = np.array([2.0**60, 2.0**36] + [1.0] * 998, np.float32)
    assert np.float32(row.astype(np.float64).sum()) > 2.0**60
    for rows in (row[None], np.stack([row, row]), row[None][:, ::-1][:, ::-1]):
        assert set(lattice.norms(rows).l1.tolist()) == {2.0**60}


def test_nan_norms_have_no_payload():
    strange = np.array([[0x7FC12345, 0x3F800000], [0xFFC00001, 0x7F800000]], np.uint32).view(np.float32)
    for norm in lattice.norms(strange):
        assert np.array_equal(norm.view(np.uint32), np.full(2, np.float32(np.nan).view(np.uint32)))


@pytest.mark.parametrize("weights", [np.zeros(3), np.zeros(3, np.int64), np.zeros(3, np.int16), 0.5, [1, 2]])
def test_dtypes_without_a_lattice_are_refused(weights):
    for function in (lattice.cell, lattice.as_float32, lattice.is_finite):
        with pytest.raises(TypeError, match="no lattice here"):
            function(weights)


def test_mixed_lattices_and_shapes_that_do_not_fit_are_refused():
    bits, halves = np.zeros(2, np.uint16), np.zeros(2, np.float16)
    for function in (lattice.displacement, lattice.hops):
        with pytest.raises(TypeError, match="one dtype"):
            function(bits, halves)
    with pytest.raises(TypeError, match="uint16"):
        lattice.bits_to_float32(halves)
    with pytest.raises(TypeError, match="float32"):
        lattice.float32_to_bits(halves)


def test_a_thread_that_flushes_subnormals_is_refused():
    torch = pytest.importorskip("torch")
    caught = []

    def flushing():
        if not torch.set_flush_denormal(True):
            return
        try:
            for call in (
                lambda: lattice.cell(np.zeros(1, np.uint16)),
                lambda: lattice.displacement(np.zeros(1, np.uint16), np.zeros(1, np.uint16)),
                lambda: moves(np.zeros((1, 1), np.uint16), np.zeros((1, 1, 1), np.uint16)),
            ):
                try:
                    call()
                except FloatingPointError as error:
                    caught.append(str(error))
        finally:
            torch.set_flush_denormal(False)

    thread = threading.Thread(target=flushing)
    thread.start()
    thread.join()
    assert len(caught) == 3
    assert "set_flush_denormal(False)" in caught[0]

"""Half a cell, roundings and refusals of the push, against arithmetic on Python's exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import lattice
from analysis.optimizers.push_arithmetic import bits_rounded_up
from analysis.optimizers.update_rules import VARIANTS, Update

UNITS = {"bfloat16": (7, 133), "float16": (10, 24)}
"""Bits of the mantissa; and every number is a whole multiple of 2^-133 or 2^-24."""
DTYPES = {"bfloat16": np.uint16, "float16": np.float16}
ADAM = {"variant": "adamw", "lr": 1e-3, "optimizer_step": 10}


def multiple(pattern, dtype):
    """The number behind a finite bit pattern, as a whole multiple of the smallest."""
    mantissa_bits, _ = UNITS[dtype]
    exponent, mantissa = (pattern & 0x7FFF) >> mantissa_bits, pattern & ((1 << mantissa_bits) - 1)
    size = (mantissa + (1 << mantissa_bits if exponent else 0)) << max(exponent - 1, 0)
    return -size if pattern & 0x8000 else size


def half_way(pattern, dtype, upwards):
    """Half the distance from a number to the next one up or down."""
    here = multiple(pattern, dtype)
    away = (here >= 0) == upwards
    to = (pattern & 0x8000) + 1 if here == 0 else pattern + (1 if away else -1)
    return Fraction(abs(abs(multiple(to, dtype)) - abs(here)), 2 << UNITS[dtype][1])


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("upwards", [True, False])
def test_every_number_moves_above_half_the_way_to_its_neighbour_and_at_it_where_it_is_odd(dtype, upwards):
    largest = ((1 << 15) - 1) & ~((1 << UNITS[dtype][0]) - 1)
    finite = np.array([k for k in range(65536) if k & 0x7FFF < largest - 1], np.uint16)
    weights = finite.view(DTYPES[dtype])
    old = lattice.as_float32(weights)
    assert old.astype(float).tolist() == [multiple(int(k), dtype) / (1 << UNITS[dtype][1]) for k in finite]
    halves = np.array([float(half_way(int(k), dtype, upwards)) for k in finite]) * (1 if upwards else -1)
    for factor in (0.125, 0.875, 1.0, 1.125, 1.5):
        sums = (old + halves * factor).astype(np.float32)  # exact: four bits more than a weight
        told = lattice.half_cells(weights, sums)
        assert (told == np.float32(factor)).all()
        moved = lattice.as_float32(lattice.rounded(sums, weights.dtype)) != old
        assert (lattice.moves_weight(weights, told) == moved).all()
        assert (moved.all(), moved.any()) == (factor > 1, factor >= 1)


@given(st.floats(width=32, min_value=0, allow_infinity=True))
def test_bits_are_rounded_up_to_the_smallest_bfloat16_that_is_not_below(value):
    told = int(bits_rounded_up(np.float32([value]))[0])
    assert lattice.bits_to_float32(np.uint16([told]))[0] >= value
    assert told == 0 or lattice.bits_to_float32(np.uint16([told - 1]))[0] < value


def test_nan_stays_nan_when_rounded_up():
    payloads = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFC00000], np.uint32).view(np.float32)
    assert np.isnan(lattice.bits_to_float32(bits_rounded_up(payloads))).all()


def plain_adam(w, m, v, numbers):
    """fl32(w + q) of one bfloat16 weight, operation by operation on Python's floats."""
    f32, bf16 = np.float32, lambda x: lattice.bits_to_float32(lattice.float32_to_bits(np.float32([x])))[0]
    t = numbers["optimizer_step"]
    d = bf16(math.sqrt(v))
    d = bf16(d / f32((1 - numbers["beta2"] ** t) ** 0.5))
    d = bf16(d + bf16(f32(numbers["eps"])))
    return f32(w + f32(f32(f32(-(numbers["lr"] / (1 - numbers["beta1"] ** t))) * m) / d))


@given(st.integers(1, 10**6), st.floats(1e-6, 1.0), st.floats(0, 0.99), st.floats(0, 0.9999), st.integers(0, 2**31))
def test_adam_is_computed_operation_by_operation(step, rate, beta1, beta2, seed):
    random = np.random.default_rng(seed)
    w, m, v = (lattice.float32_to_bits(random.normal(size=8).astype(np.float32) * s) for s in (1, 0.01, 0.1))
    v &= 0x7FFF
    numbers = {"lr": rate, "optimizer_step": step, "beta1": beta1, "beta2": beta2, "eps": 1e-8}
    told = lattice.proposed(w, m, v, variant="adam", **numbers)
    rows = [lattice.bits_to_float32(x) for x in (w, m, v)]
    assert told.tolist() == [plain_adam(*each, numbers) for each in zip(*rows, strict=True)]


def test_the_push_is_the_largest_of_a_row():
    random = np.random.default_rng(3)
    before, m, v = (lattice.float32_to_bits(random.normal(size=(3, 5, 7)).astype(np.float32)) for _ in range(3))
    v &= 0x7FFF
    each = lattice.half_cells(before, lattice.proposed(before, m, v, **ADAM))
    np.testing.assert_array_equal(lattice.push(before, m, v, **ADAM), each.max(axis=-1))


def test_arguments_stay_as_they_are():
    before, m, v = (np.full((2, 4), k, np.uint16) for k in (0x3F80, 0x3C00, 0x3800))
    kept = [array.copy() for array in (before, m, v)]
    lattice.push(before, m, v, **ADAM)
    for array, copy in zip((before, m, v), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("variant", [name for name, variant in VARIANTS.items() if variant.adam])
def test_adam_needs_its_own_count_of_steps(variant):
    for count in (None, 0):
        with pytest.raises(ValueError, match="optimizer's own count"):
            Update(variant=variant, lr=1e-3, optimizer_step=count)


def test_what_is_missing_or_of_another_kind_is_refused():
    bits, wide = np.zeros((2, 4), np.uint16), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="needs v"):
        lattice.push(bits, bits, **ADAM)
    with pytest.raises(ValueError, match="needs gradient"):
        lattice.push(bits, bits, variant="sgd_nesterov", lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="'lion' is not known; known are adam, "):
        lattice.push(bits, bits, variant="lion", lr=0.1)
    with pytest.raises(TypeError, match="before is float32: a push is known for bfloat16"):
        lattice.push(wide, wide, wide, **ADAM)
    with pytest.raises(TypeError, match="m is float16 and the weights are uint16"):
        lattice.push(bits, bits.view(np.float16), bits, **ADAM)
    with pytest.raises(TypeError, match="unexpected keyword"):
        lattice.push(bits, bits, bits, **ADAM, learning_rate=1)


def test_plain_weight_decay_is_in_the_moments_already():
    bits = np.full((1, 4), 0x3F80, np.uint16)
    plain = ADAM | {"variant": "adam"}
    np.testing.assert_array_equal(
        lattice.push(bits, bits, bits, **plain), lattice.push(bits, bits, bits, **plain, weight_decay=1e3)
    )


def test_an_unknown_name_of_the_lattice_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pull'"):
        lattice.pull  # noqa: B018

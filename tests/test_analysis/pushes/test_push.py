"""The push of a Dataset: as recorded, or from stored moments; its spread over tokens and the headroom of each."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_steps import moments_recorded, sgd_is_exact

import analysis
from analysis import lattice, simulate
from analysis.optimizers.push_arithmetic import bits_rounded_up

NAMES = ["adamw", "adam", "adamw decay", "adamw amsgrad", "sgd", "sgd decay", "sgd momentum", "sgd nesterov"]
AMOUNTS = st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0, 1.5, 4.0])


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [sgd_is_exact(name) for name in NAMES])
@pytest.mark.parametrize("chunks", [{"step": 3, "token": 5}, {"step": 100, "token": 100}])
def test_the_push_of_stored_moments_is_that_of_a_plain_loop_whatever_the_chunks(name, dtype, chunks):
    ds, expected = moments_recorded(name, dtype)
    found = analysis.push(ds.chunk(chunks))
    np.testing.assert_array_equal(found.values[1:], expected)
    assert np.isnan(found.values[0]).all()
    assert found.attrs["exact"] is True
    later = analysis.push(ds.chunk(chunks).sel(step=slice(4, None), token=[3, 7]))
    np.testing.assert_array_equal(later.values[1:], expected[4:, [3, 7]])
    assert later.step.values[0] == 4


@pytest.mark.parametrize("name", [sgd_is_exact(name) for name in ["adamw", "sgd nesterov"]])
def test_of_stored_moments_that_do_not_make_the_weights_no_push_is_told(name):
    """As after a change of the optimizer's numbers, which nobody follows: it was told of, and called exact."""
    ds, expected = moments_recorded(name)
    weights = ds.W.values.copy()
    weights[5, 3, 0] ^= 1  # the updates 5 and 6 of one row
    found = analysis.push(ds.assign(W=(ds.W.dims, weights, ds.W.attrs)).chunk({"step": 3, "token": 5}))
    assert np.argwhere(np.isnan(found.values[1:])).tolist() == [[4, 3], [5, 3]]
    assert found.attrs["exact"] is True
    known = ~np.isnan(found.values[1:])
    np.testing.assert_array_equal(found.values[1:][known], expected[known])
    nearly = ds.assign(W=(ds.W.dims, weights, ds.W.attrs)).assign_attrs(
        optimizer_update=ds.attrs["optimizer_update"] | {"exact": False}
    )
    assert not np.isnan(analysis.push(nearly).values[1:]).any()


def test_without_a_count_the_label_is_taken_and_that_is_not_called_exact():
    ds, expected = moments_recorded()
    found = analysis.push(ds.drop_vars("optimizer_step"))
    np.testing.assert_array_equal(found.values[1:], expected)
    assert found.attrs["exact"] is False


@pytest.mark.parametrize("name", [sgd_is_exact(name) for name in ["sgd", "sgd momentum", "sgd nesterov"]])
def test_sgd_needs_no_count(name):
    ds, expected = moments_recorded(name)
    found = analysis.push(ds.drop_vars("optimizer_step"))
    np.testing.assert_array_equal(found.values[1:], expected)
    assert found.attrs["exact"] is True


def test_a_recorded_push_is_taken_as_it_is():
    ds, expected = moments_recorded()
    stored = np.concatenate([np.full((1, 12), 0x7FC0, np.uint16), bits_rounded_up(expected)])
    stored[5, 2] = 0x3F00
    recorded = ds.assign(push=(("step", "token"), stored, {"bits_of": "bfloat16"})).drop_vars(["adam_m", "adam_v", "W"])
    found = analysis.push(recorded).values
    assert found[5, 2] == 0.5
    np.testing.assert_array_equal(np.delete(found[1:], 4, 0), np.delete(expected, 4, 0))


REASONS = {
    "nothing": (lambda ds: ds.drop_vars(["adam_m", "learning_rate"]), "nor, at every step, adam_m, learning_rate"),
    "no numbers": (lambda ds: ds.assign_attrs(optimizer_update={}), "names the variant None"),
    "another variant": (lambda ds: ds.assign_attrs(optimizer_update={"variant": "lion"}), "'lion'; known are adam, "),
    "moments of another variant": (
        lambda ds: ds.assign_attrs(optimizer_update={"variant": "sgd_momentum"}), "nor, at every step, momentum_buffer"
    ),
    "moments of float32": (
        lambda ds: ds.assign(adam_v=(ds.adam_v.dims, ds.adam_v.astype(np.float32).values)), "adam_v has another dtype"
    ),
    "the recorder's own": (lambda ds: ds.drop_vars("adam_m").assign_attrs(no_push="fused SGD"), "fused SGD"),
    "gaps": (lambda ds: ds.sel(step=[0, 1, 2, 5, 6]), "step 5 follows step 2"),
    "float32": (lambda ds: ds.assign(W=analysis.weights(ds)), "not of 16 bits"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), REASONS.values(), ids=REASONS)
def test_where_no_push_is_known_the_reason_is_said(change, reason):
    ds, _ = moments_recorded()
    for question in (analysis.push, analysis.headroom):
        with pytest.raises(ValueError, match=reason):
            question(change(ds))


def test_a_recorded_push_of_other_hidden_dimensions_is_refused():
    ds = simulate.with_pushes([[0.5, 0.25]], hidden=4).assign_attrs(hidden=4)
    with pytest.raises(ValueError, match="4 hidden dimensions, here are 2"):
        analysis.push(ds.isel(hidden=[0, 1]))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 5), st.integers(1, 7), st.integers(1, 3))
def test_headroom_is_the_loop(data, moves, tokens, per_step, per_token):
    sizes = np.array(data.draw(st.lists(AMOUNTS, min_size=moves * tokens, max_size=moves * tokens)))
    sizes = sizes.reshape(moves, tokens).astype(np.float32)
    ds = simulate.with_pushes(sizes).assign_attrs(
        optimizer_update={"variant": "sgd_momentum", "momentum": 0.5, "exact": True}  # a memory of 2 steps
    )
    told = analysis.headroom(ds.chunk({"step": per_step, "token": per_token}), quantiles=(0, 0.5, 1)).load()
    stored = lattice.bits_to_float32(bits_rounded_up(sizes))
    ordered = np.sort(stored, axis=1)
    np.testing.assert_array_equal(told.strongest[1:], ordered[:, -1])
    np.testing.assert_array_equal(told.push[1:], ordered[:, [0, (tokens - 1) // 2, tokens - 1]])
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(told.headroom, 1 / stored[-40:].max(axis=0).astype(np.float64))
    assert np.isnan(told.strongest[0])
    assert told.learning_rate.values[1] == 1e-3


def test_quantiles_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="quantiles"):
        analysis.headroom(simulate.with_pushes([[0.5]]), quantiles=[2])


def test_pushes_are_lazy_and_ask_for_a_dataset():
    answer = analysis.headroom(simulate.with_pushes([[0.5]]))
    assert all(array.chunks is not None for array in answer.data_vars.values())
    with pytest.raises(TypeError, match="expected a trajectory"):
        analysis.push("run")


def test_without_any_move_no_headroom_is_known():
    ds = simulate.with_pushes([[0.5, 0], [0.5, 0]])
    np.testing.assert_array_equal(analysis.headroom(ds.sel(step=[1])).headroom, [np.nan, np.nan])
    np.testing.assert_array_equal(analysis.headroom(ds.sel(step=[1, 2])).headroom, [2, np.inf])


def test_the_numbers_of_a_push_are_not_called_bits():
    ds = simulate.with_pushes([[0.5]])
    ds["push"].attrs |= {"comment": "bit patterns; ...", "long_name": "bits of the bfloat16 push"}
    for told in (analysis.push(ds), analysis.headroom(ds), analysis.headroom(ds).push):
        assert not any("bit" in str(value) for value in told.attrs.values())

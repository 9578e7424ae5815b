"""Where two trajectories part, against a plain loop over steps, tokens and hidden indices."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import apart, lattice, plain, simulate, weights
from analysis.comparisons.compare import compare

SOME = [0x0000, 0x8000, 0x3F80, 0x7FC0, 0x7FC1, 0x7F80, 0x0001]


def a_trajectory(bits, first=0, loss=None):
    steps = np.arange(first, first + len(bits))
    loss = np.arange(len(bits), dtype=np.float32) if loss is None else loss
    variables = {"W": (("step", "token", "hidden"), bits, {"bits_of": "bfloat16"}), "loss": (("step",), loss)}
    return xr.Dataset(variables, {"step": steps, "token": 10 * np.arange(bits.shape[1])})


def parted_by_a_loop(a, b):
    """(label, array, token, hidden) of the first difference, W before loss; None without one."""
    for label in a.step.values:
        if label not in b.step.values:
            continue
        x, y = a.sel(step=label), b.sel(step=label)
        for i, token in enumerate(a.token.values):
            for j in range(a.sizes["hidden"]):
                if int(x.W[i, j]) != int(y.W[i, j]):
                    return label, "W", token, j
        if x.loss.values.tobytes() != y.loss.values.tobytes():
            return label, "loss", -1, -1
    return None


@st.composite
def two_alike(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)))
    size = math.prod(shape)
    bits = np.array(draw(st.lists(st.sampled_from(SOME), min_size=size, max_size=size)), np.uint16)
    a = a_trajectory(bits.reshape(shape))
    b = a.copy(deep=True)
    for _ in range(draw(st.integers(0, 2))):
        place = tuple(draw(st.integers(0, size - 1)) for size in shape)
        b.W[place] = draw(st.sampled_from(SOME))
    if draw(st.booleans()):
        b.loss[draw(st.integers(0, shape[0] - 1))] = draw(st.sampled_from([np.nan, -0.0, 7.0]))
    return a, b.isel(step=slice(draw(st.integers(0, shape[0] - 1)), None))


@settings(max_examples=25, deadline=None)
@given(two_alike(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_the_first_difference_is_the_loops_whatever_the_chunks(pair, a_steps, a_tokens, b_hidden, b_steps):
    a, b = pair
    told = compare(a.chunk({"step": a_steps, "token": a_tokens}), b.chunk({"step": b_steps, "hidden": b_hidden}))
    expected = parted_by_a_loop(a, b)
    assert int(told.compared) == b.sizes["step"]
    if expected is None:
        assert bool(told.equal) is (a.sizes == b.sizes)
        assert (int(told.equal_steps), str(told.array.values), int(told.step)) == (b.sizes["step"], "", -1)
    else:
        found = int(told.step), str(told.array.values), int(told.token), int(told.hidden)
        assert found == expected
        assert int(told.equal_steps) == expected[0] - int(b.step[0])
        assert not told.equal


def test_both_values_and_the_hops_between_them():
    bits = np.zeros((3, 2, 2), np.uint16)
    a, b = a_trajectory(bits), a_trajectory(bits.copy())
    b.W[2, 1, 0] = lattice.float32_to_bits(np.float32([0.001]))[0]
    told = compare(a, b)
    assert (int(told.step), int(told.token), int(told.hidden), int(told.hops)) == (2, 10, 0, 14979)
    assert float(told.value_a) == 0
    assert float(told.value_b) == pytest.approx(0.001, rel=0.01)


def test_nan_payloads_and_zeros_are_compared_as_bits():
    quiet = np.full((2, 1, 1), 0x7FC0, np.uint16)
    assert compare(a_trajectory(quiet), a_trajectory(quiet.copy())).equal
    assert int(compare(a_trajectory(quiet), a_trajectory(quiet + 1)).hops) == 1
    zero, minus = np.zeros((2, 1, 1), np.uint16), np.full((2, 1, 1), 0x8000, np.uint16)
    told = compare(a_trajectory(zero), a_trajectory(minus))
    assert (int(told.step), int(told.hops), bool(told.equal)) == (0, 0, False)


@pytest.mark.slow
def test_other_lengths_arrays_and_chunkings():
    a = simulate.with_last_motion([5, 9], total_steps=300, chunks={"step": 7, "token": 1})
    b = simulate.with_last_motion([5, 9], total_steps=200, chunks={"step": 64})
    told = compare(a, b)
    assert (int(told.compared), int(told.equal_steps), str(told.array.values)) == (201, 201, "")
    assert not told.equal
    assert compare(a, a).equal
    assert told.attrs["arrays"][:3] == ["W", "centroid", "loss"]
    assert compare(a, b.drop_vars("loss"), arrays=["W"]).attrs["only_in_one"] == ["loss"]
    scheduled = [ds.assign(gradient=("step_gradient", np.zeros(3))) for ds in (a, b)]
    assert compare(*scheduled).attrs["not_compared"] == ["gradient"]


def test_labels_are_compared_not_positions():
    a = simulate.with_last_motion([50], total_steps=60)
    b = simulate.with_last_motion([40], total_steps=60)
    told = compare(a.sel(step=slice(20, None)), b.sel(step=[10, 30, 41, 42]))
    assert (int(told.compared), int(told.equal_steps), int(told.step)) == (3, 1, 41)


def test_an_early_difference_is_found_without_reading_on():
    read = []

    def note(block, block_info=None):
        if block_info is not None:  # dask also asks for the meta, without a place
            read.append(block_info[0]["array-location"][0][0])
        return block

    a = simulate.with_last_motion([400], total_steps=400, chunks={"step": 10})[["W"]]
    b = simulate.with_last_motion([15], total_steps=400, chunks={"step": 10})[["W"]]
    a["W"] = (a.W.dims, a.W.data.map_blocks(note, dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16)))
    assert int(compare(a, b).step) == 16
    assert max(read) <= 30


def test_what_cannot_be_compared_is_refused():
    a = simulate.with_last_motion([3, 4], total_steps=5)
    for other, message in (
        (a.isel(token=[0]), r"token: 2 in the first and 1 in the second; .*the same tokens"),
        (a.isel(hidden=[0]), r"hidden: \d+ in the first and 1 in the second; .*one hidden size"),
        (a.assign_coords(token=[0, 5]), "position 1"),
        (a.assign_coords(step=a.step + 100), "no step label"),
        (a.assign(W=weights(a)), "W: uint16"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(a, other)
    with pytest.raises(ValueError, match="'nothing' is not an array"):
        compare(a, a, arrays=["nothing"])


def test_what_a_difference_does_not_have_is_none_in_plain_numbers():
    a = a_trajectory(np.zeros((9, 2, 2), np.uint16))
    b = a.copy(deep=True)
    b.loss[7] = 8.0
    told = plain(compare(a, b))
    assert told == {
        "equal": False, "compared": 9, "equal_steps": 7, "array": "loss", "step": 7, "token": None, "hidden": None,
        "value_a": 7.0, "value_b": 8.0, "hops": 1 << 21,
            "differs": True, "reason": "loss first differs at step 7",
    }  # fmt: skip
    told = plain(compare(a, a))
    assert [name for name, value in told.items() if value is None] == [
        "step", "token", "hidden", "value_a", "value_b", "hops",
    ]  # fmt: skip


def test_what_belongs_to_tokens_that_were_left_out_is_no_difference_of_the_others():
    a = simulate.with_last_motion([5, 9], total_steps=12, tokens=[10, 11]).assign_attrs(tokens=2)
    b = simulate.with_last_motion([5, 7], total_steps=12, tokens=[10, 11]).assign_attrs(tokens=2)
    told = compare(a.sel(token=[10]), b.sel(token=[10]))
    assert (bool(told.equal), told.attrs["of_the_whole_run"]) == (True, ["centroid"])
    assert (bool(compare(a, b).equal), compare(a, b).attrs["of_the_whole_run"]) == (False, [])
    with pytest.raises(ValueError, match="centroid is that of the whole run"):
        compare(a.sel(token=[10]), b.sel(token=[10]), arrays=["centroid"])
    told = compare(a.isel(hidden=[0]), b.isel(hidden=[0]), arrays=["W", "loss"])
    assert told.attrs["of_the_whole_run"] == ["displacement_l1", "displacement_l2", "displacement_linf"]


def test_the_order_of_the_dimensions_is_no_difference():
    ds = simulate.with_last_motion([5, 9], total_steps=12)
    assert compare(ds.transpose("hidden", "token", "step", ...), ds).equal


def test_weights_as_numbers_are_as_many_hops_apart_as_their_bits():
    a = simulate.with_last_motion([5, 9], total_steps=12)
    b = simulate.with_last_motion([5, 7], total_steps=12)
    numbers = [ds.assign(W=weights(ds)) for ds in (a, b)]
    assert int(compare(*numbers).hops) == int(compare(a, b).hops)
    assert apart(*numbers).equals(apart(a, b))


def test_between_two_lattices_no_hops_are_counted():
    a = simulate.with_last_motion([5, 9], total_steps=12)
    b = simulate.with_last_motion([5, 7], total_steps=12)
    one, other = (ds[["W"]].assign(W=weights(ds)) for ds in (a, b))
    del other.W.attrs["lattice"]
    for pair in ((one, other), (other, one)):
        told = plain(compare(*pair))
        assert (told["step"], told["token"], told["hops"]) == (8, 1, None)
        with pytest.raises(ValueError, match="hops would be of two lattices"):
            apart(*pair)
    assert int(compare(one, one.assign(W=one.W.copy(data=weights(b).data))).hops) == 1


def test_moves_that_lead_from_other_states_are_not_compared():
    whole = simulate.trajectory(np.ones((6, 2, 3), int))
    ds = whole[["W"]].isel(step=slice(None, None, 2))
    norms = np.full((4, 2), 3.5, np.float32)  # as a run has them that recorded every second step
    recorded = (("step", "token"), norms, {"resolution_steps": 2})
    thinned = ds.assign(displacement_l2=recorded, loss=whole.loss[::2])
    for pair in ((whole, thinned), (thinned, whole)):
        told = compare(*pair)
        assert (str(told.array.values), bool(told.differs), int(told.equal_steps)) == ("", False, 4)
        assert told.attrs["arrays"] == ["W", "loss"]
        assert told.attrs["moves_of_other_steps"] == ["displacement_l2"]
    assert str(compare(whole, thinned, arrays=["displacement_l2"]).array.values) == "displacement_l2"
    assert compare(whole, whole).attrs["moves_of_other_steps"] == []


def test_the_first_state_of_one_has_no_move_that_could_differ():
    whole = simulate.trajectory(np.ones((6, 2, 3), int))
    whole.loss.attrs["belongs_to"] = "move"
    late = whole.isel(step=slice(2, None)).load()
    for name in ("delta_W_prime", "displacement_l1", "displacement_l2", "displacement_linf", "loss"):
        late[name][0] = np.nan  # as in a run that begins there
    for pair in ((whole, late), (late, whole)):
        told = compare(*pair)
        assert (str(told.array.values), bool(told.differs), int(told.compared)) == ("", False, 5)
        assert "displacement_l2" in told.attrs["arrays"]
    late.displacement_l2[1, 1] = 9
    assert plain(compare(whole, late))["reason"] == "displacement_l2 first differs at step 3"


def test_the_first_state_of_two_parts_has_no_move_that_could_differ():
    one = simulate.trajectory([[[1, 0]], [[2, 0]], [[0, 1]], [[1, 1]]]).load()
    one.loss.attrs["belongs_to"] = "move"
    other = one.copy(deep=True)
    other.loss[3], other.delta_W_prime[3], other.displacement_l2[3] = np.nan, 7, 7  # of the way to step 3
    parts = [ds.isel(step=slice(3, None)) for ds in (one, other)]
    assert plain(compare(*parts))["reason"] == "equal, bit for bit"
    assert plain(compare(one, other))["reason"] == "loss first differs at step 3"
    other.displacement_l2[4] = 9
    assert plain(compare(*parts))["reason"] == "displacement_l2 first differs at step 4"
    alone = [ds.isel(step=[3]) for ds in (one, other)]
    assert compare(*alone).equal
    with pytest.raises(ValueError, match="loss: step 3, the only one that both have, is a first state"):
        compare(*alone, arrays=["loss"])


def test_without_an_array_in_common_nothing_is_called_equal():
    ds = simulate.with_last_motion([5, 9], total_steps=12)
    for a, b, arrays in ((ds[["W"]], ds.drop_vars("W"), None), (ds, ds, [])):
        with pytest.raises(ValueError, match="there is no array to compare; on `step` the first has W"):
            compare(a, b, arrays=arrays)


def test_two_that_meet_again_are_not_said_to_differ_from_there_on():
    a = a_trajectory(np.zeros((9, 2, 2), np.uint16))
    b = a.copy(deep=True)
    b.W[4, 1, 1] = 1  # and back again
    assert plain(compare(a, b))["reason"] == "W first differs at step 4"

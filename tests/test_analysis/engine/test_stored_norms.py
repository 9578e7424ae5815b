"""A stored norm that is no move of these states is refused, whatever part of an answer is looked at."""

import numpy as np
import pytest
import xarray as xr

import analysis
from analysis import simulate

QUESTIONS = {
    "last_motion": "last_motion",
    "freeze_times": "latest",
    "fimbulwinter": "global_last_motion",
    "stillness": "run_count",
    "token_stillness": "longest",
    "lifecycle": "exit",
    "census": "tokens",
    "cooling": "moving",
    "stratigraphy": "moved_within",
    "end_state": "gap",
    "verdicts": "p",
}
"""Of each question a number that needs no count of weights that are not finite."""


def joined():
    """Two runs one behind the other: the first state of the second is a move of the whole, with norms of NaN."""
    one = simulate.with_motion([[1, 0], [0, 0]])
    other = simulate.with_motion([[0, 1], [0, 0]], cells=2)
    other = other.assign_coords(step=other.step + 3)
    return xr.concat(
        [one, other], "step", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override"
    )


def of_floats(ds, dtype):
    """The same weights as numbers on the lattice of their own dtype; their norms are stored with them."""
    return ds.assign(W=analysis.weights(ds).astype(dtype).drop_attrs(deep=False))


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_number_of_an_answer_is_refused_like_the_whole_answer(question):
    answer = getattr(analysis, question)(joined())
    with pytest.raises(ValueError, match="a stored norm is NaN at step 3, token 0"):
        answer[QUESTIONS[question]].load()


def test_a_norm_that_no_move_has_is_refused_though_one_number_is_asked_for():
    ds = simulate.with_motion([[1, 0], [0, 0], [1, 1]])
    scaled = ds.assign(displacement_l2=ds.displacement_l2 / 8)
    with pytest.raises(ValueError, match=r"a stored norm is 0\.125 at step 1, token 0"):
        analysis.stillness(scaled).run_count.load()


def test_moved_refuses_the_norm_of_a_first_state_where_runs_were_joined():
    with pytest.raises(ValueError, match="a stored norm is NaN at step 3, token 0"):
        analysis.moved(joined()).load()
    assert analysis.moved(joined()[["W"]]).values.any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_joined_runs_of_float_weights_are_refused_too(dtype):
    ds = of_floats(joined(), dtype)
    with pytest.raises(ValueError, match="a stored norm is NaN at step 3, token 0"):
        analysis.last_motion(ds).last_motion.load()


def test_a_weight_that_is_infinite_on_the_lattice_of_its_moves_has_a_norm_of_nan():
    largest = np.finfo(np.float32).max
    W = xr.DataArray(np.array([[[1]], [[largest]], [[largest]]], np.float32), dims=("step", "token", "hidden"))
    ds = xr.Dataset({"W": W.assign_attrs(lattice="bfloat16")})
    norm = np.array([[np.nan], [np.inf], [np.nan]], np.float32)
    stored = ds.assign(displacement_l2=(("step", "token"), norm))
    assert analysis.last_motion(stored).last_motion.values.tolist() == [1]
    assert analysis.last_motion(ds).last_motion.values.tolist() == [1]


def test_weights_that_are_not_finite_are_no_foreign_norm():
    ds = simulate.with_motion([[1, 0], [0, 0], [0, 0]]).load()
    ds.W[2:, 1, 0] = 0x7FC0
    whole = ds[["W"]].assign(displacement_l2=ds.displacement_l2.where((ds.step < 2) | (ds.token == 0)))
    assert analysis.last_motion(whole).last_motion.values.tolist() == [1, -1]
    assert analysis.last_motion(whole).nonfinite.load().item() == 2


def test_states_around_a_norm_of_nan_are_found_across_the_borders_of_blocks():
    ds = joined().chunk({"step": 1, "token": 1})
    with pytest.raises(ValueError, match="a stored norm is NaN at step 3, token 1"):
        analysis.last_motion(ds.isel(token=[1])).last_motion.load()

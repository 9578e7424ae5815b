"""Why a token moved: the measured update beside the computed one, from what was recorded."""

import numpy as np
import pytest
import torch
import xarray as xr
from optimizer_steps import moments_recorded, take_step

import analysis
from analysis import simulate


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_computed_update_moves_exactly_what_moved(dtype):
    ds, expected = moments_recorded(dtype=dtype)
    for token in (0, 5, 11):
        for step in (1, 2, 9):
            told = analysis.why(ds, token, step)
            np.testing.assert_array_equal(told.moved, told.predicted)
            np.testing.assert_array_equal(
                told.moved, ds.W.sel(token=token, step=step) != ds.W.sel(token=token, step=step - 1)
            )
            assert float(told.push.max()) == pytest.approx(expected[step - 1, token], rel=0.01)
            assert ("push_before" in told) == (step > 1)
            np.testing.assert_allclose(told.gradient_part + told.momentum_part, told.computed, rtol=1e-5, atol=1e-12)
            assert "Exactly those moved that passed 1." in told.attrs["sentence"]


def test_without_a_gradient_before_all_of_the_first_update_is_the_gradients():
    ds, _ = moments_recorded()
    told = analysis.why(ds, 3, 1)
    np.testing.assert_array_equal(told.momentum_part, 0)
    assert "100% is the gradient's part" in told.attrs["sentence"]


def test_a_recorded_gradient_tells_the_parts():
    ds, _ = moments_recorded()
    usual = analysis.why(ds, 3, 4)
    m = analysis.lattice.bits_to_float32(ds.adam_m.values)
    gradient = np.full(m.shape, np.nan, np.float32)
    gradient[1:] = (m[1:] - 0.9 * m[:-1]) / (1 - 0.9)
    told = analysis.why(ds.assign(gradient=(ds.W.dims, gradient)), 3, 4)
    np.testing.assert_allclose(told.gradient_part, usual.gradient_part, rtol=1e-2, atol=1e-7)
    np.testing.assert_array_equal(told.gradient, gradient[4, 3])


def test_what_was_recorded_now_and_then_is_found_where_it_was():
    ds, _ = moments_recorded()
    sparse = xr.DataArray(
        np.ones((2, *ds.W.shape[1:]), np.float32), dims=("step_gradient", "token", "hidden"),
        coords={"step_gradient": [0, 5]},
    )  # fmt: skip
    ds = ds.assign(gradient=sparse)
    assert "gradient" in analysis.why(ds, 0, 5)
    assert "gradient" not in analysis.why(ds, 0, 4)


def test_weights_alone_tell_what_moved_and_a_recorded_push_how_near_it_came():
    ds = simulate.with_pushes([[0.5, 0.25], [1.5, 0.25]])
    told = analysis.why(ds, 0, 2)
    assert (float(told.token_push), float(told.token_push_before)) == (1.5, 0.5)
    assert "computed" not in told
    assert told.attrs["sentence"].endswith("The optimizer's strongest push on the token was 1.5 half cells.")
    assert analysis.why(ds, 1, 2).attrs["sentence"].startswith("Update 2 moved 0 of ")


def test_weights_that_something_else_changed_are_told():
    ds, _ = moments_recorded()
    bits = ds.W.values.copy()
    bits[4, 3] = bits[3, 3]
    told = analysis.why(ds.assign(W=(ds.W.dims, bits, ds.W.attrs)), 3, 4)
    assert " did otherwise than their push says" in told.attrs["sentence"]


def test_nothing_is_computed_of_a_run_with_which_another_optimizer_went_on():
    ds, _ = moments_recorded()
    told = analysis.why(ds.assign_attrs(no_push="of the steps behind 4 its eps is 0.001 now, and was 1e-08"), 3, 4)
    assert "computed" not in told
    assert "push" not in told.attrs["sentence"]


def test_nothing_is_computed_where_the_recorder_knew_no_push():
    ds, expected = moments_recorded()
    recorded = np.vstack([np.full((1, expected.shape[1]), np.nan), expected]).astype(np.float32)
    recorded[5:] = np.nan  # the optimizer's numbers were changed by then
    ds = ds.assign(push=(("step", "token"), recorded))
    assert "computed" in analysis.why(ds, 3, 4)
    assert "computed" not in analysis.why(ds, 3, 5)
    assert "push_before" not in analysis.why(ds, 3, 6)


@pytest.mark.parametrize(
    ("token", "step", "words"),
    [(99, 2, "token 99 is not among the 12"), (0, 99, "step 99 is not among the 10"), (0, 0, "step 0 is the first")],
)
def test_what_is_not_there_is_refused(token, step, words):
    ds, _ = moments_recorded()
    with pytest.raises(ValueError, match=words):
        analysis.why(ds, token, step)


def test_weights_as_numbers_are_measured_in_the_cells_of_the_bits():
    ds = simulate.trajectory([[[3, 0]], [[0, 1]]])
    usual, numbers = analysis.why(ds, 0, 1), analysis.why(ds.assign(W=analysis.weights(ds)), 0, 1)
    np.testing.assert_array_equal(numbers.displacement, usual.displacement)
    np.testing.assert_array_equal(numbers.crossed, usual.crossed)
    assert numbers.attrs["sentence"] == usual.attrs["sentence"]


def test_the_order_of_the_dimensions_is_no_matter():
    ds, _ = moments_recorded()
    turned = ds.transpose("hidden", "token", "step", ...)
    xr.testing.assert_identical(analysis.why(turned, 3, 4), analysis.why(ds, 3, 4))


def test_a_step_whose_state_before_was_not_selected_says_so():
    ds = simulate.trajectory([[[3, 0]], [[0, 1]], [[0, 1]], [[0, 1]]])
    with pytest.raises(ValueError, match=r"step 2 is among the 3 here, but not step 1, from which its update leads"):
        analysis.why(ds.isel(step=[0, 2, 4]), 0, 2)
    with pytest.raises(ValueError, match="the Dataset has no W"):
        analysis.why(ds.drop_vars("W"), 0, 2)
    with pytest.raises(ValueError, match="token 0 is not among the 0 here"):
        analysis.why(ds.isel(token=[]), 0, 2)


def test_a_weight_that_became_nan_is_named_and_not_measured_in_cells():
    values = np.ones((3, 1, 2), np.float32)
    values[2, 0] = np.nan, 2
    values[1:, 0, 0] = np.nan, np.nan
    ds = xr.Dataset({"W": (("step", "token", "hidden"), values)})
    said = [analysis.why(ds, 0, step).attrs["sentence"] for step in (1, 2)]
    assert said[0] == "Update 1 moved 0 of 2 weights of token 0. 1 of them became NaN or infinite."
    moved = "Update 2 moved 1 of 2 weights of token 0, by at most 8.389e+06 cells."
    assert said[1] == f"{moved} 1 of them is NaN or infinite."


@pytest.mark.parametrize("dims", [[1], list(range(64))], ids=["one weight", "all weights"])
def test_a_weight_that_the_optimizer_made_nan_is_not_said_to_be_written_by_something_else(dims):
    ds, _ = moments_recorded()
    for name in ("W", "adam_m", "adam_v"):
        values = ds[name].values.copy()
        values[4:, 3, dims] = 0x7FC0
        ds[name] = ds[name].copy(data=values)
    for step in (4, 5):
        said = analysis.why(ds, 3, step).attrs["sentence"]
        assert "something else" not in said
        assert "nan" not in said
        assert ("Exactly those moved that passed 1." in said) == (len(dims) == 1)


def test_a_push_that_is_not_known_is_not_told_of():
    told = analysis.why(simulate.with_pushes([[0.5], [np.nan], [0.5]]), token=0, step=2)
    assert told.attrs["sentence"] == "Update 2 moved 0 of 4 weights of token 0."


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_part_of_a_recorded_gradient_is_that_of_what_went_into_the_moment(kind, maximize):
    weight = torch.nn.Parameter(torch.linspace(0.5, 1, 64).reshape(1, 64).bfloat16())
    decay = 0.5 if kind is torch.optim.Adam else 0
    optimizer = kind([weight], lr=1e-2, betas=(0.9, 0.99), weight_decay=decay, maximize=maximize)
    seen = []
    for step in range(6):
        weight.grad = torch.linspace(1, 2 + step, 64).reshape(1, 64).bfloat16()
        seen.append(take_step(optimizer, weight))
    arrays = {"W": [seen[0].before, *(each.after for each in seen)]}
    for name, part in {"adam_m": "m", "adam_v": "v", "gradient": "gradient"}.items():
        arrays[name] = [np.zeros_like(seen[0].m), *(getattr(each, part) for each in seen)]
    numbers = dict(seen[0].numbers)
    rate = numbers.pop("lr")
    del numbers["optimizer_step"]
    ds = xr.Dataset(
        {name: (("step", "token", "hidden"), np.stack(rows), {"bits_of": "bfloat16"}) for name, rows in arrays.items()}
        | {"learning_rate": ("step", np.full(7, rate))},
        attrs={"optimizer_update": numbers},
    )
    told, by_moments = analysis.why(ds, 0, 5), analysis.why(ds.drop_vars("gradient"), 0, 5)
    for part in ("gradient_part", "momentum_part"):  # moments are rounded to bfloat16, gradients are not rounded again
        np.testing.assert_allclose(told[part], by_moments[part], rtol=0.06)


RENUMBERED = {
    "other labels": lambda thin: thin.assign_coords(step=range(thin.sizes["step"])),
    "labels of others": lambda thin: thin.assign_coords(step=("step", np.arange(3), thin.step.attrs)),
}


@pytest.mark.parametrize("renumbered", RENUMBERED.values(), ids=RENUMBERED)
def test_of_states_that_were_numbered_anew_nothing_is_told_of_the_update_that_led_to_the_second(renumbered):
    """Its push and gradient are those of the last update between the two, and were told as of all of them."""
    ds = simulate.with_pushes([[0.5], [0.9], [1.5], [0.5], [0.5]]).assign_attrs(run="runs/mine")
    for step, moved in ((1, False), (2, True)):  # still at both updates; moved at the first of two
        told = analysis.why(renumbered(ds.isel(step=[0, 2, 4])), 0, step)
        assert (bool(told.moved.any()), "token_push" in told) == (moved, False)
        assert told.attrs["sentence"].endswith("not those before and after one recorded update.")
        assert "push" not in told.attrs["sentence"]


@pytest.mark.parametrize("part", [{"step": slice(1, 4)}, {"hidden": [0]}, {"step": [1, 2, 4]}], ids=str)
def test_of_a_part_of_a_run_the_update_is_told(part):
    ds = simulate.with_pushes([[0.5], [1.5], [0.5], [1.5], [0.5]])
    assert float(analysis.why(ds.assign_attrs(hidden=ds.sizes["hidden"]).isel(part), 0, 2).token_push) == 1.5


def test_headroom_is_not_told_of_states_that_were_numbered_anew():
    """The push of a step that was left out may be the largest of them."""
    ds = simulate.with_pushes([[0.5], [0.9], [0.5], [0.9], [0.5]]).assign_attrs(run="runs/mine")
    thin = ds.isel(step=[0, 1, 3, 5])
    with pytest.raises(ValueError, match="headroom looks at the push of every step, and the labels"):
        analysis.headroom(thin.assign_coords(step=range(4)))


def test_labels_may_be_taken_from_a_dataset_or_an_answer():
    ds = simulate.with_last_motion([3, 5], total_steps=6, tokens=[5, 9])
    last = analysis.last_motion(ds).last_motion[1]
    told = analysis.why(ds, ds.token[1], last)
    assert told.equals(analysis.why(ds, 9, 5))
    assert (told.attrs["token"], told.attrs["step"]) == (9, 5)
    assert all(type(told.attrs[name]) is int for name in ("token", "step"))
    with pytest.raises(ValueError, match=r"step must be one label, a whole number, not \[1 2\]"):
        analysis.why(ds, 9, ds.step[1:3])
    with pytest.raises(ValueError, match="token must be one label, a whole number"):
        analysis.why(ds, 9.5, 3)


def moved_by_ties(first, push):
    """A run of two weights, of which Adam adds so much of half a cell of 2^-7 to each in one update."""
    weight = torch.nn.Parameter(torch.tensor([first]).bfloat16())
    before = weight.detach().clone()
    optimizer = torch.optim.Adam([weight], lr=push * 2**-8, betas=(0.0, 0.0), eps=0)
    weight.grad = torch.tensor([[-1.0, -1.0]]).bfloat16()
    optimizer.step()
    kept = optimizer.state[weight]
    rows = {"W": (before, weight.detach()), "adam_m": (before, kept["exp_avg"]), "adam_v": (before, kept["exp_avg_sq"])}
    arrays = {
        name: (("step", "token", "hidden"), np.stack([state.view(torch.uint16).numpy() for state in states]))
        for name, states in rows.items()
    }
    update = {"variant": "adam", "beta1": 0.0, "beta2": 0.0, "eps": 0.0, "exact": True}
    scalars = {"learning_rate": ("step", [np.nan, push * 2**-8]), "optimizer_step": ("step", [np.nan, 1.0])}
    return xr.Dataset(arrays | scalars, {"step": ("step", [0, 1], {"long_name": "step"})}, {"optimizer_update": update})


def test_a_weight_that_moved_by_a_tie_is_not_said_to_have_passed_1():
    told = analysis.why(moved_by_ties([1 + 2**-7, 1.0], push=1.0), 0, 1)
    assert told.moved.values.tolist() == told.predicted.values.tolist() == [True, False]
    assert told.push.values.tolist() == [1, 1]
    assert "strongest push on them was 1 half cell. Exactly those moved that passed 1, or " in told.attrs["sentence"]


@pytest.mark.parametrize(("push", "text", "moves"), [(1 - 2**-12, "0.9998", 0), (1 + 2**-12, "1.0002", 2)])
def test_a_push_beside_1_is_told_with_the_digits_that_tell_it_from_1(push, text, moves):
    said = analysis.why(moved_by_ties([1 + 2**-7, 1.0], push=push), 0, 1).attrs["sentence"]
    assert said.startswith(f"Update 1 moved {moves} of 2 weights")
    assert f"was {text} half cells. Exactly those moved that passed 1." in said

"""What every question must stand: weights that are no numbers, labels of any kind, what xarray makes of selections."""

import dask
import numpy as np
import pytest
import xarray as xr
from analysis_loops import LOOPS

import analysis
from analysis import simulate
from analysis.engine import inputs
from analysis.engine.selections import DERIVED
from analysis.engine.trajectory import trajectory_of

ASKED_OF_ONE = sorted(LOOPS)
OF_STEPS = [name for name in ASKED_OF_ONE if name != "weights"]
ALL = {name: getattr(analysis, name) for name in OF_STEPS} | {"compare": lambda ds: analysis.compare(ds, ds)}
STRANGE = [0x0000, 0x8000, 0x3F80, 0x7F80, 0xFF80, 0x7FC0, 0xFFAB, 0x7F7F, 0xFF7F]


def stored(W):
    """With its moves stored, and a centroid that has infinities."""
    ds = xr.Dataset({"W": (("step", "token", "hidden"), W)})
    moves = {name: array.compute() for name, array in inputs.arrays(trajectory_of(ds), DERIVED).items()}
    centroid = (("step", "hidden"), analysis.weights(ds).values[:, 0])
    return ds.assign(moves | {"centroid": centroid}).assign_attrs(tokens=4)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("scheduler", ["synchronous", pytest.param("threads", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ASKED_OF_ONE)
def test_no_weight_makes_a_question_warn(name, scheduler):
    rng = np.random.default_rng(7)
    bits = rng.choice(np.array(STRANGE, np.uint16), (20, 4, 3))
    bits[rng.random(20) < 0.4] = bits[0]
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    half = rng.choice(np.array([0, 0x3C00, 0x7C00, 0xFC00, 0x7E00, 0xFDAB, 0x7BFF], np.uint16), bits.shape)
    with dask.config.set(scheduler=scheduler):
        for W in (bits, wide, half.view(np.float16)):
            ds = stored(W)
            for kept in (ds, ds[["W"]], ds[["W"]].chunk(step=3, token=2)):
                getattr(analysis, name)(kept).compute()


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", ALL)
def test_a_single_label_is_refused_with_the_selection_to_make(name):
    ds = simulate.with_last_motion([3, 5], total_steps=6, tokens=[5, 9])
    for dim in ("token", "step"):
        with pytest.raises(ValueError, match=rf"{dim} was selected .* list instead: ds.sel\({dim}=\[5\]\)"):
            ALL[name](ds.sel({dim: 5}))
        with pytest.raises(ValueError, match=rf"no dimension '{dim}'; .* list instead: ds.isel\({dim}="):
            ALL[name](ds.drop_vars(dim).isel({dim: 0}))
        ALL[name](ds.sel({dim: [5]}))


def test_weights_of_a_single_label_are_those_of_the_list():
    ds = simulate.with_last_motion([3, 5], total_steps=6, tokens=[5, 9])
    for dim in ("token", "step"):
        assert analysis.weights(ds.sel({dim: 5})).equals(analysis.weights(ds.sel({dim: [5]})).squeeze(dim))


@pytest.mark.parametrize("name", ALL)
def test_labels_that_are_no_whole_numbers_are_refused(name):
    ds = simulate.with_last_motion([1, 2], total_steps=2)
    for dim, size in ds[["W"]].drop_dims("hidden").sizes.items():
        with pytest.raises(ValueError, match=f"labels of '{dim}' must be whole numbers, found 0.5 at position 1"):
            ALL[name](ds.assign_coords({dim: np.arange(size) / 2}))
        with pytest.raises(ValueError, match=f"labels of '{dim}' must be whole numbers, found nan"):
            ALL[name](ds.assign_coords({dim: np.full(size, np.nan)}))
        with pytest.raises(TypeError, match=f"labels of '{dim}' must be whole numbers, not of dtype"):
            ALL[name](ds.assign_coords({dim: np.array(list("abc")[:size])}))


def test_whole_numbers_as_floats_are_labels():
    ds = simulate.with_last_motion([1, 2], total_steps=2)
    told = analysis.last_motion(ds.assign_coords(step=[4.0, 5.0, 6.0]))
    assert told.last_motion.values.tolist() == [5, 6]


def step_from(ds, first):
    return ds.isel(step=slice(first, None))


MADE_NUMBERS = {
    "where, drop=True": lambda ds: ds.where(ds.token > 5, drop=True),
    "where": lambda ds: ds.where(ds.token > 5),
    "where on steps": lambda ds: ds.where(ds.step > 2, drop=True),
    "reindex": lambda ds: ds.reindex(token=[5, 6, 9]),
    "concat": lambda ds: xr.concat([ds[["W"]], step_from(ds[["W"]].isel(token=[1]), 2)], "token", join="outer"),
    "align": lambda ds: xr.align(ds, step_from(ds, 1).isel(token=[0]), join="outer")[1],
    "merge": lambda ds: xr.merge([ds[["loss"]], step_from(ds[["W"]], 2)], join="outer"),
    "shift": lambda ds: ds.shift(step=1),
    "rolling": lambda ds: ds[["W"]].rolling(step=2).mean(),
    "astype": lambda ds: ds.assign(W=ds.W.astype(float)),
    "fillna and back": lambda ds: ds.where(ds.token > 5).fillna(0).astype(np.int64),
    "another array": lambda ds: ds.assign(adam_m=ds.W.where(ds.token > 5)),
}  # fmt: skip


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", [*ALL, "weights"])
def test_bits_that_were_made_numbers_are_refused_with_what_to_do_instead(name):
    ds = simulate.with_last_motion([3, 5], total_steps=6, tokens=[5, 9])
    for how in MADE_NUMBERS.values():
        with pytest.raises(ValueError, match=r"(W|adam_m): by its attribute bits_of .* dtype is .* instead of where"):
            (ALL | {"weights": analysis.weights})[name](how(ds))


@pytest.mark.parametrize("name", [*OF_STEPS, "weights"])
def test_bits_that_were_made_numbers_are_refused_where_the_attribute_is_lost_too(name):
    ds = simulate.with_last_motion([3, 5], total_steps=6, tokens=[5, 9])[["W"]]
    bare = ds.assign(W=(ds.W.dims, ds.W.where(ds.token > 5).data))
    with pytest.raises(ValueError, match="nothing but whole numbers such as 163"):
        getattr(analysis, name)(bare).compute()
    with pytest.raises(TypeError, match=r"int64 have no lattice here.*astype\('uint16'\)"):
        getattr(analysis, name)(ds.assign(W=(ds.W.dims, ds.W.data.astype(np.int64)))).compute()


def test_weights_that_are_whole_numbers_are_weights():
    W = np.array([0, -0.0, 1, 2, 255, 8191, np.nan, np.inf], np.float32).reshape(1, 2, 4).repeat(3, axis=0)
    for few in (W, -W * 3, W + 1e5, W + np.float32(8192.5)):
        ds = xr.Dataset({"W": (("step", "token", "hidden"), few)})
        assert np.array_equal(analysis.weights(ds).values, few, equal_nan=True)


def test_bits_of_other_numbers_are_refused():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    ds.W.attrs["bits_of"] = "float16"
    with pytest.raises(ValueError, match="W holds the bits of float16 numbers; expected those of bfloat16"):
        analysis.last_motion(ds)


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", OF_STEPS)
def test_what_is_selected_or_joined_as_refused_before_is_answered(name):
    whole = simulate.with_last_motion([3, 5, 2], total_steps=6, tokens=[5, 9, 11]).drop_vars(["centroid", "dead_mask"])
    expected = ALL[name](whole.sel(token=[9, 11])).compute()
    joined = xr.concat([whole.sel(token=[9]), whole.sel(token=[11])], "token", data_vars="minimal", join="exact")
    for ds in (whole.sel(token=whole.token > 5), whole.isel(token=whole.token.values > 5), joined):
        assert ALL[name](ds).compute().equals(expected)


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", OF_STEPS)
def test_the_numbers_of_weights_stand_for_their_bits(name):
    ds = simulate.with_phases([(1, 2, 4), (2, 3, 5)], total_steps=6)[["W"]]
    found, expected = ALL[name](ds.assign(W=analysis.weights(ds))), ALL[name](ds)
    assert found.compute().equals(expected.compute())


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", ALL)
def test_float16_weights_as_float32_numbers_are_refused_since_their_moves_would_be_of_another_lattice(name):
    half = np.float16([[[1.0, 2.0]], [[1.0009765625, 2.0]], [[1.0009765625, 2.0]]])  # one cell, 8,192 of float32
    ds = xr.Dataset({"W": (("step", "token", "hidden"), half)})
    norm = (("step", "token"), np.float32([[np.nan], [1], [0]]), {"lattice": "float16"})
    for wide in (ds.assign(W=analysis.weights(ds)), ds.assign(W=ds.W.astype("float32"), displacement_l2=norm)):
        with pytest.raises(ValueError, match=r"W is float32, but .* lattice of float16.*ds.W.astype\('float16'\)"):
            ALL[name](wide)
        back = wide.assign(W=wide.W.astype("float16"))
        assert ALL[name](back).compute().equals(ALL[name](ds).compute())


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", ALL)
def test_two_trajectories_along_a_new_dimension_are_refused(name):
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    both = xr.concat([ds, ds], "run", data_vars="all")
    with pytest.raises(ValueError, match=r"has a dimension 'run' beside step, .*select one, as in ds.isel\(run=0\)"):
        ALL[name](both)
    assert ALL[name](both.isel(run=0)).compute().equals(ALL[name](ds).compute())


@pytest.mark.parametrize("name", ALL)
def test_a_single_hidden_dimension_is_refused_with_the_selection_to_make(name):
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    with pytest.raises(ValueError, match=r"W has no dimension 'hidden'; .* list instead: ds.isel\(hidden="):
        ALL[name](ds.isel(hidden=0))


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", OF_STEPS)
def test_of_some_hidden_dimensions_the_moves_are_theirs(name):
    cells = np.random.default_rng(2).integers(-4, 3, (12, 3, 4)).clip(0)
    ds = simulate.trajectory(cells)
    for some in ([1, 2], [3]):
        part = ds.isel(hidden=some)
        expected = ALL[name](part[["W"]]).compute()
        assert ALL[name](part).compute().equals(expected)
        if name in ("last_motion", "moved", "census"):
            assert ALL[name](part.drop_vars("W")).compute().equals(expected)
            with pytest.raises(ValueError, match=f"is that of 4 hidden dimensions, here are {len(some)}"):
                ALL[name](part.drop_vars(["W", "delta_W_prime"]))


@pytest.mark.parametrize("left_out", [[], ["W"]])
def test_of_some_hidden_dimensions_of_a_run_that_plain_xarray_opened_too(tmp_path, left_out):
    cells = np.random.default_rng(2).integers(-4, 3, (12, 3, 4)).clip(0)
    ds = simulate.trajectory(cells).drop_attrs()
    ds.chunk(step=5, token=2).to_zarr(tmp_path / "plain.zarr", zarr_format=2)
    part = xr.open_zarr(tmp_path / "plain.zarr").drop_vars(left_out).isel(hidden=[1, 2])
    assert "hidden" not in part.attrs
    expected = analysis.lifecycle(ds[["W"]].isel(hidden=[1, 2])).compute()
    assert not expected.equals(analysis.lifecycle(ds).compute())
    assert analysis.lifecycle(part).compute().equals(expected)
    if not left_out:
        pushes = part.assign(push=(("step", "token"), np.ones((13, 3), np.float32)))
        with pytest.raises(ValueError, match="4 hidden dimensions, here are 2"):
            analysis.push(pushes)


def test_a_resample_of_tokens_has_a_centroid_of_its_own():
    ds = simulate.with_last_motion([5, 3, 4], total_steps=6).assign_attrs(tokens=3)
    again = ds.isel(token=[2, 2, 0])
    assert analysis.drift(again).compute().equals(analysis.drift(again.drop_vars("centroid")).compute())
    with pytest.raises(ValueError, match="that of 3 tokens, here are 3, or some of them twice"):
        analysis.drift(again.drop_vars("W"))


def test_a_stored_norm_that_is_nan_between_finite_weights_is_refused():
    ds = simulate.with_motion([[1, 0]] * 9)
    parts = [ds.isel(step=slice(0, 5)), ds.isel(step=slice(5, None))]
    parts[1].displacement_l2[0] = np.nan  # as the first state of a run has it
    joined = xr.concat(parts, "step", data_vars="minimal").chunk(step=4)
    with pytest.raises(ValueError, match=r"NaN at step 5, token 0, but the weights before and after are finite"):
        analysis.last_motion(joined).compute()
    assert analysis.last_motion(joined[["W"]]).last_motion.values.tolist() == [9, -1]


@pytest.mark.parametrize("name", ALL)
def test_labels_of_steps_that_do_not_ascend_or_are_below_0_are_refused(name):
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    for steps, message in (
        ([0, 1, 2, 2, 3, 4, 5], r"step 2 stands at positions 2 and 3: .* ds.drop_duplicates\('step'\)"),
        ([6, 5, 4, 3, 2, 1, 0], r"step 5 follows step 6 at position 1, .* ds.sortby\('step'\)"),
        ([-3, -2, -1, 0, 1, 2, 3], "step -3: labels of steps must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            ALL[name](ds.assign_coords(step=steps))


COMPUTED = {
    "a difference of steps": lambda ds: ds.diff("step"),
    "a rolling mean": lambda ds: ds.rolling(step=3, min_periods=1).mean(),
    "a mean of steps": lambda ds: ds.coarsen(step=3, boundary="trim").mean().assign_coords(step=range(3)),
    "a share of the largest": lambda ds: ds / ds.max() / 4,
    "offsets from the mean": lambda ds: ds - ds.mean("step"),
}


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", ["moved", "last_motion", "freeze_times", "stillness", "token_stillness", "cooling"])
@pytest.mark.parametrize("how", COMPUTED)
def test_norms_that_no_move_has_are_refused(name, how):
    ds = simulate.with_motion([[1, 0], [0, 1], [0, 0], [1, 1], [0, 0], [0, 0], [1, 0], [0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"a stored norm is \S+ at step \d, token \d, but no move has a norm between"):
        getattr(analysis, name)(COMPUTED[how](ds[["displacement_l2"]])).compute()


def test_norms_of_half_a_cell_are_those_of_moves():
    W = np.array([[0x3F80], [0x3F7F], [0x3F7F]], np.uint16)[:, None]
    ds = stored(W)
    assert ds.displacement_l1.values[1:].tolist() == [[0.5], [0]]
    assert analysis.last_motion(ds).last_motion.values.tolist() == [1]


def test_a_centroid_of_some_steps_only_is_made_of_the_weights():
    ds = analysis.simulate.with_last_motion([3, 5], total_steps=6).load()
    part = ds.centroid[::2].rename(step="step_centroid")
    some = ds.drop_vars("centroid").assign(centroid=part)
    xr.testing.assert_identical(analysis.drift(some).load(), analysis.drift(ds.drop_vars("centroid")).load())
    assert int(analysis.divergence(some).nonfinite) == 0


def test_weights_of_some_steps_only_are_refused_with_what_to_ask_instead():
    ds = analysis.simulate.with_last_motion([3, 5], total_steps=6)
    some = ds[["W"]].isel(step=slice(None, None, 2)).rename(step="step_W").assign(loss=ds.loss)
    with pytest.raises(ValueError, match=r"those of step_W; ask of .*: ds\[\['W'\]\]\.rename\(step_W='step'\)"):
        analysis.last_motion(some)
    assert analysis.last_motion(some[["W"]].rename(step_W="step")).last_motion.values.tolist() == [4, 6]


def test_a_dimension_with_another_name_is_told_how_to_name_it_back():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    with pytest.raises(
        ValueError, match=r"no dimension 'step'; .*if it is 'time', name it back: ds.rename\(time='step"
    ):
        analysis.last_motion(ds.rename(step="time"))


def test_several_runs_are_told_how_each_is_asked():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    for several in ({"a": ds}, xr.DataTree.from_dict({"a": ds})):
        with pytest.raises(TypeError, match=r"of several; ask of each: analysis.over\(runs, function\)"):
            analysis.last_motion(several)


def test_steps_and_quantiles_are_lists():
    ds = simulate.with_pushes([[0.5, 0.25], [1.5, 0.25]])
    for steps in (1, slice(0, 2), []):
        with pytest.raises(ValueError, match=r"steps must be labels in a list, as in steps=\[0, 100\]"):
            analysis.snapshots(ds, steps=steps)
    for question in (analysis.freeze_times, analysis.cooling, analysis.headroom):
        with pytest.raises(TypeError, match=r"quantiles must be a list, as in quantiles=\[0.5\], not 0.5"):
            question(ds, quantiles=0.5)
    assert analysis.snapshots(ds, steps=np.array([0, 1])).sizes["step"] == 2


def test_norms_of_hidden_dimensions_that_were_left_out_are_not_taken_though_the_attributes_are_lost():
    ds = simulate.trajectory([[[0, 3]], [[1, 0]], [[0, 2]]])
    first = ds.isel(hidden=[0])
    for lost in (first.drop_attrs(deep=False), first.map(lambda array: array, keep_attrs=False)):
        assert analysis.moved(lost).values.ravel().tolist() == [False, False, True, False]

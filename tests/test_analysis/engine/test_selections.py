"""What every question must stand: weights that are no numbers, single labels, labels that are no whole numbers."""

import dask
import numpy as np
import pytest
import xarray as xr

import analysis
from analysis import simulate
from analysis.engine import inputs

NO_QUESTIONS = {"Answer", "Block", "Reduction", "Span", "compare", "conclude", "plain", "reduce", "sentence", "verdict"}
ASKED_OF_ONE = [name for name in analysis.__all__ if callable(getattr(analysis, name)) and name not in NO_QUESTIONS]
OF_STEPS = [name for name in ASKED_OF_ONE if name != "weights"]
ALL = {name: getattr(analysis, name) for name in OF_STEPS} | {"compare": lambda ds: analysis.compare(ds, ds)}
STRANGE = [0x0000, 0x8000, 0x3F80, 0x7F80, 0xFF80, 0x7FC0, 0xFFAB, 0x7F7F, 0xFF7F]


def stored(W):
    """With its moves stored, and a centroid that has infinities."""
    ds = xr.Dataset({"W": (("step", "token", "hidden"), W)})
    moves = {name: array.compute() for name, array in inputs.arrays(ds, inputs.DERIVED).items()}
    centroid = (("step", "hidden"), analysis.weights(ds).values[:, 0])
    return ds.assign(moves | {"centroid": centroid}).assign_attrs(tokens=4)


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

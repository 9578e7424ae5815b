"""The engine: one pass, in order, lazy, the same on every scheduler, and no task that gathers the trajectory."""

import threading
from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from analysis_oracles import Trajectory, compositions, cut, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis.engine import inputs
from analysis.engine.reduction import Answer, Reduction, reduce
from analysis.engine.taskgraph import FAN_IN
from analysis.engine.trajectory import trajectory_of


class Counted:
    """An array that counts how often each part of it is read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.reads, self.lock = Counter(), threading.Lock()

    def __getitem__(self, index):
        if any(part != slice(0, 0) for part in index):  # dask looks at nothing to learn the type
            with self.lock:
                self.reads[str(index)] += 1
        return self.values[index]


def counted(ds, chunks):
    """A Dataset whose arrays count, and the counters by name."""
    counters = {name: Counted(array.values) for name, array in ds.data_vars.items()}
    variables = {}
    for name, array in ds.data_vars.items():
        wanted = tuple(chunks.get(dim, -1) for dim in array.dims)
        variables[name] = (
            array.dims,
            da.from_array(counters[name], chunks=wanted, asarray=True, name=f"counted-{name}"),
        )
    return xr.Dataset(variables, ds.coords, ds.attrs), counters


def a_walk(steps=50, tokens=12, hidden=3):
    rng = np.random.default_rng(3)
    flips = (rng.random((steps, tokens, 1)) < 0.2) * rng.integers(-1, 2, (steps, tokens, hidden))
    return Trajectory((0x3FC0 + np.cumsum(flips, axis=0)).astype(np.uint16))


# A question whose partials are not numbers that commute: they remember the order in which they were combined.


def remember(block):
    return {"path": [(int(step), int(token)) for step in block.steps for token in block.tokens]}


def append(one, other):
    return {"path": one["path"] + other["path"]}


def steps_in_order(partial, span):
    steps = [step for step, _ in partial["path"]]
    return {"in_order": [steps == sorted(steps) and span.last == max(steps)]}


def tokens_in_order(partial, _span):
    return {"in_order": [[token for _, token in partial["path"]] == sorted({t for _, t in partial["path"]})]}


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_partials_are_combined_in_order(data):
    shape = (data.draw(st.integers(1, 30)), data.draw(st.integers(1, 20)))
    array = da.zeros(shape, chunks=(data.draw(compositions(shape[0])), data.draw(compositions(shape[1]))))
    ds = xr.Dataset({"displacement_l2": (("step", "token"), array)})
    gives = {"in_order": Answer(("token",), "bool", "")}
    one_column = ds.isel(token=slice(0, 1))
    question = Reduction("steps", ("displacement_l2",), "token", remember, append, gives, finish=steps_in_order)
    assert reduce(one_column, question).in_order.all()
    one_row, gives = ds.isel(step=slice(0, 1)), {"in_order": Answer(("step",), "bool", "")}
    question = Reduction("tokens", ("displacement_l2",), "step", remember, append, gives, finish=tokens_in_order)
    assert reduce(one_row, question).in_order.all()


def test_questions_asked_together_read_every_chunk_once():
    ds, counters = counted(a_walk().dataset(), {"step": 7, "token": 5})
    answers = [
        analysis.last_motion(ds),
        analysis.freeze_times(ds),
        analysis.fimbulwinter(ds),
        analysis.stillness(ds),
        analysis.token_stillness(ds),
        analysis.lifecycle(ds),
        analysis.census(ds),
        analysis.moved(ds),
    ]
    assert not any(counter.reads for counter in counters.values()), "nothing is read before it is computed"
    dask.compute(*answers)
    for norm in ("l1", "l2", "linf"):
        reads = counters[f"displacement_{norm}"].reads
        assert len(reads) == 8 * 3
        assert set(reads.values()) == {1}
    assert not counters["W"].reads, "norms that are finite say that the weights are"
    assert not counters["delta_W_prime"].reads


def test_what_is_derived_reads_every_chunk_of_W_once_and_derives_once():
    ds, counters = counted(a_walk().dataset(stored=("W",)), {"step": 7, "token": 5})
    dask.compute(analysis.lifecycle(ds), analysis.census(ds), analysis.stillness(ds))
    assert len(counters["W"].reads) == 8 * 3
    assert set(counters["W"].reads.values()) == {1}


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=20, deadline=None)
def test_what_is_derived_is_what_is_stored_to_the_bit(known, data):
    stored = known.dataset()
    names = ["delta_W_prime", "displacement_l1", "displacement_l2", "displacement_linf"]
    ds = data.draw(cut(known.dataset(stored=("W",))))
    for asked in (names, names[1:]):
        for name, found in inputs.arrays(trajectory_of(ds), asked).items():
            assert np.array_equal(found.values, stored[name].values, equal_nan=True), name
            assert np.isnan(found.values[0]).all(), "row 0 of a move is NaN"


def test_weights_are_looked_at_only_where_a_norm_is_not_finite():
    known = a_walk()
    known.bits[33, 7] = 0x7F80
    known = Trajectory(known.bits)
    ds, counters = counted(known.dataset(), {"step": 7, "token": 5})
    assert int(analysis.last_motion(ds).nonfinite) == 3
    assert 0 < len(counters["W"].reads) <= 3


@pytest.mark.slow
def test_no_task_gathers_the_trajectory():
    steps, tokens = 4000, 40
    norm = da.zeros((steps, tokens), chunks=(10, 4))
    ds = xr.Dataset(
        {
            "displacement_l2": (("step", "token"), norm),
            "W": (("step", "token", "hidden"), da.zeros((steps, tokens, 2), chunks=(10, 4, 2), dtype=np.uint16)),
        }
    )
    for answer in (
        analysis.last_motion(ds).last_motion,
        analysis.stillness(ds).run_count,
        analysis.token_stillness(ds).longest,
    ):
        graph = dict(answer.data.__dask_graph__())
        layers = answer.data.__dask_graph__()
        dependencies = layers.get_all_dependencies()
        widest = max(
            len(dependencies[key]) for key in graph if "concatenate" not in str(key) and "rechunk" not in str(key)
        )
        assert widest <= FAN_IN


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=20, deadline=None)
def test_other_shapes_of_the_same_dataset_give_the_same_answers(known, data):
    ds = known.dataset()
    expected = analysis.lifecycle(ds).compute()
    turned = data.draw(cut(ds.transpose("hidden", "token", "step")))
    assert analysis.lifecycle(turned).compute().identical(expected)
    bare = analysis.lifecycle(ds.drop_vars(["step", "token"])).compute()
    shifted = np.where(expected.exit == -1, -1, expected.exit - known.steps[0])
    assert bare.exit.values.tolist() == shifted.tolist()
    assert bare.token.values.tolist() == list(range(len(known.tokens)))


def test_labels_of_tokens_and_steps_come_along():
    ds = a_walk().dataset(stored=("l2",))
    ds = ds.assign_coords(population=("token", ["dead", "live"] * 6), when=("step", np.arange(50.0)))
    found = analysis.last_motion(ds)
    assert found.population.values.tolist() == ["dead", "live"] * 6
    assert "when" not in found.coords
    assert "when" in analysis.stillness(ds).coords
    assert analysis.last_motion(ds.sel(token=ds.population == "dead")).sizes["token"] == 6


def test_no_step_and_arrays_that_are_not_there_are_refused():
    ds = a_walk().dataset()
    with pytest.raises(ValueError, match="no step"):
        analysis.last_motion(ds.isel(step=slice(0, 0)))
    with pytest.raises(ValueError, match=r"no displacement_l2.*loss"):
        analysis.last_motion(xr.Dataset({"loss": ("step", [1.0, 2.0])}))
    with pytest.raises(TypeError, match="float64"):
        analysis.last_motion(xr.Dataset({"W": (("step", "token", "hidden"), np.zeros((2, 1, 1)))}))
    with pytest.raises(TypeError, match="float64"):
        analysis.weights(xr.Dataset({"W": (("step", "token", "hidden"), np.zeros((2, 1, 1)))}))


def test_norms_can_be_made_of_displacements_alone():
    ds = a_walk().dataset(stored=("delta_W_prime",), junk=5)
    assert analysis.lifecycle(ds).compute().identical(analysis.lifecycle(a_walk().dataset()).compute())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_weights_have_their_own_lattice(dtype):
    ones = np.ones((4, 1, 2), dtype)
    ones[2, 0, 0] = np.nextafter(np.ones((), dtype), np.full((), 2, dtype))
    ones[3:] = ones[2]
    ds = xr.Dataset({"W": (("step", "token", "hidden"), ones)})
    assert int(analysis.last_motion(ds).last_motion[0]) == 2
    assert analysis.census(ds).tokens.sel(kind="face").values.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("where", ["W", "delta_W_prime"])
def test_float32_weights_may_be_measured_on_the_bfloat16_lattice(where):
    weights = np.array([1.0, 1.001, 1.006, 1.007], np.float32).reshape(4, 1, 1)
    ds = xr.Dataset({"W": (("step", "token", "hidden"), weights)})
    assert int(analysis.last_motion(ds).last_motion[0]) == 3
    if where == "delta_W_prime":
        ds[where] = xr.zeros_like(ds.W)
    ds[where].attrs["lattice"] = "bfloat16"
    assert int(analysis.last_motion(ds).last_motion[0]) == 2
    assert analysis.weights(ds).values.tolist() == weights.tolist()


@given(trajectories(), st.data())
@settings(max_examples=20, deadline=None)
def test_weights_are_exact_and_lazy(known, data):
    ds = data.draw(cut(known.dataset(stored=("W",))))
    ds.W.attrs["bits_of"] = "bfloat16"
    found = analysis.weights(ds)
    assert found.chunks is not None
    assert "bits_of" not in found.attrs
    assert np.array_equal(found.values.view(np.uint32), known.bits.astype(np.uint32) << 16)
    assert found.step.values.tolist() == known.steps
    assert ds.W.attrs["bits_of"] == "bfloat16", "the argument stays as it was"


def test_weights_that_were_recorded_at_some_steps_only_keep_the_order_of_their_dimensions_and_their_chunks():
    ds = analysis.simulate.with_last_motion([3, 5], total_steps=6)
    some = ds[["W"]].isel(step=[0, 2, 4]).chunk(step=2).rename(step="step_W").assign(loss=ds.loss)
    found = analysis.weights(some)
    assert found.dims == ("step_W", "token", "hidden")
    assert found.chunks[0] == (2, 1)
    assert np.array_equal(found.values, analysis.weights(ds).values[[0, 2, 4]])
    assert found.step_W.values.tolist() == [0, 2, 4]


def pairs_chunk(block):
    labels, before, after = block.pairs("W")
    moved = (before != after).any(axis=2).sum(axis=1)
    full = np.zeros(len(block.steps), np.int64)
    full[len(full) - len(labels) :] = moved
    return {"changed": full}


def add(one, other):
    return {"changed": one["changed"] + other["changed"]}


def as_it_is(partial, _span):
    return partial


@given(trajectories(), st.data())
@settings(max_examples=25, deadline=None)
def test_a_users_own_question_sees_the_row_before_each_block(known, data):
    ds = data.draw(cut(known.dataset(stored=("W",))))
    gives = {"changed": Answer(("step",), "int64", "rows that changed")}
    question = Reduction("changed", ("W",), "step", pairs_chunk, add, gives, finish=as_it_is, needs_before=("W",))
    expected = [0] + [
        sum((a != b).any() for a, b in zip(known.bits[t - 1], known.bits[t], strict=True))
        for t in range(1, len(known.bits))
    ]
    assert reduce(ds, question).changed.values.tolist() == expected


def everything(ds):
    return dask.compute(analysis.lifecycle(ds), analysis.stillness(ds), analysis.freeze_times(ds, quantiles=[0.9]))


def strange_walk():
    known = a_walk()
    known.bits[33:, 7] = 0x7F80
    return Trajectory(known.bits).dataset(stored=("W", "l2"))


@pytest.mark.slow
def test_other_schedulers_give_the_same_answers():
    expected = everything(strange_walk())
    assert int(expected[0].nonfinite) == 17 * 3
    ds = strange_walk().chunk(step=11, token=5)
    for scheduler in ("synchronous", "processes"):
        with dask.config.set(scheduler=scheduler, num_workers=2):
            for found, known in zip(everything(ds), expected, strict=True):
                assert found.identical(known)

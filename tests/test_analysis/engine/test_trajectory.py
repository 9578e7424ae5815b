"""The door of the engine: what comes of a Dataset, and that nothing behind it takes one."""

import inspect
import pkgutil

import numpy as np

import analysis.engine
from analysis import simulate
from analysis.engine.question import Span
from analysis.engine.trajectory import trajectory_of

TAKE_A_DATASET = {
    "trajectory_of", "_has_recorded_labels", "_hidden_of_chunks", "_is_projected",  # the door
    "require_trajectory", "refuse_lost_bits", "_refuse_other_lattice",  # what the door looks at
    "labels", "step_labels",  # and reads there
    "reduce", "weights",  # public, and through the door at once
    "conclude", "_kept_coords",  # of answers
}  # fmt: skip


def test_the_record_holds_labels_and_span_and_arrays_without_coordinates():
    ds = simulate.with_last_motion([3, 5], total_steps=8, tokens=[4, 7]).isel(step=[2, 3, 8])
    ds = ds.assign_coords(token_text=("token", ["a", "b"]))
    known = trajectory_of(ds)
    assert (known.steps.tolist(), known.tokens.tolist()) == ([2, 3, 8], [4, 7])
    assert known.span == Span(2, 8, 5)
    assert known.variables.keys() == set(ds.data_vars)
    assert not any(array.coords for array in known.variables.values())
    assert {"step", "token", "token_text"} == known.coords_of(["step", "token"]).keys()
    assert {"step"} == known.coords_of(["step"]).keys()


def test_labels_that_are_not_there_are_counted():
    bare = simulate.with_last_motion([3, 5], total_steps=4).drop_vars(["step", "token"])
    known = trajectory_of(bare)
    np.testing.assert_array_equal(known.steps, range(5))
    assert known.coords_of(["token"])["token"].tolist() == [0, 1]


def test_behind_the_door_nothing_takes_a_dataset():
    names = [module.name for module in pkgutil.iter_modules(analysis.engine.__path__, "analysis.engine.")]
    modules = [__import__(name, fromlist=["engine"]) for name in names]
    functions = [f for m in modules for _, f in inspect.getmembers(m, inspect.isfunction) if f.__module__ == m.__name__]
    found = {f.__name__ for f in functions if "xr.Dataset" in [*f.__annotations__.values()][:-1]}
    assert found == TAKE_A_DATASET

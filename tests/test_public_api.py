"""Names that others script against, pinned. Add freely; a rename must be seen here."""

import inspect
import re
import subprocess
import sys

import pytest

import analysis
import crucible
import store
from store import errors

TREE = {
    "StoreError": (Exception,),
    "NotATrajectoryError": (errors.StoreError, FileNotFoundError),
    "NewerFormatError": (errors.NotATrajectoryError,),
    "RunExistsError": (errors.StoreError, FileExistsError),
    "LockedError": (errors.StoreError, BlockingIOError),
    "DamageError": (errors.StoreError, ValueError),
    "MissingError": (errors.DamageError,),
    "ChecksumError": (errors.DamageError,),
    "LabelError": (errors.DamageError,),
    "MetadataError": (errors.DamageError,),
    "StaleHandleError": (errors.StoreError, RuntimeError),
    "WriterError": (errors.StoreError, RuntimeError),
    "LinkError": (errors.WriterError,),
    "RowError": (errors.StoreError, ValueError),
    "DifferenceError": (errors.StoreError, ValueError),
    "BudgetError": (errors.StoreError, MemoryError),
    "TensorFileError": (errors.StoreError, ValueError),
}


def test_the_tree_of_errors_is_pinned_and_drawn():
    found = {name: cls.__bases__ for name, cls in vars(errors).items() if inspect.isclass(cls)}
    assert found == TREE
    assert set(re.findall(r"\w+Error\b", errors.__doc__.split("::")[1])) >= TREE.keys()


@pytest.mark.parametrize(
    ("package", "names"),
    [
        (store, ["Channel", "TrajectoryWriter", "check", "open_trajectory"]),
        (
            analysis,
            ["weights", "last_motion", "freeze_times", "stillness", "end_state", "lifecycle", "drift", "cloud",
             "census", "compare", "lattice", "plots", "push", "headroom", "verdicts", "why"],
        ),
        (
            crucible,
            ["attach", "CrucibleCallback", "LightningCallback", "train", "resume", "prepare", "plan", "info", "check",
             "repair", "analyze",
             "report", "watch", "export_run", "import_run", "compact", "upgrade", "compare", "to_torch",
             "open_trajectory", "NOTEBOOK", "derive", "Recorded", "hidden_mean", "by_count", "describe",
             "__version__"],
        ),
    ],
)  # fmt: skip
def test_names_are_there_and_documented(package, names):
    assert set(names) <= set(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__doc__, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["analysis.sentence", "analysis.plots.cooling", "store.errors.StoreError"])
def test_modules_are_there_whatever_was_loaded_before(name):
    code = f"import analysis, store; {name}"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_the_writer_keeps_its_words():
    create, resume = store.TrajectoryWriter.create, store.TrajectoryWriter.resume
    assert {
        "run",
        "channels",
        "derive",
        "finish",
        "tokens",
        "hidden",
        "statics",
        "attributes",
        "commit_interval_s",
    } <= set(parameters(create))
    assert {"run", "derive", "finish", "from_step", "on_difference"} <= set(parameters(resume))
    assert {"append", "checkpoint", "close", "committed_steps"} <= set(dir(store.TrajectoryWriter))


def test_the_lattice_keeps_its_words():
    assert {"cell", "displacement", "hops"} <= set(dir(analysis.lattice))


def test_attach_keeps_its_words():
    asked = {"rows", "channels", "resume", "parameter", "axis", "after", "scalars", "tokenizer", "on_signal"}
    assert asked <= set(parameters(crucible.attach))


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import crucible, store, analysis", ["torch", "xarray", "dask", "zarr", "numpy"]),
        ("import store; store.open_trajectory; import analysis; analysis.drift", ["torch"]),
        ("import store; store.TrajectoryWriter", ["torch", "xarray", "dask", "zarr", "pandas"]),
        ("import crucible; crucible.attach", ["xarray", "dask", "pandas"]),
        ("import crucible.cli.main", ["torch", "xarray", "dask", "zarr", "numpy", "transformers"]),
    ],
)
def test_what_an_import_does_not_load(code, forbidden):
    check = f"import sys; {code}; print([m for m in {forbidden} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"

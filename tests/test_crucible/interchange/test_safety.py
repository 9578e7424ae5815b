"""The whole command against hostile files: what it costs to refuse, and that nothing is ever unpickled."""

import json
import os
import subprocess
import sys
import textwrap

import h5py
import lab_files as lab
import numpy as np
import pytest
from resident import run_python

MEASURE = """
    import sys, time
    from crucible.interchange.importing.importer import import_run
    from store.errors import StoreError
    from resident import peak_bytes
    if sys.argv[1] == "idle":
        import h5py
    idle, since = peak_bytes(), time.process_time()
    if sys.argv[1] != "idle":
        try:
            import_run(sys.argv[1], sys.argv[2])
        except StoreError as error:
            print(str(error)[:300], file=sys.stderr)
        else:
            sys.exit("it was taken")
    print(peak_bytes() - idle, time.process_time() - since)
"""


def cost(*arguments):
    """Growth of the resident memory in bytes, and processor seconds, of an import that is refused."""
    memory, seconds = run_python(MEASURE, *arguments).split()
    return int(memory), float(seconds)


def many_tensors(path):
    entries = b",".join(b'"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(400_000))
    path.write_bytes((len(entries) + 2).to_bytes(8, "little") + b"{" + entries + b"}")


def dense_header(path):
    path.write_bytes(lab.file_of({f"{i:x}": 0 for i in range(25_000)}))


def huge_rows(path):
    header = {"W": {"dtype": "U16", "shape": [2, 1 << 20, 1 << 10], "data_offsets": [0, 1 << 32]}}
    path.write_bytes(lab.file_of(header))
    os.truncate(path, path.stat().st_size + (1 << 32))


def wrong_loss(path):
    lab.write(path, {**lab.notebook(lab.weights(50, 12, 64)), "loss": np.zeros(3, np.float32)})


def bomb(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("W", (2, 2**20, 2**10), np.uint16, chunks=(1, 2**20, 2**9), compression="gzip")


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("make", [many_tensors, dense_header, huge_rows, wrong_loss, bomb], ids=lambda f: f.__name__)
def test_refusing_costs_little(tmp_path, make):
    make(tmp_path / "a")
    memory, seconds = cost(tmp_path / "a", tmp_path / "run")
    assert memory < 20e6
    assert seconds < 1
    assert not (tmp_path / "run").exists()


GUARD = """
    import pickle, sys, traceback

    def refuse(*_, **__):
        if not any("dask/tokenize.py" in frame.filename for frame in traceback.extract_stack()):
            raise SystemExit("something was unpickled")

    def hook(event, args):
        if event == "pickle.find_class":
            refuse()

    def guarded(function):
        def call(*args, **options):
            refuse()  # dask pickles objects of its own making, and back, to name its tasks; no file is involved
            return function(*args, **options)
        return call

    import h5py, zarr, xarray, dask.array  # what they unpickle while they load is theirs
    import crucible.interchange.importing.importer, crucible.interchange.exporter
    import store.reading.reader, store.writing.writer
    sys.addaudithook(hook)
    pickle.load, pickle.loads = guarded(pickle.load), guarded(pickle.loads)
    pickle.Unpickler, pickle._Unpickler = guarded(pickle.Unpickler), guarded(pickle._Unpickler)
"""
USE = """
    from crucible.channels.table import derive, finisher
    crucible.interchange.importing.importer.import_run("a", "run")
    crucible.interchange.importing.importer.import_run("a.h5", "run2")
    ds = store.reading.reader.open_trajectory("run")
    ds.W[3].values, ds.delta_W_prime[:, 1].values, ds.attrs
    crucible.interchange.exporter.export_run("run", "b")
    import shutil
    store.writing.writer.TrajectoryWriter.resume("begun", derive=derive, finish=finisher(0.1)).close()
    for bad in ("pickle", "zip"):
        try:
            crucible.interchange.importing.importer.import_run(bad, "bad")
        except ValueError as error:
            assert "never read" in str(error), error
        else:
            raise SystemExit("it was taken")
    print("done")
"""


@pytest.mark.slow
def test_nothing_is_unpickled(tmp_path):
    """By import, open, export and resume, watched by an audit hook; also not from files that are pickles."""
    import pickle

    import torch

    from crucible.channels.table import NOTEBOOK, derive
    from store.writing.writer import TrajectoryWriter

    arrays = lab.notebook()
    lab.write(tmp_path / "a", arrays, words={"notes": "n"})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["W"], file["centroid"] = arrays["W"], arrays["centroid"]
    (tmp_path / "pickle").write_bytes(pickle.dumps(arrays))
    torch.save({"W": torch.zeros(3)}, tmp_path / "zip")
    with TrajectoryWriter.create(
        tmp_path / "begun", channels=NOTEBOOK, derive=derive, tokens=arrays["dead_indices"], hidden=3,
        statics={"dead_mask": arrays["dead_mask"]},
    ) as writer:  # fmt: skip
        writer.append(W=arrays["W"][0], centroid=arrays["centroid"][0], loss=None)
    script = textwrap.dedent(GUARD) + textwrap.dedent(USE)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr[-2000:]


@pytest.mark.slow
def test_the_guard_catches_a_pickle():
    """The test above can fail: the same guard ends a process that unpickles, by whatever name."""
    ways = "import _pickle\nfor load in (pickle.loads, _pickle.loads):\n    try:\n        load(pickle.dumps(len))\n"
    ways += "    except SystemExit as end:\n        print(end)\n"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GUARD) + ways], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["something was unpickled"] * 2


def test_the_command_says_it_in_one_line(tmp_path):
    (tmp_path / "a").write_bytes(lab.file_of({"W": {"dtype": "U16", "shape": [1], "data_offsets": [0, 2]}}, b"123"))
    done = subprocess.run(
        [sys.executable, "-m", "crucible", "import", str(tmp_path / "a"), str(tmp_path / "run")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no array owns" in done.stderr
    assert not json.loads(json.dumps(list(tmp_path.glob("run*"))))

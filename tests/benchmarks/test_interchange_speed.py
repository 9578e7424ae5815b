"""What moving a run costs, at full size: export, import, compaction; beside the ways that hold everything in memory."""

import filecmp
import json
import shutil

import numpy as np
import pytest
from measuring import folder_bytes, measure_python, table

from crucible.interchange.exporter import export_run

pytestmark = pytest.mark.benchmark

COPY = """
    import os, shutil, sys
    shutil.copyfile(sys.argv[1], sys.argv[2])
    file = os.open(sys.argv[2], os.O_RDWR)
    os.fsync(file)
"""
EXPORT = """
    import sys
    from crucible.interchange.exporter import export_run
    export_run(sys.argv[1], sys.argv[2])
"""
IN_MEMORY = """
    import sys, torch, store
    from safetensors.torch import save_file
    ds = store.open_trajectory(sys.argv[1])
    names = ("W", "centroid", "loss", "last_motion_step", "dead_mask")
    tensors = {name: torch.from_numpy(ds[name].values) for name in names}
    tensors["delta_W_prime"] = torch.from_numpy(ds.delta_W_prime[1:].values)
    tensors["dead_indices"] = torch.from_numpy(ds.token.values)
    save_file(tensors, sys.argv[2])
"""
IMPORT = """
    import sys
    from crucible.interchange.importing.importer import import_run
    report = import_run(sys.argv[1], sys.argv[2])
    assert report.differences == (), report.differences
"""
WRITE = """
    import sys, numpy as np, torch
    from crucible.channels.table import NOTEBOOK, derive, finisher
    from store.tensorfile.file import TensorFile
    from store.writing.writer import TrajectoryWriter
    file = TensorFile(sys.argv[1])
    steps, tokens, hidden = file.tensors["W"].shape
    channels = [channel for channel in NOTEBOOK if channel.name != "dead_mask"]
    loss = file.read("loss")
    with TrajectoryWriter.create(sys.argv[2], channels=channels, tokens=np.arange(tokens), hidden=hidden,
                                 derive=derive, finish=finisher(0.1)) as writer:
        for step in range(steps):
            bits = file.rows("W", step, step + 1)[0]
            centroid = torch.from_numpy(bits).view(torch.bfloat16).float().mean(dim=0).numpy()
            writer.append(W=bits, centroid=centroid, loss=loss[step] if step else None)
        writer.complete()
"""
COMPACT = """
    import sys, time
    from store.upkeep.compact import compact
    compact(sys.argv[1])
"""
READ = """
    import json, statistics, sys, time
    import numpy as np
    import store
    ds = store.open_trajectory(sys.argv[1])
    random = np.random.default_rng(0)
    tokens, steps = random.choice(ds.token.values, 15), random.choice(ds.step.values, 15)

    def median_ms(read, keys):
        took = []
        for key in keys:
            since = time.perf_counter()
            read(key)
            took.append((time.perf_counter() - since) * 1e3)
        return statistics.median(took)

    def token(name):
        return median_ms(lambda key: ds[name].sel(token=key).values, tokens)

    def step(name):
        return median_ms(lambda key: ds[name].sel(step=key).values, steps)

    print(json.dumps([token("W"), token("delta_W_prime"), step("W"), step("delta_W_prime")]))
"""


@pytest.fixture(scope="module")
def exported(recorded, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "real.safetensors"
    measure_python(EXPORT, recorded, path)
    return path


def row(what, measured, *more):
    return what, f"{measured.wall_s:.1f}", f"{measured.cpu_s:.1f}", f"{measured.peak_mb:.0f}", *more


def test_export(recorded, exported, tmp_path):
    """At most 1.5 times the time of copying the file, at most 300 MB; each the best of three, taken in turn."""
    copies, exports = [], []
    for _ in range(3):  # to a fresh name each time: giving back the blocks of an old file takes seconds
        for many, code, source, target in ((copies, COPY, exported, "copy"), (exports, EXPORT, recorded, "export")):
            (tmp_path / target).unlink(missing_ok=True)
            many.append(measure_python(code, source, tmp_path / target))
    (tmp_path / "copy").unlink()
    copy, export = (min(many, key=lambda m: m.wall_s) for many in (copies, exports))
    in_memory = measure_python(IN_MEMORY, recorded, tmp_path / "in-memory")
    assert filecmp.cmp(tmp_path / "export", tmp_path / "in-memory", shallow=False)
    table(
        f"Export of {exported.stat().st_size:,} bytes",
        ("", "wall s", "processor s", "peak MB", "to copying"),
        [
            row("copy the finished file, fsync", copy, "1"),
            row("`crucible export`", export, f"{export.wall_s / copy.wall_s:.2f}"),
            row("load everything, `save_file`", in_memory, f"{in_memory.wall_s / copy.wall_s:.2f}"),
        ],
    )
    assert export.peak_mb <= 300


def test_import(exported, tmp_path):
    """At most 3 ms of processor time a step, at most 300 MB; delta_W_prime compared on the way."""
    measured = measure_python(IMPORT, exported, tmp_path / "run")
    steps = json.loads((tmp_path / "run/metadata.json").read_text())["total_steps"]
    table(
        "Import of the same file",
        ("", "wall s", "processor s", "peak MB", "processor ms a step"),
        [row("`crucible import`", measured, f"{measured.cpu_s / steps * 1e3:.2f}")],
    )
    assert measured.peak_mb <= 300


def test_import_of_weights_alone(recorded, tmp_path):
    """At most 1.3 times the processor time of writing the same run, and 300 MB: no centroid is in the file."""
    export_run(recorded, tmp_path / "alone", only=["W", "loss"])
    writing, importing = [], []
    for turn in range(2):
        writing.append(measure_python(WRITE, tmp_path / "alone", tmp_path / f"written-{turn}"))
        importing.append(measure_python(IMPORT, tmp_path / "alone", tmp_path / f"run-{turn}"))
    wrote, brought = (min(many, key=lambda m: m.cpu_s) for many in (writing, importing))
    table(
        f"Import of {(tmp_path / 'alone').stat().st_size:,} bytes of W and loss",
        ("", "wall s", "processor s", "peak MB", "to writing"),
        [row("rows appended to a writer", wrote, "1"),
         row("`crucible import`", brought, f"{brought.cpu_s / wrote.cpu_s:.2f}")],
    )  # fmt: skip
    assert brought.peak_mb <= 300


def test_compact(recorded, real_run, tmp_path):
    """At least 200 times smaller than W and delta_W_prime, and what reading costs before and after."""
    run = shutil.copytree(recorded, tmp_path / "run")
    shape = json.loads((real_run / "W/zarr.json").read_text())["shape"]
    raw = int(np.prod(shape)) * (2 + 4)
    before, reads_before = folder_bytes(run / "trajectory.zarr"), json.loads(measure_python(READ, run).out)
    measured = measure_python(COMPACT, run)
    after, reads_after = folder_bytes(run / "trajectory.zarr"), json.loads(measure_python(READ, run).out)
    table(
        f"Compaction, against {raw:,} raw bytes of W and delta_W_prime",
        ("", "bytes", "smaller by", "token W ms", "token delta ms", "step W ms", "step delta ms"),
        [
            ("as written", f"{before:,}", f"{raw / before:.1f}", *(f"{ms:.0f}" for ms in reads_before)),
            ("compacted", f"{after:,}", f"{raw / after:.1f}", *(f"{ms:.0f}" for ms in reads_after)),
        ],
    )
    table("Compacting", ("", "wall s", "processor s", "peak MB"), [row("`crucible compact`", measured)])
    assert raw / after >= 200

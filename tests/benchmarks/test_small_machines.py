"""What --compute-dtype float32 and --loss-chunk save at the default size, and how far the runs part."""

import re

import numpy as np
import pytest
from measuring import measure_crucible, table

import store

pytestmark = pytest.mark.benchmark

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""A CPU without bfloat16 units, as far as a variable can say so."""


def train(inputs, out, steps, *extra, **environment):
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in inputs.items()]
    done = measure_crucible(
        "train", *flags, f"--out={out}", f"--total-steps={steps}", "--device=cpu", *extra, **environment
    )
    return done, float(re.search(r"training complete:.* ([\d.]+) s", done.out).group(1)) / steps


def test_seconds_a_step_without_bfloat16_units(inputs, tmp_path):
    _, slow = train(inputs, tmp_path / "bfloat16", 2, "--compute-dtype=bfloat16", **AVX2)
    _, quick = train(inputs, tmp_path / "float32", 4, "--compute-dtype=float32", **AVX2)
    table(
        "Seconds a step at the default size, AVX2 at most, 2 cores",
        ["bfloat16", "float32", "ratio"],
        [[f"{slow:.1f}", f"{quick:.2f}", f"{slow / quick:.1f}"]],
    )


def test_memory_and_deviation(inputs, tmp_path):
    steps, rows, states = 6, [], {}
    for name, extra in [
        ("bfloat16", ["--compute-dtype=bfloat16"]),
        ("float32", ["--compute-dtype=float32"]),
        ("float32, loss-chunk 2048", ["--compute-dtype=float32", "--loss-chunk=2048"]),
        ("float32, loss-chunk 1024", ["--compute-dtype=float32", "--loss-chunk=1024"]),
    ]:
        run = tmp_path / name.replace(" ", "-")
        _, seconds = train(inputs, run, steps, *extra)
        bare, _ = train(inputs, tmp_path / f"{run.name}-bare", 3, *extra, "--no-record")
        ds = store.open_trajectory(run)
        states[name] = ds.W.sel(step=steps).values, ds.loss.values
        W, loss = states["float32" if "chunk" in name else "bfloat16"]
        parted = np.mean(ds.W.sel(step=steps).values != W)
        apart = np.nanmax(np.abs(ds.loss.values - loss))
        rows.append([name, f"{seconds:.2f}", f"{bare.peak_mb:.0f}", f"{parted:.1%}", f"{apart:.1e}"])
    table(
        f"The default size (16,384 positions x 10,000 ids), {steps} steps",
        ["", "s a step", "peak MB, --no-record", "weights that differ *", "largest difference of the loss *"],
        rows,
    )
    print("\\* float32 from bfloat16, loss chunks from float32 without them")

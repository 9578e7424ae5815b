"""The worker's wall on a disk whose flush takes 5 ms, beside a checkout that writes format 1; the end of a long run."""

import json
import os
from pathlib import Path

import pytest
from measuring import measure_python, table

pytestmark = pytest.mark.benchmark
BLOCKS = 12

WRITE = """
    import json, os, sys, tempfile, time
    sys.path.insert(0, sys.argv[1])
    import numpy as np
    import store
    from store.disk import LocalDisk

    class SlowFlush:
        "The operating system, whose flush takes 5 ms more."
        flushes = 0
        def __getattr__(self, name):
            return getattr(os, name)
        def fsync(self, fd):
            self.flushes += 1
            time.sleep(0.005)

    def channel(name, dims, dtype, **more):
        return store.Channel(name, dims, dtype, **more)

    table = [
        channel("W", ("token", "hidden"), "uint16"),
        channel("delta_W_prime", ("token", "hidden"), "float32", role="derived", belongs_to="move"),
        *(channel(f"displacement_{norm}", ("token",), "float32", role="derived", belongs_to="move")
          for norm in ("l1", "l2", "linf")),
        channel("centroid", ("hidden",), "float32"),
        channel("loss", (), "float32", belongs_to="move"),
        channel("learning_rate", (), "float32", belongs_to="move"),
    ]

    def derive(before, rows):
        moved = np.concatenate([before["W"][None], rows["W"]]).astype(np.float32)
        delta = moved[1:] - moved[:-1]
        size = np.abs(delta)
        return {"delta_W_prime": delta, "displacement_l1": size.sum(axis=-1), "displacement_linf": size.max(axis=-1),
                "displacement_l2": np.sqrt((delta * delta).sum(axis=-1))}

    rng, calls, steps = np.random.default_rng(0), SlowFlush(), int(sys.argv[2])
    row = rng.integers(15000, 16000, (3644, 64)).astype(np.uint16)
    rows = [row.copy() for _ in range(64)]
    for t, each in enumerate(rows):
        each[rng.integers(0, 3644, 40)] += t
    with tempfile.TemporaryDirectory() as folder:
        writer = store.TrajectoryWriter.create(folder + "/run", channels=table, derive=derive, tokens=np.arange(3644),
                                               hidden=64, disk=LocalDisk(calls), commit_interval_s=1e6)
        writer.append(W=row, centroid=row[0].astype(np.float32), loss=None, learning_rate=None)
        writer.commit()
        flushed, since, used = calls.flushes, time.perf_counter(), time.process_time()
        for t in range(1, steps):
            writer.append(W=rows[t % 64 if t < steps // 4 else 0], centroid=row[0].astype(np.float32), loss=1.0,
                          learning_rate=0.1)
        writer.commit()
        took = time.perf_counter() - since
        print(json.dumps([took, time.process_time() - used, calls.flushes - flushed]))
        writer.close()
"""


def test_the_workers_wall_where_a_flush_takes_5_ms():
    """Format 1 is written by an older checkout, e.g. `git archive 39df00d^ store | tar -x -C FOLDER`."""
    before = os.environ.get("CRUCIBLE_FORMAT_1")
    if not before:
        pytest.skip("set CRUCIBLE_FORMAT_1 to a folder with the package `store` of a checkout that writes format 1")
    now, steps, rows = Path(__file__).parents[2], 128 * BLOCKS, []
    for name, folder in (("format 1", before), ("format 2", now)):
        walls = [json.loads(measure_python(WRITE, folder, steps).out) for _ in range(3)]
        rows.append((name, *min(walls)))
    table(
        f"{BLOCKS} blocks of 128 steps x 3,644 x 64, as fast as they go; each flush takes 5 ms",
        ["", "wall s", "processor s", "flushes"],
        [[name, f"{wall:.2f}", f"{cpu:.2f}", flushes] for name, wall, cpu, flushes in rows],
    )
    print(f"format 2 / format 1: {rows[1][1] / rows[0][1]:.2f} of the wall")


COMPLETE = """
    import os, sys, time, json, numpy as np, store
    from store.disk import LocalDisk
    from store.format.schema import Channel

    class FlushesOnceAsked:
        "The operating system; no step is flushed, since only the end is measured."
        is_asked = False
        def __getattr__(self, name):
            return getattr(os, name)
        def fsync(self, fd):
            if self.is_asked:
                os.fsync(fd)

    calls = FlushesOnceAsked()
    steps, out = int(sys.argv[1]), sys.argv[2]
    channels = [Channel("W", ("token", "hidden"), "uint16"), Channel("loss", (), "float32", belongs_to="move"),
                Channel("largest", ("token",), "uint16", role="final")]

    def finish(blocks):
        return {"largest": np.max([rows.max(axis=(0, 2)) for _, rows in blocks("W")], axis=0)}

    writer = store.TrajectoryWriter.create(out, channels=channels, tokens=np.arange(4), hidden=4, finish=finish,
                                           commit_interval_s=1e6, disk=LocalDisk(calls))
    row = np.zeros((4, 4), np.uint16)
    for t in range(steps):
        writer.append(W=row, loss=1.0 if t else None)
    writer.commit()
    calls.is_asked = True
    since, used = time.perf_counter(), time.process_time()
    writer.complete()
    print(json.dumps([time.perf_counter() - since, time.process_time() - used]))
"""


def test_a_run_of_a_million_small_steps_is_completed_in_three_seconds(tmp_path):
    wall, cpu = json.loads(measure_python(COMPLETE, 1_000_000, tmp_path / "run").out.strip().splitlines()[-1])
    table("complete() of a run of 1,000,000 steps of 4 x 4", ["wall s", "processor s"], [[f"{wall:.2f}", f"{cpu:.2f}"]])
    assert cpu < 3

"""What writing costs on the real run: processor time, waiting of `append`, memory, bytes; beside other ways."""

import json
import sys
import textwrap

import numpy as np
import pytest
from measuring import folder_bytes, measure, measure_python, table

pytestmark = pytest.mark.benchmark

COMMON = """
    import sys, time, resource, json, os
    import numpy as np
    states = np.load(sys.argv[1], mmap_mode="r")
    out, last = sys.argv[2], int(sys.argv[3])
    T, N, D = min(len(states) - 1, last), *states.shape[1:]

    def memory():
        return next(int(line.split()[1]) / 1000 for line in open("/proc/self/status") if line.startswith("RssAnon"))

    def told(**numbers):
        print(json.dumps(numbers))

    class Clock:
        "Processor time of the whole process, less what reading the input takes."
        def __init__(self):
            self.since, self.reading, self.peak, self.base = time.process_time(), 0.0, 0.0, memory()
        def rows(self):
            for t in range(T + 1):
                since = time.thread_time()
                row = np.array(states[t])
                self.reading += time.thread_time() - since
                yield t, row
                if t == int(os.environ.get("KILL_AT", -1)):
                    os.kill(os.getpid(), 9)
                if t % 16 == 0:
                    self.peak = max(self.peak, memory())
        def end(self):
            spent = time.process_time() - self.since - self.reading
            return dict(cpu_ms=spent / T * 1e3, memory_mb=self.peak - self.base)
"""

CRUCIBLE = """
    import torch, crucible, store
    from crucible.channels.table import NOTEBOOK, derive, finisher
    import store.writing.writer, analysis.moves
    pace = float(sys.argv[4])
    clock = Clock()
    writer = store.TrajectoryWriter.create(out, channels=NOTEBOOK, derive=derive, finish=finisher(0.1),
        tokens=np.arange(N), hidden=D, statics={"dead_mask": np.arange(10_000) < N},
        attributes={"motion_threshold": 0.1})
    waits = []
    for t, row in clock.rows():
        centroid = torch.from_numpy(row).view(torch.bfloat16).float().mean(dim=0).numpy()
        since = time.perf_counter()
        writer.append(W=row, centroid=centroid, loss=float(t) if t else None)
        waits.append((time.perf_counter() - since) * 1e3)
        if pace:
            time.sleep(pace)
    writer.complete()
    told(**clock.end(), median_ms=np.median(waits), p99_ms=np.percentile(waits, 99), worst_ms=max(waits))
"""

DERIVED = """
    table = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - 134).astype(np.float32)
    def f32(bits):
        return (bits.astype(np.uint32) << 16).view(np.float32)
    def derived(before, after):
        return (f32(after) - f32(before)) / table[(before >> 7) & 255]
"""

NOTEBOOK_MEMORY = (
    DERIVED
    + """
    import torch
    clock = Clock()
    W, delta = torch.zeros(T + 1, N, D, dtype=torch.bfloat16), torch.zeros(T, N, D)
    centroid, norm = torch.zeros(T + 1, D), torch.zeros(T, N)
    cells = torch.from_numpy(table)
    for t, row in clock.rows():
        W[t] = torch.from_numpy(row).view(torch.bfloat16)
        centroid[t] = W[t].float().mean(dim=0)
        if t:
            bits = W[t - 1].view(torch.int16).to(torch.int32)
            delta[t - 1] = (W[t].float() - W[t - 1].float()) / cells[(bits >> 7) & 255]
            norm[t - 1] = delta[t - 1].norm(dim=1)
    told(**clock.end())
"""
)

H5PY = (
    DERIVED
    + """
    import h5py
    gzip = {"compression": "gzip", "compression_opts": 1} if sys.argv[4] == "gzip" else {}
    clock = Clock()
    with h5py.File(out, "w") as file:
        W = file.create_dataset("W", (T + 1, N, D), "u2", chunks=(1, N, D), **gzip)
        delta = file.create_dataset("delta_W_prime", (T, N, D), "f4", chunks=(1, N, D), **gzip)
        before = None
        for t, row in clock.rows():
            W[t] = row
            if t:
                delta[t - 1] = derived(before, row)
            before = row
            if sys.argv[5] == "flush":
                file.flush()
    told(**clock.end())
"""
)

ZARR = (
    DERIVED
    + """
    import zarr
    clock = Clock()
    group = zarr.create_group(out)
    W = group.create_array("W", shape=(T + 1, N, D), chunks=(1, N, D), dtype="u2")
    delta = group.create_array("delta_W_prime", shape=(T, N, D), chunks=(1, N, D), dtype="f4")
    before = None
    for t, row in clock.rows():
        W[t] = row
        if t:
            delta[t - 1] = derived(before, row)
        before = row
    told(**clock.end())
"""
)

TENSORSTORE = (
    DERIVED
    + """
    import tensorstore as ts
    def create(name, rows, dtype):
        return ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{out}/{name}"}, "metadata": {
            "shape": [rows, N, D], "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [128, 256, D]}},
            "codecs": [{"name": "transpose", "configuration": {"order": [1, 2, 0]}},
                       {"name": "bytes", "configuration": {"endian": "little"}},
                       {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]}}, create=True).result()
    clock = Clock()
    W, delta = create("W", T + 1, "uint16"), create("delta_W_prime", T, "float32")
    before, block, moves = None, [], []
    for t, row in clock.rows():
        block.append(row)
        if t:
            moves.append(derived(before, row))
        before = row
        if len(block) == 128 or t == T:
            W[t + 1 - len(block): t + 1].write(np.stack(block)).result()
            block = []
        if len(moves) == 128 or t == T:
            delta[t - len(moves): t].write(np.stack(moves)).result()
            moves = []
    told(**clock.end())
"""
)

STEPS = 5000
SHORT = 600
"""Steps of the slower rivals: enough for the phase in which all rows move and what follows it."""


@pytest.fixture(scope="session")
def states(real_run, tmp_path_factory):
    """The real run as one flat file, so that reading it costs next to nothing."""
    path = tmp_path_factory.mktemp("states") / "W.npy"
    measure_python("import sys, numpy, zarr; numpy.save(sys.argv[2], zarr.open_group(sys.argv[1], mode='r')['W'][:])",
                   real_run, path)  # fmt: skip
    return path


def script(code):
    return textwrap.dedent(COMMON) + textwrap.dedent(code)


def run(code, states, out, steps, *arguments):
    done = measure(sys.executable, "-c", script(code), states, out, steps, *arguments)
    return json.loads(done.out.strip().splitlines()[-1])


def killed(code, states, out, steps, *arguments):
    """What a kill -9 at step 500 leaves: (right rows, wrong rows shown as data) of W, or why it does not open."""
    measure(sys.executable, "-c", script(code), states, out, steps, *arguments, code=-9, KILL_AT="500")
    expected = np.load(states, mmap_mode="r")
    try:
        found = read_back(out)
        right = sum(bool((found[t] == expected[t]).all()) for t in range(min(len(found), 500)))
        return f"{right} of 500 rows; {len(found) - right:,} wrong ones shown as data"
    except Exception as error:
        return f"does not open: {type(error).__name__}"


def read_back(out):
    if out.is_file():
        import h5py

        return h5py.File(out, "r")["W"]
    if (out / "trajectory.zarr").exists():
        import store

        return store.open_trajectory(out).W.values
    import zarr

    return zarr.open_array(out / "W", mode="r")[:]


def raw_bytes(steps):
    return (steps + 1) * 3644 * 64 * 2 + steps * 3644 * 64 * 4


def test_crucible_writes_the_whole_real_run(states, tmp_path):
    found = run(CRUCIBLE, states, tmp_path / "run", STEPS, 0)
    notebook = run(NOTEBOOK_MEMORY, states, "-", STEPS)
    ratio = raw_bytes(STEPS) / folder_bytes(tmp_path / "run")

    def cells(who):
        return [f"{who['cpu_ms']:.2f}", f"{who['memory_mb']:.0f}"]

    table(
        f"Writing the real run, {STEPS} steps x 3,644 x 64, as fast as it goes",
        ["", "processor ms a step", "memory MB", "raw / stored"],
        [
            ["crucible: W, displacement, norms, centroid, loss", *cells(found), f"{ratio:.1f}"],
            ["notebook: the same kept in memory", *cells(notebook), "1"],
            ["crucible / notebook", f"{found['cpu_ms'] / notebook['cpu_ms']:.2f}", "", ""],
        ],
    )


@pytest.mark.parametrize("pace_ms", [10, 50])
def test_append_beside_a_trainer_of_small_steps(states, tmp_path, pace_ms):
    found = run(CRUCIBLE, states, tmp_path / "run", 1500 if pace_ms == 10 else 600, pace_ms / 1000)
    table(
        f"`append` with {pace_ms} ms between the steps, ms",
        ["median", "99th percentile", "worst"],
        [[f"{found[name]:.3f}" for name in ("median_ms", "p99_ms", "worst_ms")]],
    )


def test_other_ways_to_write_the_same_numbers(states, tmp_path):
    rivals = [
        ("crucible", CRUCIBLE, ["0"]),
        ("h5py raw, no flush", H5PY, ["raw", "no"]),
        ("h5py raw, a flush each step", H5PY, ["raw", "flush"]),
        ("h5py gzip-1, no flush", H5PY, ["gzip", "no"]),
        ("zarr-python, default codecs, a step a chunk", ZARR, []),
        ("TensorStore, our chunks and codecs", TENSORSTORE, []),
    ]
    rows = []
    for number, (name, code, arguments) in enumerate(rivals):
        out = tmp_path / f"rival-{number}"
        found = run(code, states, out, SHORT, *arguments)
        size = folder_bytes(out) if out.is_dir() else out.stat().st_size
        left = killed(code, states, tmp_path / f"killed-{number}", SHORT, *arguments)
        ratio = raw_bytes(SHORT) / size
        rows.append([name, f"{found['cpu_ms']:.1f}", f"{found['memory_mb']:.0f}", f"{ratio:.1f}", left])
    table(
        f"The first {SHORT} steps of the real run (the hardest part: all rows move at 1-200)",
        ["", "processor ms a step", "memory MB", "raw / stored", "W after a kill -9 at step 500"],
        rows,
    )


SMALL = """
    import sys, time, json, numpy as np, store
    from store.format.schema import Channel
    steps, out = int(sys.argv[1]), sys.argv[2]
    channels = [Channel("W", ("token", "hidden"), "uint16"), Channel("loss", (), "float32", belongs_to="move")]
    writer = store.TrajectoryWriter.create(out, channels=channels, tokens=np.arange(64), hidden=8)
    row, took = np.zeros((64, 8), np.uint16), []
    def hundred():
        since = time.process_time()
        for _ in range(1024):
            writer.append(W=row, loss=1.0)
        appended = time.process_time() - since
        writer.append(W=row, loss=1.0)
        since = time.perf_counter()
        writer.commit()
        return appended / 1024 * 1e6, (time.perf_counter() - since) * 1e3
    while writer.steps < steps:
        took.append(hundred())
    last = np.median(took[-20:], axis=0)
    since = time.perf_counter(); store.open_trajectory(out); first_open = time.perf_counter() - since
    opens = []
    for _ in range(9):
        since = time.perf_counter(); store.open_trajectory(out); opens.append((time.perf_counter() - since) * 1e3)
    print(json.dumps([*last, np.median(opens)]))
"""


def test_cost_does_not_grow_with_the_steps_stored(tmp_path):
    rows = []
    for steps in (1_000, 20_000, 200_000, 1_000_000):
        done = measure_python(SMALL, steps, tmp_path / str(steps))
        append_us, commit_ms, open_ms = json.loads(done.out.strip().splitlines()[-1])
        rows.append([f"{steps:,}", f"{append_us:.1f}", f"{commit_ms:.1f}", f"{open_ms:.1f}", f"{done.peak_mb:.0f}"])
    table(
        "Small steps (64 x 8), by the number of steps stored",
        ["steps", "processor us an append, all told", "commit ms", "open ms", "peak MB of the process"],
        rows,
    )

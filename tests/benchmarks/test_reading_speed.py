"""What questions cost on the real run: whole processes, full passes, one token, one step; and other chunk shapes."""

import json

import pytest
from measuring import folder_bytes, measure_crucible, measure_python, table

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="session")
def exported(recorded, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "real.safetensors"
    measure_crucible("export", recorded, path)
    return path


NOTEBOOK = """
    import sys, torch
    from safetensors.torch import load_file
    delta = load_file(sys.argv[1])["delta_W_prime"]
    moved = torch.stack([delta[t].norm(dim=1) >= 0.1 for t in range(len(delta))])
    last = torch.full((delta.shape[1],), -1)
    for t in range(len(delta)):
        last[moved[t]] = t + 1
    runs, length = [], 0
    for still in [*(~moved.any(dim=1)).tolist(), False]:
        if still:
            length += 1
        elif length:
            runs.append(length)
            length = 0
    print(int(last.max()), int(last.median()), int(last.min()), sorted(runs, reverse=True)[:10])
"""


def test_analyze_as_a_whole_process(recorded, exported):
    ours = min((measure_crucible("analyze", recorded, "--json") for _ in range(3)), key=lambda done: done.wall_s)
    theirs = measure_python(NOTEBOOK, exported)
    told = json.loads(ours.out)
    assert theirs.out.split()[0] == str(told["global_last_motion"])
    table(
        "All of `crucible analyze`, and the notebook's way to its first answers, 5,000 steps x 3,644 x 64",
        ["", "wall s", "processor s", "peak MB"],
        [
            ["crucible analyze", *(f"{x:.1f}" for x in (ours.wall_s, ours.cpu_s, ours.peak_mb))],
            ["load_file, norm, loop", *(f"{x:.1f}" for x in (theirs.wall_s, theirs.cpu_s, theirs.peak_mb))],
        ],
    )


PASS = """
    import sys, time, json, crucible, store, dask, numpy as np
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from store.run.commit import read_commit
    run, name, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    array = read_commit(run).array(run / "trajectory.zarr", name)
    data = store.open_trajectory(run)[name].data
    data[:1, :1, :1].compute()  # what dask loads for its first graph is not counted
    def decode():
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(array.read_chunk, array.indices()):
                pass
    def largest(block):
        return np.array(block.max()).reshape(1, 1, 1)
    def corner(block):
        return block[:1, :1, :1].copy()
    def ask(function):
        with dask.config.set(scheduler="threads", num_workers=2):
            dask.compute(data.map_blocks(function, dtype=data.dtype))
    ways = {"decode": decode, "corner": lambda: ask(corner), "max": lambda: ask(largest)}
    spent = []
    for turn in range(5):
        for way in dict.fromkeys(["decode", how]):
            since, used = time.perf_counter(), time.process_time()
            ways[way]()
            spent.append((way, time.perf_counter() - since, time.process_time() - used))
    print(json.dumps([[min(s[i] for s in spent if s[0] == way) for i in (1, 2)] for way in ("decode", how)]))
"""


WAYS = {
    "decode": "decoding alone, 2 threads",
    "corner": "dask, a function that looks at a corner",
    "max": "dask, the largest value",
}


def test_a_full_pass_by_a_function_of_the_user(recorded):
    """Each beside decoding in one process, in turns; the best of five."""
    rows = []
    for name in ("W", "delta_W_prime"):
        for how, words in WAYS.items():
            done = measure_python(PASS, recorded, name, how)
            (decode_s, _), (wall_s, cpu_s) = json.loads(done.out)
            rows.append(
                [name, words, f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{wall_s / decode_s:.2f}", f"{done.peak_mb:.0f}"]
            )
    table("A full pass", ["", "", "wall s", "processor s", "wall to decoding", "peak MB"], rows)


POINTS = """
    import sys, time, json, crucible, store, numpy as np
    ds = store.open_trajectory(sys.argv[1])
    def median_ms(read):
        took = []
        for turn in range(12):
            since = time.perf_counter()
            read(turn)
            took.append((time.perf_counter() - since) * 1e3)
        return float(np.median(took[2:]))
    rng = np.random.default_rng(0)
    steps, tokens = rng.permutation(ds.sizes["step"] - 1)[:12] + 1, rng.permutation(ds.sizes["token"])[:12]
    arrays = [ds.W, ds.delta_W_prime]
    found = [median_ms(lambda i: array.isel(token=int(tokens[i])).values) for array in arrays]
    found += [median_ms(lambda i: array.isel(step=int(steps[i])).values) for array in arrays]
    print(json.dumps(found))
"""

RECHUNKED = """
    import sys, numpy as np, torch, crucible, store
    import store.format.chunking as chunking
    from crucible.channels.table import NOTEBOOK, derive, finisher
    steps, tokens = int(sys.argv[3]), int(sys.argv[4])
    chunking.BLOCK_STEPS, chunking.OPEN_BLOCK_BYTES = steps, 1 << 40
    chunking.CHUNK_BYTES = steps * tokens * 128
    ds = store.open_trajectory(sys.argv[1])
    W, centroid, loss = ds.W, ds.centroid.values, ds.loss.values
    writer = store.TrajectoryWriter.create(sys.argv[2], channels=NOTEBOOK, derive=derive, finish=finisher(0.1),
        tokens=ds.token.values, hidden=64, statics={"dead_mask": ds.dead_mask.values},
        attributes={"motion_threshold": 0.1})
    for start in range(0, len(W), 256):
        for step, bits in enumerate(W[start:start + 256].values, start):
            writer.append(W=bits, centroid=centroid[step], loss=loss[step] if step else None)
    writer.complete()
"""


def points(run):
    return [f"{value:.0f}" for value in json.loads(measure_python(POINTS, run).out)]


def test_one_token_and_one_step(recorded):
    table(
        "Medians of 10, in the REPL, ms",
        ["one token, W", "one token, delta_W_prime", "one step, W", "one step, delta_W_prime"],
        [points(recorded)],
    )


def test_other_chunk_shapes(recorded, tmp_path):
    raw = 5001 * 3644 * 64 * 2 + 5000 * 3644 * 64 * 4
    rows = []
    for steps, tokens in [(64, 256), (64, 512), (128, 128), (128, 256), (128, 512), (256, 128), (256, 256)]:
        run = tmp_path / f"{steps}-{tokens}"
        done = measure_python(RECHUNKED, recorded, run, steps, tokens)
        files = sum(1 for path in run.rglob("*") if path.is_file())
        rows.append(
            [f"({steps}, {tokens})", f"{raw / folder_bytes(run):.1f}", *points(run), files, f"{done.peak_mb:.0f}"]
        )
    table(
        "Chunk shapes (steps, tokens), everything stored; the peak is that of copying, reading included",
        ["", "raw / stored", "token W ms", "token dW' ms", "step W ms", "step dW' ms", "files", "peak MB"],
        rows,
    )

"""What `crucible.attach` costs somebody's own loop: W alone, 2,048 rows x 128 in float32, as of a small GPT-2."""

import json

import pytest
from measuring import folder_bytes, measure_python, measure_steps, python_command, table

pytestmark = pytest.mark.benchmark
KINDS = ("bare", "attached")

ROWS, HIDDEN, STEPS = 2048, 128, 1_000

LOOP = f"""
    import contextlib, json, sys, time, torch, crucible
    from torch import nn
    from crucible.channels.table import W
    kind, batch, steps, run = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.manual_seed(0)
    embedding = nn.Embedding({ROWS}, {HIDDEN})
    stack = [(nn.Linear({HIDDEN}, {4 * HIDDEN}), nn.GELU(), nn.Linear({4 * HIDDEN}, {HIDDEN})) for _ in range(4)]
    layers = nn.Sequential(*(part for layer in stack for part in layer))
    optimizer = torch.optim.AdamW([*embedding.parameters(), *layers.parameters()], lr=1e-3)
    def train(steps):
        for _ in range(steps):
            ids, following = torch.randint(0, {ROWS}, (2, batch))  # random: what is learnt turns subnormal, and slow
            optimizer.zero_grad()
            states = layers(embedding(ids))
            nn.functional.cross_entropy(states @ embedding.weight.t(), following).backward()
            optimizer.step()
    train(10)
    recording = kind == "attached"
    with crucible.attach(embedding, optimizer, run, channels=(W,)) if recording else contextlib.nullcontext():
        since = time.perf_counter()
        train(steps)
        print(json.dumps((time.perf_counter() - since) / steps * 1e3))
"""


def batch_for(target_ms, tmp_path):
    """A batch size whose step takes about so long."""
    batch = 16
    while json.loads(measure_python(LOOP, "bare", batch, 20, tmp_path).out) < target_ms:
        batch = int(batch * 1.3) + 1
    return batch


@pytest.mark.parametrize("target_ms", [10, 50])
def test_weights_alone_in_float32(target_ms, tmp_path):
    batch = batch_for(target_ms, tmp_path)

    def commands(steps):
        return [python_command(LOOP, kind, batch, steps, tmp_path / f"{kind}-{steps}") for kind in KINDS]

    (bare, bare_cpu), (attached, cpu) = measure_steps(commands, STEPS)
    stored = folder_bytes(tmp_path / f"attached-{STEPS}")
    table(
        f"{STEPS} steps of about {target_ms} ms, W alone, {ROWS:,} rows x {HIDDEN} in float32, in turns of 2 s",
        ["ms a step without", "with", "with / without", "processor ms a step without", "with", "raw / stored"],
        [[f"{bare:.1f}", f"{attached:.1f}", f"{attached / bare:.3f}", f"{bare_cpu:.1f}", f"{cpu:.1f}",
          f"{(STEPS + 1) * ROWS * HIDDEN * 4 / stored:.2f}"]],
    )  # fmt: skip


SUSTAINED = """
    import sys, torch, crucible
    from torch import nn
    from crucible.channels.table import W
    def resident_mb():
        return next(int(line.split()[1]) / 1000 for line in open("/proc/self/status") if line.startswith("RssAnon"))
    torch.manual_seed(0)
    embedding = nn.Embedding(2048, 128)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=1e-3)
    with crucible.attach(embedding, optimizer, sys.argv[1], channels=(W,)) as recorder:
        for step in range(1, 5001):
            optimizer.zero_grad()
            embedding(torch.randint(0, 2048, (256,))).square().mean().backward()
            optimizer.step()
            if step % 1000 == 0:
                print(step, round(resident_mb()), round(recorder.writer.waited_s, 1))
"""


def test_memory_of_5000_steps_as_fast_as_they_go(tmp_path):
    done = measure_python(SUSTAINED, tmp_path / "run")
    rows = [line.split() for line in done.out.splitlines() if line[:1].isdigit()]
    table(
        f"5,000 steps without a pause, W alone, {ROWS:,} x {HIDDEN} in float32: the disk and the encoder set the pace",
        ["steps", "anonymous memory MB", "s that `append` has waited"],
        rows,
    )
    print("said:", *{line for line in done.out.splitlines() if "slower" in line})


MASTERS = """
    import json, sys, time, torch, crucible
    from torch import nn
    from contextlib import nullcontext
    kind, steps, run = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.manual_seed(0)
    embedding = nn.Embedding(4096, 64)
    nn.init.normal_(embedding.weight, std=0.02)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=1e-5)
    gradients = torch.randn(64, 4096, 64)
    gradients[:, 1000:] *= torch.rand(3096, 1) < 0.3
    how = {"bare": None, "exact": {}, "rounded": {"store_as": "bfloat16"}}[kind]
    with nullcontext() if how is None else crucible.attach(embedding, optimizer, run, say=lambda _: None, **how):
        since = time.process_time()
        for step in range(steps):
            embedding.weight.grad = gradients[step % 64]
            optimizer.step()
            time.sleep(0.02)
    print(json.dumps((time.process_time() - since) / steps * 1e3))
"""


def test_float32_masters_late_in_training(tmp_path):
    steps, rows = 640, []
    spent = {}
    for kind in ("bare", "exact", "rounded"):
        spent[kind] = float(measure_python(MASTERS, kind, steps, tmp_path / kind).out.split()[-1])
        stored = 0 if kind == "bare" else folder_bytes(tmp_path / kind) / steps / 1e3
        rows.append([kind, f"{spent[kind]:.1f}", f"{spent[kind] - spent['bare']:.1f}", f"{stored:.0f}"])
    table(
        "float32 masters, 4,096 x 64, AdamW at lr 1e-5, the default table, steps of 20 ms and more",
        ["kept", "processor ms a step", "of it recording", "kB a step"],
        rows,
    )

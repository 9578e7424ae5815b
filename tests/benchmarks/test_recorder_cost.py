"""What `crucible.attach` costs somebody's own loop: W alone, 2,048 rows x 128 in float32, as of a small GPT-2."""

import statistics
import time

import pytest
import torch
from measuring import folder_bytes, measure_python, table
from torch import nn

import crucible
from crucible.channels import W

pytestmark = pytest.mark.benchmark

ROWS, HIDDEN, STEPS, TURNS = 2048, 128, 300, 3


class Loop:
    """An embedding with its head, and a stack of layers that makes a step as long as asked."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ROWS, HIDDEN)
        layers = [(nn.Linear(HIDDEN, 4 * HIDDEN), nn.GELU(), nn.Linear(4 * HIDDEN, HIDDEN)) for _ in range(4)]
        self.layers = nn.Sequential(*(part for layer in layers for part in layer))
        self.parameters = [*self.embedding.parameters(), *self.layers.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3)
        self.batch = batch

    def run(self, steps: int) -> float:
        """Milliseconds a step."""
        since = time.perf_counter()
        for _ in range(steps):
            ids = torch.randint(0, ROWS, (self.batch,))
            self.optimizer.zero_grad()
            states = self.layers(self.embedding(ids))
            nn.functional.cross_entropy(states @ self.embedding.weight.t(), ids).backward()
            self.optimizer.step()
        return (time.perf_counter() - since) / steps * 1e3


def batch_for(target_ms: float) -> int:
    batch = 16
    while Loop(batch).run(20) < target_ms:
        batch = int(batch * 1.2) + 1
    return batch


@pytest.mark.parametrize("target_ms", [10, 50])
def test_weights_alone_in_float32(target_ms, tmp_path):
    batch, ratios, bare = batch_for(target_ms), [], []
    cpu = {"without": 0.0, "with": 0.0}
    for turn in range(TURNS):
        plain, recorded = Loop(batch), Loop(batch)
        since = time.process_time()
        bare.append(plain.run(STEPS))
        cpu["without"] += time.process_time() - since
        since = time.process_time()
        with crucible.attach(recorded.embedding, recorded.optimizer, tmp_path / f"run-{turn}", channels=(W,)):
            took = recorded.run(STEPS)
        cpu["with"] += time.process_time() - since
        ratios.append(took / bare[-1])
    stored = folder_bytes(tmp_path / "run-0")
    extra = (cpu["with"] - cpu["without"]) / TURNS / STEPS * 1e3
    table(
        f"{STEPS} steps of about {target_ms} ms, W alone, {ROWS:,} rows x {HIDDEN} in float32",
        ["ms a step without", "with / without, each turn", "median", "processor ms a step", "raw / stored"],
        [[f"{statistics.median(bare):.1f}", ", ".join(f"{ratio:.3f}" for ratio in ratios),
          f"{statistics.median(ratios):.3f}", f"{extra:.2f}", f"{(STEPS + 1) * ROWS * HIDDEN * 4 / stored:.2f}"]],
    )  # fmt: skip


SUSTAINED = """
    import sys, torch, crucible
    from torch import nn
    from crucible.channels import W
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

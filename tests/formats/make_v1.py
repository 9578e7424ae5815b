"""Made tests/formats/v1 once, with the code of format 1. Never run it again: that store must open for ever.

python tests/formats/make_v1.py FOLDER
"""

import sys

import numpy as np

import crucible  # noqa: F401 - its guard against shadowed packages
import store
from crucible.channels.table import NOTEBOOK, derive, finisher
from store.format.schema import Channel

STEPS, TOKENS, HIDDEN = 150, 6, 4


def states():
    """uint16 (151, 6, 4): bits that move less and less; token i for the last time at step 25 i."""
    moves = np.zeros((STEPS + 1, TOKENS, HIDDEN), np.int64)
    for token in range(TOKENS):
        for step in range(1, 25 * token + 1):
            moves[step, token, step % HIDDEN] = (-1) ** (step // 3) * (1 + 40 // step)
    return (0x3C80 + 7 * np.arange(TOKENS)[:, None] + np.cumsum(moves, axis=0)).astype(np.uint16)


def centroid(bits):
    """float32 (4,)."""
    return (bits.astype(np.uint32) << 16).view(np.float32).mean(axis=0)


def main(folder):
    sparse = Channel("adam_m", ("token", "hidden"), "float32", every=50, meaning="state after update t")
    mask = np.arange(12) % 2 == 0
    writer = store.TrajectoryWriter.create(
        folder, channels=[*NOTEBOOK, sparse], derive=derive, finish=finisher(0.1), tokens=np.flatnonzero(mask),
        hidden=HIDDEN, statics={"dead_mask": mask}, config={"total_steps": STEPS},
        attributes={"motion_threshold": 0.1, "beta1": 0.9, "config": {"total_steps": STEPS}},
    )  # fmt: skip
    for step, bits in enumerate(states()):
        rows = {"W": bits, "centroid": centroid(bits), "loss": 10 / (1 + step) if step else None}
        if step % 50 == 0:
            rows["adam_m"] = np.full((TOKENS, HIDDEN), step, np.float32)
        writer.append(**rows)
    writer.checkpoint(STEPS, {"state.json": b"{}"})
    writer.complete(lambda finals: {"global_last_motion": int(finals["last_motion_step"].max())})


if __name__ == "__main__":
    main(sys.argv[1])

"""Made tests/formats/v2 once, with the code of format 2. Never run it again: those stores must open for ever.

python tests/formats/make_v2.py FOLDER

`whole` went on once after step 100, as another writer; `compacted` is a copy of it in long blocks; `open` is a run
that was cut back to step 20, stands at step 39 and is not finished.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from make_v1 import HIDDEN, STEPS, TOKENS, centroid, states

import crucible  # noqa: F401 - its guard against shadowed packages
import store
from crucible.channels.table import ADAM_M, NOTEBOOK, derive, finisher
from store.format.schema import Channel
from store.upkeep.compact import compact

OPTIONS = {"derive": derive, "finish": finisher(0.1)}
EVERY_50 = Channel("adam_m", ("token", "hidden"), "float32", every=50, codec=ADAM_M.codec, meaning=ADAM_M.meaning)


def fill(writer, steps):
    for step in range(writer.steps + 1, steps + 1):
        bits = states()[step]
        rows = {"W": bits, "centroid": centroid(bits), "loss": 10 / (1 + step) if step else None}
        if step % 50 == 0:
            rows["adam_m"] = np.full((TOKENS, HIDDEN), step, np.float32)
        writer.append(**rows)


def begin(run):
    mask = np.arange(12) % 2 == 0
    return store.TrajectoryWriter.create(
        run, channels=[*NOTEBOOK, EVERY_50], tokens=np.flatnonzero(mask), hidden=HIDDEN, statics={"dead_mask": mask},
        config={"total_steps": STEPS}, **OPTIONS,
        attributes={"motion_threshold": 0.1, "beta1": 0.9, "config": {"total_steps": STEPS}},
    )  # fmt: skip


def main(folder):
    whole, unfinished = folder / "whole", folder / "open"
    with begin(whole) as writer:
        fill(writer, 100)
    writer = store.TrajectoryWriter.resume(whole, **OPTIONS)
    fill(writer, STEPS)
    writer.checkpoint(STEPS, {"state.json": b"{}"})
    writer.complete(lambda finals: {"global_last_motion": int(finals["last_motion_step"].max())})
    shutil.copytree(whole, folder / "compacted")
    compact(folder / "compacted")
    with begin(unfinished) as writer:
        fill(writer, 30)
    with store.TrajectoryWriter.resume(unfinished, from_step=20, cut=True, **OPTIONS) as writer:
        fill(writer, 39)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Crucible: the displacement is derived in the background, and its norms and the centroid are kept beside it."""

import numpy as np

NEEDS = ()
WAYS = {"crucible": {}}


def write(out, rows, shape):
    """W, the displacement, three norms, the centroid and a loss."""
    import torch

    import store
    from crucible.channels.table import NOTEBOOK, derive, finisher

    _, tokens, hidden = shape
    writer = store.TrajectoryWriter.create(
        out, channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=np.arange(tokens), hidden=hidden,
        statics={"dead_mask": np.ones(tokens, bool)}, attributes={"motion_threshold": 0.1},
    )  # fmt: skip
    with writer:
        for step, row in rows:
            centroid = torch.from_numpy(row).view(torch.bfloat16).float().mean(dim=0).numpy()
            writer.append(W=row, centroid=centroid, loss=float(step) if step else None)
        writer.complete()


def read(out):
    """Arrays that are sliced lazily."""
    import store

    ds = store.open_trajectory(out)
    return {name: Sliced(ds[name].data) for name in ("W", "delta_W_prime")}, "labels"


class Sliced:
    """A dask array that answers slices with numbers."""

    def __init__(self, data):
        self.data, self.shape = data, data.shape

    def __getitem__(self, key):
        return np.asarray(self.data[key])


def last_motion(out):
    """As a user asks for it."""
    import analysis
    import store

    return analysis.last_motion(store.open_trajectory(out)).last_motion.values

"""Small runs for the tests of the live page: bfloat16 rows that walk less and less, with norms, centroid and loss."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_runs import QUICK

import store
from crucible.channels.table import DEAD_MASK, LOSS, NOTEBOOK, W, derive, finisher
from crucible.inputs.config import Config
from crucible.inputs.stored_config import as_stored

TRAINED = {"config": as_stored(Config(), {})}
"""Attributes of a run that `crucible train` made."""


def states(steps, tokens=40, hidden=8, seed=0, dtype=np.uint16):
    """States 0..steps that calm down: (step, token, hidden), bits of bfloat16, float32 or float16."""
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(1, tokens, hidden)).astype(np.float32)
    rate = 1 / (1 + np.arange(steps) / max(1, steps / 12))
    moves = rng.normal(size=(steps, tokens, hidden)) * 0.05 * rate[:, None, None]
    moves *= rng.random((steps, tokens, 1)) < rate[:, None, None] ** 2
    wide = np.concatenate([start, start + np.cumsum(moves, axis=0).astype(np.float32)])
    return (wide.view(np.uint32) >> 16).astype(np.uint16) if dtype == np.uint16 else wide.astype(dtype)


def as_float(rows):
    return (rows.astype(np.uint32) << 16).view(np.float32) if rows.dtype == np.uint16 else rows.astype(np.float32)


def table(dtype, *, norms=True, of_W=None, every=None):
    kept = NOTEBOOK if norms else (W, LOSS, DEAD_MASK)
    own = {"attributes": of_W or {}} if dtype == np.uint16 else {
        "attributes": of_W or {}, "dtype": np.dtype(dtype).name, "bits_of": None,
    }  # fmt: skip
    kept = (replace(c, every=(every or {}).get(c.name, 1)) if c.role == "given" else c for c in kept)
    return tuple(replace(c, **own) if c.name == "W" else c for c in kept)


def create(run, rows, *, norms=True, attributes=None, of_W=None, every=None, **options):
    """A writer of a new run for these states; token ids are 3, 5, 7, ..."""
    tokens, hidden = rows.shape[1:]
    how = {"derive": derive, "finish": finisher(0.1)} if norms else {}
    return store.TrajectoryWriter.create(
        run, channels=table(rows.dtype, norms=norms, of_W=of_W, every=every), tokens=3 + 2 * np.arange(tokens),
        hidden=hidden, statics={"dead_mask": np.arange(2 * tokens + 3) % 2 == 1},
        attributes={"motion_threshold": 0.1, "beta1": 0.9} | (attributes or {}), **{"disk": QUICK} | how | options,
    )  # fmt: skip


def resume(run, **options):
    return store.TrajectoryWriter.resume(run, derive=derive, finish=finisher(0.1), **{"disk": QUICK} | options)


def forks(folder, rows, *, complete=True):
    """Two copies of a run that went on by themselves from its middle on, and so differ in block 1 of 300 steps."""
    run, middle = folder / "run", len(rows) // 2
    with create(run, rows) as writer:
        append(writer, rows, 0, middle)
    fork = shutil.copytree(run, folder / "fork")
    for each, states in ((run, rows), (fork, rows ^ 1)):
        with resume(each) as writer:
            append(writer, states, middle, len(rows))
            if complete:
                writer.complete()
    return run, fork


def append(writer, rows, start, stop, *, norms=True, every=None):
    for step in range(start, stop):
        with np.errstate(all="ignore"):
            centroid = {"centroid": as_float(rows[step]).mean(axis=0)} if norms else {}
        row = {"W": rows[step], "loss": None if step == 0 else np.float32(3 + 5 / step), **centroid}
        writer.append(**{name: value for name, value in row.items() if step % (every or {}).get(name, 1) == 0})


def append_without_loss(writer, rows):
    """As a loop that logs nothing."""
    for row in rows:
        writer.append(W=row, loss=None, centroid=as_float(row).mean(axis=0))


def record(run, rows, *, complete=True, norms=True, every=None, **options):
    """A whole run."""
    with create(run, rows, norms=norms, every=every, **options) as writer:
        append(writer, rows, 0, len(rows), norms=norms, every=every)
        if complete:
            writer.complete()
    return Path(run)

"""Tiny trajectories of plain numbers for tests of the store, which knows no lattice: moves are differences."""

import os
from pathlib import Path

import numpy as np
import shards

import store
from store.disk import LocalDisk
from store.format.schema import Channel


class Unflushed:
    """The operating system without fsync, for tests that cut no power: 20 times quicker on a busy disk."""

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, fd):
        pass


QUICK = LocalDisk(Unflushed())

TABLE = (
    Channel("W", ("token", "hidden"), "uint16", bits_of="bfloat16"),
    Channel("jump", ("token", "hidden"), "float32", role="derived", belongs_to="move"),
    Channel("size", ("token",), "float32", role="derived", belongs_to="move"),
    Channel("centroid", ("hidden",), "float32"),
    Channel("loss", (), "float32", belongs_to="move"),
    Channel("largest", ("token",), "float32", role="final"),
    Channel("dead_mask", ("vocabulary",), "bool", role="static"),
)


def derive(previous, rows):
    before = np.concatenate([previous["W"][None], rows["W"]])[:-1]
    jump = rows["W"].astype(np.float32) - before.astype(np.float32)
    return {"jump": jump, "size": np.abs(jump).max(axis=-1)}


def finish(blocks):
    return {"largest": np.max([np.nanmax(rows, axis=0, initial=0) for _, rows in blocks("size")], axis=0)}


class agree:  # noqa: N801 - stands for a function
    """Whether the centroid of a block is the mean of its weights, to the bit."""

    def __init__(self, exactly):  # noqa: ARG002 - it always looks exactly
        self.tiles = []

    def see(self, tile):
        self.tiles.append(tile["W"].astype(np.float32))

    def fits(self, rows):
        mean = np.concatenate(self.tiles, axis=1).mean(axis=1)
        return {"centroid": np.all(rows("centroid") == mean, axis=-1)}


def weights(steps, tokens=5, hidden=3, seed=0):
    """States 0..steps of a walk that rests at times: uint16 (step, token, hidden)."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, 3, (steps + 1, tokens, hidden)) * (rng.random((steps + 1, tokens, 1)) < 0.4)
    return (1000 + np.cumsum(moves, axis=0)).astype(np.uint16)


def row(states, step):
    """What is given at a step."""
    centroid = states[step].astype(np.float32).mean(axis=0)
    return {"W": states[step], "centroid": centroid, "loss": None if step == 0 else np.float32(1 / step)}


def create(run, states, **options):
    tokens, hidden = states.shape[1:]
    mask = np.arange(2 * tokens) % 2 == 0
    return store.TrajectoryWriter.create(
        run, channels=TABLE, derive=derive, finish=finish, tokens=np.arange(0, 2 * tokens, 2), hidden=hidden,
        statics={"dead_mask": mask}, **{"disk": QUICK, "attributes": {"motion_threshold": 0.1}} | options,
    )  # fmt: skip


def resume(run, **options):
    return store.TrajectoryWriter.resume(run, derive=derive, finish=finish, **{"disk": QUICK} | options)


def fill(writer, states, start=None, stop=None):
    """Append the rows after the writer's step, or ``start:stop``."""
    for step in range(writer.steps + 1 if start is None else start, len(states) if stop is None else stop):
        writer.append(**row(states, step))


def record(run, states, **options):
    """A whole, completed run."""
    with create(run, states, **options) as writer:
        fill(writer, states)
        writer.complete(lambda finals: {"largest": float(finals["largest"].max())})
    return Path(run)


def assert_holds(run, states):
    """The run holds exactly these states and what follows from them."""
    ds = store.open_trajectory(run)
    assert ds.step.values.tolist() == list(range(len(states)))
    np.testing.assert_array_equal(ds.W.values, states)
    jump = ds.jump.values
    assert np.isnan(jump[0]).all()
    expected = derive({"W": states[0]}, {"W": states[1:]})
    np.testing.assert_array_equal(jump[1:], expected["jump"])
    np.testing.assert_array_equal(ds["size"].values[1:], expected["size"])
    np.testing.assert_array_equal(ds.loss.values[1:], [np.float32(1 / t) for t in range(1, len(states))])
    np.testing.assert_array_equal(ds.centroid.values, states.astype(np.float32).mean(axis=1))


def files(run):
    """Content of every file of chunks of a run, by path."""
    root = Path(run) / "trajectory.zarr"
    return {str(p.relative_to(root)): shards.content(p) for p in sorted(root.rglob("c.*"))}

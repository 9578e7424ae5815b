"""A tiny run with every kind of channel, and a system that fails on command: what the fault tests share.

The rows are plain functions of (step, variant), so that any row can be checked by itself. What the run must hold is
reckoned here by loops that know nothing of the store's code.
"""

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import shards

import store.format.chunking
import store.writing.encoder
from store.disk import LocalDisk
from store.errors import NotATrajectoryError
from store.format.schema import Channel
from store.run.commit import read_commit
from store.run.document import digest
from store.writing.writer import TrajectoryWriter

TOKENS, HIDDEN = 5, 2
BLOCK, TILE, SCALARS = 4, 2, 8
TABLE = (
    Channel("W", ("token", "hidden"), "uint16", bits_of="bfloat16"),
    Channel("jump", ("token", "hidden"), "float32", role="derived", belongs_to="move"),
    Channel("size", ("token",), "float32", role="derived", belongs_to="move"),
    Channel("centroid", ("hidden",), "float32"),
    Channel("loss", (), "float32", belongs_to="move"),
    Channel("probe", ("token",), "float32", every=3, until=30),
    Channel("dead", ("vocabulary",), "bool", role="static"),
    Channel("largest", ("token",), "float32", role="final"),
)
SMALL_TABLE = tuple(channel for channel in TABLE if channel.name in ("W", "jump", "loss", "largest"))
STATICS = {"dead": np.arange(7) % 2 == 0}
CONFIG = {"total_steps": 10, "seed": 7}
CALLS = ("open", "write", "pwrite", "fsync", "close", "replace", "mkdir", "unlink", "rmdir")


def patch_blocks(setattr=setattr):
    """Blocks of 4 steps, tiles of 2 tokens, 8 numbers in a chunk of one number a step."""
    setattr(store.format.chunking, "BLOCK_STEPS", BLOCK)
    setattr(store.format.chunking, "CHUNK_BYTES", BLOCK * TILE * HIDDEN * 2)
    setattr(store.format.chunking, "SCALAR_ROWS", SCALARS)
    setattr(store.writing.encoder, "SCALAR_ROWS", SCALARS)


def state(step, variant=0):
    """W after `step`, of another run for another variant: uint16 (token, hidden)."""
    moves = (step // (1 + np.arange(TOKENS)[:, None])) * (1 + np.arange(HIDDEN))
    return (1000 + 7 * variant + moves * 3).astype(np.uint16)


def row(step, variant=0, table=TABLE):
    """What is given at a step."""
    rows = {
        "W": state(step, variant),
        "centroid": np.float32([step + variant, -step / 3]),
        "loss": None if step == 0 else np.float32(100 / step + variant),
    }
    if step % 3 == 0 and step <= 30:
        rows["probe"] = np.float32(np.arange(TOKENS) * step + variant)
    return {name: value for name, value in rows.items() if name in {channel.name for channel in table}}


def derive(previous, rows):
    """Jumps are differences of the bits as numbers; the size of a jump is its largest coordinate."""
    W = np.concatenate([previous["W"][None], rows["W"]]).astype(np.float32)
    jump = W[1:] - W[:-1]
    return {"jump": jump, "size": np.abs(jump).max(axis=-1, initial=0)}


def derive_small(previous, rows):
    """As `derive`, without the sizes."""
    return {"jump": derive(previous, rows)["jump"]}


def finish(blocks):
    """The largest coordinate of W that each token ever had."""
    return {"largest": np.max([rows.max(axis=(0, 2)) for _, rows in blocks("W")], axis=0).astype(np.float32)}


def expected(steps, variant_of=lambda _: 0, table=TABLE):
    """Every array of the run's step axes up to `steps`, by plain loops."""
    rows = [row(step, variant_of(step), TABLE) for step in range(steps + 1)]
    W = [[[int(x) for x in token] for token in given["W"]] for given in rows]
    nan = float("nan")
    jump = [[[nan if t == 0 else W[t][i][j] - W[t - 1][i][j] for j in range(HIDDEN)] for i in range(TOKENS)]
            for t in range(steps + 1)]  # fmt: skip
    size = [[max(abs(x) for x in token) if t else nan for token in jump[t]] for t in range(steps + 1)]
    probed = [t for t in range(steps + 1) if "probe" in rows[t]]
    arrays = {
        "step": np.arange(steps + 1),
        "W": np.array(W, np.uint16),
        "jump": np.array(jump, np.float32),
        "size": np.array(size, np.float32),
        "centroid": np.array([given["centroid"] for given in rows], np.float32),
        "loss": np.array([nan if given["loss"] is None else given["loss"] for given in rows], np.float32),
        "probe": np.array([rows[t]["probe"] for t in probed], np.float32),
        "step_probe": np.array(probed),
    }
    names = {channel.name for channel in table}
    return {n: a for n, a in arrays.items() if n in names | {"step"} or (n == "step_probe" and "probe" in names)}


def checkpoint_files(step, variant=0):
    """Training state after a step."""
    return {"model.bin": bytes([step % 256, variant]) * 40, "state.json": json.dumps({"step": step}).encode()}


def create(run, table=TABLE, **options):
    return TrajectoryWriter.create(
        run, channels=table, derive=derive if table is TABLE else derive_small, finish=finish, hidden=HIDDEN,
        tokens=np.arange(TOKENS) * 10, statics=STATICS if table is TABLE else {}, attributes={"beta1": 0.9},
        **({"config": CONFIG, "commit_interval_s": 1e6} | options),
    )  # fmt: skip


def resume(run, table=TABLE, **options):
    return TrajectoryWriter.resume(
        run, derive=derive if table is TABLE else derive_small, finish=finish, **({"commit_interval_s": 1e6} | options)
    )


def drive(writer, steps=10, table=TABLE, acknowledge=lambda _: None, end=True):
    """Go on to `steps` as a trainer does: checkpoints, commits, and the end."""
    for step in range(writer.steps + 1, steps + 1):
        writer.append(**row(step, table=table))
        if step % 3 == 2:
            writer.checkpoint(step, checkpoint_files(step))
        if step % 5 in (0, 3):
            writer.commit()
        acknowledge(writer)
    if end:
        writer.checkpoint(steps, checkpoint_files(steps))
        writer.commit()
        acknowledge(writer)
        writer.complete(lambda finals: {"largest": [float(value) for value in finals["largest"]]})
    else:
        writer.close()


def go_on(run, steps=10, table=TABLE, from_checkpoint=False, **options):
    """Resume, or begin where nothing was committed, and go on to the end; answers the writer."""
    try:
        commit = read_commit(Path(run))
    except NotATrajectoryError:
        writer = create(run, table, restart=True, **options)
    else:
        at = int(commit.checkpoint.removeprefix("step-")) if from_checkpoint and commit.checkpoint else None
        writer = resume(run, table, from_step=at, **options)
    drive(writer, steps, table)
    return writer


def stored(run):
    """Every array of a run at its commit, read strictly, without xarray; (commit, arrays)."""
    commit = read_commit(Path(run))
    arrays = {}
    for name, metadata in commit.arrays.items():
        array = commit.array(Path(run) / "trajectory.zarr", name)
        on_steps = metadata["attributes"]["role"] in ("given", "derived")
        arrays[name] = array.read_rows(0, array.shape[0]) if on_steps else array.read_chunk((0,) * len(array.shape))
    return commit, arrays


def assert_holds(run, at_least=-1, variant_of=lambda _: 0, table=TABLE):
    """The run opens at a commit not before `at_least`, and every row and document is what it must be; the commit."""
    commit, arrays = stored(run)
    assert commit.committed_steps >= at_least, f"{at_least} was acknowledged, the run is at {commit.committed_steps}"
    assert_rows(commit, arrays, variant_of, table)
    assert_documents(run, commit)
    return commit


def assert_rows(commit, arrays, variant_of, table=TABLE):
    """Every array that was read is what it must be."""
    for name, wanted in expected(commit.committed_steps, variant_of, table).items():
        assert arrays[name].shape == wanted.shape, name
        assert np.array_equal(arrays[name], wanted, equal_nan=wanted.dtype.kind == "f"), f"{name} differs"
    assert arrays["token"].tolist() == [10 * i for i in range(TOKENS)]
    if table is TABLE:
        assert arrays["dead"].tolist() == STATICS["dead"].tolist()
    assert ("largest" in arrays) == commit.completed


def assert_documents(run, commit):
    """Every document that the commit names is there and is the named one; those of its checkpoint among them."""
    for name, digests in commit.sha256.items():
        assert digest((Path(run) / name).read_bytes()) in digests.split(), f"{name} is not the committed one"
    if commit.checkpoint:
        step = int(commit.checkpoint.removeprefix("step-"))
        for name, data in checkpoint_files(step).items():
            assert (Path(run) / "checkpoint" / commit.checkpoint / name).read_bytes() == data
            assert f"checkpoint/{commit.checkpoint}/{name}" in commit.sha256


def files(run):
    """The content of every file that a run keeps, apart from who wrote it."""
    paths = sorted(path for path in Path(run).rglob("*") if path.is_file() or path.is_symlink())
    names = {str(path.relative_to(run)): path for path in paths}
    return {name: shards.content(path) for name, path in names.items() if name != "LOCK" and ".partial" not in name}


class Calls:
    """The operating system with a hook before each call, and flushing for free: no test here cuts the power."""

    def __init__(self):
        self.count = 0

    def before(self, _name, *_args):
        """Called before each call; may raise."""

    def __getattr__(self, name):
        if name not in CALLS:
            raise AttributeError(name)

        def call(*args, **options):
            self.count += 1
            try:
                self.before(name, *args)
            except OSError:
                if name == "close":
                    os.close(*args)  # the descriptor is gone, as after a close that fails
                raise
            return None if name == "fsync" else getattr(os, name)(*args, **options)

        return call


class Failing(Calls):
    """Call `n` (from 1) fails with an error number; all later ones too when it is for good."""

    def __init__(self, n, code=errno.ENOSPC, for_good=False):
        super().__init__()
        self.n, self.code, self.for_good = n, code, for_good
        self.failed = False

    def before(self, _name, *_args):
        if self.count == self.n or (self.for_good and self.count > self.n):
            self.failed = True
            raise OSError(self.code, os.strerror(self.code))


def fast_disk():
    return LocalDisk(Calls())


def unbroken(folder, steps=10, table=TABLE, **options):
    """A run that nothing happened to."""
    run = Path(folder) / "unbroken"
    drive(create(run, table, disk=fast_disk(), **options), steps, table)
    return run


@contextmanager
def fresh(folder):
    """A folder that is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

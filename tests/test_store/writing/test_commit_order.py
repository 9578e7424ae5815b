"""Each flush and rename of a run's life, in order and by what it is of: a flush that is left out is seen here.

What a power cut leaves where one is missing is tested in test_faults_power.py; here each stands by its name.
"""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import store_cases
from power_loss import PowerLog

import store
from store.disk import LocalDisk
from store.format.schema import Channel
from store.upkeep.compact import compact

TABLE = (
    Channel("W", ("token", "hidden"), "uint16"),
    Channel("largest", ("token",), "uint16", role="final"),
)


CONFIG = {"total_steps": 3}


class NamedCalls(PowerLog):
    """Also tells each flush and rename by the path of the file or folder, below the run."""

    def __init__(self, root):
        super().__init__(root)
        self.told = []

    def tell(self, what, path):
        path = Path(re.sub(r"(\.partial/)[0-9a-f]{16}\.", r"\1", str(path.relative_to(self.root / "run"))))
        self.told.append(f"{what} {'the run' if path.parts == () else path}")

    def fsync(self, fd):
        super().fsync(fd)
        path = self._open[fd][1]
        if path == self.root:
            self.told.append("flush the folder above")
        else:
            self.tell("flush", path)

    def replace(self, source, target, *, src_dir_fd=None, dst_dir_fd=None):
        super().replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self.tell("rename to", self._path(target, dst_dir_fd))

    def since(self):
        told, self.told = self.told, []
        return told


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    store_cases.patch_blocks(monkeypatch.setattr)


@pytest.fixture
def calls(tmp_path):
    return NamedCalls(tmp_path)


def finish(blocks):
    return {"largest": np.max([rows.max(axis=(0, 2)) for _, rows in blocks("W")], axis=0)}


def begin(calls):
    return store.TrajectoryWriter.create(
        calls.root / "run", channels=TABLE, tokens=np.arange(2), hidden=2, disk=LocalDisk(calls), finish=finish,
        config=CONFIG, attributes={"config": CONFIG}, commit_interval_s=1e6,
    )  # fmt: skip


def fill(writer, stop):
    for step in range(writer.steps + 1, stop):
        writer.append(W=np.full((2, 2), step, np.uint16))


def put(*paths):
    """Files put in place: each flushed under its temporary name, then renamed."""
    for path in map(Path, paths):
        yield f"flush .partial/{path.parent.name or 'run'}.{path.name}"
        yield f"rename to {path}"


def written(*files):
    """Files of chunks, flushed under their temporary names."""
    return [f"flush .partial/{file.replace('/', '.')}" for file in files]


def named(folder, *files):
    """They get their names, all at once."""
    return [f"rename to {folder}/{file}" for file in files]


HIDDEN = ".partial/trajectory.zarr"
LIVE = "trajectory.zarr"
BEGUN = [
    "flush the folder above",  # a folder of a run that was killed before may not be flushed yet
    "flush the folder above",  # the run's folder
    "flush the run",  # .partial
    *put("config.json"),
    "flush the run",  # config.json is durable before anything else is there
    "flush .partial",  # and the folders of the group and of its three arrays
    *[f"flush {HIDDEN}"] * 3,
    *put(f"{HIDDEN}/token/zarr.json"),
    *written("token/c.0"),
]
APPEARED = [
    *written("step/c.0", "W/c.0.0.0"),
    *named(HIDDEN, "token/c.0", "step/c.0", "W/c.0.0.0"),
    *[f"flush {HIDDEN}/{name}" for name in ("W", "step", "token")],  # chunks
    *put(f"{HIDDEN}/token/zarr.json"),
    f"flush {HIDDEN}/token",
    *put(f"{HIDDEN}/W/zarr.json"),
    f"flush {HIDDEN}/W",
    *put(f"{HIDDEN}/step/zarr.json"),
    f"flush {HIDDEN}/step",
    *put(f"{HIDDEN}/zarr.json"),  # the commit
    f"flush {HIDDEN}",
    f"rename to {LIVE}",
    "flush the run",
    "rename to commit.json",
]
FOLDERS = [f"flush {LIVE}/W", f"flush {LIVE}/step"]
PUBLISHED = [*put(f"{LIVE}/zarr.json"), f"flush {LIVE}"]
TAIL_COMMIT = [*PUBLISHED, "rename to commit.json"]  # within a block the second copy may be lost in a power cut
COMMIT = [*PUBLISHED, *put("commit.json")]
BEHIND = [*put(f"{LIVE}/W/zarr.json", f"{LIVE}/step/zarr.json")]  # arrays' own metadata, never before the commit
CHECKPOINT = [
    "flush the run",  # the folder of checkpoints
    "flush checkpoint",  # the folder of this one
    *put("checkpoint/step-2/model"),
    "flush checkpoint/step-2",
    *put("checkpoint/step-2/state"),
    "flush checkpoint/step-2",
]


def block(number, between=()):
    """The files of one block of rows; the training state comes before they get their names."""
    files = ("step/c.0", f"W/c.{number}.0.0")
    return [*written(*files), *between, *named(LIVE, *files), *FOLDERS]


def test_a_run_begins_with_its_config_and_appears_whole(calls):
    writer = begin(calls)
    assert calls.since() == BEGUN
    fill(writer, 1)
    writer.commit()
    assert calls.since() == APPEARED
    writer.close()
    assert calls.since() == []


def test_a_commit_is_of_chunks_then_training_state_then_the_group_then_the_arrays(calls):
    writer = begin(calls)
    fill(writer, 1)
    writer.commit()
    fill(writer, 3)
    writer.checkpoint(2, {"model": b"weights", "state": b"{}"})
    calls.since()
    writer.commit()
    assert calls.since() == [*block(0, CHECKPOINT), *TAIL_COMMIT]  # arrays' own metadata waits for the block's end
    fill(writer, 6)  # a block of four is full, and another one begins
    writer.commit()
    assert calls.since() == [*block(0), *COMMIT, *BEHIND, *block(1), *TAIL_COMMIT]
    writer.close()
    assert calls.since() == BEHIND


@pytest.fixture
def ended(calls):
    """A run of three steps whose life so far was told."""
    writer = begin(calls)
    fill(writer, 4)
    writer.commit()
    calls.since()
    writer.complete(lambda _: {})
    return calls


def test_the_end_is_of_words_then_final_arrays_then_the_group(ended):
    assert ended.since() == [
        *put("metadata.json"),
        "flush the run",
        f"flush {LIVE}",  # the final array's folder
        *put(f"{LIVE}/largest/zarr.json"),
        *written("largest/c.0"),
        *named(LIVE, "largest/c.0"),
        f"flush {LIVE}/largest",
        *COMMIT,
    ]


SWEEP = ["flush the run", f"flush {LIVE}"]  # who was killed may have left a commit that is seen and not durable
COMES = [*SWEEP, *COMMIT]  # a new writer is named before it writes a file


def test_another_config_is_allowed_by_a_commit_before_it_is_there(ended):
    ended.since()
    writer = store.TrajectoryWriter.resume(ended.root / "run", disk=LocalDisk(ended), config={"total_steps": 5})
    assert ended.since() == [*COMES, *COMMIT, *put("config.json"), "flush the run"]
    writer.close()
    assert ended.since() == COMMIT


def test_a_cut_takes_the_arrays_back_before_the_group_and_writes_only_then(ended):
    ended.since()
    writer = store.TrajectoryWriter.resume(ended.root / "run", disk=LocalDisk(ended), from_step=1)
    assert ended.since() == COMES
    writer.append(W=np.full((2, 2), 77, np.uint16))
    writer.close()
    everything = [*FOLDERS, f"flush {LIVE}/token"]
    assert ended.since() == [*BEHIND, *everything, *COMMIT, *SWEEP, *block(0), *TAIL_COMMIT, *BEHIND]


def test_a_compaction_is_whole_and_durable_before_the_two_renames(ended):
    ended.since()
    compact(ended.root / "run", disk=LocalDisk(ended), threads=1)
    copy = ".partial/compacted.zarr"
    chunks = {"token": "c.0", "W": "c.0.0.0", "step": "c.0", "largest": "c.0"}
    assert ended.since() == [
        "flush .partial",
        *[f"flush {copy}"] * len(chunks),
        *[f"flush {copy}/{name}/{chunk}" for name, chunk in chunks.items()],
        *itertools.chain(*([*put(f"{copy}/{name}/zarr.json"), f"flush {copy}/{name}"] for name in chunks)),
        *put(f"{copy}/zarr.json"),
        f"flush {copy}",
        "flush .partial",
        "rename to .partial/replaced.zarr",
        "flush .partial",
        "flush the run",
        f"rename to {LIVE}",
        "flush the run",
        *put("commit.json"),
    ]


def test_a_repair_copies_training_state_before_it_cuts_and_moves_chunks_after_it(calls):
    run = calls.root / "run"
    with begin(calls) as writer:
        fill(writer, 6)
        writer.checkpoint(5, {"state": b"{}"})
    for path in (run / LIVE / "W" / "c.1.0.0", run / LIVE / "step" / "c.0", run / "config.json"):
        path.write_bytes(b"")
    calls.since()
    store.repair(run, disk=LocalDisk(calls))
    aside = "set-aside/checkpoint/step-5"
    assert calls.since() == [
        *SWEEP,
        *put("config.json"),
        "flush the run",
        *COMMIT,  # the repair is named as a writer before it writes a file
        *written("step/c.0"),
        *named(LIVE, "step/c.0"),
        f"flush {LIVE}/step",
        *COMMIT,
        "flush the run",  # set-aside and the folders below it
        "flush set-aside",
        "flush set-aside/checkpoint",
        *put(f"{aside}/state"),
        f"flush {aside}",
        *BEHIND,  # of the shorter commit: it goes back before the group
        *FOLDERS,
        f"flush {LIVE}/token",
        *COMMIT,
        "flush set-aside",
        "rename to set-aside/W/c.1.0.0",
        "flush set-aside/W",
    ]


def test_a_final_array_that_is_computed_anew_is_flushed(ended):
    (ended.root / "run" / LIVE / "largest" / "c.0").unlink()
    ended.since()
    store.repair(ended.root / "run", finish=finish, disk=LocalDisk(ended))
    largest = f"{LIVE}/largest"
    assert ended.since() == [
        *COMES,
        *put(f"{largest}/zarr.json"),
        *written("largest/c.0"),
        *named(LIVE, "largest/c.0"),
        f"flush {largest}",
        *COMMIT,
    ]

"""Power loss at any instant, in any state that a file system may legally leave; and every flush that this needs."""

import json
import random

import pytest
import store_cases
from power_loss import PowerLog, Remains, fingerprint, flushes, lay_out, turning_points, without
from store_cases import assert_holds, checkpoint_files, files, fresh, go_on, patch_blocks, unbroken

import store
from store.disk import LocalDisk
from store.errors import StoreError
from store.format.files import DOCUMENT, TRAJECTORY

STEPS = 9
CHANCES = [(0, 0), (1, 0), (1, 1), (0.5, 0.5), (0.9, 0.1), (0.1, 0.9)]
NOT_NEEDED = {
    "partial folder, for trajectory.zarr": "what is lost in .partial/ is swept anyway",
    "run folder, for .partial": "as above",
    "hidden group folder, for array": "flushed again, with the first commit in it, before it appears",
    "hidden array folder, for zarr.json": "as above",
    "hidden array folder, for chunk": "as above",
    "array's zarr.json": "the commit holds a copy, and the next writer writes it anew",
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch_blocks(monkeypatch.setattr)


class Recorded:
    """A run whose calls were logged, and what it must hold after a cut."""

    def __init__(self, folder, steps=STEPS):
        folder.mkdir()
        self.calls = PowerLog(folder)
        self.disk = LocalDisk(self.calls)
        self.run = folder / "run"
        self.steps = steps
        self.variant_of = {0: lambda _: 0}

    @property
    def log(self):
        return self.calls.log

    def follow(self, writer, config=store_cases.CONFIG):
        self.calls.writer = writer
        self.calls.promise(config=json.dumps(config))
        return writer

    def acknowledge(self, writer):
        """Right after a commit, which the steps tell, its checkpoint is promised too."""
        if writer.committed_steps == writer.steps:
            self.calls.promise(checkpoint=step_of(writer._worker.publisher.commit.checkpoint))

    def end(self, **promises):
        self.calls.look()
        self.calls.writer = None
        self.calls.promise(**promises)

    def promised(self, length):
        """What was promised before a cut after `length` entries."""
        return self.calls.promised_at[length] if length < len(self.log) else self.calls.promised


def step_of(checkpoint):
    return int(checkpoint.removeprefix("step-")) if checkpoint else -1


def record(folder):
    """A run from its beginning to its end."""
    recorded = Recorded(folder)
    writer = store_cases.create(recorded.run, disk=recorded.disk)
    store_cases.drive(recorded.follow(writer), STEPS, acknowledge=recorded.acknowledge)
    recorded.end(completed=True)
    return recorded


def record_killed(folder, *, from_checkpoint=False, **when):
    """A run that is killed, and goes on in another process, with the same file system below."""
    recorded = Recorded(folder)
    vars(recorded.calls).update(when)
    with pytest.raises((StoreError, OSError)):  # noqa: PT012 - whichever call it is
        writer = store_cases.create(recorded.run, disk=recorded.disk)
        store_cases.drive(recorded.follow(writer), STEPS, acknowledge=recorded.acknowledge)
    recorded.end(resumed=True)
    recorded.calls.die_at = None
    if (recorded.run / TRAJECTORY).exists():
        at = store_cases.read_commit(recorded.run).checkpoint if from_checkpoint else None
        writer = store_cases.resume(recorded.run, disk=recorded.disk, from_step=at and int(at.removeprefix("step-")))
    else:
        writer = store_cases.create(recorded.run, disk=recorded.disk, restart=True)
    store_cases.drive(recorded.follow(writer), STEPS, acknowledge=recorded.acknowledge)
    recorded.end(completed=True)
    return recorded


def record_changed(folder):
    """A run that ends early, whose config is changed, and whose steps after the third are replaced."""
    recorded = Recorded(folder)
    first = {**store_cases.CONFIG, "total_steps": 7}
    writer = store_cases.create(recorded.run, disk=recorded.disk, config=first)
    store_cases.drive(recorded.follow(writer, first), 7, acknowledge=recorded.acknowledge)
    recorded.end()
    recorded.variant_of[1] = lambda step: int(step > 3)
    writer = store_cases.resume(recorded.run, disk=recorded.disk, config=store_cases.CONFIG, from_step=3)
    recorded.follow(writer)
    recorded.calls.promise(cut=True)  # the checkpoints of replaced steps go
    for step in range(4, STEPS + 1):
        writer.append(**store_cases.row(step, variant=1))
    writer.checkpoint(STEPS, checkpoint_files(STEPS))
    writer.complete(lambda finals: {"largest": finals["largest"].tolist()})
    recorded.end(completed=True)
    return recorded


def assert_promises(run, promised, variant_of):
    """Whatever was promised holds after the cut."""
    steps = promised.get("steps", -1)
    if not (run / TRAJECTORY / DOCUMENT).exists():
        assert steps == -1, f"step {steps} was committed, and there is no trajectory"
        if "config" in promised:
            assert json.loads((run / "config.json").read_bytes()) == json.loads(promised["config"])
        return
    commit = store_cases.read_commit(run)
    assert commit.generation >= promised.get("generation", 0)
    was_cut = commit.generation > promised.get("generation", 0) or "cut" in promised
    if commit.generation > promised.get("generation", 0):
        steps = 3
    assert_holds(run, steps, variant_of[commit.generation])
    assert was_cut or step_of(commit.checkpoint) >= promised.get("checkpoint", -1)
    assert commit.completed or not promised.get("completed")


class Cuts:
    """Sampled power cuts of a recorded run."""

    def __init__(self, recorded, place, seed=0):
        self.recorded, self.place = recorded, place
        self.rng = random.Random(seed)
        self.seen = set()

    def cut(self, log, length, chances):
        """Lay out a state, unless it was seen already; whether it was new. Raises AssertionError or StoreError."""
        tree = Remains(log, length, self.rng, *chances).tree(self.recorded.calls.top)
        promised = self.recorded.promised(length)
        key = fingerprint(tree), tuple(sorted(promised.items()))
        if key in self.seen:
            return False
        self.seen.add(key)
        with fresh(self.place):
            lay_out(tree, self.place)
            assert_promises(self.place / "run", promised, self.recorded.variant_of)
            self.after(length)
        return True

    def after(self, length):
        """Called in the state that was laid out."""


class CutsAndChecks(Cuts):
    """Also has each state checked: what a cut leaves is no damage."""

    def after(self, _length):
        if (self.place / "run" / TRAJECTORY).exists():
            report = store.check(self.place / "run", derive=store_cases.derive, finish=store_cases.finish)
            assert report.is_whole, report.damage


class CutsAndResumes(CutsAndChecks):
    """Also goes on from each state."""

    def __init__(self, recorded, place, whole, seed=0):
        super().__init__(recorded, place, seed)
        self.whole = whole

    def after(self, length):
        super().after(length)
        run = self.place / "run"
        writer = go_on(run, STEPS, from_checkpoint=length % 2 == 0, disk=store_cases.fast_disk())
        assert writer.difference is None
        assert files(run) == self.whole


def lengths(recorded, count):
    """So many places in a log, from its beginning to its end."""
    total = len(recorded.log)
    return sorted({round(i * total / max(1, count - 1)) for i in range(count)})


def cut_everywhere(cuts, count):
    for length in lengths(cuts.recorded, count):
        for chances in CHANCES:
            cuts.cut(cuts.recorded.log, length, chances)
    assert len(cuts.seen) > count // 2


@pytest.mark.parametrize("count", [3, pytest.param(70, marks=pytest.mark.slow)])
def test_power_is_cut(tmp_path, count):
    whole = files(unbroken(tmp_path, STEPS))
    cut_everywhere(CutsAndResumes(record(tmp_path / "log"), tmp_path / "cut", whole), count)


@pytest.mark.parametrize(
    ("kills", "count"),
    [((0.003, 0.5), 2), pytest.param((0.002, 0.003, 0.02, 0.13, 0.4, 0.6, 0.8, 0.97), 8, marks=pytest.mark.slow)],
)
def test_power_is_cut_after_a_kill(tmp_path, kills, count):
    whole = files(unbroken(tmp_path, STEPS))
    total = record(tmp_path / "count").calls.count
    for kill in kills:
        recorded = record_killed(tmp_path / f"log-{kill}", die_at=int(kill * total), from_checkpoint=kill > 0.5)
        cut_everywhere(CutsAndResumes(recorded, tmp_path / "cut", whole), count)


@pytest.mark.slow
@pytest.mark.parametrize("commit", [1, 2, 3, 4, 5, 6])
def test_power_is_cut_after_a_kill_between_a_commit_and_its_flush(tmp_path, commit):
    """The next writer sees that commit, and must not build on it before it is durable."""
    recorded = record_killed(tmp_path / "log", die_after_commits=commit)
    killed = next(at for at, promised in enumerate(recorded.calls.promised_at) if "resumed" in promised)
    cuts = CutsAndChecks(recorded, tmp_path / "cut")
    for length in range(killed, killed + 30):
        for chances in CHANCES:
            cuts.cut(recorded.log, length, chances)


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_power_is_cut_while_steps_are_replaced(tmp_path, count):
    recorded = record_changed(tmp_path / "log")
    cuts = CutsAndChecks(recorded, tmp_path / "cut")
    cut_everywhere(cuts, count)
    for length in turning_points(recorded.log, recorded.calls.promised_at):
        for chances in [(0, 0), (1, 1)]:
            cuts.cut(recorded.log, length, chances)


def is_noticed(recorded, place, kind):
    """Whether a store that forgets this kind of flush breaks a promise."""
    log = without(recorded.log, kind)
    cuts = Cuts(recorded, place)
    last_first = turning_points(recorded.log, recorded.calls.promised_at)[::-1]
    likely = [(length, chances) for length in last_first for chances in [(1, 0), (0, 1)]]
    for length, chances in likely + [(length, (0.5, 0.5)) for length in last_first for _ in range(12)]:
        try:
            cuts.cut(log, length, chances)
        except (AssertionError, StoreError, OSError, ValueError):
            return True
    return False


@pytest.mark.slow
def test_no_flush_that_the_promise_needs_may_be_missing(tmp_path):
    recorded = record(tmp_path / "log")
    needed = [kind for kind in flushes(recorded.log) if kind not in NOT_NEEDED]
    assert len(needed) >= 14
    for kind in needed:
        assert is_noticed(recorded, tmp_path / "cut", kind), f"nothing notices that this flush is missing: {kind}"


@pytest.mark.slow
def test_the_other_flushes_are_known(tmp_path):
    recorded = record(tmp_path / "log")
    for kind in NOT_NEEDED:
        assert kind in flushes(recorded.log)
        assert not is_noticed(recorded, tmp_path / "cut", kind)

"""The nth system call fails, once or for good, for n = 1, 2, 3 ... until nothing failed any more."""

import errno
import os
import threading

import pytest
import store_cases
from store_cases import SMALL_TABLE, Calls, Failing, assert_holds, files, fresh, go_on, patch_blocks, unbroken

from store.disk import LocalDisk
from store.errors import WriterError
from store.format.files import TRAJECTORY

STEPS = 6
CODES = [errno.ENOSPC, errno.EIO, errno.EMFILE]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch_blocks(monkeypatch.setattr)


def attempt(run, calls, table):
    """Record a run until a call fails; the error, and the last step that was said to be committed."""
    said, error = -1, None
    try:
        writer = store_cases.create(run, table, disk=LocalDisk(calls))
    except OSError as failure:
        return failure, said
    try:
        store_cases.drive(writer, STEPS, table)
    except (OSError, WriterError) as failure:
        error = failure
        with pytest.raises(WriterError):
            writer.append(**store_cases.row(writer.steps + 1, table=table))
        writer.close()
        known = writer.committed_steps
        stand = f"whole up to step {known}; " if known >= 0 else "nothing of it is committed; "
        assert isinstance(error, OSError) or stand in str(error)
    return error, writer.committed_steps


def writers():
    """The threads behind the writers that there are."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("writer of ")}


def fail_at(folder, n, code, *, for_good, table=SMALL_TABLE, whole=None):
    """Whether call n failed; what must hold then."""
    with fresh(folder / "failed") as place:
        run = place / "run"
        calls, before = Failing(n, code, for_good), writers()
        error, said = attempt(run, calls, table)
        assert (error is not None) == calls.failed, "a failed call was swallowed" if calls.failed else error
        if not calls.failed:
            assert files(run) == whole
            return False
        found = error if isinstance(error, OSError) else error.__cause__
        assert found.errno == code
        assert writers() <= before, "the writer's thread lives on"
        if (run / TRAJECTORY).exists():
            assert_holds(run, at_least=said, table=table)
        else:
            assert said == -1
        writer = go_on(run, STEPS, table, from_checkpoint=n % 2 == 0, disk=store_cases.fast_disk())
        assert writer.difference is None
        assert files(run) == whole
    return True


def test_some_calls_fail(tmp_path):
    whole = files(unbroken(tmp_path, STEPS, SMALL_TABLE))
    n, failed = 1, True
    while failed:
        failed = fail_at(tmp_path, n, CODES[n % 3], for_good=n % 2 == 0, whole=whole)
        n += 131


@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True])
def test_each_call_fails(tmp_path, for_good):
    """Every other call once, those between for good; all of them both ways with ``CRUCIBLE_EVERY_CALL=1``."""
    whole = files(unbroken(tmp_path, STEPS, SMALL_TABLE))
    n, failed = 1 + for_good, True
    while failed:
        failed = fail_at(tmp_path, n, CODES[n // 2 % 3], for_good=for_good, whole=whole)
        n += 1 if os.environ.get("CRUCIBLE_EVERY_CALL") else 2
    assert n > 300


class Short(Calls):
    """Writes take at most a few bytes, from call n on, or only then."""

    def __init__(self, n, most, *, for_good):
        super().__init__()
        self.n, self.most, self.for_good = n, most, for_good

    def write(self, fd, data):
        self.count += 1
        if self.count == self.n or (self.for_good and self.count > self.n):
            data = data[: self.most]
        return os.write(fd, data)


@pytest.mark.parametrize("for_good", [False, True])
def test_short_writes_go_on_where_they_stopped(tmp_path, for_good):
    whole = files(unbroken(tmp_path, STEPS))
    for n in (1, 5) if for_good else range(1, 400, 101):
        with fresh(tmp_path / "short") as place:
            disk = LocalDisk(Short(n, 1 if n == 5 else 100, for_good=for_good))
            store_cases.drive(store_cases.create(place / "run", disk=disk), STEPS)
            assert files(place / "run") == whole


def test_a_disk_that_takes_nothing_is_full(tmp_path):
    class Full(Calls):
        def write(self, _fd, _data):
            return 0

    with pytest.raises(OSError, match="took no more bytes") as caught:
        store_cases.create(tmp_path / "run", disk=LocalDisk(Full()))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.slow
@pytest.mark.parametrize("stride", [171, pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", ["resume", "replace", "complete again"])
def test_calls_fail_in_a_resume(tmp_path, call, stride):
    """Going on, replacing steps and completing once more leave the run whole whatever fails."""
    variant_of = {0: lambda _: 0, 1: lambda step: int(step > 2)}
    n, failed = 1, True
    while failed:
        with fresh(tmp_path / "failed") as place:
            run = place / "run"
            store_cases.drive(store_cases.create(run, disk=store_cases.fast_disk()), STEPS)
            calls = Failing(n, CODES[n % 3], for_good=True)
            try:
                again(run, call, LocalDisk(calls))
            except (OSError, WriterError):
                assert calls.failed
            failed = calls.failed
            generation = store_cases.read_commit(run).generation
            commit = assert_holds(run, at_least=2, variant_of=variant_of[generation])
            assert commit.generation == 1 or commit.committed_steps >= STEPS
            variant = 1 if call == "replace" else 0
            again(run, call, store_cases.fast_disk())
            commit = assert_holds(run, STEPS, lambda step, variant=variant: variant * int(step > 2))
            assert commit.completed == (call == "complete again")
        n += stride


def again(run, call, disk):
    if call == "replace":
        with store_cases.resume(run, from_step=2, disk=disk) as writer:
            for step in range(3, STEPS + 1):
                writer.append(**store_cases.row(step, variant=1))
    elif call == "resume":
        with store_cases.resume(run, disk=disk, config={"total_steps": 99}) as writer:
            for step in range(writer.steps + 1, STEPS + 4):
                writer.append(**store_cases.row(step))
    else:
        writer = store_cases.resume(run, disk=disk)
        if writer.steps == STEPS:
            writer.append(**store_cases.row(STEPS + 1))
        writer.complete(lambda finals: {"another": finals["largest"].tolist()})


@pytest.mark.slow
def test_a_checkpoint_of_the_same_step_is_never_a_mixture(tmp_path):
    n, failed = 1, True
    while failed:
        with fresh(tmp_path / "failed") as place:
            run = place / "run"
            with store_cases.create(run, SMALL_TABLE, disk=store_cases.fast_disk()) as writer:
                for step in range(3):
                    writer.append(**store_cases.row(step, table=SMALL_TABLE))
                writer.checkpoint(2, {"a": b"one", "b": b"one"})
            calls = Failing(n, for_good=True)
            try:
                with store_cases.resume(run, SMALL_TABLE, disk=LocalDisk(calls)) as writer:
                    writer.checkpoint(2, {"a": b"two", "b": b"two"})
            except (OSError, WriterError):
                assert calls.failed
            failed = calls.failed
            commit = store_cases.read_commit(run)
            contents = {path.read_bytes() for path in (run / "checkpoint" / commit.checkpoint).iterdir()}
            assert contents in ([{b"one"}, {b"two"}] if failed else [{b"two"}])
            named = {name: store_cases.digest((run / name).read_bytes()) for name in commit.sha256}
            assert named == commit.sha256
        n += 5

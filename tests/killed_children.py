"""Children that write a run and are killed: forked off a light process that has only the writer loaded.

The test's own process may hold threads of torch or dask, which a fork would tear. So a server is started, which forks
a child for each request; a child costs some ten milliseconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from waiting import PATIENCE_S, wait_until


class Children:
    """A context manager; `run` has one child do one thing and says how it ended."""

    def __enter__(self):
        self._server = subprocess.Popen(
            [sys.executable, "-c", "import killed_children; killed_children.serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait(PATIENCE_S)
        self._server.stdout.close()

    def start(self, what, *args, kill_after_s=None):
        """Start a child; `end` waits for it."""
        self._server.stdin.write(json.dumps([what, args, kill_after_s]) + "\n")
        self._server.stdin.flush()

    def end(self):
        """How the child that was started ended: its exit code, or minus the signal."""
        return int(self._server.stdout.readline())

    def run(self, what, *args, kill_after_s=None):
        """Start a child and wait for it."""
        self.start(what, *args, kill_after_s=kill_after_s)
        return self.end()


def waits(writer):
    """Whether `append` waits for room: while a ring is full, the thread behind the writer waits for nothing."""
    worker = writer._worker
    return any(ring.is_full for ring in worker.rings.values()) and bool(worker._changed._waiters)


def serve():
    """Read requests, fork a child for each, answer with how it ended."""
    import store_cases

    store_cases.patch_blocks()
    for line in sys.stdin:
        what, args, kill_after_s = json.loads(line)
        pid = os.fork()
        if not pid:
            _be_child(globals()[what], args)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be_child(function, args):
    try:
        function(*args)
        os._exit(0)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _acknowledge_into(path):
    """A function that notes in a file what a writer says is committed; a kill takes nothing of it away."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda writer: os.write(fd, f"{writer.committed_steps}\n".encode())


def acknowledged(path):
    """The last step that was said to be committed; -1 if none was."""
    lines = Path(path).read_text().split() if Path(path).exists() else []
    return int(lines[-1]) if lines else -1


def write(run, notes, steps, options):
    """Begin a run or go on with it, to the end; kill -9 at call `die_at`."""
    import store_cases

    from store.disk import LocalDisk

    class Dying(store_cases.Calls):
        def before(self, _name, *_args):
            if self.count == options.get("die_at"):
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # the signal may reach another thread first

    acknowledge, disk = _acknowledge_into(notes), LocalDisk(Dying())
    interval_s = options.get("interval_s", 1e6)
    if (Path(run) / "trajectory.zarr").exists():
        from store.run.commit import read_commit

        at = read_commit(Path(run)).checkpoint if options.get("from_checkpoint") else None
        writer = store_cases.resume(
            run, disk=disk, commit_interval_s=interval_s, from_step=at and int(at.removeprefix("step-"))
        )
    else:
        writer = store_cases.create(run, disk=disk, commit_interval_s=interval_s, restart=True)
    store_cases.drive(writer, steps, acknowledge=acknowledge)
    Path(notes).write_text(str(disk.calls.count))


def hold(run, ready, seconds):
    """Write a step, say who does, and hold the run open; with a child of its own that lives as long."""
    import store_cases

    writer = store_cases.create(run, disk=store_cases.fast_disk())
    writer.append(**store_cases.row(0))
    writer.commit()
    child = os.fork()
    if not child:
        time.sleep(seconds)
        os._exit(0)
    say(ready, f"{os.getpid()} {child}")
    time.sleep(seconds)


def write_once_told(run, ready, told, notes):
    """Write a few steps, say so, and go on when told; note the error that comes of it, and of closing once more."""
    import store_cases

    from store.errors import WriterError

    writer = store_cases.create(run, disk=store_cases.fast_disk())
    for step in range(5):
        writer.append(**store_cases.row(step))
    writer.commit()
    say(ready, str(os.getpid()))
    wait_until(Path(told).exists)
    errors = []
    try:
        for step in range(5, 15):
            writer.append(**store_cases.row(step))
        writer.commit()
    except WriterError as error:
        errors.append(str(error))
    writer.close()
    Path(notes).write_text("; ".join(errors))


def say(path, text):
    """A file that is there with all that it says, or not there."""
    Path(f"{path}.half").write_text(text)
    Path(f"{path}.half").rename(path)


def stream(run, steps, pause_s, waits, readers):
    """Write many steps, a breath between them; go on behind each one of `waits` once every reader has seen it.

    A reader says so by a file ``<run>.<step>.<reader>``.
    """
    import store_cases

    writer = store_cases.create(run, disk=store_cases.fast_disk(), commit_interval_s=0.02)
    for step in range(steps + 1):
        writer.append(**store_cases.row(step))
        time.sleep(pause_s)
        if step in waits:
            writer.commit()
            for reader in readers:
                wait_until(Path(f"{run}.{step}.{reader}").exists)
    writer.complete()


def fork_while_writing(run, notes, forks):
    """Write, and fork children that try to write, close, go out of scope and exit as Python does."""
    import store_cases

    from store.errors import LockedError

    writer = store_cases.create(run, disk=store_cases.fast_disk(), commit_interval_s=0.001)
    pids = []
    for step in range(forks * 3):
        writer.append(**store_cases.row(step))
        if step % 3 == 1:
            pid = os.fork()
            if not pid:
                _try_everything(writer, step + 1)
            pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"a child ended with {os.waitstatus_to_exitcode(status)}")
    try:  # a child that ended must not have freed the lock
        store_cases.resume(run)
    except LockedError:
        writer.close()
        Path(notes).write_text(f"{len(pids)} children, all refused")


def _try_everything(writer, step):
    """Exit as Python does, with 0 if nothing of the writer could be used and nothing waited."""
    import store_cases

    from store.errors import WriterError

    signal.alarm(PATIENCE_S)
    tries = [
        lambda: writer.append(**store_cases.row(step)),
        lambda: writer.room("W"),
        lambda: writer.checkpoint(step, {}),
        writer.commit,
        writer.complete,
    ]
    refused = 0
    for attempt in tries:
        try:
            attempt()
        except WriterError:
            refused += 1
    with writer:
        repr(writer)
    writer.close()
    sys.exit(0 if refused == len(tries) else 1)


def count_memory(run, notes, steps):
    """Write on a disk that is slower than the steps come; the most memory that was traced.

    Each call of the disk goes on once `append` waits for it, or no more steps come.
    """
    import gc
    import tracemalloc

    import store_cases

    from store.disk import LocalDisk

    class Slow(store_cases.Calls):
        writer = None

        def before(self, _name, *_args):
            if self.writer is not None:
                wait_until(lambda: self.writer is None or waits(self.writer))

    calls = Slow()
    with store_cases.create(run, disk=LocalDisk(calls)) as writer:
        calls.writer = writer
        for step in range(10):
            writer.append(**store_cases.row(step))
        tracemalloc.start()
        for step in range(10, steps):
            writer.append(**store_cases.row(step))
            if step % 20 == 0:
                gc.collect()
        peak = tracemalloc.get_traced_memory()[1]
        calls.writer = None
    Path(notes).write_text(str(peak))

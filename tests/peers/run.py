"""One thing that one way of writing does, in a process of its own: ``python -m peers.run WAY DEED OUT STATES ...``.

Prints one line of JSON. The processor time of reading the input is taken off, here and for all ways alike.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from peers.arrays import displacement

MODULES = ("crucible_store", "notebook", "hdf5", "zarr_python", "tensor_store", "acquire", "icechunk_store", "blosc",
           "tile_db")  # fmt: skip


def ways():
    """Every way that can run here: its module and its options, by name."""
    found = {}
    for module in (importlib.import_module(f"peers.{name}") for name in MODULES):
        if all(importlib.util.find_spec(need) for need in module.NEEDS):
            found |= {name: (module, options) for name, options in module.WAYS.items()}
    return found


class Source:
    """The states one after another, as a trainer has them; what the writer does between two is its time of a step."""

    def __init__(self, states, steps):
        self.states, self.steps = states, steps
        self.reading, self.peak, self.waits = 0.0, 0.0, []
        self.base, self.since = memory_mb(), time.process_time()
        self.hold_at, self.kill_at = (int(os.environ.get(name, "-1")) for name in ("HOLD_AT", "KILL_AT"))

    def __iter__(self):
        for step in range(self.steps + 1):
            since = time.thread_time()
            row = np.array(self.states[step])
            self.reading += time.thread_time() - since
            begun = time.perf_counter()
            yield step, row
            self.waits.append((time.perf_counter() - begun) * 1e3)
            if step == self.kill_at:
                os.kill(os.getpid(), 9)
            if step == self.hold_at:
                hold()
            if step % 16 == 0:
                self.peak = max(self.peak, memory_mb())

    def told(self):
        """What writing took, a step."""
        spent = time.process_time() - self.since - self.reading
        return {
            "cpu_ms": spent / self.steps * 1e3,
            "memory_mb": max(self.peak, memory_mb()) - self.base,
            "median_ms": float(np.median(self.waits)),
            "p99_ms": float(np.percentile(self.waits, 99)),
        }


def memory_mb():
    """Anonymous memory that is resident now, or 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")), 0.0)


def hold():
    """Say that this is the moment to look, and wait to be killed."""
    print("held", flush=True)
    time.sleep(600)


def write(module, options, out, states):
    """Write all steps."""
    source = Source(states, len(states) - 1)
    module.write(out, iter(source), (source.steps, *states.shape[1:]), **options)
    return source.told()


def rows(module, options, out, states):
    """How many rows of W can be read and are right, and how many are there as data and are wrong."""
    W = module.read(out, **options)[0]["W"]
    count = min(W.shape[0], len(states))
    right = sum(int(np.array_equal(np.asarray(W[t]), states[t])) for t in range(count))
    return {"right": right, "wrong": W.shape[0] - right}


def token(module, options, out, states):
    """One token over all steps."""
    return timed(lambda number: module.read(out, **options)[0]["W"][:, number], states.shape[1])


def step(module, options, out, states):
    """All tokens at one step."""
    return timed(lambda number: module.read(out, **options)[0]["W"][number], len(states))


def timed(look, size):
    """Milliseconds of a look, the median of seven, at places far from each other; opening included."""
    took = []
    for number in range(size // 16, size, size // 8 or 1):
        since = time.perf_counter()
        np.asarray(look(number))
        took.append((time.perf_counter() - since) * 1e3)
    return {"ms": float(np.median(took))}


def full_pass(module, options, out, states):  # noqa: ARG001 - all deeds take the same
    """Read all of W, a block at a time."""
    since, W = time.perf_counter(), module.read(out, **options)[0]["W"]
    largest = max(int(np.asarray(W[first:stop]).max()) for first, stop in blocks(W))
    return {"s": time.perf_counter() - since, "largest": largest}


def last_motion(module, options, out, states):
    """Ask when each token moved for the last time, and compare with the plain loop over the states."""
    since = time.perf_counter()
    if hasattr(module, "last_motion"):
        found = module.last_motion(out)
    else:
        arrays, counted_from = module.read(out, **options)
        found = _last_motion(arrays["delta_W_prime"], first=0 if counted_from == "labels" else 1)
    took = time.perf_counter() - since
    expected = np.full(states.shape[1], -1)
    for t in range(1, len(states)):
        expected[np.linalg.norm(displacement(states[t - 1], states[t]), axis=1) >= 0.1] = t
    return {"s": took, "right": bool(np.array_equal(found, expected))}


def _last_motion(moves, first):
    found = np.full(moves.shape[1], -1)
    for start, stop in blocks(moves):
        moved = np.linalg.norm(np.asarray(moves[start:stop]), axis=2) >= 0.1
        last = moved.shape[0] - 1 - moved[::-1].argmax(axis=0)
        found = np.where(moved.any(axis=0), last + start + first, found)
    return found


def blocks(array):
    """Where blocks of steps begin and end."""
    return [(start, min(start + 128, array.shape[0])) for start in range(0, array.shape[0], 128)]


DEEDS = {deed.__name__: deed for deed in (write, rows, token, step, full_pass, last_motion)}


if __name__ == "__main__":
    way, deed, path, source = sys.argv[1:5]
    shown = np.load(source, mmap_mode="r")[: int(os.environ.get("STEPS", "1000000000")) + 1]
    print(json.dumps(DEEDS[deed](*ways()[way], Path(path), shown)))

"""What the benchmarks share: the large real run, whole processes measured, tables printed."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from resident import peak_bytes

ROOT = Path(__file__).parents[1]


def real_run():
    """Path of the large real run (5,001 states x 3,644 tokens x 64); skips the test where it is not at hand."""
    path = Path(os.environ.get("CRUCIBLE_REAL_RUN", ROOT.parent / "shared" / "data" / "real-run.zarr"))
    if not path.exists():
        pytest.skip("the large real run is not at hand; set CRUCIBLE_REAL_RUN to its folder")
    return path.resolve()


@dataclass(frozen=True)
class Measured:
    """A whole process: seconds of wall and of processor time, most resident memory in MB, what it printed."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    out: str


def measure(*command, code=0, **environment):
    """Run a command to its end."""
    since = time.perf_counter()
    child = start(command, environment)
    peaks = [0]
    watching = threading.Thread(target=_watch, args=(child.pid, peaks))
    watching.start()
    with child.stdout:
        out = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - since
    watching.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == code, out
    return Measured(wall_s, used.ru_utime + used.ru_stime, max(peaks) / 1e6, out)


def _watch(pid, peaks):
    """Keep the peak memory of a child, until it ends."""
    while peak := peak_bytes(pid):
        peaks.append(peak)
        time.sleep(0.02)


def start(command, environment, stdout=subprocess.PIPE):
    variables = os.environ | {"OMP_WAIT_POLICY": "passive"} | environment
    return subprocess.Popen([*map(str, command)], stdout=stdout, stderr=subprocess.STDOUT, text=True, env=variables,
                            cwd=ROOT)  # fmt: skip


def measure_in_turns(*commands, turn_s=2.0, **environment):
    """Run commands side by side, only one at a time for `turn_s` seconds, so that all meet the same noise.

    Answers seconds of each: of wall, in which it ran, and of processor time.
    """
    children = [start(command, environment, stdout=subprocess.DEVNULL) for command in commands]
    for child in children:
        os.kill(child.pid, signal.SIGSTOP)
    spent, used = [0.0] * len(children), [None] * len(children)
    while None in used:
        for i, child in enumerate(children):
            if used[i] is None:
                os.kill(child.pid, signal.SIGCONT)
                since = time.perf_counter()
                used[i] = _ended(child, since + turn_s)
                spent[i] += time.perf_counter() - since
    return list(zip(spent, (each.ru_utime + each.ru_stime for each in used), strict=True))


def measure_steps(commands, steps, **environment):
    """Milliseconds of wall and of processor time a step, of each command in ``commands(steps)``, in turns.

    What they take for one step, starting and ending included, is taken off.
    """
    starts, ends = (measure_in_turns(*commands(count), **environment) for count in (1, steps))
    return [
        tuple((until - since) / (steps - 1) * 1e3 for since, until in zip(start, end, strict=True))
        for start, end in zip(starts, ends, strict=True)
    ]


def _ended(child, until):
    """What a child used, if it ends until then; otherwise it is stopped, and None."""
    while time.perf_counter() < until:
        pid, status, used = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            assert child.returncode == 0, child.args
            return used
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGSTOP)
    return None


def crucible_command(*arguments):
    """The command line as a command."""
    return (sys.executable, "-m", "crucible", *arguments)


def measure_python(code, *arguments, **environment):
    """Run a piece of Python in a process of its own; `arguments` are its sys.argv[1:]."""
    return measure(*python_command(code, *arguments), **environment)


def python_command(code, *arguments):
    """A piece of Python as a command; `arguments` are its sys.argv[1:]."""
    return (sys.executable, "-c", textwrap.dedent(code), *arguments)


def measure_crucible(*arguments, **environment):
    """Run the command line."""
    return measure(*crucible_command(*arguments), **environment)


def folder_bytes(folder):
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def table(title, heads, rows):
    """Print a table of Markdown, for docs/reference/figures.md."""
    lines = [heads, ["---"] * len(heads), *rows]
    print(f"\n{title}\n")
    for line in lines:
        print("| " + " | ".join(str(cell) for cell in line) + " |")

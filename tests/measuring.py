"""What the benchmarks share: the large real run, whole processes measured, tables printed."""

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    variables = os.environ | {"OMP_WAIT_POLICY": "passive"} | environment
    child = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             env=variables, cwd=ROOT)  # fmt: skip
    with child.stdout:
        out = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == code, out
    return Measured(time.perf_counter() - since, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, out)


def measure_python(code, *arguments, **environment):
    """Run a piece of Python in a process of its own; `arguments` are its sys.argv[1:]."""
    return measure(sys.executable, "-c", textwrap.dedent(code), *arguments, **environment)


def measure_crucible(*arguments, **environment):
    """Run the command line."""
    return measure(sys.executable, "-m", "crucible", *arguments, **environment)


def folder_bytes(folder):
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def table(title, heads, rows):
    """Print a table of Markdown, for docs/reference/figures.md."""
    lines = [heads, ["---"] * len(heads), *rows]
    print(f"\n{title}\n")
    for line in lines:
        print("| " + " | ".join(str(cell) for cell in line) + " |")

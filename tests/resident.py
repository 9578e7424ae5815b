"""Resident memory of a process, as Linux keeps it for the program that it runs now.

`ru_maxrss` also counts what a process was before it became this program: a child of a large test process starts with
its parent's peak, and a limit on what comes on top could never be passed.
"""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path


def peak_bytes(pid="self"):
    """Most resident memory of a process so far; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # ended before it was opened, or before it was read
        if sys.platform == "linux":
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def run_python(script, *arguments):
    """Run a piece of Python that may import what the tests import; its arguments are sys.argv[1:]."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout

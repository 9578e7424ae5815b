"""Whether a process is there is asked in one place."""

import os
import subprocess
import sys

import pytest

from store.processes import is_alive


def test_a_process_that_runs_is_alive_and_one_that_ended_is_not():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_alive(os.getpid())
    assert not is_alive(child.pid)


@pytest.mark.parametrize("pid", [1 << 31, 1 << 63, 10**30])
def test_a_number_that_no_process_can_have_is_none(pid):
    assert not is_alive(pid)

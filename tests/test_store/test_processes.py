"""Whether a process is there is asked in one place."""

import os
import socket
import subprocess
import sys

import pytest

from store.processes import is_alive, machine_name


def test_a_process_that_runs_is_alive_and_one_that_ended_is_not():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_alive(os.getpid())
    assert not is_alive(child.pid)


@pytest.mark.parametrize("pid", [1 << 31, 1 << 63, 10**30])
def test_a_number_that_no_process_can_have_is_none(pid):
    assert not is_alive(pid)


def test_a_container_that_bears_the_name_of_its_machine_is_told_from_it(monkeypatch):
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[4026531836]")
    assert machine_name() == socket.gethostname()
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[4026532281]")
    assert machine_name() == f"{socket.gethostname()}, PID namespace 4026532281"

"""`crucible.attach` with `on_signal="commit"`: what was recorded is durable before a signal does what it does."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from torch import nn

import crucible
from crucible.channels.table import W
from store.reading.reader import open_trajectory


class Loop:
    """A small loop."""

    def __init__(self, run):
        self.embedding = nn.Embedding(5, 4)
        self.optimizer = torch.optim.SGD(self.embedding.parameters(), lr=0.1)
        how = {"channels": (W,), "commit_interval_s": 1e6, "on_signal": "commit", "say": lambda _: None}
        self.recorder = crucible.attach(self.embedding, self.optimizer, run, **how)

    def steps(self, count):
        for _ in range(count):
            self.embedding(torch.arange(5)).square().sum().backward()
            self.optimizer.step()


@pytest.fixture
def noted():
    """What a handler of the user's was called with, and how much was committed then."""

    class Calls(list):
        recorder = None

        def note(self, signum, _frame):
            self.append((signum, self.recorder.writer.committed_steps))

    calls = Calls()
    before = signal.signal(signal.SIGUSR1, calls.note)
    yield calls
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_commits_at_the_next_step_and_is_handed_on_and_the_loop_goes_on(noted, tmp_path):
    loop = Loop(tmp_path / "run")
    noted.recorder = loop.recorder
    with loop.recorder:
        loop.steps(5)
        signal.raise_signal(signal.SIGUSR1)
        assert noted == []
        loop.steps(1)
        assert noted == [(signal.SIGUSR1, 6)]
        loop.steps(3)
        signal.raise_signal(signal.SIGUSR1)
        loop.steps(1)
        assert noted == [(signal.SIGUSR1, 6), (signal.SIGUSR1, 10)]
    assert open_trajectory(tmp_path / "run").attrs["completed"]


def test_a_signal_after_the_last_step_is_handed_on_when_the_run_is_closed(noted, tmp_path):
    loop = Loop(tmp_path / "run")
    noted.recorder = loop.recorder
    loop.steps(3)
    signal.raise_signal(signal.SIGUSR1)
    loop.recorder.close()
    assert noted == [(signal.SIGUSR1, 3)]
    loop.recorder.close()
    assert len(noted) == 1


def test_ctrl_c_is_raised_from_the_step_behind_the_commit(tmp_path):
    loop = Loop(tmp_path / "run")
    loop.steps(2)
    signal.raise_signal(signal.SIGINT)

    def go_on():
        with loop.recorder:
            loop.steps(5)

    with pytest.raises(KeyboardInterrupt):
        go_on()
    ds = open_trajectory(tmp_path / "run")
    assert (ds.attrs["committed_steps"], ds.attrs["completed"]) == (3, False)


@pytest.mark.parametrize("end", ["close", "forget"])
def test_the_handlers_are_given_back(end, tmp_path):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    loop = Loop(tmp_path / "run")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] != before
    if end == "close":
        loop.recorder.close()
    else:  # nothing holds the recorder any more: a signal must not wait for its next step
        loop.recorder.writer.close()
        del loop
        gc.collect()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_two_recorders_commit_both_before_the_signal_does_what_it_does(noted, tmp_path):
    first, second = Loop(tmp_path / "first"), Loop(tmp_path / "second")
    noted.recorder = first.recorder
    first.steps(3)
    second.steps(4)
    signal.raise_signal(signal.SIGUSR1)
    second.steps(1)
    assert (second.recorder.writer.committed_steps, noted) == (5, [])
    first.steps(1)
    assert noted == [(signal.SIGUSR1, 4)]
    first.recorder.close()
    second.steps(2)
    second.recorder.close()


def test_ctrl_c_is_raised_once_though_two_recorders_are_open(tmp_path):
    first, second = Loop(tmp_path / "first"), Loop(tmp_path / "second")
    signal.raise_signal(signal.SIGINT)
    second.steps(1)
    with pytest.raises(KeyboardInterrupt):
        first.steps(1)
    first.steps(2)
    second.steps(2)
    first.recorder.close()
    second.recorder.close()


@pytest.mark.slow
def test_a_process_that_is_told_to_end_has_committed_its_step(tmp_path):
    code = """
        import signal, sys, torch, crucible
        embedding = torch.nn.Embedding(5, 2)
        optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
        crucible.attach(embedding, optimizer, sys.argv[1], commit_interval_s=1e6, on_signal="commit")
        for step in range(1, 100):
            if step == 7:
                signal.raise_signal(signal.SIGTERM)
            embedding(torch.arange(5)).sum().backward()
            optimizer.step()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "run"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGTERM
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 7


def test_no_other_thread_can_take_signals(tmp_path):
    said = []

    def attach():
        with pytest.raises(ValueError, match="needs the main thread"):
            Loop(tmp_path / "run")
        said.append("refused")

    thread = threading.Thread(target=attach)
    thread.start()
    thread.join()
    assert said == ["refused"]
    assert not (tmp_path / "run").exists()


def test_what_a_signal_cannot_do_is_refused(tmp_path):
    embedding = nn.Embedding(5, 4)
    with pytest.raises(ValueError, match="on_signal='close'"):
        crucible.attach(embedding, None, tmp_path / "run", on_signal="close")

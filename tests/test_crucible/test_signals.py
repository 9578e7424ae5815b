"""A signal is noted, what is ignored stays ignored, and who listened before is called afterwards."""

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import crucible
from crucible.cli.main import main
from crucible.signals import ENDING, Interruption

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals")


@pytest.fixture(autouse=True)
def handlers_as_before():
    """Whatever a test does, the handlers of this process are what they were."""
    before = {signum: signal.getsignal(signum) for signum in ENDING}
    yield
    assert {signum: signal.getsignal(signum) for signum in ENDING} == before


@pytest.fixture
def listening():
    """The signals that a handler of the user's was called with."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: heard.append(signum))
    yield heard
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("name", "code"), [
    ("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138), ("SIGXCPU", 152),
])  # fmt: skip
def test_the_first_signal_is_noted(name, code):
    signum = getattr(signal, name)
    if sys.platform == "linux":
        assert code == 128 + signum
    with Interruption() as interruption:
        assert (interruption.signum, interruption.exit_code) == (None, 0)
        signal.raise_signal(signum)
        assert (interruption.signum, interruption.exit_code) == (signum, 128 + signum)
        signal.raise_signal(signal.SIGUSR1)
        assert interruption.signum == signum


def test_ctrl_c_after_a_signal_interrupts_at_once():
    with Interruption():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_fork_of_the_process_ends_by_a_signal_as_without_it():
    code = """
        import os, signal
        from crucible.signals import Interruption

        with Interruption() as interruption:
            child = os.fork()
            if child == 0:
                signal.raise_signal(signal.SIGTERM)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), interruption.signum)
    """
    assert subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True).split() == ["-15", "None"]


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert interruption.signum is None
    signal.signal(signal.SIGHUP, before)


def test_who_listened_before_is_called_afterwards(listening):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert listening == []
    interruption.hand_on()
    assert listening == [signal.SIGTERM]


def test_without_a_signal_nobody_is_called(listening):
    with Interruption() as interruption:
        pass
    interruption.hand_on(by_default=True)
    assert listening == []


def test_the_default_is_taken_only_when_asked_for():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
    interruption.hand_on()
    with pytest.raises(KeyboardInterrupt):
        interruption.hand_on(by_default=True)


def test_in_another_thread_nothing_is_installed():
    found = []

    def look():
        with Interruption():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


IMPORTED = ("lazy_loader", "crucible.shadows", "crucible.cli.main", "argparse", "crucible.cli.command", "tomllib")
INTERRUPTS = {"anywhere": "raise KeyboardInterrupt", "as a class is made": "type('Made', (), {'name': Interrupting()})"}
"""Of the second Python 3.11 makes a RuntimeError."""


@pytest.mark.default_cases(7)
@pytest.mark.parametrize("interrupt", INTERRUPTS.values(), ids=INTERRUPTS)
@pytest.mark.parametrize("name", IMPORTED)
def test_ctrl_c_while_modules_are_imported_shows_no_traceback(name, interrupt):
    code = (
        "import builtins, runpy, sys\n"
        "true = builtins.__import__\n"
        "class Interrupting:\n"
        "    def __set_name__(self, *_): raise KeyboardInterrupt\n"
        "def interrupted(name, *rest, **more):\n"
        f"    if name == {name!r}: {interrupt}\n"
        "    return true(name, *rest, **more)\n"
        "builtins.__import__ = interrupted\n"
        "sys.argv = ['crucible', '--version']\n"
        "runpy.run_module('crucible', run_name='__main__', alter_sys=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr in ("", "crucible: interrupted\n")


OURS = Path(crucible.__file__).parent
BEFORE_ANY_TRY = [[(str(OURS / name), "<module>")] for name in ("__init__.py", "__main__.py")]
"""Where a traceback may end: a module cannot catch what comes with its own first instruction."""


def test_ctrl_c_as_a_class_is_made_within_a_command_is_no_mistake_of_ours(monkeypatch, tmp_path, capsys):
    class Interrupting:
        def __set_name__(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr("crucible.inspection.info.info", lambda *_, **__: type("Made", (), {"name": Interrupting()}))
    assert main(["info", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "crucible: interrupted\n"


@pytest.mark.slow
@pytest.mark.parametrize("delay_ms", range(20, 400, 20))
def test_ctrl_c_at_any_moment_of_the_start_shows_no_traceback_of_ours(delay_ms, tmp_path):
    """While Python itself starts nothing of ours runs that could catch it."""
    words = [sys.executable, "-m", "crucible", "info", tmp_path]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(delay_ms / 1e3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    frames = re.findall(r'File "(.+)", line \d+, in (.+)', error)
    assert frames[-1:] in BEFORE_ANY_TRY or str(OURS) not in error
    assert process.returncode == 130 or "crucible: interrupted" not in error


@pytest.mark.parametrize("first", [0, 1])
def test_whichever_of_two_is_removed_first_the_handlers_are_given_back(first, listening):
    two = [Interruption().install(), Interruption().install()]
    two[first].remove()
    signal.raise_signal(signal.SIGTERM)
    assert [each.signum for each in two] == [None if k == first else signal.SIGTERM for k in (0, 1)]
    two[1 - first].remove()
    assert listening == []
    signal.raise_signal(signal.SIGTERM)
    assert listening == [signal.SIGTERM]
    two[1 - first].hand_on()
    assert listening == [signal.SIGTERM] * 2


def test_a_handler_that_was_set_since_stays_and_may_call_the_one_before(listening):
    heard = []
    interruption = Interruption().install()
    before = signal.getsignal(signal.SIGTERM)

    def chained(signum, frame):
        heard.append(signum)
        before(signum, frame)

    signal.signal(signal.SIGTERM, chained)
    signal.raise_signal(signal.SIGTERM)
    assert interruption.signum == signal.SIGTERM
    interruption.remove()
    assert signal.getsignal(signal.SIGTERM) is chained
    signal.raise_signal(signal.SIGTERM)
    assert (heard, listening) == ([signal.SIGTERM] * 2, [signal.SIGTERM])


def test_a_thread_that_removes_one_leaves_the_signals_to_who_had_them(listening):
    interruption = Interruption().install()
    thread = threading.Thread(target=interruption.remove)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGTERM)
    assert (interruption.signum, listening) == (None, [signal.SIGTERM])
    interruption.remove()

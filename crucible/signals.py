"""Signals that ask a training to end: the first sets a flag, so that the step is finished and committed first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
"""Ctrl-C; a scheduler, a container or a shutdown; a terminal that closes; SLURM's warning; the limit of CPU time."""
ENDING: tuple[signal.Signals, ...] = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
"""Those of them that this system has."""
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Interruption:
    """Notes the first of some signals, from `install` to `remove`; a context manager that does both.

    Python takes signals in the main thread alone: elsewhere nothing is installed, and nothing ever comes. A signal
    that was ignored stays ignored, as under nohup. Once a signal has come, further ones change nothing, but for
    Ctrl-C, which then interrupts at once. In a fork of the process (a worker of a pool, say) each signal does what it
    does without this.

    Parameters
    ----------
    signals : sequence of Signals
        Which ones.

    Attributes
    ----------
    signum : int or None
        The first that came.

    Examples
    --------
    >>> with Interruption() as interruption:
    ...     for step in range(100):
    ...         if step == 3:
    ...             signal.raise_signal(signal.SIGTERM)
    ...         if interruption.signum:
    ...             break
    >>> step, interruption.exit_code
    (3, 143)
    """

    def __init__(self, signals: Sequence[signal.Signals] = ENDING) -> None:
        self.signum: int | None = None
        self._signals = signals
        self._before: dict[int, Any] = {}
        self._is_listening, self._pid = False, os.getpid()

    @property
    def exit_code(self) -> int:
        """128 and the signal, as a shell tells of a process that a signal ended; 0 where none came."""
        return 0 if self.signum is None else 128 + self.signum

    def install(self) -> Self:
        """Take the signals from now on."""
        if _is_main_thread():
            self._is_listening = True
            for signum in self._signals:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def remove(self) -> None:
        """Put back the handlers that were there before, where no other was set since: that one stays."""
        self._is_listening = False
        for signum in self._before:
            if _is_main_thread() and signal.getsignal(signum) == self._note:
                signal.signal(signum, self._handler_before(signum))

    def hand_on(self, *, by_default: bool = False) -> None:
        """After `remove`: call the handler that was there before with the signal that came, if one came.

        Parameters
        ----------
        by_default : bool
            Where there was none, do what happens by default: the signal ends the process, Ctrl-C raises
            KeyboardInterrupt.
        """
        if self.signum is None:
            return
        handler = self._handler_before(self.signum)
        if by_default or handler not in _DEFAULTS:
            _let_do(handler, self.signum, None)

    def _handler_before(self, signum: int) -> Any:  # noqa: ANN401 - as `signal` has it
        """What was there before, without those who listen no longer."""
        handler = self._before[signum]
        while isinstance(owner := getattr(handler, "__self__", None), Interruption) and not owner._is_listening:
            handler = owner._before[signum]
        return handler

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self._is_listening or os.getpid() != self._pid:  # who came later has put this back, or calls it
            _let_do(self._handler_before(signum), signum, frame)
            return
        if self.signum is not None and signum == signal.SIGINT:
            signal.default_int_handler(signum, frame)
        self.signum = signum if self.signum is None else self.signum

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(self, *_: object) -> None:
        self.remove()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _let_do(handler: Any, signum: int, frame: FrameType | None) -> None:  # noqa: ANN401 - as `signal` has it
    """Let a signal do what it does by this handler, whatever handler there is now."""
    if callable(handler):
        handler(signum, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)

"""Signals that ask a training to end: the first sets a flag, so that the step is finished and committed first."""

from __future__ import annotations

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
    Ctrl-C, which then interrupts at once.

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

    @property
    def exit_code(self) -> int:
        """128 and the signal, as a shell tells of a process that a signal ended; 0 where none came."""
        return 0 if self.signum is None else 128 + self.signum

    def install(self) -> Self:
        """Take the signals from now on."""
        if threading.current_thread() is threading.main_thread():
            for signum in self._signals:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def remove(self) -> None:
        """Put back the handlers that were there before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

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
        handler = self._before[self.signum]
        if handler not in _DEFAULTS:
            handler(self.signum, None)
        elif by_default:
            signal.raise_signal(self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            signal.default_int_handler(signum, frame)
        self.signum = signum if self.signum is None else self.signum

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(self, *_: object) -> None:
        self.remove()

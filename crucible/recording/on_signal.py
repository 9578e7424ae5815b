"""A recorder that commits before a signal does what it does: `crucible.attach` with ``on_signal="commit"``."""

from __future__ import annotations

import threading
from collections.abc import Callable

from crucible.signals import Interruption


def refuse_unfit(on_signal: str | None) -> None:
    """Raise ValueError unless signals can be taken so: Python hands them to the main thread alone."""
    if on_signal not in (None, "commit"):
        raise ValueError(f"on_signal={on_signal!r}: a signal can let the recorder 'commit', or is left alone (None)")
    if on_signal is not None and threading.current_thread() is not threading.main_thread():
        raise ValueError("on_signal='commit' needs the main thread: Python hands signals to no other")


class CommitOnSignal:
    """Takes the signals that end a training, commits at the next step, and hands each on to who had it before.

    A loop with a handler of its own (SLURM's SIGUSR1, say) goes on afterwards. Where there was none the signal does
    what it does by default: it ends the process, and Ctrl-C raises KeyboardInterrupt from the optimizer's step.

    Parameters
    ----------
    commit : callable
        Returns when all steps until now are durable.
    """

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit
        self._interruption = Interruption().install()

    def after_step(self) -> None:
        """Commit if a signal has come, and hand it on."""
        if self._interruption.signum is not None:
            self._commit()
            self.let_go()
            self.hand_on()
            self._interruption = Interruption().install()

    def let_go(self) -> None:
        """Give the signals back to who had them before."""
        self._interruption.remove()

    def hand_on(self) -> None:
        """After `let_go`: let a signal that has come do what it does, once."""
        interruption, self._interruption = self._interruption, Interruption()
        interruption.hand_on(by_default=True)

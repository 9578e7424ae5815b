"""The open recorders of this process: one on the same run is in the way of another, one left open is told at exit.

In a notebook a cell is run again while the recorder of its last run still lives, or while nothing holds it any more.
"""

from __future__ import annotations

import atexit
import gc
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from crucible.recording.seam import LateWriter, Writer, folder_at
from crucible.updates import telling
from crucible.updates.telling import Say
from store.errors import RunExistsError, StoreError
from store.holding.overwritten import refuse_foreign


class Closes(Protocol):
    """A recorder, as far as it is needed here."""

    def close(self) -> None:
        """Commit, and let go of the run and of the optimizer."""


class Live:
    """What is known of an open recorder. It holds no tensors, nor the recorder.

    Parameters
    ----------
    recorder : Closes
        While something else holds it.
    writer : Writer
        Has the run open until the recorder is closed.
    optimizer : str or None
        What kind of optimizer is recorded.
    first_step : int
        Label of the state with which it begins.
    say : callable
        Takes what is told of it at exit.
    """

    def __init__(self, recorder: Closes, writer: Writer, optimizer: str | None, first_step: int, say: Say) -> None:
        self.writer, self._say, self._optimizer = writer, say, optimizer
        self.run: Path | None = getattr(writer, "run", None)
        self._recorder = weakref.ref(recorder)
        self._first_step, self._pid = first_step, os.getpid()
        self._made_in = None if self.run is None else folder_at(self.run)

    @property
    def is_garbage(self) -> bool:
        """Whether nothing holds the recorder any more, so that nobody can close it."""
        return self._recorder() is None

    @property
    def is_gone(self) -> bool:
        """Whether the run's folder was removed, or another stands in its place. A run that is not made yet has none."""
        if self.run is None:
            return False
        if isinstance(self.writer, LateWriter):
            return self.writer.is_begun and folder_at(self.run) != self.writer.folder
        return folder_at(self.run) != self._made_in

    @property
    def has_failed(self) -> bool:
        """Whether writing failed, so that the run is closed already."""
        return bool(getattr(self.writer, "is_closed", False))

    @property
    def words(self) -> str:
        """The recorder, for a message."""
        if self.is_garbage:
            return f"a recorder that nothing holds any more, at step {self.writer.steps:,}"
        return repr(self._recorder())

    def close(self) -> None:
        """Close the recorder, or what is left of it."""
        recorder = self._recorder()
        try:
            if recorder is not None:
                recorder.close()
            else:
                self.writer.close()
        finally:
            leave(self)

    def end(self) -> None:
        """Close the run at the end of the process, and say that nobody did."""
        if os.getpid() != self._pid:
            return
        try:
            self.writer.close()
        except (StoreError, OSError) as error:
            self._say(str(error))
            return
        if self.writer.steps <= self._first_step:
            self._say(telling.nothing_came(self.writer.steps, self._optimizer))
        else:
            self._say(telling.left_open(self.run, self.writer.steps, is_garbage=self.is_garbage))


_open: dict[int, Live] = {}


def enter(live: Live) -> None:
    """Remember an open recorder."""
    _open[id(live)] = live


def leave(live: Live) -> None:
    """Forget it: it is closed."""
    _open.pop(id(live), None)


def on(run: Path) -> Live | None:
    """The open recorder of this process on a run."""
    same = (live for live in _open.values() if live.run is not None and _place(live.run) == _place(run))
    return next(same, None)


def make_way(run: Path, *, overwrite: bool, say: Say) -> None:
    """Before a recorder opens a run: close the one of this process whose folder is gone or that shall be overwritten.

    Raises
    ------
    RunExistsError
        This process is recording the run.
    """
    live = on(run)
    if live is None:
        return
    if not overwrite and not live.is_garbage:
        gc.collect()  # an optimizer and its recorder are a circle, which may be garbage that nobody has looked at
    words = live.words
    if live.is_gone or live.has_failed:
        with suppress(StoreError, OSError):
            live.close()
        if live.is_gone:
            say(telling.folder_gone(run, words, live.writer.committed_steps))
    elif overwrite or live.is_garbage:
        if overwrite:
            refuse_foreign(run)  # before anything is closed for it
        live.close()
        say(f"{run}: was still open, by {words}, which is closed now")
    else:
        raise RunExistsError(
            f"{run}: is being recorded by this process: {words}. Call its close(), and go on with the run by "
            f"resume={live.writer.steps}; or begin anew in its place by overwrite=True"
        )


@atexit.register
def _at_exit() -> None:
    while _open:
        live = _open.pop(next(iter(_open)))
        live.end()


def _place(run: Path) -> str:
    return os.path.realpath(run)

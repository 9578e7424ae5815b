"""The page's view.json as the run goes on: made in the background, once a commit, the newest there is at any time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask

from crucible.inspection.selection import Selection
from crucible.inspection.threads import IN_THREADS
from crucible.viewer import answers
from crucible.viewer.source import StoreError, at_one_commit, plain_message, stand_of


@dataclass
class Views:
    """Makes view.json of a run, in two stages: the axes first, for the first picture; then the answers.

    Parameters
    ----------
    run : Path
        The run's folder.
    threshold, norm
        Of motion, as in `analysis.moved`.
    selection : Selection
        The part that is shown, and that the verdict is of.
    """

    run: Path
    threshold: float | None = None
    norm: str = "l2"
    selection: Selection = answers.WHOLE
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _newest: dict[str, Any] | None = None
    _is_busy: bool = False
    _error: Exception | None = None

    def newest(self, *, whole: bool = False) -> bytes:
        """The newest view; begins with a newer one if the run has gone on, and waits only where there is none yet.

        Parameters
        ----------
        whole : bool
            Wait for the answers too.

        Raises
        ------
        NotATrajectoryError, DamageError
            As reading the run raises.
        """
        with self._changed:
            self.begin()
            while self._is_busy and not self._is_enough(whole):
                self._changed.wait()
            if self._error and (whole or self._newest is None):
                raise self._error
            if self._newest is None:
                raise RuntimeError("no view was made")
            return answers.to_json(self._newest)

    def begin(self) -> None:
        """Make the view of the run's commit in the background, unless it is made or being made."""
        with self._changed:
            key = stand_of(self.run).key
            if not self._is_busy and not (self._newest and self._newest["commit"]["key"] == key):
                self._is_busy, self._error = True, None
                threading.Thread(target=self._make, name="crucible-view-json", daemon=True).start()

    def _is_enough(self, whole: bool) -> bool:
        return self._newest is not None and not (whole and self._is_busy)

    def _make(self) -> None:
        try:
            stand, _, ds = at_one_commit(self.run)
            with dask.config.set(IN_THREADS):
                how: dict[str, Any] = {"threshold": self.threshold, "norm": self.norm, "selection": self.selection}
                first = answers.first_answers(ds, stand, **how)
                if self._newest is None:
                    self._publish(first)
                whole: dict[str, Any]
                try:
                    whole = {"answers": answers.all_answers(ds, **how)}
                except StoreError as error:
                    whole = {"problem": plain_message(error, self.run)}
            self._publish(first | whole)
        except Exception as error:  # told to whoever asks
            with self._changed:
                self._error = error
        finally:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()

    def _publish(self, view: dict[str, Any]) -> None:
        with self._changed:
            self._newest = view
            self._changed.notify_all()

"""Progress of long commands: one kind of callback, which the command line shows as a bar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Progress(Protocol):
    """Called now and then with how much is done, of how much in all, and a few words about now."""

    def __call__(self, done: int, total: int, words: str = "") -> None:
        """Take note."""


def silent(done: int, total: int, words: str = "") -> None:
    """Show nothing."""


@contextmanager
def of_dask(progress: Progress) -> Iterator[None]:
    """Tell of the tasks that dask computes within, in this process; a cluster has a dashboard of its own."""
    if progress is silent:
        yield
        return
    from dask.callbacks import Callback

    def tell(_key: object, _result: object, _graph: object, state: Mapping[str, Any], _worker: object) -> None:
        done = len(state["finished"])
        left = sum(len(state[name]) for name in ("ready", "waiting", "running"))
        progress(done, done + left)

    with Callback(posttask=tell):
        yield

"""The same work on many things, in a few threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def for_each(
    tasks: Iterable[T], worker: Callable[[], Callable[[T], int]], done: Callable[[int], Any], threads: int
) -> None:
    """Do all tasks, each thread taking the next one; the first failure stops them all and is raised.

    Parameters
    ----------
    tasks : iterable
        Taken one at a time, so that it may be long.
    worker : callable
        Makes, for each thread, the function that does a task and returns an amount.
    done : callable
        Gets the amount of each finished task, never from two threads at once.
    threads : int
        How many.
    """
    waiting, lock, stopped = iter(tasks), threading.Lock(), threading.Event()
    nothing = object()

    def run() -> None:
        try:
            work = worker()
            while not stopped.is_set():
                with lock:
                    task = next(waiting, nothing)
                if task is nothing:
                    return
                amount = work(task)  # type: ignore[arg-type]
                with lock:
                    done(amount)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        try:
            for future in [pool.submit(run) for _ in range(threads)]:
                future.result()
        finally:
            stopped.set()

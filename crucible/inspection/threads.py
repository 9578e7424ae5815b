"""Computing an answer in threads of this process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import dask
import dask.threaded

THREADS = {"num_workers": 2}
"""More would be no faster on most runs, and each holds some blocks in memory."""
IN_THREADS: dict[str, Any] = {**THREADS, "scheduler": dask.threaded.get, "array.rechunk.method": "tasks"}
"""Settings of dask, said in full: of itself it would look for a cluster first, and import all of `distributed` for it
where that is installed, for half a second."""


def in_threads() -> AbstractContextManager[Any]:
    """Compute in threads of this process, unless another scheduler, or another number of threads, was chosen."""
    settings = THREADS if dask.config.get("scheduler", None) else IN_THREADS
    return dask.config.set({name: value for name, value in settings.items() if dask.config.get(name, None) is None})

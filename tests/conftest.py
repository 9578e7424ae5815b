"""What belongs to which stage: `make test` takes a few cases of a long table, `make slow` the others.

The default tests write to memory where the machine has room there (a third less time: hundreds of them make a run, and
each commit of a run is flushed); the slow ones, with all that is about faults, to the disk.
"""

import os
import shutil
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from waiting import PATIENCE_S

MEMORY = Path("/dev/shm")
ROOM = 2_000_000_000  # bytes; the default tests take 300 MB


settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")  # a busy machine is no fault of the code


def pytest_configure(config):
    is_default = "not slow" in config.option.markexpr
    if is_default and MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow what `default_cases(n)` leaves out: all but n cases of a table, spread evenly over it."""
    tables = defaultdict(list)
    for item in items:
        if item.get_closest_marker("default_cases") and not item.get_closest_marker("slow"):
            tables[item.nodeid.partition("[")[0]].append(item)
    for table in tables.values():
        [count] = table[0].get_closest_marker("default_cases").args
        kept = {index * len(table) // count for index in range(count)}
        for index, item in enumerate(table):
            if index not in kept:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_view_is_made_behind_a_test():
    """A page that is closed may still be making its view: of a folder that goes, with the warnings of another test."""
    yield
    for thread in threading.enumerate():
        if thread.name == "crucible-view-json":
            thread.join(PATIENCE_S)

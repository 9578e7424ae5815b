"""What belongs to which stage: `make test` takes a few cases of a long table, `make slow` the others."""

from collections import defaultdict

import pytest


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

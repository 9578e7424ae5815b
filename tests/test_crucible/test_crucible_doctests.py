"""Every docstring of the package runs."""

import doctest
import importlib
import pkgutil

import pytest

import crucible

MODULES = [
    module.name
    for module in pkgutil.walk_packages(crucible.__path__, "crucible.")
    if not module.name.endswith("__main__")
]


@pytest.mark.default_cases(34)
@pytest.mark.parametrize("name", ["crucible", *MODULES])
def test_docstrings_run(name):
    assert not doctest.testmod(importlib.import_module(name)).failed

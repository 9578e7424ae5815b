"""Every docstring of the package runs, and importing the package costs next to nothing."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import analysis

MODULES = ["analysis", *(module.name for module in pkgutil.walk_packages(analysis.__path__, "analysis."))]
MODULES.append("moving_processes")


@pytest.mark.default_cases(15)
@pytest.mark.parametrize("name", MODULES)
def test_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert not found.failed


def test_import_loads_nothing_heavy():
    code = "import sys, analysis; print(*{'numpy', 'dask', 'xarray', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.slow
def test_every_name_is_there_and_functions_win_over_modules_of_their_name():
    code = (
        "import analysis\n"
        "from analysis.questions.lifecycle import NormRule\n"
        "from analysis.questions.stillness import any_motion\n"
        "assert callable(analysis.lifecycle) and callable(analysis.stillness)\n"
        "assert analysis.lattice.NORMS and 'census' in dir(analysis)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        analysis.nothing  # noqa: B018

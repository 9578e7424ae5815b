"""reference/api: every public name of the packages, with its docstring when the site is built."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import sys
import types
from pathlib import Path
from typing import Any

from pages_from_code.docstrings import escaped
from pages_from_code.tables import table
from store.format.schema import Channel

PACKAGES = {
    "crucible": "Training, recording, inspecting and moving runs.",
    "store": "Runs on disk: writing, reading, checking. Knows neither torch nor what a channel means.",
    "analysis": "Questions about a trajectory: functions of an `xarray.Dataset`, lazy, in bounded memory.",
    "analysis.lattice": "The lattice of bfloat16 numbers: cells, displacements, norms, hops.",
    "analysis.plots": "Pictures of answers, as figures of matplotlib.",
    "analysis.simulate": "Trajectories that are made up, to try a question on.",
    "crucible.channels.sources": "Where the rows of a channel come from, for [channels of one's own](../../how-to/own-loop.md).",
}
INDEX = """\
# Python

Every public name. A package's `__all__` is its face; what stands behind it may change.

:::{toctree}
%s
:::
"""


def index() -> str:
    """The list of the pages."""
    return INDEX % "\n".join(PACKAGES)


def page(package: str) -> str:
    """A line a name for those who read the file, and a directive a name for the site."""
    module = importlib.import_module(package)
    names = public_names(module)
    rows = [(f"`{name}`", _summary(module, name)) for name in names]
    directives = "\n".join(_directive(module, package, name, getattr(module, name)) for name in names)
    head = f"# {package}\n\n{PACKAGES[package]}\n\n{table(('name', 'is'), rows)}"
    return f"{head}\n```{{eval-rst}}\n{directives}```\n"


def public_names(module: types.ModuleType) -> list[str]:
    """What `__all__` says, or the functions and classes that a module makes itself."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    found = vars(module).items()
    return sorted(
        name
        for name, value in found
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__ and callable(value)
    )


def home(package: str, name: str, value: Any) -> str | None:  # noqa: ANN401 - whatever is public
    """The other public name under which the same thing is described; None where it is described here."""
    if f"{package}.{name}" in PACKAGES:
        return f"{package}.{name}"
    for other in PACKAGES:
        if other == package:
            return None
        if getattr(importlib.import_module(other), name, None) is value:
            return f"{other}.{name}"
    return None


def _summary(module: types.ModuleType, name: str) -> str:
    value = getattr(module, name)
    if isinstance(value, Channel):
        return f"channel: {value.meaning or value.long_name}"
    text = _words_of_data(module, name, value) if _is_data(value) else inspect.getdoc(value)
    return (text or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _is_data(value: Any) -> bool:  # noqa: ANN401 - whatever is public
    return not (inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value))


def _words_of_data(module: types.ModuleType, name: str, value: Any) -> str:  # noqa: ANN401 - whatever is public
    """The string behind the assignment of a name, in whichever module makes it; else the value."""
    for other in (module, *(m for m in list(sys.modules.values()) if vars(m).get(name) is value)):
        if name in vars(other) and (path := getattr(other, "__file__", None)) and path.endswith(".py"):
            body = ast.parse(Path(path).read_text(encoding="utf-8")).body
            for node, after in itertools.pairwise(body):
                targets = [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
                words = after.value if isinstance(after, ast.Expr) else None
                if name in targets and isinstance(words, ast.Constant):
                    return inspect.cleandoc(str(words.value))
    if isinstance(value, types.GenericAlias):
        return "a type, for annotations"
    return {"__version__": "version of the installed distribution"}.get(name, f"`{value!r}`")


def _directive(module: types.ModuleType, package: str, name: str, value: Any) -> str:  # noqa: ANN401 - whatever is public
    full = f"{package}.{name}"
    if (elsewhere := home(package, name, value)) is not None:
        return f".. py:data:: {full}\n   :no-index:\n\n   See ``{elsewhere}``.\n"
    if _is_data(value) or inspect.ismodule(value):
        return f".. py:data:: {full}\n\n   {escaped(_summary(module, name))}\n"
    if not inspect.isclass(value):
        return f".. autofunction:: {full}\n"
    return f".. {'autoexception' if issubclass(value, Exception) else 'autoclass'}:: {full}\n   :members:\n"

"""Real English text that every Python ships: the help topics, and the docstrings of the standard library.

Docstrings are read with `ast`; importing every module would open a browser and print a poem.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "turtledemo",
    "encodings",
    "__pycache__",
}


def topic_text() -> str:
    """Python's help topics in alphabetical order: the narrow text, about 700 kB."""
    return "\n\n".join(topics[name] for name in sorted(topics))


def docstring_text() -> str:
    """The docstrings of the standard library, in order of path and line: the wide text, about 2 MB."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return "\n\n".join(text for path in _modules(root) for text in _docstrings(path))


def _modules(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED.intersection(path.relative_to(root).parts):
            yield path


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError):
        return
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Documented):
            text = ast.get_docstring(node)
            if text:
                yield text
            pending += reversed(node.body)  # no expression holds a docstring, so none is looked at

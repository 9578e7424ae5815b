"""How the code is laid out: short lists of short files, and no file whose name says nothing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("crucible", "store", "analysis")
MOST_MODULES, MOST_LINES, LONGEST_FUNCTION = 11, 500, 40
MODULES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]


def test_a_folder_holds_at_most_eleven_modules():
    held = {folder: sum(path.parent == folder for path in MODULES) for folder in {path.parent for path in MODULES}}
    assert {str(folder): count for folder, count in held.items() if count > MOST_MODULES} == {}


def test_no_module_is_long_and_none_has_a_name_for_anything():
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path
        assert not re.search("util|helper|common|misc", path.stem), path


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_long(package):
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] == package:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[ast.get_docstring(node) is not None :]
                    lines = node.end_lineno - body[0].lineno + 1 if body else 0
                    assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"


def test_every_room_stands_on_the_page_of_the_architecture():
    told = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.relative_to(ROOT).parts[1] for path in MODULES if len(path.relative_to(ROOT).parts) > 2}
    assert {room for room in rooms if f"`{room}`" not in told} == set()

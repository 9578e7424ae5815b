"""The reference says what the code does: nothing public goes unmentioned, and pages made from the code are current."""

import ast
import doctest
import importlib
import json
import re
import signal
from pathlib import Path

import pytest
from pages_from_code import changelog, docstrings, notebooks, pages
from pages_from_code.python_names import PACKAGES, public_names

from analysis import simulate
from crucible.cli import main as command_line
from crucible.cli.main import build_parser
from crucible.inputs.config import rules
from crucible.inspection.analyze import ask
from crucible.signals import NAMES as SIGNALS

DOCS = Path(__file__).parents[1] / "docs"


def text_of(page):
    return (DOCS / page).read_text("utf-8")


def first_column(page):
    """What the tables of a page are about: the names in the first cell of each row."""
    cells = re.findall(r"^\| (`.*?) \|", text_of(page), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(.+?)`", cell)}


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_made_from_the_code_is_current(name):
    assert text_of(name) == pages.content(name), f"docs/{name} is stale: run `make reference`"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_row(package):
    names = public_names(importlib.import_module(package))
    assert set(names) - first_column(f"reference/api/{package}.md") == set()


def test_every_command_has_a_section_with_every_flag():
    sections = dict(re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", text_of("reference/command-line.md"), re.DOTALL | re.M))
    for command, parser in build_parser()[1].items():
        flags = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
        told = set(re.findall(r"(?<![\w-])--[\w-]+", sections[command]))
        assert flags - {"--help"} - told == set(), command


def returned_by_commands():
    """The whole numbers that the functions of the command line return as they stand in the code."""
    for path in Path(command_line.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and ast.unparse(function.returns) == "int":
                returned = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
                parts = [part for node in returned for part in ast.walk(node) if isinstance(part, ast.Constant)]
                yield from (part.value for part in parts if type(part.value) is int)


def test_every_exit_code_has_a_row():
    signals = {128 + getattr(signal, name) for name in SIGNALS}
    codes = {*command_line.EXIT_CODES.values(), *returned_by_commands(), *signals}
    assert codes - command_line.CODES.keys() == set()
    assert {str(code) for code in command_line.CODES} - first_column("reference/errors.md") == set()
    assert command_line.EXIT_CODES.keys() - first_column("reference/errors.md") == set()


def test_every_parameter_has_a_row():
    assert rules().keys() - first_column("reference/configuration.md") == set()


def leaves(value, path=""):
    """The names of the numbers in a JSON document, as the reference writes them."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    else:
        yield re.sub(r"lifecycle\.\w+\.", "lifecycle.*.", path)


def test_every_number_of_analyze_is_mentioned_and_nothing_else():
    fine = simulate.with_moving_steps([5, 9], total_steps=30)
    diverged = fine.load().copy(deep=True)
    diverged.W[20:, 1] = 0x7FC0
    told = {"part", *leaves(ask(fine)), *leaves(ask(diverged[["W"]]))}  # the part is that of `crucible analyze`
    assert first_column("reference/analysis-output.md") == told


def test_every_fragment_of_the_changelog_is_of_a_kind_that_is_shown():
    fragments = {path.name for path in (DOCS / "changes").glob("*.md")} - {"README.md"}
    assert [name for name in fragments if name.split("-")[0] not in changelog.KINDS] == []
    assert changelog.page(DOCS / "changes").count("\n- ") == len(fragments)


def test_an_example_becomes_a_notebook_with_a_cell_a_block(tmp_path):
    page = "# Title\n\nWords.\n\n```python\nx = 1\nprint(x)\n```\n\nMore.\n"
    (tmp_path / "one.md").write_text(page)
    (path,) = notebooks.write(tmp_path, tmp_path / "out")
    cells = json.loads(path.read_text())["cells"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "markdown"]
    assert "".join(cells[1]["source"]) == "x = 1\nprint(x)"


def test_docstrings_become_lists_for_the_site():
    assert doctest.testmod(docstrings).failed == 0
    text = [
        "Returns",
        "-------",
        "Dataset",
        "    Lazy:",
        "",
        "    a, b : int64 - ``x|y``",
        "        |z|",
        "",
        "    End.",
    ]
    made = docstrings.as_restructured(text)
    assert made[5:7] == ["    * a, b : int64 - ``x|y``", "      \\|z\\|"]

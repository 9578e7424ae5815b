"""The reference says what the code does: nothing public goes unmentioned, and pages made from the code are current."""

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest
from pages_from_code import changelog, docstrings, notebooks, pages
from pages_from_code.python_names import PACKAGES, public_names

from analysis import simulate
from crucible.cli.main import EXIT_CODES, build_parser
from crucible.inputs.config import rules
from crucible.inspection.analyze import ask

DOCS = Path(__file__).parents[1] / "docs"
TEXT = "\n".join(page.read_text("utf-8") for page in [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))])


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_made_from_the_code_is_current(name):
    assert (DOCS / name).read_text("utf-8") == pages.content(name), f"docs/{name} is stale: run `make reference`"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_mentioned(package):
    names = public_names(importlib.import_module(package))
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", TEXT)] == []


def test_every_command_and_flag_is_mentioned():
    for command, parser in build_parser()[1].items():
        assert f"crucible {command}" in TEXT
        flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        assert [flag for flag in flags if flag != "--help" and flag not in TEXT] == [], command


def test_every_exit_code_and_parameter_is_mentioned():
    assert [code for code in EXIT_CODES.values() if f"`{code}`" not in TEXT] == []
    assert [key for key in rules() if f"`{key}`" not in TEXT] == []


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
    told = {*leaves(ask(fine)), *leaves(ask(diverged[["W"]]))}
    table = re.findall(r"^\| (`.*?) \|", (DOCS / "reference/analysis-output.md").read_text("utf-8"), re.MULTILINE)
    assert {name for row in table for name in re.findall(r"`(.+?)`", row)} == told


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

"""Every code block of the README and of docs/ runs, page by page, in a folder with two text files in it."""

import re
import shlex
from pathlib import Path

import matplotlib as mpl
import pytest

from crucible.cli.main import main
from crucible.inputs.stdlib_text import topic_text

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^(make|pip|python) ")
"""Lines of a shell block that set up or repeat what the test run itself is."""
NOT_RUN = {"", "console", "json", "toml", "text"}
"""Languages of blocks that show something."""


def blocks(page):
    return [(language, text) for language, text in BLOCK.findall(page.read_text())]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    text = topic_text()
    (tmp_path / "wide.txt").write_text(text[:200_000], encoding="utf-8")
    (tmp_path / "narrow.txt").write_text(text[:30_000], encoding="utf-8")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams | {"backend": "agg"})
    return tmp_path


def run_line(line):
    program, *words = shlex.split(line, comments=True)
    assert program == "crucible", line
    assert main(words) == 0, line


def with_marks(page):
    """Loading transformers takes ten seconds."""
    marks = [pytest.mark.slow, pytest.mark.filterwarnings("default")] if "transformers" in page.read_text() else []
    return pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", [with_marks(page) for page in PAGES if blocks(page)])
def test_code_blocks_run(page):
    names = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "sh":
            for line in filter(None, map(str.strip, text.splitlines())):
                if not SHOWN.match(line):
                    run_line(line)
        else:
            assert language in NOT_RUN, f"{page}: a block of {language}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_there_are_pages_with_code():
    assert len([page for page in PAGES if blocks(page)]) >= 4

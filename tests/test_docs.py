"""Every code block of the README and of docs/ runs: Python in a fresh interpreter, shell blocks in a fresh folder.

Each page has a folder with two text files in it. A Python block that uses nothing of the blocks before it runs alone,
as a reader may run it; the others run after the block before them, in the same interpreter.
"""

import builtins
import re
import shlex
import subprocess
import symtable
import sys
from pathlib import Path

import pytest

from crucible.cli.main import main
from crucible.inputs.stdlib_text import topic_text

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^(make|pip|python) ")
"""Lines of a shell block that set up or repeat what the test run itself is."""
NOT_RUN = {"", "console", "json", "toml", "text", "{eval-rst}"}
"""Languages of blocks that show something."""


def blocks(page):
    return [(language, text) for language, text in BLOCK.findall(page.read_text())]


INDEXES = [*(ROOT / "docs").glob("*/index.md"), ROOT / "docs" / "decisions" / "README.md"]


@pytest.mark.parametrize("index", INDEXES, ids=lambda each: each.parent.name)
def test_an_index_names_every_page_of_its_folder(index):
    """As text, too: the site's own list of pages is not there for who reads the files as they lie."""
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", index.read_text()))
    assert named == {page.name for page in index.parent.glob("*.md")} - {index.name}


def names_from_outside(text):
    """Names that a piece of Python uses and neither binds nor finds among the builtins."""
    top = symtable.symtable(text, "block", "exec")
    tables, used = [top], set()
    for table in tables:
        tables += table.get_children()
        used |= {name.get_name() for name in table.get_symbols() if name.is_global() and name.is_referenced()}
    bound = {name.get_name() for name in top.get_symbols() if name.is_assigned() or name.is_imported()}
    return used - bound - set(dir(builtins))


def parts(page):
    """What is run one after the other: "sh" with lines, "python" with the blocks of one interpreter; and its output."""
    found = []
    for language, text in blocks(page):
        assert language in {"sh", "python", "output"} | NOT_RUN, f"{page}: a block of {language}"
        if language == "output":
            found[-1][2] += text
        elif language == "python" and found and found[-1][0] == "python" and names_from_outside(text):
            found[-1][1] += text
        elif language not in NOT_RUN:
            found.append([language, text, ""])
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    text = topic_text()
    (tmp_path / "wide.txt").write_text(text[:200_000], encoding="utf-8")
    (tmp_path / "narrow.txt").write_text(text[:30_000], encoding="utf-8")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


BUSY = "default:recording is slower than training here"
"""A warning that tells of the machine, not of the page."""


def run_python(text, *, warnings, shown=""):
    command = [sys.executable, "-W", warnings, "-W", BUSY, "-c", text]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    if shown:
        seen = without_numbers if "import torch" in text else str
        assert seen(done.stdout) == seen(shown)


def without_numbers(text):
    """Other machines round differently what torch computes: of its output the words are promised, not the numbers."""
    return re.sub(r"-?\d[\d,.e-]*", "#", text)


def commands(text):
    for line in filter(None, map(str.strip, text.splitlines())):
        if not SHOWN.match(line):
            program, *words = shlex.split(line, comments=True)
            assert program == "crucible", line
            yield words


QUICK = {"README.md", "docs/explanation/the-lattice.md", "docs/explanation/threads.md"}
"""Pages that run in the default stage. Each page costs two to ten seconds, so the others run in the slow one."""


def with_marks(page):
    name = str(page.relative_to(ROOT))
    return pytest.param(page, marks=[] if name in QUICK else [pytest.mark.slow], id=name)


WITH_CODE = [with_marks(page) for page in PAGES if blocks(page)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", WITH_CODE)
def test_code_blocks_run(page):
    loud = ("transformers", "import lightning", "import accelerate")  # they warn of what is not ours
    warnings = "default" if any(name in page.read_text() for name in loud) else "error"
    for language, text, shown in parts(page):
        if language == "python":
            run_python(text, warnings=warnings, shown=shown)
        else:
            for words in commands(text):
                assert main(words) == 0, words


WITH_COMMANDS = [ROOT / "docs/how-to/own-questions.md"]


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_runs_in_a_process_of_its_own(page):
    for words in [words for language, text, _ in parts(page) if language == "sh" for words in commands(text)]:
        command = [sys.executable, "-m", "crucible", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}\n{done.stderr}"


def test_a_block_that_needs_the_one_before_is_told_from_one_that_stands_alone():
    assert names_from_outside("import crucible\nprint(crucible.attach)") == set()
    assert names_from_outside("x = [n for n in range(3)]\ndef f(a):\n    return a + x") == set()
    assert names_from_outside("def f():\n    return ds.loss") == {"ds"}
    assert names_from_outside("print(embedding)\nds = 1") == {"embedding"}


def headings(page):
    """The names by which a link leads to the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target, heading in re.findall(r"\]\(([^)#:]*)#?([^)#:]*)\)", page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not heading or heading in headings(found), f"{target}#{heading}"


def test_there_are_pages_with_code():
    assert len([page for page in PAGES if blocks(page)]) >= 4

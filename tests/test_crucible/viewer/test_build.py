"""The committed bundle is what its source builds, and the source passes the compiler at its strictest."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from crucible.viewer.files import PAGE, PAGE_FILES

SOURCE = PAGE.parent / "page"
MOST_LINES = 350
needs_source = pytest.mark.skipif(not SOURCE.is_dir(), reason="an installed wheel holds the built page alone")


def test_all_files_of_the_page_are_there_and_small():
    assert {path.name for path in PAGE.iterdir()} == set(PAGE_FILES)
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 150_000


def test_modules_stay_readable():
    for path in (SOURCE / "src").glob("*.ts"):
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


@needs_source
def test_the_lock_file_names_no_registry():
    lock = (SOURCE / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    packages = json.loads(lock)["packages"]
    assert all("integrity" in package for name, package in packages.items() if name.startswith("node_modules"))


@needs_source
def test_the_page_bundles_nothing_of_others_and_says_so():
    """A package that is bundled would be one of the lock file's that are not for development alone."""
    packages = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if name and not package.get("dev")] == []
    assert "dependencies" not in json.loads((SOURCE / "package.json").read_text())
    assert "no code of others" in (PAGE / "licences.txt").read_text()


@needs_source
@pytest.mark.slow
def test_the_bundle_is_what_its_source_builds(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    copy = tmp_path / "viewer" / "page"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "types"], ["npm", "run", "build"]):
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in PAGE_FILES:
        assert (copy.parent / "built" / name).read_bytes() == (PAGE / name).read_bytes(), f"{name}: run `make page`"
    assert Path(PAGE / "app.js").stat().st_size > 1000

"""The wheel: built from this tree, installed apart from it, it holds what it needs and works."""

import email
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "crucible").is_dir(), reason="needs the source of the packages"),
]
USE = """
import torch, crucible, store, analysis
embedding = torch.nn.Embedding(9, 4, dtype=torch.bfloat16)
optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
with crucible.attach(embedding, optimizer, "run") as recorder:
    for _ in range(5):
        optimizer.zero_grad()
        embedding(torch.arange(9)).float().square().sum().backward()
        optimizer.step()
print(crucible.__file__, store.__file__, analysis.__file__, crucible.__version__, sep="\\n")
"""


def run(*command, cwd, **environment):
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT), cwd=folder)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_wheel_holds_the_packages_their_types_the_page_and_the_licences(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        [licence] = [name for name in names if name.endswith("licenses/crucible/viewer/built/licences.txt")]
        assert b"no code of others" in opened.read(licence)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"crucible", "store", "analysis"}
    for package in ("crucible", "store", "analysis"):
        assert {f"{package}/py.typed", f"{package}/__init__.pyi"} <= set(names)
    assert "crucible/viewer/built/app.js" in names
    assert not [name for name in names if "viewer/page" in name or name.endswith((".ts", ".pyc"))]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_says_its_version_its_pythons_and_its_licence(wheel, project):
    with zipfile.ZipFile(wheel) as opened:
        [metadata] = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        told = email.message_from_bytes(opened.read(metadata))
    assert told["Version"] == project["version"]
    assert told["License-Expression"] == "MIT"
    assert set(told.get_all("Classifier")) == set(project["classifiers"])
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(project["classifiers"])
    assert told["Requires-Python"] == project["requires-python"]


def test_the_installed_wheel_records_and_answers(wheel, project, tmp_path):
    """Installed into a folder that comes before this tree; what it depends on is that of this environment."""
    target, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=work)
    here = {"PYTHONPATH": str(target)}
    *files, version = run(sys.executable, "-c", USE, cwd=work, **here).splitlines()
    assert all(Path(file).is_relative_to(target) for file in files)
    assert version == project["version"]
    assert version in run(str(target / "bin" / "crucible"), "--version", cwd=work, **here)
    for command in (["info", "run"], ["report", "run"], ["view", "run", "--export", "page"], ["check", "run"]):
        run(sys.executable, "-m", "crucible", *command, cwd=work, **here)
    assert (work / "page" / "app.js").stat().st_size > 1000

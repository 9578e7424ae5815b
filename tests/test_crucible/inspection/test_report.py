"""Where `crucible report` writes, and what it leaves alone."""

import lab_files as lab
import pytest

from crucible.inspection import report
from crucible.interchange.importing.importer import import_run
from store.errors import NotATrajectoryError, RunExistsError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run, of which no pictures are drawn."""
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    import_run(lab.write(tmp_path / "a", lab.notebook(strange=False)), tmp_path / "run")
    return tmp_path / "run"


def test_other_files_of_the_folder_stay_as_they_are(run, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    mine.write_text("mine")
    (out / ".report.html.partial").symlink_to(mine)
    report.report(run, out / "report.html")
    assert mine.read_text() == "mine"
    assert (out / ".report.html.partial").is_symlink()
    assert sorted(path.name for path in out.iterdir()) == [".report.html.partial", "report.html"]


def test_a_dangling_link_counts_as_a_file(run, tmp_path):
    (tmp_path / "report.html").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunExistsError, match="--force"):
        report.report(run, tmp_path / "report.html")
    report.report(run, tmp_path / "report.html", force=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_not_there_is_said_before_anything_is_computed(run, tmp_path, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.writing.story_of", None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        report.report(run, tmp_path / "no" / "report.html")


def test_a_run_that_is_not_there_is_said_to_be_none(run, tmp_path):
    for runs in (tmp_path / "absent", [run, tmp_path / "absent"]):
        with pytest.raises(NotATrajectoryError, match="absent"):
            report.report(runs, tmp_path / "no" / "report.html")

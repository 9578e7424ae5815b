"""The page as a folder: works under Python's own file server, holds nothing personal, and is a trajectory too."""

import functools
import http.server
import itertools
import json
import shutil
import threading

import numpy as np
import pytest
import viewer_runs
from waiting import PATIENCE_S

import store
from crucible.viewer import export, source
from crucible.viewer.export import export_page
from store.errors import LabelError, RunExistsError, StaleHandleError
from store.upkeep.compact import compact


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Incomplete(Quiet):
    """Lacks who moved and the loss, and says so of the loss last."""

    has_refused = threading.Event()

    def do_GET(self):
        if "/displacement_l2/c" in self.path:
            self.send_error(404)
            self.has_refused.set()
        elif "/loss/c" in self.path:
            self.has_refused.wait(PATIENCE_S)
            self.send_error(404)
        else:
            super().do_GET()


@pytest.fixture
def publish():
    """Serve a folder with Python's own file server."""
    servers = []

    def publish(folder, handler=Quiet):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield publish
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_export_is_a_whole_trajectory(run, rows, tmp_path):
    folder = export_page(run, tmp_path / "page")
    ds = store.open_trajectory(folder)
    np.testing.assert_array_equal(ds.W.values, rows)
    assert store.check(folder) is not None


def test_an_export_names_no_path_host_or_user(rows, tmp_path):
    told = {"config": {"corpus": "/home/ada/texts/corpus.txt", "user": "ada"}, "provenance": {"host": "lovelace"}}
    run = viewer_runs.record(tmp_path / "run", rows[:5], attributes=told)
    folder = export_page(run, tmp_path / "page")
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (b"/home", b"lovelace", b'"ada"', str(tmp_path).encode()):
                assert secret not in data, path


def test_what_is_there_is_replaced_only_when_it_is_an_earlier_export(run, tmp_path):
    folder = export_page(run, tmp_path / "page")
    with pytest.raises(RunExistsError, match="--force replaces it"):
        export_page(run, folder)
    export_page(run, folder, force=True)
    (folder / "mine.txt").write_text("kept beside it")
    with pytest.raises(RunExistsError, match=r"holds mine.txt, which is no part of an export"):
        export_page(run, folder, force=True)
    assert (folder / "mine.txt").exists()
    assert (folder / "view.json").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(RunExistsError, match="no earlier export"):
        export_page(run, other, force=True)
    assert (other / "thesis.tex").exists()


def test_the_export_of_a_run_that_goes_on_says_so(rows, tmp_path):
    with viewer_runs.create(tmp_path / "run", rows) as writer:
        viewer_runs.append(writer, rows, 0, 5)
        writer.commit()
        folder = export_page(tmp_path / "run", tmp_path / "page")
    assert b'"state":"copied"' in (folder / "view.json").read_bytes()


def test_the_export_of_a_run_that_goes_on_just_then_is_of_one_commit(rows, tmp_path, monkeypatch):
    """Its page told the steps of one commit, and the answers and files of the next."""
    usual = source.whole_commit
    with viewer_runs.create(tmp_path / "run", rows) as writer:
        viewer_runs.append(writer, rows, 0, 11)
        writer.commit()

        def first_it_goes_on(run):
            if writer.steps == 10:
                viewer_runs.append(writer, rows, 11, 21)
                writer.commit()
            return usual(run)

        for module in (source, export):
            monkeypatch.setattr(module, "whole_commit", first_it_goes_on, raising=False)
        folder = export_page(tmp_path / "run", tmp_path / "page")
    view = json.loads((folder / "view.json").read_text())
    assert view["steps"] == view["commit"]["steps"] == store.open_trajectory(folder).step.values[-1] == 20
    assert f"at step {view['steps']}" in view["answers"]["verdict"]


def test_a_run_that_is_compacted_while_its_page_is_copied_has_no_page(rows, tmp_path, monkeypatch):
    """Some of the files would be those of before, and some of after."""
    run, times = viewer_runs.record(tmp_path / "run", rows[:21]), itertools.count()
    monkeypatch.setattr(export, "_copy_array", lambda *_: None if next(times) else compact(run))
    with pytest.raises(StaleHandleError, match="export its page again"):
        export_page(run, tmp_path / "page")
    assert not (tmp_path / "page/view.json").exists()


def test_a_run_with_a_file_of_a_fork_has_no_page(rows, tmp_path):
    """The answers are made of the norms alone, so none of them would tell."""
    run, fork = viewer_runs.forks(tmp_path, rows)
    shutil.copy(fork / "trajectory.zarr/W/c.1.0.0", run / "trajectory.zarr/W/c.1.0.0")
    with pytest.raises(LabelError, match="no writer of this run"):
        export_page(run, tmp_path / "page")
    assert not (tmp_path / "page/view.json").exists()


def test_the_export_is_shown_by_any_static_server(browser, run, tmp_path, publish):
    url = publish(export_page(run, tmp_path / "page"))
    browser.open(f"{url}#step=128&token=13")
    browser.wait("document.getElementById('bits').dataset.step === '128'")
    expected = store.open_trajectory(run).W.sel(step=128, token=13).values
    assert [int(word, 16) for word in browser.data("bits")["bits"].split()] == expected.tolist()
    assert browser.text("state-word") == "complete"


def test_of_several_files_that_are_not_there_each_failure_is_taken(browser, run, tmp_path, publish):
    """The browser's console would tell of one that nobody took."""
    browser.forgive("404 (")
    browser.open(publish(export_page(run, tmp_path / "page"), Incomplete), whole=False)
    browser.wait("!document.getElementById('problem').hidden")
    assert "Damaged: " in browser.text("problem")


def test_an_earlier_page_stays_where_a_new_one_is_refused(rows, tmp_path):
    run = viewer_runs.record(tmp_path / "run", rows[:21])
    export_page(run, tmp_path / "page")
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "page").rglob("*") if path.is_file())
    with pytest.raises(ValueError, match="no population 'nobody'"):
        export_page(run, tmp_path / "page", population="nobody", force=True)
    after = sorted((path, path.read_bytes()) for path in (tmp_path / "page").rglob("*") if path.is_file())
    assert after == before

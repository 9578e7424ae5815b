"""`crucible view` as a command."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from waiting import PATIENCE_S

import crucible
from crucible.cli.main import main


@pytest.mark.slow
def test_the_command_prints_the_address_serves_and_ends_with_ctrl_c(run):
    child = subprocess.Popen(
        [sys.executable, "-m", "crucible", "view", str(run), "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        url = child.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            assert b"crucible view" in answer.read()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_export_from_the_command_line(run, tmp_path, capsys):
    folder = tmp_path / "page"
    assert main(["view", str(run), "--export", str(folder), "--threshold", "2", "--norm", "linf"]) == 0
    assert capsys.readouterr().out == f"page: {folder}\n"
    assert main(["view", str(run), "--export", str(folder)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["view", str(run), "--export", str(folder), "--force"]) == 0


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["view", str(tmp_path), "--no-browser"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("options", [["--threshold", "0"], ["--threshold", "nan"]])
def test_a_threshold_that_cannot_be_is_refused_at_once(run, capsys, options):
    assert main(["view", str(run), "--no-browser", *options]) == 2
    assert "threshold" in capsys.readouterr().err


@pytest.mark.slow
def test_view_is_a_public_function(run):
    with crucible.view(run) as page:
        assert page.url.startswith("http://127.0.0.1:")
        page.close()  # twice is fine

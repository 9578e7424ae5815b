"""`crucible view ADDRESS`: opens a page that is published, and says plainly what else there is at an address."""

import functools
import http.server
import shutil
import socket
import threading

import pytest

from crucible.cli.main import main
from crucible.viewer.export import export_page
from crucible.viewer.hosted import find_page


class Plain(http.server.SimpleHTTPRequestHandler):
    """Python's own file server: no ranges."""

    def log_message(self, *_):
        pass


class AlwaysThere(Plain):
    """A server that answers every address with the same page."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<p>welcome</p>")


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    """A page in a folder of a site, a trajectory alone, and a view.json of somebody else."""
    root = tmp_path_factory.mktemp("site")
    export_page(run, root / "pages" / "mine")
    shutil.copytree(root / "pages" / "mine" / "trajectory.zarr", root / "bare" / "trajectory.zarr")
    shutil.copytree(root / "pages" / "mine" / "trajectory.zarr", root / "experiment.zarr")
    (root / "other").mkdir()
    (root / "other" / "view.json").write_text('{"commit": 1}')
    server, address = serve(functools.partial(Plain, directory=root))
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "path", ["/pages/mine", "/pages/mine/", "/pages/mine/index.html", "/pages/mine/trajectory.zarr", "/pages/mine?a=1"]
)
def test_a_page_is_found_by_any_address_of_it(site, path):
    assert find_page(site + path) == f"{site}/pages/mine/"


def test_the_command_prints_the_address_opens_it_and_ends(site, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["view", f"{site}/pages/mine#step=7", "--no-browser"]) == 0
    assert (capsys.readouterr().out, opened) == (f"{site}/pages/mine/#step=7\n", [])
    assert main(["view", f"{site}/pages/mine"]) == 0
    assert opened == [f"{site}/pages/mine/"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/bare/", "is a trajectory without its page"),
        ("/bare/trajectory.zarr", "is a trajectory without its page"),
        ("/experiment.zarr", "is a trajectory without its page"),
        ("/other/", "something else, so there is no page of a run here"),
        ("/nowhere", "the server answers 404, so there is no page of a run here"),
    ],
)
def test_what_is_no_page_is_refused_in_one_line_that_says_what_to_do(site, capsys, path, said):
    assert main(["view", site + path]) == 4
    err = capsys.readouterr().err
    assert said in err
    assert "--export DIR" in err
    assert err.count("\n") == 1


def test_a_server_that_answers_anything_is_not_taken_for_a_page(capsys):
    server, address = serve(AlwaysThere)
    with server:
        assert main(["view", f"{address}/page"]) == 4
        server.shutdown()
    assert "something else, so there is no page of a run here" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        assert main(["view", f"http://127.0.0.1:{taken.getsockname()[1]}/page"]) == 1
    err = capsys.readouterr().err
    assert "cannot be asked for" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("address", ["http://", "https://[::1/page", "http://a b/", "http://127.0.0.1:port/"])
def test_an_address_that_cannot_be_is_refused_in_one_line(capsys, address):
    assert main(["view", address]) in (1, 2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_options_of_a_run_are_refused_for_a_page(site, capsys):
    assert main(["view", f"{site}/pages/mine", "--threshold", "2", "--port", "80", "--steps", "1:5"]) == 2
    assert "is a page already, which was made with all it shows; leave out" in capsys.readouterr().err


def test_an_address_that_is_no_web_page_is_refused_as_ever(capsys):
    assert main(["view", "s3://bucket/run"]) == 2
    assert "is an address" in capsys.readouterr().err

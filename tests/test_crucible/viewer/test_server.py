"""What the server answers and what it refuses."""

import http.client
import json
import os
import shutil
import urllib.parse

import pytest
import viewer_runs
from waiting import PATIENCE_S

from crucible.viewer.show import _bind, view

CHUNK = "/trajectory.zarr/W/c.0.0.0"


def ask(url, path, method="GET", **headers):
    at = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/app.js", "/worker.js", "/style.css", "/icon.svg", "/licences.txt"])
def test_the_page_is_served_under_a_strict_policy(served, path):
    status, data, headers = ask(served, path)
    assert status == 200
    assert data
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_files_of_the_trajectory_are_served_as_they_lie(served, run):
    for path in (CHUNK, "/trajectory.zarr/loss/c.0", "/trajectory.zarr/W/zarr.json"):
        status, data, _ = ask(served, path)
        assert (status, data) == (200, (run / path[1:]).read_bytes())


@pytest.mark.parametrize(
    "path",
    [
        "/config.json", "/checkpoint/", "/LOCK", "/trajectory.zarr", "/trajectory.zarr/", "/trajectory.zarr/W",
        "/trajectory.zarr/W/", "/trajectory.zarr/../config.json", "/trajectory.zarr/W/../../config.json",
        "/trajectory.zarr/W/%2e%2e/%2e%2e/config.json", "/..%2fconfig.json", "//etc/passwd", "/etc/passwd",
        "/trajectory.zarr/W/c.0.0.0%00", "/trajectory.zarr/W/c.0.0.0/", "/trajectory.zarr/W/c.9.9.9", "/server.py",
        "/trajectory.zarr/.W/zarr.json", "/trajectory.zarr/parameters/../W/zarr.json", "/page/src/app.ts",
    ],
)  # fmt: skip
def test_nothing_else_of_the_disk_is_served(served, path):
    assert ask(served, path)[0] == 404


def test_a_link_or_a_pipe_is_no_file_of_the_trajectory(rows, tmp_path):
    run = viewer_runs.record(tmp_path / "run", rows[:5])
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (run / "trajectory.zarr" / "W" / "c.7").symlink_to(secret)
    (run / "trajectory.zarr" / "links").symlink_to(tmp_path)
    (tmp_path / "c.1").write_text("secret")
    os.mkfifo(run / "trajectory.zarr" / "W" / "c.8")
    with view(run) as page:
        for path in ("W/c.7", "links/c.1", "W/c.8"):
            assert ask(page.url, f"/trajectory.zarr/{path}")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_other_methods_are_refused(served, method):
    status, _, headers = ask(served, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_says_what_get_would(served):
    for path in ("/", CHUNK, "/view.json"):
        status, data, headers = ask(served, path, "HEAD")
        assert (status, data) == (200, b"")
        assert int(headers["Content-Length"]) == len(ask(served, path)[1])


def test_another_name_for_the_server_is_refused(served):
    port = urllib.parse.urlsplit(served).port
    assert ask(served, "/", Host="evil.example")[0] == 421
    assert ask(served, "/", Host=f"evil.example:{port}")[0] == 421
    assert ask(served, "/", Host=f"127.0.0.1:{port + 1}")[0] == 421
    assert ask(served, "/", Host=f"localhost:{port}")[0] == 200


def test_pages_of_other_sites_may_not_read(served):
    for path in ("/view.json", CHUNK):
        assert ask(served, path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
        assert ask(served, path, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors")[0] == 403
        assert ask(served, path, Origin="http://evil.example")[0] == 403
    assert ask(served, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link
    assert ask(served, "/view.json", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 200


@pytest.mark.slow
def test_frames_are_for_notebooks_alone(run):
    with view(run, framed=False) as page:
        assert "frame-ancestors 'none'" in ask(page.url, "/")[2]["Content-Security-Policy"]
    with view(run) as page:
        assert "frame-ancestors" not in ask(page.url, "/")[2]["Content-Security-Policy"]
        assert f'src="{page.url}"' in page._repr_html_()


def test_a_page_that_was_closed_answers_nobody_on_a_connection_that_was_kept_open(run):
    with view(run) as page:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(page.url).netloc, timeout=PATIENCE_S)
        for _ in range(2):
            connection.request("GET", "/status.json")
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.will_close) == (200, False)
    assert connection.sock.recv(1) == b""  # the server has ended it
    connection.close()


def test_ranges(served, run):
    whole = (run / CHUNK[1:]).read_bytes()
    size = len(whole)
    for said, part in {
        "bytes=0-9": slice(0, 10), "bytes=5-": slice(5, None), "bytes=-20": slice(-20, None),
        f"bytes=3-{10 * size}": slice(3, None), f"bytes=-{10 * size}": slice(None),
    }.items():  # fmt: skip
        status, data, headers = ask(served, CHUNK, Range=said)
        assert (status, data) == (206, whole[part])
        start = range(size)[part].start
        assert headers["Content-Range"] == f"bytes {start}-{start + len(data) - 1}/{size}"
        assert headers["Cache-Control"] == "no-store"  # parts of a file that grows must not be mixed
    for said in ("bytes=0-1,4-5", "bytes=9-3", "lines=1-2", "bytes=-"):
        assert ask(served, CHUNK, Range=said)[:2] == (200, whole)
    for said in (f"bytes={size}-", "bytes=-0"):
        status, _, headers = ask(served, CHUNK, Range=said)
        assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")


def run_id(run):
    return json.loads((run / "trajectory.zarr" / "zarr.json").read_text())["attributes"]["run_id"]


def writers(run):
    own = json.loads((run / "trajectory.zarr" / "zarr.json").read_text())["attributes"]
    return [name for name, _ in own["writers"]]


def test_only_what_names_run_generation_writer_and_rows_is_kept_for_ever(served, run):
    own = run_id(run)
    assert "immutable" in ask(served, f"{CHUNK}?run={own}&g=0&w={writers(run)[-1]}&c=128")[2]["Cache-Control"]
    for path in (
        CHUNK,
        f"{CHUNK}?run={own}&g=0",
        f"{CHUNK}?run={own}&g=0&c=128",
        "/view.json",
        "/trajectory.zarr/zarr.json",
        "/trajectory.zarr/W/zarr.json",
    ):
        assert ask(served, path)[2]["Cache-Control"] == "no-cache"


def test_an_unchanged_commit_is_not_sent_again(served):
    for path in ("/trajectory.zarr/zarr.json", "/view.json"):
        tag = ask(served, path)[2]["ETag"]
        assert ask(served, path, If_None_Match=tag)[:2] == (304, b"")


def test_chunks_of_another_generation_or_run_are_refused(served, run):
    own = run_id(run)
    assert ask(served, f"{CHUNK}?run={own}&g=0&c=128")[0] == 200
    assert ask(served, f"{CHUNK}?run={own}&g=1&c=128")[0] == 404
    status, said, _ = ask(served, f"{CHUNK}?run=00000000-0000-0000-0000-000000000000&g=0&c=128")
    assert status == 404
    assert b"replaced by another one" in said


def test_what_a_page_of_a_fork_asks_for_is_sent_as_far_as_the_two_are_one(rows, tmp_path):
    run, fork = viewer_runs.forks(tmp_path, rows)  # parted behind step 149
    first, mine = writers(run)
    asked = f"run={run_id(run)}&g=0"
    with view(run) as page:
        for writer, block, count, status in (
            (mine, 1, 128, 200), (first, 0, 128, 200), (first, 1, 22, 200), (first, 1, 23, 404),
            (writers(fork)[-1], 0, 128, 404), ("0" * 16, 0, 128, 404), ("x", 0, 128, 404),
        ):  # fmt: skip
            path = f"/trajectory.zarr/W/c.{block}.0.0?{asked}&w={writer}&c={count}"
            assert ask(page.url, path)[0] == status, (writer, block, count)
        assert ask(page.url, f"/trajectory.zarr/token/c.0?{asked}&w={first}&c=0")[0] == 200
        assert ask(page.url, f"/trajectory.zarr/loss/c.0?{asked}&w={first}&c=150")[0] == 200
        assert ask(page.url, f"/trajectory.zarr/loss/c.0?{asked}&w={first}&c=151")[0] == 404


def test_a_file_of_a_fork_is_not_sent_as_one_of_the_run(rows, tmp_path):
    """The page itself does not look who wrote a file."""
    run, fork = viewer_runs.forks(tmp_path, rows)
    chunk = "/trajectory.zarr/W/c.1.0.0"
    shutil.copy(fork / chunk[1:], run / chunk[1:])
    with view(run) as page:
        for how in ({}, {"Range": "bytes=-20"}):
            status, said, _ = ask(page.url, chunk, **how)
            assert status == 404
            assert b"no writer of this run" in said
            assert str(tmp_path).encode() not in said
        for path in (CHUNK, "/trajectory.zarr/loss/c.0", "/trajectory.zarr/token/c.0"):
            assert ask(page.url, path)[0] == 200


@pytest.mark.slow
def test_beyond_this_machine_the_address_has_a_secret_part(run):
    with view(run, host="0.0.0.0") as page:
        at = urllib.parse.urlsplit(page.url)
        assert len(at.path) > 20
        here = f"http://127.0.0.1:{at.port}/"
        assert ask(here, "/")[0] == 403
        assert ask(here, "/view.json")[0] == 403
        assert ask(here, at.path)[0] == 200
        assert ask(here, f"{at.path}view.json")[0] == 200


@pytest.mark.slow
def test_the_commit_that_is_served_holds_no_path_and_no_name(rows, tmp_path):
    told = {"config": {"corpus": "/home/ada/texts/corpus.txt", "user": "ada"}, "provenance": {"host": "lovelace"}}
    run = viewer_runs.record(tmp_path / "run", rows[:5], attributes=told)
    with view(run) as page:
        data = ask(page.url, "/trajectory.zarr/zarr.json")[1]
        view_data = ask(page.url, "/view.json")[1]
    assert json.loads(data)["attributes"]["config"] == {"corpus": "corpus.txt"}
    for secret in (b"/home", b"lovelace", b'"ada"', str(tmp_path).encode()):
        assert secret not in data + view_data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attributes", "command"),
    [("run", viewer_runs.TRAINED, "crucible resume run"), ("a run", viewer_runs.TRAINED, "crucible resume 'a run'"),
     ("run", None, None)],
)  # fmt: skip
def test_the_server_tells_whether_the_run_goes_on(rows, tmp_path, name, attributes, command):
    """The command is that of `crucible train` alone: it refuses a loop of one's own and an import."""
    run = tmp_path / name
    with viewer_runs.create(run, rows, commit_interval_s=0, attributes=attributes) as writer:
        viewer_runs.append(writer, rows, 0, 5)
        writer.commit()
        with view(run) as page:
            assert json.loads(ask(page.url, "/status.json")[1]) == {"state": "recording", "command": None}
            writer.close()
            told = json.loads(ask(page.url, "/status.json")[1])
    assert told == {"state": "stopped", "command": command}


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_in_one_line(run):
    with view(run) as page:
        port = urllib.parse.urlsplit(page.url).port
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot listen there"):
            view(run, port=port)


@pytest.mark.parametrize(("port", "flag"), [(0, "host"), (8500, "port")])
def test_where_it_cannot_listen_the_flag_that_is_in_the_way_is_named(port, flag):
    with pytest.raises(OSError, match=rf"^192\.0\.2\.1:{port}: cannot listen there \(.*\); leave out --{flag}$"):
        _bind("192.0.2.1", port)  # an address for documentation, which no machine has

"""Only plain files of bounded size are read whole; what else bears a name is refused at once, in words."""

import os

import pytest

from store.small_file import read_small

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")


def test_a_plain_file_and_a_link_to_one(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "empty").touch()
    assert read_small(tmp_path / "file") == read_small(str(tmp_path / "link")) == b"content"
    assert read_small(tmp_path / "file", None) == read_small(tmp_path / "file", 7) == b"content"
    assert read_small(tmp_path / "empty", 0) == b""


def make(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nowhere":
        path.symlink_to("gone")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)  # sparse
    elif kind != "missing":
        path.symlink_to(kind)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("pipe", "is a pipe, not a plain file"),
        ("folder", "is a folder, not a plain file"),
        ("/dev/zero", "is a device, not a plain file"),
        ("huge", "has 1,099,511,627,776 bytes, more than the 67,108,864 that such a file may have"),
        ("nowhere", r"is a link that leads nowhere \(gone\)"),
        ("circle", "is a link that leads in a circle"),
        ("missing", "No such file"),
    ],
)
def test_anything_else_is_refused_in_words(kind, says, tmp_path):
    make(tmp_path / "x", kind)
    with pytest.raises(OSError, match=says) as caught:
        read_small(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


def test_the_limit_is_the_callers(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(OSError, match="has 7 bytes, more than the 6"):
        read_small(tmp_path / "file", 6)

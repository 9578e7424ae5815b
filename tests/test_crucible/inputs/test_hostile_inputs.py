"""What lies under an input's name may be anything: one line says so, and nothing hangs or eats memory."""

import os

import pytest

from crucible.cli.main import main

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
SMALL = ["--batch-size=4", "--seq-len=16", "--vocab-size=600", "--hidden-dim=8", "--num-layers=1", "--total-steps=3"]


def make(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "nowhere":
        path.symlink_to(path.with_name("gone"))
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)  # sparse
    else:
        path.mkdir()


SAYS = {
    "pipe": "is a pipe, not a plain file",
    "endless": "is a device, not a plain file",
    "circle": "is a link that leads in a circle",
    "nowhere": "is a link that leads nowhere",
    "huge": "has 1,099,511,627,776 bytes, more than",
    "folder": "is a folder, not a plain file",
}


@pytest.mark.parametrize("kind", SAYS)
@pytest.mark.parametrize("flag", ["corpus", "tokenizer", "dead-mask", "config"])
def test_what_is_no_plain_file(flag, kind, files, tmp_path, capsys):
    if (flag, kind) == ("corpus", "huge"):
        pytest.skip("a corpus may have any size")
    path = tmp_path / "x.json"
    make(path, kind)
    assert main(["train", *files.flags(), *SMALL, f"--{flag}={path}", f"--out={tmp_path / 'run'}"]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{path}: " in error
    assert SAYS[kind] in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize("content", [
    b"", b"5", b"[]", b"null", b"[" * 100_000, b"a = " + b"[" * 100_000, b"\xff\xfe", b"total_steps = " + b"9" * 5000,
    b'{"total_steps": ' + b"9" * 5000 + b"}", b'{"total_steps": {}}', b"total_steps = [1]", b'{"total_steps": 1e999}',
    b"total_steps = nan", b"out = 5", b"[corpus]",
])  # fmt: skip
def test_what_is_no_config(suffix, content, files, tmp_path, capsys):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    code = main(["train", f"--config={path}", *files.flags()])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1), error
    assert "mistake" not in error


@pytest.mark.parametrize("content", [b"5", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"model": 5}'])
def test_what_is_no_tokenizer(content, files, tmp_path, capsys):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert main(["train", *files.flags(), *SMALL, f"--tokenizer={path}", f"--out={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{path}: " in error

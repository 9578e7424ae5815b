"""Where the file system knows no locks `--no-lock` goes on; where others put things into a run, resume names them."""

import errno
import os

import pytest

from crucible.cli.main import main
from store.holding import lock as module

SMALL = ["--batch-size=4", "--seq-len=16", "--vocab-size=600", "--hidden-dim=8", "--num-layers=1"]


@pytest.fixture
def words(files, tmp_path):
    return [*map(str, ["train", *files.flags(), *SMALL, "--out", tmp_path / "run"])]


@pytest.mark.slow
def test_without_locks(words, tmp_path, monkeypatch, capsys):
    def refuse(_fd):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module, "_ask_for_lock", refuse)
    assert main([*words, "--total-steps=2"]) == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{tmp_path / 'run' / 'LOCK'}: the file system knows no locks (No locks available)" in err
    assert "say --no-lock" in err
    assert main([*words, "--total-steps=2", "--no-lock"]) == 0
    assert main(["resume", str(tmp_path / "run"), "--total-steps=3"]) == 5
    assert main(["resume", str(tmp_path / "run"), "--total-steps=3", "--no-lock"]) == 0


@pytest.mark.slow
def test_things_of_others_are_named_and_stay(words, tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*words, "--total-steps=2"]) == 0
    for name in ("checkpoint/mine", "trajectory.zarr/my_array"):
        (run / name).mkdir()
    assert main(["resume", str(run), "--total-steps=3"]) == 0
    out = capsys.readouterr().out
    for name in ("checkpoint/mine", "trajectory.zarr/my_array"):
        assert f"{run / name} was not made by Crucible; it is left alone" in out
        assert (run / name).is_dir()
    assert main(["check", str(run)]) == 0
    assert "not made by Crucible, no damage, and left alone: checkpoint/mine" in capsys.readouterr().out

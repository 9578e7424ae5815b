"""What `crucible prepare` leaves when something goes wrong: both files whole, or neither, and one line."""

import errno
import os

import pytest
from safetensors.numpy import load_file
from store_cases import Calls, Failing
from tokenizers import Tokenizer

from crucible.cli.main import main
from crucible.inputs import prepare as module
from crucible.inputs.data import InputError
from crucible.inputs.prepare import prepare
from store.disk import LocalDisk
from store.errors import RunExistsError

NAMES = ["dead_mask.safetensors", "tokenizer.json", "train.toml"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat, the rat sat on the cat. " * 20)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def failure_of(work):
    """The error of the system that this raises, if it does."""
    try:
        work()
    except OSError as error:
        return error
    return None


def test_whatever_call_fails_all_files_are_there_or_none(text, tmp_path, monkeypatch):
    whole = prepare([text], text, 270, tmp_path / "whole")
    assert names(tmp_path / "whole") == NAMES
    n = 0
    while True:
        n += 1
        calls, out = Failing(n), tmp_path / f"failing at {n}"
        with monkeypatch.context() as patch:
            patch.setattr(module, "LocalDisk", lambda calls=calls: LocalDisk(calls))
            found = failure_of(lambda out=out: prepare([text], text, 270, out))
        if found is not None:
            assert found.errno == errno.ENOSPC
            assert not set(NAMES) & set(names(out))
            prepare([text], text, 270, out)
        assert set(NAMES) <= set(names(out))
        for file in (whole.tokenizer, whole.dead_mask):
            assert (out / file.name).read_bytes() == file.read_bytes()
        if not calls.failed:
            break
    assert n > 10


def test_one_text_is_taken_as_one(text, tmp_path):
    one, several = prepare(text, text, 270, tmp_path / "one"), prepare([text], text, 270, tmp_path / "several")
    assert one.tokenizer.read_bytes() == several.tokenizer.read_bytes()


def test_what_lies_in_the_folder_stays_as_it_is(text, tmp_path):
    """Whatever its name: a folder of temporaries may be the user's, or a link to one."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for folder in (out, elsewhere):
        folder.mkdir()
        (folder / "mine").write_text("mine")
    (out / ".prepare.partial").symlink_to(elsewhere)
    prepare([text], text, 270, out)
    assert names(out) == sorted([*NAMES, ".prepare.partial", "mine"])
    assert names(elsewhere) == ["mine"]


@pytest.mark.parametrize("file", NAMES)
def test_a_dangling_link_is_kept_too(file, text, tmp_path):
    (tmp_path / file).symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"):
        prepare([text], text, 270, tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_appears_meanwhile_is_kept(text, tmp_path, monkeypatch):
    """Training a tokenizer takes minutes."""
    made = module.mask_tensors

    def and_a_file(counts):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/dead_mask.safetensors").write_text("mine")
        return made(counts)

    monkeypatch.setattr(module, "mask_tensors", and_a_file)
    with pytest.raises(RunExistsError, match="not replaced"):
        prepare([text], text, 270, tmp_path / "out")
    assert (tmp_path / "out/dead_mask.safetensors").read_text() == "mine"
    assert names(tmp_path / "out") == ["dead_mask.safetensors"]


@pytest.mark.parametrize("file", NAMES)
def test_a_full_disk_is_one_line_with_the_path(file, text, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = ["prepare", "--text", str(text), "--model-corpus", str(text), "--vocab-size", "270", "--out", str(out)]

    class Full(Calls):
        writing = ""

        def before(self, name, *args):
            if name == "open":
                self.writing = str(args[0])
            if name == "write" and f".{file}." in self.writing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "LocalDisk", lambda: LocalDisk(Full()))
        assert main(words) == 1
    told, err = capsys.readouterr()
    assert (told, err.count("\n")) == ("", 1)
    assert "No space left on device" in err
    assert str(out / file) in err
    assert "mistake" not in err
    assert names(out) == []
    assert main(words) == 0
    assert Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab_size() == 270
    assert len(load_file(out / "dead_mask.safetensors")["dead_mask"]) == 270


def test_a_file_that_exists_is_kept(text, tmp_path):
    (tmp_path / "tokenizer.json").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        prepare([text], text, 270, tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "mine"
    assert not (tmp_path / "dead_mask.safetensors").exists()

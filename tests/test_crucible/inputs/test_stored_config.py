"""config.json is believed only where it says what the commit holds; paths alone may be others."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import crucible
from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.inputs.config import Config
from crucible.inputs.data import InputError
from store.errors import ChecksumError, MetadataError, NotATrajectoryError
from store.run.commit import read_commit


def quiet(_line):
    """Says nothing."""


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """A finished run of four steps."""
    small = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 4}
    out = tmp_path_factory.mktemp("trained") / "run"
    running.train(Config(**files.paths(), out=str(out), **small), say=quiet)
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def edit(run, **values):
    """Change values of config.json as an editor does, or as a flipped bit does."""
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=1))


def everything(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "LOCK"}


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("batch_size", 5, "batch_size is 5 there and 4 in the commit"),
        ("num_heads", 4, "num_heads is 4 there and 2 in the commit"),
        ("learning_rate", 0.002, "learning_rate is 0.002 there and 0.001 in the commit"),
        ("total_steps", 9, "total_steps is 9 there and 4 in the commit"),
        ("compute_dtype", "float32", 'compute_dtype is "float32" there and "bfloat16" in the commit'),
        ("batch_sizf", 4, "batch_sizf is 4 there and missing in the commit"),
        ("batch_size", "4", 'batch_size is "4" there and 4 in the commit'),
    ],
)
def test_another_value_than_the_commit_holds_is_refused_named_and_mended(run, key, value, says, capsys):
    whole = (run / "config.json").read_bytes()
    edit(run, **{key: value})
    before = everything(run)
    with pytest.raises(MetadataError, match=says):
        running.resume(run, say=quiet)
    assert main(["resume", str(run), "--total-steps=20"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{run / 'config.json'}: {says}" in error
    assert f"`crucible check --repair {run}`" in error
    assert ("--total-steps" in error) == (key == "total_steps")
    assert everything(run) == before
    assert main(["check", str(run)]) == 3
    assert f"damage: config.json: {says}" in capsys.readouterr().out
    assert main(["check", "--repair", str(run)]) == 0
    assert "repaired: wrote config.json anew from the commit" in capsys.readouterr().out
    assert (run / "config.json").read_bytes() == whole
    assert running.resume(run, say=quiet) is None


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b"{", b"8", b"null", b"[" * 100_000])
def test_what_is_no_config_is_written_anew(run, content, capsys):
    path = run / "config.json"
    whole = path.read_bytes()
    path.write_bytes(content)
    assert main(["resume", str(run)]) == 3
    assert f"`crucible check --repair {run}` writes it anew from the commit" in capsys.readouterr().err
    assert main(["check", str(run)]) == 3
    assert "damage: config.json: " in capsys.readouterr().out
    assert main(["check", "--repair", str(run)]) == 0
    assert path.read_bytes() == whole


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("kind", ["missing", "pipe", "endless", "huge", "folder"])
def test_where_no_plain_file_is_check_names_it_and_repair_writes_it_anew(run, kind, capsys):
    path = run / "config.json"
    whole = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 28)  # sparse
    elif kind == "folder":
        path.mkdir()
    code = main(["resume", str(run)])
    assert code == (0 if kind == "missing" else 3)
    assert kind == "missing" or capsys.readouterr().err.count("\n") == 1
    assert main(["check", str(run)]) == 3
    assert "damage: config.json: " in capsys.readouterr().out
    if kind != "folder":
        assert main(["check", "--repair", str(run)]) == 0
        assert path.read_bytes() == whole


@pytest.mark.slow
def test_each_bit_of_config_json_is_named_or_is_in_a_path(run, files):
    """No flipped bit of it changes what is trained: it is refused, or only names another file."""
    from crucible.inputs.stored_config import read_config

    path = run / "config.json"
    whole, true = path.read_bytes(), read_config(run)
    for bit in range(0, 8 * len(whole), 37):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            config, hashes = read_config(run)
        except MetadataError:
            continue
        assert replace(config, **files.paths(), out=true[0].out) == replace(true[0], **files.paths())
        assert hashes == true[1]


def test_a_path_that_was_edited_is_taken_up(run, files, tmp_path, capsys):
    corpus = tmp_path / "moved.txt"
    shutil.copy(files.corpus, corpus)
    edit(run, corpus=str(corpus))
    assert main(["check", str(run)]) == 0
    assert "leftover, no damage: config.json (names another corpus than the commit" in capsys.readouterr().out
    assert main(["check", "--repair", str(run)]) == 0
    assert json.loads((run / "config.json").read_text())["corpus"] == str(corpus)
    assert running.resume(run, total_steps=6, say=quiet).steps == 6
    assert read_commit(run).attributes["config"]["corpus"] == str(corpus)
    assert main(["check", str(run)]) == 0
    assert "leftover" not in capsys.readouterr().out.splitlines()[-2]
    edit(run, corpus=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere: the run's corpus is not there any more"):
        running.resume(run, total_steps=8, say=quiet)
    corpus.write_text("another text")
    edit(run, corpus=str(corpus))
    with pytest.raises(InputError, match="corpus has changed"):
        running.resume(run, total_steps=8, say=quiet)


def test_a_run_killed_while_its_config_was_replaced_goes_on(run, monkeypatch):
    """The commit allows the old and the new config.json then, and holds the values of the new one."""
    from store.writing.publisher import Publisher

    true = Publisher.publish

    def killed(self, commit):
        true(self, commit)
        if commit.attributes["config"]["total_steps"] == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            running.resume(run, total_steps=6, say=quiet)
    assert json.loads((run / "config.json").read_text())["total_steps"] == 4
    assert read_commit(run).attributes["config"]["total_steps"] == 6
    assert main(["check", str(run)]) == 0
    edit(run, batch_size=5)
    with pytest.raises(MetadataError, match="total_steps is 4 there and 6 in the commit; batch_size is 5 there and 4"):
        running.resume(run, say=quiet)
    assert main(["check", "--repair", str(run)]) == 0
    assert running.resume(run, say=quiet).steps == 6


def begun(trained, folder, **values):
    """A run that was killed before its first commit: its config is all there is."""
    folder.mkdir()
    shutil.copy(trained / "config.json", folder)
    edit(folder, out=str(folder), **values)
    return folder


@pytest.mark.slow
def test_before_the_first_commit_the_config_has_a_digest_of_its_own(trained, tmp_path, files):
    for key, value in (("batch_size", 5), ("learning_rate", 0.002), ("num_heads", 4)):
        run = begun(trained, tmp_path / key, **{key: value})
        with pytest.raises(ChecksumError, match=r"before the run's first commit.*train again"):
            running.resume(run, say=quiet)
        assert [path.name for path in run.iterdir()] == ["config.json"]
    moved = tmp_path / "moved.txt"
    shutil.copy(files.corpus, moved)
    assert running.resume(begun(trained, tmp_path / "path", corpus=str(moved)), say=quiet).is_complete
    moved.write_text(Path(files.corpus).read_text() + " and more")
    with pytest.raises(InputError, match="corpus has changed"):
        running.resume(begun(trained, tmp_path / "changed", corpus=str(moved)), say=quiet)


@pytest.mark.slow
def test_a_begun_run_of_before_there_was_such_a_digest_starts_again(trained, tmp_path):
    run = begun(trained, tmp_path / "older")
    values = json.loads((run / "config.json").read_text())
    del values["sha256"]["config"]
    (run / "config.json").write_text(json.dumps(values))
    assert running.resume(run, say=quiet).is_complete


def test_a_run_of_another_kind_is_still_no_run_of_train(tmp_path, capsys):
    import torch

    import crucible

    embedding = torch.nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, tmp_path / "run", config={"seed": 3}, say=lambda _: None):
        pass
    with pytest.raises(NotATrajectoryError, match=r"crucible.attach\(..., resume=step\)"):
        running.resume(tmp_path / "run", say=quiet)
    edit(tmp_path / "run", seed=4)
    assert main(["check", str(tmp_path / "run")]) == 3
    assert "config.json: seed is 4 there and 3 in the commit" in capsys.readouterr().out
    assert main(["check", "--repair", str(tmp_path / "run")]) == 0


def test_resume_finishes_a_compaction_that_was_cut_short(run):
    """Its trajectory lies under a temporary name just then: that is no run without a commit."""
    from store.format.files import COMPACTED
    from store.upkeep import compact as compaction

    class Dying(compaction.LocalDisk):
        def rename(self, source, target):
            if source.name == COMPACTED.name:
                raise KeyboardInterrupt
            super().rename(source, target)

    with pytest.raises(KeyboardInterrupt):
        compaction.compact(run, disk=Dying())
    said = []
    assert running.resume(run, say=said.append) is None
    assert said == []
    assert read_commit(run).committed_steps == 4


@pytest.mark.parametrize("text", ["5", "[]", "null", '"a"', "{}", '{"sha256": 5}', '{"sha256": "a"}', "[" * 9999])
def test_json_that_is_no_config_of_a_recorded_run_is_a_sentence(tmp_path, text, capsys):
    """The commit of such a run, of a loop of one's own, is not asked: `crucible resume` can't go on with it anyway."""
    embedding = torch.nn.Embedding(5, 2)
    crucible.attach(embedding, torch.optim.SGD(embedding.parameters(), 0.1), tmp_path / "run", say=quiet).close()
    (tmp_path / "run" / "config.json").write_text(text)
    assert main(["resume", str(tmp_path / "run")]) == 4
    told = capsys.readouterr().err
    assert "not the config of a run of `crucible train`" in told
    assert "Error" not in told  # names of Python's errors say nothing to who trains

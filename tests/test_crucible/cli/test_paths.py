"""A path means what its user means: ~ is home, an address is refused, a store under another name opens by itself."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import crucible
import store
from crucible.cli.main import main
from crucible.experiment import run as running
from crucible.inputs.config import Config, ConfigError
from store.errors import NotATrajectoryError
from store.format.files import local_path, run_folder

SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 3}
ADDRESSES = ("s3://bucket/run", "https://example.org/run", "gs://b/r", "file:///tmp/run", Path("s3://bucket/run"))


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    running.train(Config(**files.paths(), out=str(out), **SMALL), say=lambda _: None)
    return out


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another one to work in, in which nothing must appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert list((tmp_path / "here").iterdir()) == []


def attach(run):
    embedding = torch.nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    return crucible.attach(embedding, optimizer, run, say=lambda _: None)


def run(words, capsys):
    try:
        code = main([str(word) for word in words])
    except SystemExit as ending:
        code = ending.code
    return (code, *capsys.readouterr())


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="home is found otherwise there")
def test_home_in_every_command(files, home, capsys, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    corpus = shutil.copy(files.corpus, home / "corpus.txt")
    texts = ["--text=~/corpus.txt", "--model-corpus=~/corpus.txt"]
    assert run(["prepare", *texts, "--vocab-size=600", "--out=~/in"], capsys)[0] == 0
    toml = home / "train.toml"
    lines = [f'{name} = "~/in/{file}"' for name, file in
             (("tokenizer", "tokenizer.json"), ("dead_mask", "dead_mask.safetensors"))]  # fmt: skip
    toml.write_text("\n".join([*lines, 'corpus = "~/corpus.txt"', 'out = "~/runs/one"']))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert run(["train", "--config", "~/train.toml", *flags], capsys)[0] == 0
    assert json.loads((home / "runs/one/config.json").read_text())["corpus"] == str(corpus)
    for words in (
        ["info", "~/runs/one"], ["check", "~/runs/one"],
        ["analyze", "~/runs/one", "~/runs/one/trajectory.zarr", "--csv"], ["analyze", "~/runs/one/trajectory.zarr"],
        ["report", "~/runs/one", "--out", "~/one.html"], ["export", "~/runs/one", "~/one.safetensors"],
        ["import", "~/one.safetensors", "~/runs/two"], ["compare", "~/runs/one", "~/runs/two"],
        ["resume", "~/runs/one"],
        ["view", "~/runs/one", "--export", "~/page"], ["compact", "~/runs/one"], ["watch", "~/runs/one"],
        ["train", "--config", "~/train.toml", *flags, "--out=~/runs/three"],
    ):  # fmt: skip
        code, _, error = run(words, capsys)
        assert code == 0, (words, error)
    assert {path.name for path in home.iterdir()} >= {"runs", "one.html", "one.safetensors", "page"}


@pytest.mark.skipif(os.name == "nt", reason="home is found otherwise there")
def test_home_in_python(home):
    with attach("~/x"):
        pass
    with attach(Path("~/y")):
        pass
    assert sorted(path.name for path in home.iterdir()) == ["x", "y"]
    assert store.open_trajectory("~/x").sizes["step"] == 1
    assert xr.open_dataset("~/y", engine="crucible").sizes["step"] == 1
    assert local_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_with_a_sentence(address, home, files, capsys):
    assert home.is_dir()
    for open_ in (attach, store.open_trajectory, crucible.check, crucible.info, crucible.resume, run_folder):
        with pytest.raises(ValueError, match=r"is an address, and files are read .* copy or mount it first"):
            open_(address)
    with pytest.raises(ConfigError, match=r"corpus: s3:/.* is an address"):
        Config(corpus="s3://bucket/corpus")
    if isinstance(address, Path):
        return
    for words in (
        ["info", address], ["check", address], ["analyze", address], ["watch", address],
        ["resume", address], ["report", address], ["compact", address], ["compare", address, address],
        ["export", address, "x"], ["import", address, "x"], ["train", *files.flags(), "--out", address],
        ["train", "--config", address],
        *([] if address.startswith("https:") else [["view", address]]),  # a page may be published there
    ):  # fmt: skip
        code, told, error = run(words, capsys)
        assert (code, told, error.count("\n")) == (2, "", 1), (words, error)
        assert "is an address" in error


@pytest.mark.parametrize("place", ["alone", "in a run's folder", "beside another"])
def test_a_store_under_another_name_opens_by_itself(trained, place, tmp_path, capsys):
    alone = tmp_path / "copy" / "experiment1.zarr"
    if place == "in a run's folder":
        shutil.copytree(trained, alone.parent)
    shutil.copytree(trained / "trajectory.zarr", alone)
    if place == "beside another":
        shutil.copytree(alone, alone.with_name("experiment2.zarr"))
    want, found = store.open_trajectory(trained), store.open_trajectory(alone)
    assert found.attrs["run"] == str(alone)
    for name in want.data_vars:
        np.testing.assert_array_equal(found[name].values, want[name].values)
    assert crucible.check(alone).is_whole
    if place != "in a run's folder":
        code, _, error = run(["info", alone.parent], capsys)
        assert code == 4
        assert f"did you mean {alone}{' and 1 more' if place == 'beside another' else ''}?" in error


@pytest.fixture
def alone(trained, tmp_path):
    return shutil.copytree(trained / "trajectory.zarr", tmp_path / "copy" / "experiment1.zarr")


@pytest.mark.slow
def test_every_command_that_reads_takes_a_store_alone(trained, alone, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    for words in (
        ["info", alone], ["check", alone], ["analyze", alone, "--json"], ["watch", alone], ["compare", trained, alone],
        ["export", alone, tmp_path / "out"], ["report", alone, "--out", tmp_path / "out.html"],
        ["view", alone, "--export", tmp_path / "page"],
    ):  # fmt: skip
        code, _, error = run(words, capsys)
        assert code == 0, (words, error)


def test_nothing_writes_into_a_store_alone(alone, capsys):
    before = {path: path.read_bytes() for path in alone.rglob("*") if path.is_file()}
    for words in (["compact", alone], ["upgrade", alone], ["resume", alone]):
        code, _, error = run(words, capsys)
        assert (code, error.count("\n")) == (2, 1), (words, error)
    for write in (store.TrajectoryWriter.resume, crucible.repair):
        with pytest.raises(ValueError, match=r"can only be read; to change it, move it .* name it trajectory.zarr"):
            write(alone)
    assert {path: path.read_bytes() for path in alone.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_the_live_page_serves_a_store_alone(alone):
    from crucible.viewer.files import open_regular

    os.close(open_regular(alone, "trajectory.zarr/W/zarr.json"))
    with crucible.view(alone) as page:
        assert page.url.startswith("http")


def test_a_damaged_store_alone_is_named(alone, capsys):
    chunk = next((alone / "W").glob("c.*"))
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    code, told, _ = run(["check", alone], capsys)
    assert (code, "damage: W" in told) == (3, True)
    with pytest.raises(ValueError, match=r"experiment1.zarr/W/c.0"):
        store.open_trajectory(alone).W.compute()


def test_a_folder_whose_name_ends_so_is_still_a_run(tmp_path):
    with attach(tmp_path / "run.zarr"):
        pass
    assert (tmp_path / "run.zarr" / "trajectory.zarr").is_dir()
    assert store.open_trajectory(tmp_path / "run.zarr").sizes["step"] == 1


def test_a_link_that_leads_nowhere_is_called_so(trained, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trajectory.zarr").symlink_to(tmp_path / "gone.zarr")
    for path in (tmp_path / "link", tmp_path / "link" / "run", tmp_path / "run", tmp_path / "run/trajectory.zarr"):
        for command in ("info", "analyze", "check", "resume"):
            code, told, error = run([command, path], capsys)
            assert (code, told, error.count("\n")) == (4, "", 1)
            assert "is a link that leads nowhere" in error
    (tmp_path / "good").symlink_to(trained)
    assert run(["info", tmp_path / "good"], capsys)[0] == 0


def test_what_may_not_be_read_is_a_sentence(trained, monkeypatch, capsys):
    """By a shim: a test may run as a user to whom nothing is forbidden."""
    true = os.open

    def forbidden(path, *rest, **more):
        if str(path).endswith("zarr.json"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return true(path, *rest, **more)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(NotATrajectoryError, match=r"zarr.json: cannot be read \(Permission denied\)"):
        store.open_trajectory(trained)
    code, _, error = run(["info", trained], capsys)
    assert (code, error.count("\n")) == (4, 1)
    assert "Errno" not in error


def test_an_error_of_the_system_names_the_file_and_no_number(trained, tmp_path, monkeypatch, capsys):
    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", forbidden)
    code, _, error = run(["import", trained / "metadata.json", tmp_path / "x" / "y"], capsys)
    assert code != 0
    code, _, error = run(["prepare", "--text", __file__, "--model-corpus", __file__, "--vocab-size", "300",
                          "--out", tmp_path / "x"], capsys)  # fmt: skip
    assert (code, error) == (1, f"crucible: {tmp_path / 'x'}: Permission denied\n")

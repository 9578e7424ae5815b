"""No name and no value from a file reaches the terminal as anything but text."""

import io
import json
import shutil
import sys
from dataclasses import replace

import pytest
from trained_runs import quiet

from crucible import console
from crucible.cli.main import main
from crucible.console import printable
from crucible.experiment import run as running
from crucible.inputs.config import Config
from store.run.commit import read_commit

RED = "\x1b[31mred\x1b[0m\x07\r\n\x9b2J\u202e\x7f"
SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "hidden_dim": 8, "num_layers": 1, "total_steps": 3}
OBEYED = [chr(code) for code in (*range(32), *range(127, 160)) if code != 10] + ["\u202e"]


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """A run with ESC in its folder's name, the paths of its inputs, its config and its attributes."""
    folder = tmp_path_factory.mktemp("hostile") / RED.replace("\n", "")
    folder.mkdir()
    corpus = shutil.copy(files.corpus, folder / "corpus\x1b[2J.txt")
    config = Config(**files.paths() | {"corpus": corpus}, out=str(folder / "run"), experiment=RED, notes=RED, **SMALL)
    running.train(config, say=quiet)
    commit = read_commit(folder / "run")
    attributes = {**commit.attributes, RED: RED, "provenance": {RED: RED}}
    (folder / "run/trajectory.zarr/zarr.json").write_bytes(replace(commit, attributes=attributes).to_bytes())
    return folder / "run"


def told(words, capsys):
    """All that a command prints, and its exit code."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as ending:
        code = ending.code
    return code, "".join(capsys.readouterr())


@pytest.mark.default_cases(3)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["info", "RUN"], 0),
        (["info", "RUN", "--json"], 0),
        (["check", "RUN"], 0),
        (["check", "RUN", "--json"], 0),
        (["analyze", "RUN"], 0),
        (["analyze", "RUN", "--json"], 0),
        (["watch", "RUN"], 0),
        (["compare", "RUN", "RUN"], 0),
        (["compare", "RUN", "RUN", "--json"], 0),
        (["export", "RUN", "OUT"], 0),
        (["report", "RUN", "--out", "OUT"], 0),
        (["view", "RUN", "--export", "OUT"], 0),
        (["upgrade", "RUN"], 0),
        (["resume", "RUN"], 0),
        (["plan", "--config", "RUN/config.json"], 0),
        (["train", "--config", "RUN/config.json", "--out", "RUN"], 1),
        (["train", "--config", "RUN/gone.toml"], 2),
        (["prepare", "--text", "RUN/gone", "--model-corpus", "x", "--vocab-size", "300", "--out", "OUT"], 1),
        (["info", "RUN/gone"], 4),
        (["analyze", "RUN", "--norm", RED], 2),
        (["analyze", "RUN", "--threshold", RED], 2),
        (["info", "RUN", RED], 2),
        (["info", "RUN", f"--{RED}"], 2),
        ([RED], 2),
        (["info", "RUN/gone", "-v"], 4),
    ],
)
def test_no_command_prints_what_a_terminal_obeys(words, code, trained, tmp_path, capsys):
    out = tmp_path / "\x1bout"
    words = [word.replace("RUN", str(trained)).replace("OUT", str(out)) for word in words]
    found, text = told(words, capsys)
    assert found == code, text
    assert [char for char in OBEYED if char in text] == []
    if found and "-v" not in words:
        assert text.count("\n") == 1
    if "--json" in words:
        assert json.loads(text.partition("\nnext:")[0])
    if words[0] == "report":
        page = out.read_text()
        assert [char for char in OBEYED if char in page] == []
        assert r"\x1b[31mred" in page


@pytest.mark.slow
def test_a_training_and_a_repair_print_nothing_of_it(trained, tmp_path, capsys):
    run = tmp_path / "\x1b[2Jrun"
    config = trained / "config.json"
    for words in (["train", "--config", config, "--out", run], ["resume", run, "--total-steps", "4"]):
        assert main([str(word) for word in words]) == 0
    (run / ".partial" / "\x1b[2Jleft").touch()
    (run / "config.json").write_text(json.dumps({RED: RED}))
    assert main(["check", str(run), "--repair"]) == 0
    assert main(["compact", str(run)]) == 0
    text = "".join(capsys.readouterr())
    assert [char for char in OBEYED if char in text] == []
    assert r"\x1b[2Jleft" in text


def test_text_of_people_stays_as_it_is():
    assert printable("Ġthe naïve 中文 🙂 'quoted'") == "Ġthe naïve 中文 🙂 'quoted'"


def test_what_the_terminals_encoding_lacks_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.say("naïve \udcff")
    console.say_json({"a": "naïve\x7f"})
    assert raw.getvalue().decode("ascii").startswith(r"na\xefve \udcff")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["prepare"], ["demo"], ["analyze"]])
def test_a_process_that_was_started_without_its_streams_runs_all_the_same(words, files, tmp_path, monkeypatch):
    """As under some supervisors, and in a shell by `>&-`: Python has None in the place of a stream then."""
    texts = ["--text", str(files.corpus), "--model-corpus", str(files.corpus), "--vocab-size", "300"]
    more = {"prepare": [*texts, "--out", str(tmp_path / "inputs")], "demo": ["--nothing"], "analyze": [str(tmp_path)]}
    expected = {"demo": 2, "analyze": 4}.get(words[0], 0)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    try:
        code = main([*words, *more.get(words[0], [])])
    except SystemExit as end:
        code = end.code
    assert code == expected

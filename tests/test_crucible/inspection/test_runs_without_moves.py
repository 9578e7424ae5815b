"""A run that keeps neither weights nor moves: what asks of them says of which run, and what it keeps."""

import pytest
import torch

import analysis
import crucible
from crucible.cli.main import main

SAID = "has no displacement_l2, nor what it could be derived from; its variables: centroid"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    embedding, run = torch.nn.Embedding(5, 3), tmp_path_factory.mktemp("recorded") / "means"
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, run, channels=[crucible.CENTROID]):
        for _ in range(3):
            optimizer.zero_grad()
            embedding(torch.arange(5)).square().sum().backward()
            optimizer.step()
    return run


@pytest.mark.parametrize("command", ["analyze", "watch", "report", "analyze both", "view", "view --export"])
def test_a_command_that_asks_of_moves_names_the_run_that_has_none(command, run, tmp_path, capsys):
    words = {
        "analyze both": ["analyze", str(run), str(run)],
        "report": ["report", str(run), "--out", str(tmp_path / "report.html")],
        "view": ["view", str(run), "--no-browser"],
        "view --export": ["view", str(run), "--export", str(tmp_path / "page")],
    }
    assert main(words.get(command, [command, str(run)])) == 2
    assert capsys.readouterr().err == f"crucible: {run} {SAID}\n"
    assert not list(tmp_path.iterdir())


def test_so_do_the_questions_and_arrays_without_a_run_are_a_dataset(run):
    ds = crucible.open_trajectory(run)
    for ask in (analysis.last_motion, analysis.weights, analysis.cloud):
        with pytest.raises(ValueError, match=rf"^{run} has no (displacement_l2|W), nor what"):
            ask(ds)
        with pytest.raises(ValueError, match=r"^the Dataset has no (displacement_l2|W), nor what"):
            ask(ds.drop_attrs())


def test_what_needs_no_moves_takes_it(run, capsys):
    assert main(["check", str(run)]) == main(["info", str(run)]) == 0
    assert "crucible analyze" not in capsys.readouterr().out

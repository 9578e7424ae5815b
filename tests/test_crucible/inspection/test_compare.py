"""`crucible compare` in words: where two runs part, also where a number is none."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import crucible
from crucible.channels.table import GRADIENT, LOSS, W
from crucible.cli.main import main
from crucible.inspection.compare import compare


@pytest.fixture
def runs(tmp_path):
    for name, loss in (("a", 1.0), ("b", math.nan)):
        torch.manual_seed(0)
        embedding = nn.Embedding(5, 2)
        optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
        with crucible.attach(embedding, optimizer, tmp_path / name, channels=(W, LOSS)) as recorder:
            for step in range(5):
                embedding.weight.grad = torch.ones(5, 2)
                recorder.log(loss=loss if step == 3 else 1.0)
                optimizer.step()
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_a_number_has_a_step_and_no_token(runs, capsys):
    assert main(["compare", *runs]) == 1
    assert "first difference: loss at step 4: 1.0 and nan" in capsys.readouterr().out
    found = compare(*runs)
    assert (found["step"], found["token"], found["hidden"]) == (4, None, None)
    assert main(["compare", *runs, "--json"]) == 1
    assert '"value_b": null' in capsys.readouterr().out


def test_a_run_equals_itself(runs, capsys):
    assert main(["compare", runs[0], runs[0]]) == 0
    assert "equal, bit for bit" in capsys.readouterr().out


def test_what_has_steps_of_its_own_is_named_as_not_compared(tmp_path, capsys):
    for name in ("a", "b"):
        embedding = nn.Embedding(5, 2)
        nn.init.ones_(embedding.weight)
        optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
        channels = (W, replace(GRADIENT, every=2))
        with crucible.attach(embedding, optimizer, tmp_path / name, channels=channels) as recorder:
            for _ in range(4):
                embedding.weight.grad = torch.ones(5, 2)
                recorder.log(loss=1.0)
                optimizer.step()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "not compared, recorded at steps of their own: gradient" in capsys.readouterr().out


def test_of_a_part_of_the_runs_it_is_said_of_which(runs, capsys):
    """Of some steps and tokens it said "equal, bit for bit", and that the runs end where the selection does."""
    a, b = runs
    assert main(["compare", a, b, "--steps", "0:4", "--tokens", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("compared: 4 states of W")
    assert said[0].endswith("; of 1 chosen token, steps 0:4 alone")
    assert said[-1] == "equal, bit for bit; said of 1 chosen token, steps 0:4 alone"
    assert (compare(a, a)["part"], compare(a, b, steps=(0, 4))["part"]) == (None, "steps 0:4")
    assert compare(a, a, a, steps=(0, 4))["reason"] == "no difference; said of steps 0:4 alone"


def test_where_some_steps_are_compared_the_runs_are_not_said_to_end_there(tmp_path, capsys):
    for name, steps in (("short", 3), ("long", 9)):
        embedding = nn.Embedding(5, 2)
        nn.init.ones_(embedding.weight)
        optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
        with crucible.attach(embedding, optimizer, tmp_path / name, channels=(W,)):
            for _ in range(steps):
                embedding.weight.grad = torch.ones(5, 2)
                optimizer.step()
    both = [str(tmp_path / "short"), str(tmp_path / "long")]
    assert main(["compare", *both, "--steps", "0:6"]) == 0
    assert "; what was compared ends at steps 3 and 5; said of steps 0:6 alone" in capsys.readouterr().out
    assert compare(*both)["reason"].endswith("they end at steps 3 and 9")

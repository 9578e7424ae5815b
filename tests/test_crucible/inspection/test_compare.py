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

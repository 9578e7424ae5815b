"""A run whose learning rate became infinite, and with it its weights NaN: told of without words of NumPy's."""

import math

import torch
from trained_runs import quiet

import crucible
from crucible.cli.main import main


def recorded(run):
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(30, 4, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0)
    with crucible.attach(embedding, optimizer, run, rows=range(20), say=quiet):
        for step in range(12):
            optimizer.param_groups[0]["lr"] = 1e-2 if step < 9 else math.inf
            optimizer.zero_grad()
            embedding(torch.arange(30)).float().square().sum().backward()
            optimizer.step()
    return run


def test_no_command_prints_a_warning_of_numpy(tmp_path, capsys, monkeypatch):
    """ "note: invalid value encountered in divide" stood above what `crucible analyze` and `report` say."""
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", ())
    run = str(recorded(tmp_path / "run"))
    capsys.readouterr()
    page = ["view", run, "--export", str(tmp_path / "page")]
    for words in (["analyze", run], ["report", run, "--out", str(tmp_path / "a.html")], page):
        assert main(words) == 0, words
        assert "encountered" not in capsys.readouterr().err, words

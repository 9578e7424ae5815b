"""`crucible info` says where steps are missing between recorded ones."""

import os

import lab_files as lab
import numpy as np
import pytest

import crucible
from crucible.cli.main import main

LABELS = {
    "none": (list(range(11)), [], []),
    "every 500th": (list(range(0, 5001, 500)), [], ["recorded: 11 states of steps 0 to 5,000, up to 500 steps apart"]),
    "one gap": ([*range(6), *range(20, 25)], [[5, 20]], ["1 gap: no state between steps 5 and 20"]),
    "growing": ([2**i - 1 for i in range(11)], [[1, 3], [3, 7], [7, 15], [15, 31], [31, 63]],
                ["9 gaps: no state between steps 1 and 3, 3 and 7, 7 and 15, 15 and 31, 31 and 63 and more"]),
}  # fmt: skip


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", LABELS)
def test_gaps_are_said(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power
    labels, gaps, lines = LABELS[name]
    arrays = {"W": lab.weights(10, 3, 2, strange=False), "step": np.array(labels)}
    crucible.import_run(lab.write(tmp_path / "old", arrays), tmp_path / "run")
    assert crucible.info(tmp_path / "run")["gaps"]["first"] == gaps
    assert main(["info", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert all(line in out for line in lines)
    assert ("gap" in out) == bool(gaps)
    assert crucible.analyze(tmp_path / "run")["resolution_steps"] == max(np.diff(labels))

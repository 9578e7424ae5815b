"""`crucible watch` and `crucible analyze` on a run that is still being written."""

import numpy as np
import torch
from torch import nn

import crucible
from crucible.inspection.analyze import analyze
from crucible.inspection.watch import watch


def test_a_line_for_each_commit_until_it_is_completed(tmp_path):
    embedding = nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, tmp_path / "run") as recorder:
        lines = watch(tmp_path / "run", 0.01, threshold=None, norm="l2")
        recorder.writer.commit()
        assert next(lines).startswith("step 0, last motion never")
        for moved in (True, True, False):
            embedding.weight.grad = torch.full((6, 4), float(moved))
            optimizer.step()
        recorder.writer.commit()
        line = next(lines)
        assert line.startswith("step 3, last motion 2, median freeze 2, still runs 1, p none")
        assert analyze(tmp_path / "run")["stillness"]["longest"] == [1]
    assert next(lines) == line
    assert list(lines) == []
    assert analyze(tmp_path / "run")["steps"] == 3
    assert np.isfinite(analyze(tmp_path / "run")["drift"]["path"])

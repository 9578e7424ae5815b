"""What a user's own script gets from the types of crucible, and from `help`."""

import inspect
import subprocess
import sys

import pytest

import crucible

SCRIPT = """
import torch
from torch import nn

import crucible
from crucible import CENTROID, W, ChannelLike, hidden_mean

m = nn.Linear(4, 4)
table: list[ChannelLike] = [W, CENTROID, hidden_mean(m)]
optimizer = torch.optim.AdamW(m.parameters())
with crucible.attach(m, optimizer, "runs/one", channels=[W, CENTROID, hidden_mean(m)]) as recorder:
    recorder.log(loss=1.0)
crucible.attach(m, optimizer, "runs/two", channels=table)
"""


@pytest.mark.slow
def test_a_table_of_channels_passes_mypy_strict(tmp_path, request):
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT)
    cache = request.config.cache.mkdir("mypy")  # 15 s without what an earlier run has left there
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, tmp_path / "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_begins_with_a_signature_one_can_read():
    signature = str(inspect.signature(crucible.attach))
    assert "channels: 'Iterable[ChannelLike] | None' = None" in signature
    assert "Channel(" not in signature
    assert "<function" not in signature

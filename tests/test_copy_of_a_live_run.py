"""The way of docs/how-to/copy-a-live-run.md gives a whole run, whatever is committed meanwhile."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import crucible
import store
from crucible.channels.table import NOTEBOOK, derive, finisher

PAGE = Path(__file__).parents[1] / "docs/how-to/copy-a-live-run.md"
TOKENS, HIDDEN = 3, 2


@pytest.fixture
def copy_run():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL).group(1), names)
    return names["copy_run"]


def begun(run):
    writer = store.TrajectoryWriter.create(
        run, channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=np.arange(TOKENS), hidden=HIDDEN,
        statics={"dead_mask": np.ones(TOKENS, bool)}, attributes={"motion_threshold": 0.1},
    )  # fmt: skip
    go_on(writer, 50)
    return writer


def go_on(writer, steps):
    for _ in range(steps):
        bits = np.full((TOKENS, HIDDEN), 0x3F80 + (writer.steps + 1) // 3, np.uint16)
        numbers = (bits.astype(np.uint32) << 16).view(np.float32)
        writer.append(W=bits, centroid=numbers.mean(axis=0), loss=1.0 if writer.steps >= 0 else None)
    writer.commit()


@pytest.mark.parametrize("ends", [False, True])
def test_a_copy_is_whole_whatever_is_committed_between_its_metadata_and_the_rest(tmp_path, monkeypatch, copy_run, ends):
    writer, copytree = begun(tmp_path / "run"), shutil.copytree

    def meanwhile(*given, **how):
        monkeypatch.undo()  # copytree calls itself for each folder
        go_on(writer, 200)  # ends a block
        if ends:
            writer.complete(lambda _: {})
        return copytree(*given, **how)

    monkeypatch.setattr(shutil, "copytree", meanwhile)
    copy_run(tmp_path / "run", tmp_path / "copy")
    report = crucible.check(tmp_path / "copy")
    assert report.is_whole, report.damage
    copied = store.open_trajectory(tmp_path / "copy").load()
    assert copied.sizes["step"] == 50
    assert copied.W.equals(store.open_trajectory(tmp_path / "run").W.isel(step=slice(50)).load())
    if not ends:
        writer.close()

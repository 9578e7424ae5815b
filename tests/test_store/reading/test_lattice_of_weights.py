"""What a reader sees of weights that are measured in the cells of another number format than their own."""

import numpy as np
import pytest
from tiny_runs import QUICK

import store
from store.format.schema import Channel


@pytest.mark.parametrize(("dtype", "told", "seen"), [
    ("float32", "bfloat16", "bfloat16"), ("float32", "float32", None), ("float16", "float16", None),
    ("uint16", "bfloat16", None),
])  # fmt: skip
def test_weights_of_a_run_that_says_it_of_their_moves_alone_show_their_lattice(tmp_path, dtype, told, seen):
    table = (
        Channel("W", ("token", "hidden"), dtype),
        Channel("size", ("token",), "float32", role="derived", belongs_to="move", attributes={"lattice": told}),
    )

    def derive(previous, rows):  # noqa: ARG001 - as the writer calls it
        return {"size": np.zeros(rows["W"].shape[:2], np.float32)}

    with store.TrajectoryWriter.create(
        tmp_path / "run", channels=table, derive=derive, tokens=np.arange(2), hidden=3, disk=QUICK
    ) as writer:
        for _ in range(3):
            writer.append(W=np.ones((2, 3), dtype))
        writer.complete(lambda _: {})
    assert store.open_trajectory(tmp_path / "run")[["W"]].W.attrs.get("lattice") == seen

"""What `crucible.attach` asks of a table and of a run before it records; what it refuses stays as it was."""

import gc
import subprocess
import sys
import textwrap
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import crucible
from crucible.channels.sources import hidden_mean
from crucible.channels.table import CENTROID, DELTA, GRADIENT, LAST_MOTION, LOSS, NORMS, W
from store.reading.reader import open_trajectory


@pytest.fixture
def loop():
    torch.manual_seed(0)
    embedding = nn.Embedding(30, 4)
    return embedding, torch.optim.AdamW(embedding.parameters(), lr=1e-2)


def train(embedding, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        embedding(torch.arange(30)).sin().square().sum().backward()
        optimizer.step()


def states(run):
    return {name: values.values.copy() for name, values in open_trajectory(run).data_vars.items()}


OTHER = [
    ({"rows": range(20, 30)}, "records 10 rows, 0, 1, 2, 3, ...; rows= now names 10, 20, 21"),
    ({"rows": range(5)}, "Give the same rows"),
    ({"channels": (W, *NORMS)}, "delta_W_prime.*not as the run keeps it"),
    ({"channels": (W, DELTA, *NORMS, GRADIENT, LAST_MOTION)}, "gradient.*not kept"),
    ({"channels": (W, DELTA, *NORMS, replace(LOSS, every=2), LAST_MOTION)}, "every 2"),
    ({"lattice": "bfloat16"}, "on the float32 lattice"),
    ({"motion_threshold": 1e9}, r"the run's is 0.1"),
    ({"resume": 4}, "the parameter is not where the run was at step 4"),
]


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(("changes", "message"), OTHER)
def test_a_run_that_does_not_fit_is_not_cut(loop, tmp_path, changes, message):
    table = (W, DELTA, *NORMS, LOSS, LAST_MOTION)
    run, how = tmp_path / "run", {"rows": range(10), "channels": table, "say": lambda _: None}
    with crucible.attach(*loop, run, **how):
        train(*loop, 9)
    before = states(run)
    with pytest.raises(ValueError, match=message):
        crucible.attach(*loop, run, **(how | {"resume": 9} | changes))
    after = states(run)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    with crucible.attach(*loop, run, **how, resume=9):
        train(*loop, 2)
    assert open_trajectory(run).attrs["committed_steps"] == 11
    assert crucible.check(run).is_whole


@pytest.mark.parametrize("store_as", [None, "bfloat16"])
def test_a_run_that_keeps_the_centroid_alone_goes_on_with_weights_that_fit_it(loop, store_as, tmp_path):
    how = {"rows": range(10), "channels": (CENTROID, LOSS), "say": lambda _: None, "store_as": store_as}
    with crucible.attach(*loop, tmp_path / "run", **how):
        train(*loop, 3)
    other = nn.Embedding(30, 4)
    with pytest.raises(ValueError, match="the parameter is not where the run was at step 3"):
        crucible.attach(other, torch.optim.AdamW(other.parameters()), tmp_path / "run", resume=3, **how)
    with crucible.attach(*loop, tmp_path / "run", resume=3, **how):
        train(*loop, 2)
    assert open_trajectory(tmp_path / "run").sizes["step"] == 6


@pytest.mark.parametrize(("channels", "message"), [
    ((), "nothing to record"),
    ((W, LAST_MOTION), "last_motion_step is made of displacement_l2"),
    ((replace(W, every=5), DELTA, LOSS), "delta_W_prime needs W at every step"),
    ((replace(W, until=3), *NORMS), "needs W at every step"),
])  # fmt: skip
def test_tables_that_cannot_be_recorded(loop, tmp_path, channels, message):
    with pytest.raises(ValueError, match=message):
        crucible.attach(*loop, tmp_path / "run", channels=channels)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("channels", ["W", ["W"], [W, 3]])
def test_what_is_no_channel_is_answered_with_how_to_name_one(loop, tmp_path, channels):
    with pytest.raises(TypeError, match=r"which is no channel; .*channels=\[crucible\.W"):
        crucible.attach(*loop, tmp_path / "run", channels=channels)
    assert not (tmp_path / "run").exists()


def test_norms_alone_are_measured_on_the_lattice_asked_for(loop, tmp_path):
    embedding, optimizer = loop
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W, *NORMS), lattice="bfloat16"):
        train(*loop, 3)
    ds = open_trajectory(tmp_path / "run")
    assert float(ds.displacement_l2[1:].max()) < 1e4  # in cells of float32 it would be some 1e7
    assert ds.displacement_l2.attrs["lattice"] == "bfloat16"
    assert crucible.check(tmp_path / "run").is_whole


def test_a_mean_that_is_kept_now_and_then_is_of_its_update(loop, tmp_path):
    embedding, optimizer = loop
    each = hidden_mean(embedding, "each")
    some = hidden_mean(embedding, "some")
    some = replace(some, channel=replace(some.channel, every=3))
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W, each, some)):
        train(*loop, 9)
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.some.values, ds.each.values[::3])


def test_populations_become_a_coordinate(loop, tmp_path):
    populations = {"dead": np.arange(4), "live": np.arange(4, 30)}
    with crucible.attach(*loop, tmp_path / "run", channels=(W,), rows="dead", populations=populations):
        train(*loop, 1)
    assert open_trajectory(tmp_path / "run").population.values.tolist() == ["dead"] * 4
    with pytest.raises(ValueError, match="one word"):
        crucible.attach(*loop, tmp_path / "b", channels=(W,), populations={"very dead": np.arange(4)})


def test_whole_numbers_are_averaged(loop, tmp_path):
    with crucible.attach(*loop, tmp_path / "run", channels=(W, replace(LOSS, name="n"))) as recorder:
        recorder.log(n=1)
        recorder.log(n=2)
        train(*loop, 1)
    assert open_trajectory(tmp_path / "run").n.values[1] == 1.5


@pytest.mark.slow
def test_a_program_that_never_closes_loses_nothing(tmp_path):
    code = """
        import sys, torch, crucible
        from crucible.channels.table import W
        embedding = torch.nn.Embedding(5, 2)
        optimizer = torch.optim.AdamW(embedding.parameters())
        crucible.attach(embedding, optimizer, sys.argv[1], channels=(W,))
        for _ in range(7):
            embedding(torch.arange(5)).sum().backward()
            optimizer.step()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path / "run"], check=True)
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 7


def test_a_closed_recorder_is_let_go(loop, tmp_path):
    with crucible.attach(*loop, tmp_path / "run", channels=(W,)) as recorder:
        writer = weakref.ref(recorder.writer)
        train(*loop, 1)
    del recorder
    gc.collect()
    assert writer() is None


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", ["config", "provenance"])
@pytest.mark.parametrize("scalars", [False, True])
@pytest.mark.parametrize(
    ("value", "error"), [(Path("corpus.txt"), TypeError), (np.float32(1.5), TypeError), (float("nan"), ValueError)]
)
def test_what_is_no_json_is_named_before_anything_is_written(tmp_path, name, scalars, value, error):
    embedding = torch.nn.Embedding(4, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with pytest.raises(error, match=rf"{name}=\{{'odd': \.\.\.\}}.*JSON"):
        crucible.attach(embedding, optimizer, tmp_path / "run", scalars=scalars, **{name: {"fine": 1, "odd": value}})
    assert not (tmp_path / "run").exists()
